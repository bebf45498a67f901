"""Measure how right, how repeatable and how quick morphometry is.

Measures a T1w image, and besides, as asked for:

- ``--truth LABELS``: Dice and volume error of each structure against a label image with
  FreeSurfer's numbers, in the same world space;
- ``--rotate DEGREES``: the head tilted by so much about each axis in turn, which interpolates the
  scan once more; with ``--header`` only its header is turned, its voxels stay as they are;
- ``--other T1W MASK``: another scan of the same person;
- ``--definitions``: by how much what the phantom calls a structure differs in size from what the
  atlas calls so, both in the atlas's space. (Needs no scan.)

Volumes are soft, as in ``_morph.tsv``; those of the truth count voxels. Time is both what passed
and what the processor spent, since the former depends on what else runs.

Example::

    python benchmarks/morphometry.py --t1w T1w.nii.gz --mask mask.nii.gz --rotate 10 --json m.json
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy.spatial.transform import Rotation

from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.morphometry.agreement import dice_by_label
from tumsyn_bids.morphometry.cortex import add_cortex, measure_cortex
from tumsyn_bids.morphometry.labels import atlas_file, structures
from tumsyn_bids.morphometry.segmentation import segment_brain
from tumsyn_bids.morphometry.tables import to_record
from tumsyn_bids.morphometry.volumes import brain_volumes, measure_structures

#: Repeated volumes have to lie within this share of each other (robustness to rotation).
REPEATABLE = 0.02


def scan(path: Path, args: argparse.Namespace) -> nb.spatialimages.SpatialImage:
    """Return a T1w image, bias-corrected where it is raw."""
    return correct_bias(sanitize(path).img) if args.raw else nb.load(path)


def measure(t1w, mask, args: argparse.Namespace) -> tuple[dict, nb.Nifti1Image, dict]:
    """Return the record of a scan, its labels, and what they took."""
    passed, spent = time.perf_counter(), time.process_time()
    found = segment_brain(t1w, mask, threads=args.threads, zoom=args.zoom)
    measures = measure_structures(found)
    record = to_record(measures, brain_volumes(found, measures), found.affine)
    if args.level == 'full':
        cortex = measure_cortex(found.labels, found.tissues, found.grid, threads=args.threads)
        record = add_cortex(record, found.labels, cortex)
    took = {
        'seconds': time.perf_counter() - passed,
        'processor_seconds': time.process_time() - spent,
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return record, found.img, took


def volumes(record: dict) -> dict[str, float]:
    """Return the known volumes of a record by name."""
    rows = {row['name']: row['volume_mm3'] for row in record['structures']}
    rows |= {name: value for name, value in record['brain'].items() if '-to-' not in name}
    return {name: value for name, value in rows.items() if value is not None}


def changes(first: dict, second: dict) -> dict[str, float]:
    """Return by how much, in percent, volumes change, largest change first."""
    a, b = volumes(first), volumes(second)
    found = {name: 100 * (b[name] - a[name]) / a[name] for name in a if name in b and a[name]}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1])))


def against_truth(record: dict, labels: nb.Nifti1Image, truth: nb.Nifti1Image) -> dict:
    """Return Dice, true volume and error (percent) by structure."""
    dice = dice_by_label(truth, labels)
    numbers = np.asarray(truth.dataobj).astype(int)
    size = float(np.prod(truth.header.get_zooms()[:3]))
    measured, rows = volumes(record), {}
    for number, item in structures().items():
        real = float((numbers == number).sum() * size)
        if real and item.name in measured:
            error = 100 * (measured[item.name] - real) / real
            rows[item.name] = {'dice': dice[number], 'true_mm3': real, 'error_percent': error}
    return rows


def turn(mask, degrees: float, axis: str) -> np.ndarray:
    """Return the rotation about the middle of the brain, a matrix of world coordinates."""
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)
    centre = nb.affines.apply_affine(mask.affine, inside.mean(axis=0))
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    world[:3, 3] = centre - world[:3, :3] @ centre
    return world


def turned(t1w, mask, degrees: float, axis: str) -> tuple[nb.Nifti1Image, nb.Nifti1Image]:
    """Return the head and its mask as if it had lain otherwise, their voxels untouched."""
    world = turn(mask, degrees, axis)
    images = (nb.Nifti1Image(np.asarray(img.dataobj), world @ img.affine) for img in (t1w, mask))
    return tuple(images)


def tilted(t1w, mask, degrees: float, axis: str) -> tuple[nb.Nifti1Image, nb.Nifti1Image]:
    """Return the head and its mask turned about the middle of the brain and interpolated."""
    world = turn(mask, degrees, axis)
    grid = Grid.of(mask)
    border = 20 / grid.zooms
    grid = grid.cropped(-border, np.asarray(grid.shape) + 2 * border)
    image = np.maximum(resample(t1w, grid, world=world, order=3), 0)
    turned = (resample(mask, grid, world=world) >= 0.5).astype(np.uint8)
    return nb.Nifti1Image(image, grid.affine), nb.Nifti1Image(turned, grid.affine)


def definitions() -> None:
    """Print the size of structures in the atlas against that in the phantom, in percent."""
    from tumsyn_bids.simulation.anatomy import build_anatomy

    phantom, atlas = build_anatomy(1).labels, np.asarray(nb.load(atlas_file()).dataobj)
    for number, item in structures().items():
        sizes = [(np.rint(labels) == number).sum() for labels in (atlas, phantom)]
        if sizes[1]:
            print(f'{item.name:40s} {100 * (sizes[0] / sizes[1] - 1):+7.1f} %')


def show(title: str, found: dict[str, float]) -> None:
    """Print the changes of large structures and how many keep within the bar."""
    large = {name: value for name, value in found.items() if abs(value) >= 100 * REPEATABLE}
    print(f'{title}: {len(found) - len(large)} of {len(found)} volumes within 2 %')
    for name, value in list(large.items())[:15]:
        print(f'    {name:40s} {value:+7.1f} %')


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--t1w', type=Path)
    parser.add_argument('--mask', type=Path)
    parser.add_argument('--definitions', action='store_true', help='of the phantom and the atlas')
    parser.add_argument('--truth', type=Path)
    parser.add_argument('--rotate', type=float, metavar='DEGREES')
    parser.add_argument('--axes', default='xyz', help='about which axes (default: xyz)')
    parser.add_argument('--header', action='store_true', help='turn the header, not the voxels')
    parser.add_argument('--other', type=Path, nargs=2, metavar=('T1W', 'MASK'))
    parser.add_argument('--raw', action='store_true', help='correct the bias field first')
    parser.add_argument('--level', choices=('volumes', 'full'), default='volumes')
    parser.add_argument('--zoom', type=float, default=1.0, help='voxel size in mm')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args(argv)
    if args.definitions:
        definitions()
        return 0
    if not args.t1w or not args.mask:
        parser.error('--t1w and --mask are needed')
    t1w, mask = scan(args.t1w, args), nb.load(args.mask)
    record, labels, took = measure(t1w, mask, args)
    results = {'took': took, 'volumes': volumes(record), 'hemispheres': record.get('hemispheres')}
    print(' '.join(f'{name} {value:.0f}' for name, value in took.items()), flush=True)
    if args.truth:
        results['truth'] = against_truth(record, labels, nb.load(args.truth))
        for name, row in results['truth'].items():
            print(f'{name:40s} Dice {row["dice"]:.3f}  volume {row["error_percent"]:+7.1f} %')
    others = (
        {'other scan': (scan(args.other[0], args), nb.load(args.other[1]))} if args.other else {}
    )
    if args.rotate:
        move = turned if args.header else tilted
        others |= {f'about {axis}': move(t1w, mask, args.rotate, axis) for axis in args.axes}
    for title, images in others.items():
        second, *_ = measure(*images, args)
        results[title] = changes(record, second)
        show(title, results[title])
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
