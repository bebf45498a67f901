"""How a source's intensities are scaled before it enters a network."""

from __future__ import annotations

import numpy as np


def scale_source(source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scale a source as the embedded model was trained: the brain's 98th percentile is 1.

    Percentiles rather than extremes, so that a single wrapped or saturated voxel has no say.

    Parameters
    ----------
    source : ndarray, shape (X, Y, Z)
    mask : ndarray of bool, same shape

    Returns
    -------
    ndarray of float32
        In [0, 2]; 0 outside the mask.
    """
    bright = float(np.percentile(source[mask], 98))
    if bright <= 0:
        bright = float(source[mask].max())
    scaled = np.clip(source / max(bright, 1e-6), 0, 2)
    return np.where(mask, scaled, 0).astype(np.float32)


def percentile_clip(source: np.ndarray, mask: np.ndarray, n_voxels: int) -> np.ndarray:
    """Scale a source as the published network was trained.

    The 0.01th percentile of the brain-extracted volume, but at least 0, becomes 0 and the 99.9th
    becomes 1. The published code takes the background in as well, so that both depend on how much
    of it there is.

    Parameters
    ----------
    source : ndarray, shape (X, Y, Z)
    mask : ndarray of bool, same shape
    n_voxels : int
        Of the whole field of view, of which ``source`` may be the part around the brain.

    Returns
    -------
    ndarray of float32
        In [0, 1]; what was 0 outside the mask stays 0.
    """
    brain = np.where(mask, source, 0).astype(np.float64)
    volume = np.zeros(max(n_voxels, brain.size))
    volume[: brain.size] = brain.ravel()
    low, high = np.percentile(volume, (0.01, 99.9))
    low = max(low, 0.0)
    if high <= low:
        # A brain of less than a thousandth of the field of view.
        high = max(float(brain.max()), low + 1e-6)
    return ((np.clip(brain, low, high) - low) / (high - low)).astype(np.float32)
