"""Where lesions of the white matter lie, and what they look like in each contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .noise import smooth_fields

#: Intensity of lesions, from mild to destructive, where the 98th percentile of the brain is 1.
#: Acute and chronic plaques of multiple sclerosis: as grey matter or darker in T1w, between grey
#: matter and fluid in T2w, the brightest of the brain in FLAIR.
_LEVELS: dict[str, tuple[float, float]] = {
    'T1w': (0.72, 0.40),
    'T1CE': (0.72, 0.40),
    'T2w': (0.50, 0.85),
    'FLAIR': (1.15, 1.15),
}


def distance_to_ventricles(ventricles: np.ndarray) -> np.ndarray:
    """Return the distance to the ventricles in voxels, as uint8; 255 if there are none."""
    if not ventricles.any():
        return np.full(ventricles.shape, 255, dtype=np.uint8)
    return np.minimum(ndimage.distance_transform_edt(~ventricles), 255).astype(np.uint8)


def draw_lesions(
    rng: np.random.Generator, white: np.ndarray, ventricle_mm: np.ndarray
) -> np.ndarray:
    """Draw lesions inside white matter: scattered ones, and caps along the ventricles.

    Parameters
    ----------
    rng : numpy.random.Generator
    white : ndarray of bool, shape (X, Y, Z)
        White matter, on voxels of about 1 mm.
    ventricle_mm : ndarray, shape (X, Y, Z)
        Distance to the lateral ventricles.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        From nothing to a third of the white matter.
    """
    if not white.any():
        return np.zeros_like(white)
    caps = np.exp(-np.asarray(ventricle_mm, dtype=np.float32) / rng.uniform(3, 9))
    field = _field(rng, white.shape) + rng.uniform(0, 4) * caps
    share = np.exp(rng.uniform(np.log(0.005), np.log(0.33)))
    return white & (field > np.quantile(field[white], 1 - share))


def paint_lesions(
    rng: np.random.Generator,
    images: Sequence[np.ndarray],
    contrasts: Sequence[str],
    lesions: np.ndarray,
) -> list[np.ndarray]:
    """Give all images of one person the same lesions, each as bright as its contrast asks.

    Parameters
    ----------
    rng : numpy.random.Generator
    images : sequence of ndarray of float32, shape (X, Y, Z)
        Scaled so that the 98th percentile of the brain is 1.
    contrasts : sequence of str
    lesions : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    list of ndarray of float32
        The images, unchanged if one of them is of a contrast whose lesions are not known.
    """
    if not lesions.any() or not set(contrasts) <= set(_LEVELS):
        return list(images)
    share = ndimage.gaussian_filter(lesions.astype(np.float32), rng.uniform(0.5, 1.2))
    severity = np.clip(rng.uniform(0, 1) + 0.3 * _field(rng, lesions.shape), 0, 1)
    painted = []
    for image, contrast in zip(images, contrasts, strict=True):
        mild, severe = _LEVELS[contrast]
        level = (mild + (severe - mild) * severity) * np.exp(rng.normal(0, 0.07))
        painted.append((image + share * (level - image)).astype(np.float32))
    return painted


def _field(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth random field of unit variance at most, of structures of 3 to 12 voxels."""
    return sum(smooth_fields(rng, shape, (4, 8, 16))) / np.sqrt(3)
