"""Real scans under protocols that they were not acquired with.

A real person shows texture, folds and lesions that no label map has, but under one protocol only.
Each voxel's tissue, read from the contrasts that there are, says how much brighter or darker the
sequence equations make it under another one; the scan times that factor keeps its texture.
"""

from __future__ import annotations

import numpy as np

from ..acquisition import Acquisition
from .expected import BRAIN_SHARES, expected_signals

#: The tissues that intensities can tell apart.
CLASSES: tuple[str, ...] = ('white_matter', 'cortex', 'csf', 'white_matter_lesion')
#: The acquired contrast that each contrast is made from.
BASES: dict[str, str] = {
    'T1w': 'T1w',
    'T2w': 'T2w',
    'FLAIR': 'FLAIR',
    'PDw': 'T2w',
    'T2starw': 'T2w',
    'SWI': 'T2w',
}
_LARGEST_FACTOR = 4.0


def tissue_shares(images: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray | None:
    """Say of which tissue each voxel of a brain is.

    A voxel whose T1w lies between the medians of two neighbouring Otsu classes is a mixture of
    the two. Where there is a FLAIR, parenchyma that is much brighter than cortex is lesion.

    Parameters
    ----------
    images : dict of str to ndarray of float32, shape (X, Y, Z)
        The 98th percentile of the brain is 1.
    mask : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    ndarray of float16, shape (4, X, Y, Z), or None
        Shares of :data:`CLASSES`, 0 outside the mask; ``None`` without a T1w that has contrast
        inside the mask.
    """
    from skimage.filters import threshold_multiotsu

    if 'T1w' not in images or not mask.any() or np.ptp(images['T1w'][mask]) < 1e-3:
        return None
    t1w = np.minimum(images['T1w'][mask], 1.2)
    try:
        classes = np.digitize(t1w, threshold_multiotsu(t1w, classes=3))
    except ValueError:
        # Fewer than three grey values.
        return None
    levels = [float(np.median(t1w[classes == index])) for index in range(3)]
    solid = np.interp(t1w, levels[:2], (0, 1)).astype(np.float32)
    white = np.interp(t1w, levels[1:], (0, 1)).astype(np.float32)
    lesion = np.zeros_like(solid)
    if 'FLAIR' in images:
        flair = images['FLAIR'][mask]
        usual = np.median(flair[(solid > 0.9) & (white < 0.3)])
        lesion = np.clip((flair / usual - 1.25) / 0.1, 0, 1) * (solid > 0.5)
    shares = np.zeros((len(CLASSES), *mask.shape), dtype=np.float16)
    tissues = (solid * white, solid * (1 - white), 1 - solid)
    shares[:3, mask] = np.stack(tissues) * (1 - lesion)
    shares[3, mask] = lesion
    return shares


def class_means(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the mean of an image over each class, shape (4,); see :func:`tissue_shares`."""
    shares = shares.astype(np.float32)
    total = shares.sum(axis=(1, 2, 3))
    means = np.tensordot(shares, image, 3) / np.maximum(total, 1e-3)
    # A class that is not there looks like cortex.
    return np.where(total > 0, means, means[1])


def recontrast(
    image: np.ndarray, shares: np.ndarray, means: np.ndarray, acquisition: Acquisition
) -> np.ndarray:
    """Return an image as another protocol would have made it.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
    shares : ndarray of float32, shape (4, X, Y, Z)
        Of :func:`tissue_shares`.
    means : ndarray, shape (4,)
        Of :func:`class_means` over the whole brain.
    acquisition : Acquisition
        With a contrast.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        The mean of each tissue is what the equations give, the 98th percentile of a brain being 1.
    """
    now = np.tensordot(np.maximum(means, 0.02), shares, 1)
    then = np.tensordot(of_classes(acquisition), shares, 1)
    factor = np.divide(then, now, out=np.zeros_like(now), where=now > 0.01)
    return (image * np.minimum(factor, _LARGEST_FACTOR)).astype(np.float32)


def of_classes(acquisition: Acquisition) -> np.ndarray:
    """Return the expected signal of each of :data:`CLASSES`, shape (4,)."""
    signals = dict(zip(BRAIN_SHARES, expected_signals(acquisition), strict=True))
    return np.array([signals[name] for name in CLASSES], dtype=np.float32)
