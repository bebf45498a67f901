"""Measure the thickness of shapes whose thickness is known, on voxels of 1 mm.

Slabs along the axes, slabs askew, and spherical shells, their borders at several places within a
voxel; voxels at the borders hold two tissues. Prints the mean for each place of the borders.

Example::

    python benchmarks/thickness.py --thickness 2 3 4
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from tumsyn_bids.grids import Grid
from tumsyn_bids.morphometry import thickness as room
from tumsyn_bids.morphometry.refinement import Tissues

#: Each voxel is sampled so many times along an axis.
FINE = 5
_NORMALS = {'slab': (1.0, 0.0, 0.0), 'askew': (2.0, 1.0, 0.7)}
#: Half the thickness of the white matter (mm), or the radius of the shell's.
_INNER = {'slab': (3.0, 3.3, 3.6), 'askew': (3.0, 3.3, 3.6), 'shell': (9.0, 9.3, 9.6)}


def build(kind: str, inner: float, thick: float) -> tuple[np.ndarray, Tissues, Grid]:
    """Return labels and tissues of a shape; it fills the image along a slab's own directions."""
    size = 2 * round(inner + thick + 3) if kind == 'shell' else 20 + 2 * round(thick)
    axis = (np.arange(size * FINE) + 0.5) / FINE - size / 2
    axes = np.meshgrid(axis, axis, axis, indexing='ij', sparse=True)
    if kind == 'shell':
        distance = np.sqrt(sum(part**2 for part in axes))
    else:
        normal = np.array(_NORMALS[kind]) / np.linalg.norm(_NORMALS[kind])
        distance = np.abs(sum(part * step for part, step in zip(axes, normal, strict=True)))
    distance = np.broadcast_to(distance, (size * FINE,) * 3)
    parts = [part for _ in range(3) for part in (size, FINE)]
    white, whole = (
        (distance < edge).reshape(parts).mean(axis=(1, 3, 5)).astype(np.float32)
        for edge in (inner, inner + thick)
    )
    labels = np.select([white > 0.5, whole > 0.5], [2, 1035], 0).astype(np.int32)
    return labels, Tissues(whole - white, white, 1 - whole), Grid(labels.shape, np.eye(4))


def measured(kind: str, inner: float, thick: float) -> float:
    """Return the mean thickness that is found, away from the ends of a slab."""
    labels, tissues, grid = build(kind, inner, thick)
    found = room.thickness_map(room.ribbon(labels, tissues), grid, threads=1)
    if kind != 'shell':
        found = found[:, 8:-8, 8:-8]
        found = found[6:-6] if kind == 'askew' else found
    return float(found[found > 0].mean())


def main(argv: list[str] | None = None) -> int:
    """Print one row for each shape and thickness; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--thickness', type=float, nargs='+', default=[2.0, 3.0, 4.0])
    parser.add_argument('--shapes', nargs='+', choices=_INNER, default=list(_INNER))
    parser.add_argument('--iterations', type=int, default=room.ITERATIONS)
    args = parser.parse_args(argv)
    room.ITERATIONS = args.iterations
    for kind in args.shapes:
        for thick in args.thickness:
            found = [f'{measured(kind, inner, thick):.2f}' for inner in _INNER[kind]]
            print(f'{kind:6s} {thick:.1f} mm: ' + ' '.join(found), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
