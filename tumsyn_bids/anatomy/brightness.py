"""How bright the scans of a dataset are, and images as bright as they are.

Landmarks on the histogram of the brain, and a curve that lays one set on another, as Nyul and
Udupa (Magnetic Resonance in Medicine 1999;42:1072) standardise the scale of MR images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np

from ..errors import ScanError
from ..grids import Grid, covers, resample
from ..verdicts import FAIL
from .bias import correct_bias
from .brain import extract_brain
from .geometry import sanitize
from .intensity import carried_mask
from .registration import register_linear

#: Percentiles of the brain.
LANDMARKS = (1.0, 5.0, *range(10, 100, 10), 95.0, 98.0, 99.5)
_UNIT = LANDMARKS.index(98.0)


def find_brain(
    path: str | Path, contrast: str, *, method: str = 'ants', seed: int = 1
) -> tuple[nb.Nifti1Image, nb.Nifti1Image]:
    """Return a raw scan without its bias field, and its brain mask.

    Parameters
    ----------
    path : path-like
    contrast, method, seed
        As for :func:`tumsyn_bids.anatomy.brain.extract_brain`.

    Raises
    ------
    ScanError
        If the scan cannot be used, or its brain is not found.
    """
    img = correct_bias(sanitize(path).img)
    brain = extract_brain(img, contrast, method=method, seed=seed)
    if any(check.result == FAIL for check in brain.checks):
        raise ScanError(
            'no brain mask that could be trusted was found', path=path, remedy='Look at the scan'
        )
    return img, brain.img


def scan_landmarks(
    path: str | Path,
    reference: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    *,
    seed: int = 1,
) -> list[float]:
    """Return the landmarks of a raw scan inside the brain of another scan of its session.

    Parameters
    ----------
    path : path-like
    reference, mask : SpatialImage
        From :func:`find_brain`.
    seed : int
        As for :func:`tumsyn_bids.anatomy.registration.register_linear`.

    Returns
    -------
    list of float
        At :data:`LANDMARKS`; the 98th percentile is 1.

    Raises
    ------
    ScanError
        If the scan cannot be used.
    """
    img = correct_bias(sanitize(path).img)
    world = register_linear(reference, img, seed=seed, fixed_mask=mask).matrix
    grid = Grid.of(mask)
    seen = (np.asarray(mask.dataobj) > 0) & covers(img, grid, world=world)
    if not seen.any():
        raise ScanError('it does not show the brain', path=path, remedy='Look at the scan')
    aligned = nb.Nifti1Image(resample(img, grid, world=world), grid.affine)
    return unit_landmarks(aligned, nb.Nifti1Image(seen.astype(np.uint8), grid.affine), path)


def unit_landmarks(
    img: nb.spatialimages.SpatialImage, mask: nb.spatialimages.SpatialImage, path: str | Path
) -> list[float]:
    """Return :func:`image_landmarks` in units of the 98th percentile.

    Raises
    ------
    ScanError
        If the brain is dark; it names ``path``.
    """
    found = image_landmarks(img, mask)
    if found[_UNIT] <= 0:
        raise ScanError('the brain is dark', path=path, remedy='Look at the scan')
    return [round(float(value), 5) for value in found / found[_UNIT]]


def image_landmarks(
    img: nb.spatialimages.SpatialImage, mask: nb.spatialimages.SpatialImage
) -> np.ndarray:
    """Return the values of an image at :data:`LANDMARKS` inside a mask of the same world space."""
    inside = carried_mask(mask, Grid.of(img))
    return np.percentile(np.asarray(img.dataobj)[inside], LANDMARKS)


def mean_landmarks(several: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the landmarks of a histogram between those of several scans."""
    return np.mean(np.asarray(several, dtype=float), axis=0)


def match_landmarks(data: np.ndarray, own: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Return an image whose landmarks are those wanted.

    The curve is straight between landmarks and to 0, and keeps its ratio beyond the last; it
    never falls, so that what was brighter is not darker afterwards.

    Parameters
    ----------
    data : ndarray
        Not negative; 0 stays 0.
    own : sequence of float
        Landmarks of the image; they must rise.
    wanted : sequence of float
        In units of which the 98th percentile of the image keeps its value if it is 1.
    """
    own = np.asarray(own, dtype=float)
    wanted = np.maximum.accumulate(np.maximum(wanted, 0)) * own[_UNIT]
    # Landmarks that coincide, as in an image of few values, count once, with the upper one.
    keep = np.append(np.diff(own) > 0, True) & (own > 0)
    own, wanted = np.append(0, own[keep]), np.append(0, wanted[keep])
    matched = np.interp(data, own, wanted)
    beyond = data > own[-1]
    matched[beyond] = data[beyond] * (wanted[-1] / own[-1])
    return matched.astype(np.float32)
