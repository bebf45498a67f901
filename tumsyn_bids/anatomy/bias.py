"""Removal of the smooth intensity drift of receive coils."""

from __future__ import annotations

import nibabel as nb
import numpy as np

from ..grids import Grid, resample
from .conversion import array_to_ants
from .geometry import winsorize
from .intensity import carried, carried_mask, head_mask

#: The field is estimated on voxels of about this size (mm); it is far smoother than that.
WORKING_ZOOM_MM = 6.0
#: Distance of the spline's control points in mm, as in niworkflows' N4 workflows.
SPLINE_DISTANCE_MM = 200


def correct_bias(
    img: nb.spatialimages.SpatialImage, mask: nb.spatialimages.SpatialImage | None = None
) -> nb.Nifti1Image:
    """Divide an image by its bias field, estimated with N4.

    N4 (Tustison et al., IEEE Trans Med Imaging 2010) runs on a copy of about
    :data:`WORKING_ZOOM_MM` voxels (thick slices are not made thicker), and the field, which is a
    smooth spline, is interpolated to the image. Mean intensity under the mask is kept.

    Parameters
    ----------
    img : SpatialImage
        3D, finite.
    mask : SpatialImage, optional
        On the grid of ``img``; where to estimate the field. The head, found by intensity, if not
        given.

    Returns
    -------
    Nifti1Image
        float32, on the grid of ``img``. Zeros stay zeros.
    """
    data = np.asarray(img.dataobj, dtype=np.float32)
    grid = Grid.of(img)
    coarse = grid.with_zooms(np.maximum(grid.zooms, WORKING_ZOOM_MM))
    small = resample(nb.Nifti1Image(winsorize(data), grid.affine), coarse)
    inside = head_mask(small) if mask is None else carried_mask(mask, coarse)
    inside &= small > 0
    log_field = _log_field(small, inside, coarse)
    field = np.exp(carried(log_field, coarse, grid))
    corrected = nb.Nifti1Image((data / field).astype(np.float32), img.affine, img.header)
    corrected.set_data_dtype(np.float32)
    return corrected


def _log_field(data: np.ndarray, inside: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the logarithm of the field: mean 0 under the mask, no wilder outside than inside."""
    import ants

    if inside.sum() < 100:
        return np.zeros(grid.shape)
    field = ants.n4_bias_field_correction(
        array_to_ants(data, grid),
        mask=array_to_ants(inside, grid),
        shrink_factor=1,
        convergence={'iters': [50, 50, 50, 50], 'tol': 1e-3},
        spline_param=SPLINE_DISTANCE_MM,
        return_bias_field=True,
    ).numpy()
    logarithm = np.log(np.maximum(field, 1e-6))
    within = logarithm[inside]
    return np.clip(logarithm, within.min(), within.max()) - within.mean()
