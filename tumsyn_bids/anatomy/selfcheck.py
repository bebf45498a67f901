"""Whether two scans, once aligned, show the same head, and whether one mask fits both."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np

from ..errors import ScanError
from ..grids import Grid, covers
from .brain import brain_near
from .intensity import carried_mask, isotropic
from .quality import Check, judge
from .registration import polished
from .similarity import Comparison
from .standard import smoothness_measures, volume_change

#: Distance (mm) of the points that are compared.
POINTS_MM = 3.0


def check_alignment(
    fixed_img: nb.spatialimages.SpatialImage,
    moving_img: nb.spatialimages.SpatialImage,
    matrix: np.ndarray,
    mask: nb.spatialimages.SpatialImage,
    *,
    contrast: str | None = None,
    deformation: str | Path | None = None,
) -> tuple[Check, ...]:
    """Check that two aligned scans show one head, and that the mask of one fits the other.

    Mutual information depends on the contrasts more than on whose brains they show, so there is
    no threshold for it. A mirrored scan has the same contrast and a brain as unlike as another
    person's: only a scan of the same brain fits clearly better than its own mirror image, which is
    moved onto the reference as well as it goes.

    Parameters
    ----------
    fixed_img, moving_img : SpatialImage
        As for :func:`tumsyn_bids.anatomy.registration.register_linear`.
    matrix : ndarray, shape (4, 4)
        Fixed to moving RAS+ world coordinates.
    mask : SpatialImage
        Brain mask in the space of ``fixed_img``.
    contrast : str, optional
        Of the moving scan.
    deformation : path-like, optional
        ITK transform that goes beyond ``matrix``; whether it folds or stretches is checked.

    Raises
    ------
    ScanError
        If the mask is empty.
    """
    comparison = _brain_comparison(fixed_img, moving_img, mask)
    after = -comparison.cost(matrix)
    mirrored = -comparison.cost(_best_mirrored(comparison, matrix))
    measures = {
        'information-before': -comparison.cost(np.eye(4)),
        'information-after': after,
        'moved': comparison.moved(matrix),
        'covered': comparison.covered(matrix),
        'likeness-to-mirrored': after / mirrored if mirrored > 0 else np.inf * after,
        'overlap': _overlap(moving_img, contrast, matrix, mask),
    }
    if deformation is not None:
        grid = Grid.of(mask).with_zooms((POINTS_MM,) * 3)
        measures |= smoothness_measures(
            volume_change([deformation], grid)[carried_mask(mask, grid)]
        )
    return judge(measures)


def _brain_comparison(fixed_img, moving_img, mask) -> Comparison:
    fixed, fixed_grid = isotropic(fixed_img, POINTS_MM)
    inside = carried_mask(mask, fixed_grid)
    if not inside.any():
        raise ScanError('the mask leaves nothing to compare', remedy='Check the brain mask')
    return Comparison(fixed, fixed_grid, *isotropic(moving_img, POINTS_MM), inside)


def _best_mirrored(comparison: Comparison, matrix: np.ndarray) -> np.ndarray:
    """Return the transform under which the mirror image of the moving scan fits best."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * comparison.centre[0]
    return polished(comparison, polished(comparison, matrix @ mirror))


def _overlap(moving_img, contrast, matrix: np.ndarray, mask) -> float:
    """Return the Dice overlap of the mask with the brain that the moving scan shows."""
    world = np.linalg.inv(matrix)
    theirs, grid = brain_near(moving_img, contrast, mask, world=world)
    there = nb.Nifti1Image(np.asarray(mask.dataobj), matrix @ mask.affine)
    ours = carried_mask(there, grid)
    seen = covers(moving_img, grid)
    total = (ours & seen).sum() + (theirs & seen).sum()
    return float(2 * (ours & theirs & seen).sum() / total) if total else 0.0
