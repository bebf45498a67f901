"""What an image can be turned into without any learning: the bar for every synthesiser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.exposure import match_histograms

DEFAULT_BINS = 256


@dataclass(frozen=True)
class LookUpTable:
    """A new grey value for every grey value of images scaled to [0, 1].

    Attributes
    ----------
    values : ndarray of float32, shape (bins,)
        What the voxels of each of the equally wide bins of [0, 1] become.
    """

    values: np.ndarray

    def apply(self, source: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Map every voxel; 0 outside the mask.

        Parameters
        ----------
        source : ndarray
            Scaled to [0, 1].
        mask : ndarray, optional

        Returns
        -------
        ndarray of float32
        """
        mapped = self.values[_bin_of(source, self.values.size)]
        return mapped if mask is None else np.where(np.asarray(mask) > 0, mapped, np.float32(0))


def fit_lut(
    source: np.ndarray, target: np.ndarray, mask: np.ndarray, bins: int = DEFAULT_BINS
) -> LookUpTable:
    """Fit the look-up table from source to target with the least squared error.

    That is the mean of the target over the voxels in each bin of the source. Bins without voxels
    are interpolated between their neighbours. Fitted on the answer itself, it bounds what any
    function of single grey values can reach.

    Parameters
    ----------
    source, target : ndarray
        Same shape, scaled to [0, 1].
    mask : ndarray
        Voxels to fit on.
    bins : int

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    inside = np.asarray(mask) > 0
    if not inside.any():
        raise ValueError('the mask is empty')
    index = _bin_of(np.asarray(source)[inside], bins)
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=np.asarray(target, dtype=np.float64)[inside], minlength=bins)
    filled = np.flatnonzero(counts)
    values = np.interp(np.arange(bins), filled, sums[filled] / counts[filled])
    return LookUpTable(values.astype(np.float32))


def match_histogram(source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give the voxels of the source within the mask the distribution of the target's.

    Returns
    -------
    ndarray of float32
        0 outside the mask.
    """
    inside = np.asarray(mask) > 0
    matched = np.zeros(inside.shape, dtype=np.float32)
    matched[inside] = match_histograms(np.asarray(source)[inside], np.asarray(target)[inside])
    return matched


def _bin_of(image: np.ndarray, bins: int) -> np.ndarray:
    return np.clip((np.asarray(image) * bins).astype(np.intp), 0, bins - 1)
