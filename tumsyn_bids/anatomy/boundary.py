"""A brain's edge, moved from where an average brain says to where the intensities change."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..grids import Grid
from .intensity import carried, grown, largest_part, shrunk, signed_distance

_BINS = 64
#: Distances from the edge (mm) over which intensities of brain and of the rest are gathered.
_INNER_MM, _OUTER_MM = (4.0, 25.0), (2.0, 12.0)
#: Weight of intensities against shape, and distances (mm) at which the present and the first edge
#: are worth one unit of log odds.
_WEIGHT, _PRESENT_MM, _FIRST_MM = 1.0, 2.0, 4.0
_STRONGEST = 4.0
#: Share of the voxels whose intensity says nothing.
_MIXED = 0.02
#: Radii (mm) of the bridges that are cut, of the sulci that are closed, and of smoothing.
_CUT_MM, _CLOSED_MM, _SMOOTH_MM = 3.0, 5.0, 0.5
_ROUNDS = 5


def moved_edge(data: np.ndarray, grid: Grid, prior: np.ndarray, prior_grid: Grid) -> np.ndarray:
    """Return the signed distance (mm, positive inside) to the brain's edge.

    In each round the intensities well inside and just outside of the present edge are gathered
    as two histograms. A voxel is brain if the logarithm of their ratio, plus its distances to the
    present and to the first edge, is positive; then bridges to the scalp are cut, and sulci
    and ventricles filled.

    Parameters
    ----------
    data : ndarray
        The head, non-negative, on isotropic voxels.
    grid : Grid
    prior : ndarray
        Probability of brain.
    prior_grid : Grid
        Where ``prior`` lies, in the same space.

    Returns
    -------
    ndarray of float32
        On ``grid``; smoothed over half a millimetre.
    """
    zoom = float(grid.zooms.mean())
    first = carried(prior, prior_grid, grid) > 0.5
    if not first.any():
        return np.full(grid.shape, -1e3, dtype=np.float32)
    part = _around(first, int(16 / zoom))
    edge = first_edge = signed_distance(first[part], zoom)
    bins = _binned(data[part], first_edge)
    for _ in range(_ROUNDS):
        odds = ndimage.gaussian_filter(_log_ratio(bins, edge)[bins], _SMOOTH_MM / zoom)
        shape = np.clip(edge / _PRESENT_MM, -_STRONGEST, _STRONGEST) + first_edge / _FIRST_MM
        brain = _tidied(_WEIGHT * odds + shape > 0, zoom)
        if not brain.any():
            break
        edge = signed_distance(brain, zoom)
    result = np.full(grid.shape, edge.min(), dtype=np.float32)
    result[part] = ndimage.gaussian_filter(edge, 1.0 / zoom)
    return result


def distinctness(data: np.ndarray, edge: np.ndarray) -> float:
    """Return how far the grey values inside of an edge differ from those just outside of it.

    Parameters
    ----------
    data, edge : ndarray
        The head, and the signed distance (mm) to the edge; see :func:`moved_edge`.

    Returns
    -------
    float
        Total variation distance of the two histograms: 0 if they are the same, 1 if disjoint.
    """
    bins = _binned(data, edge)
    inner, outer = (_histogram(bins[part]) for part in _sides(edge))
    return float(0.5 * np.abs(inner / inner.sum() - outer / outer.sum()).sum())


def _around(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    places = np.argwhere(mask)
    start = np.maximum(places.min(axis=0) - margin, 0)
    return tuple(slice(a, b + margin + 1) for a, b in zip(start, places.max(axis=0), strict=True))


def _binned(data: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Return the number of each voxel's bin; the last takes all that outshines the brain."""
    inner = data[edge > _INNER_MM[0]]
    brightest = np.percentile(inner if inner.size else data, 99.8)
    return np.clip(data / max(1.5 * brightest, 1e-6) * _BINS, 0, _BINS - 1).astype(np.int64)


def _log_ratio(bins: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Return, for each bin, the logarithm of how much likelier it is inside than outside."""
    inner, outer = (_histogram(bins[part]) for part in _sides(edge))
    return np.log(inner / outer)


def _sides(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shells well inside and just outside of an edge."""
    inner = (edge > _INNER_MM[0]) & (edge < _INNER_MM[1])
    return inner, (edge < -_OUTER_MM[0]) & (edge > -_OUTER_MM[1])


def _histogram(bins: np.ndarray) -> np.ndarray:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=_BINS).astype(float), 1)
    return counts / max(counts.sum(), 1e-9) + _MIXED / _BINS


def _tidied(brain: np.ndarray, zoom: float) -> np.ndarray:
    """Cut bridges, keep the largest part, close sulci, fill ventricles."""
    core = largest_part(shrunk(brain, _CUT_MM, zoom))
    brain = brain & grown(core, _CUT_MM, zoom)
    return ndimage.binary_fill_holes(_closed(brain, zoom))


def _closed(brain: np.ndarray, zoom: float) -> np.ndarray:
    """Close sulci.

    What is grown has to be shrunk from all sides: without room beyond the border of the image, a
    dome that the border cuts flat would be left wider than it was.
    """
    room = int(np.ceil(_CLOSED_MM / zoom)) + 1
    closed = shrunk(grown(np.pad(brain, room), _CLOSED_MM, zoom), _CLOSED_MM, zoom)
    return closed[(slice(room, -room),) * 3] | brain
