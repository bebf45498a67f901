"""Tiles that cover a volume evenly, and the weights with which they are blended."""

from __future__ import annotations

import itertools
import math

import numpy as np


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return the first voxels of evenly spaced tiles along one axis.

    Parameters
    ----------
    size : int
        Voxels to cover.
    tile : int
        Edge of a tile. A tile longer than ``size`` is cut to it.
    overlap : float
        Least overlap of neighbours as a part of ``tile``, in [0, 1).

    Returns
    -------
    list of int
        The first tile begins at 0, the last one ends at ``size``.
    """
    if size <= tile:
        return [0]
    count = 1 + math.ceil((size - tile) / (tile * (1 - overlap)))
    return np.linspace(0, size - tile, count).round().astype(int).tolist()


def published_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return the first voxels of tiles along one axis as the published code sets them.

    Parameters
    ----------
    size, tile, overlap
        As for :func:`tile_starts`; ``size`` is at least ``tile``.

    Returns
    -------
    list of int
        Multiples of the step ``tile * (1 - overlap)``, and the last tile that still fits.
    """
    return [*range(0, size - tile, int(tile * (1 - overlap))), size - tile]


def tile_boxes(
    shape, tile: int, overlap: float, tiling: str = 'even'
) -> list[tuple[slice, slice, slice]]:
    """Return the tiles of a volume as slices.

    ``tiling`` is that of :class:`~tumsyn_bids.networks.config.SynthesisConfig`.
    """
    starts_of = published_starts if tiling == 'published' else tile_starts
    axes = [
        [slice(start, start + min(tile, size)) for start in starts_of(size, tile, overlap)]
        for size in shape
    ]
    return list(itertools.product(*axes))


def blend_weight(position: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Return the weight of a tile at points inside it.

    A Gaussian around the centre of the tile whose standard deviation is a quarter of its edge,
    bounded below so that a point that only one tile covers keeps a usable weight.

    Parameters
    ----------
    position : ndarray, shape (K, 3)
        Voxel indices in the whole volume.
    box : tuple of 3 slice

    Returns
    -------
    ndarray of float32, shape (K,)
    """
    first = np.array([part.start for part in box], dtype=float)
    size = np.array([part.stop - part.start for part in box], dtype=float)
    offset = (position - (first + (size - 1) / 2)) / (size / 4)
    return np.maximum(np.exp(-0.5 * (offset**2).sum(axis=1)), 1e-3).astype(np.float32)


def inside(position: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Return which points lie in the voxels of a tile, shape (K,) of bool."""
    first = np.array([part.start for part in box]) - 0.5
    last = np.array([part.stop for part in box]) - 0.5
    return ((position >= first) & (position <= last)).all(axis=1)
