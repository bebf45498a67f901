"""Images and transforms between nibabel (RAS+) and ITK (LPS+).

ITK's own reader decides by rules of its own between sform and qform, so images are handed over in
memory, with the geometry that :func:`tumsyn_bids.anatomy.geometry.sanitize` settled.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np

from ..grids import Grid

#: Changes between RAS+ and LPS+ coordinates, either way.
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHEAR_TOLERANCE = 1e-3


def array_to_ants(data: np.ndarray, grid: Grid):
    """Return an ANTs image of an array that lies on a grid.

    Parameters
    ----------
    data : ndarray, shape ``grid.shape``
    grid : Grid
        Its axes must be orthogonal, since ITK knows no shear.

    Returns
    -------
    ants.ANTsImage
        Of float32.

    Raises
    ------
    ValueError
        If the grid is sheared.
    """
    import ants

    affine = _FLIP @ grid.affine
    direction = affine[:3, :3] / grid.zooms
    if np.abs(direction.T @ direction - np.eye(3)).max() > _SHEAR_TOLERANCE:
        raise ValueError('ITK cannot express a sheared grid; resample the image first')
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=tuple(affine[:3, 3]),
        spacing=tuple(grid.zooms),
        direction=direction,
    )


def to_ants(img: nb.spatialimages.SpatialImage):
    """Return an ANTs image with the voxels and the world coordinates of a nibabel image."""
    return array_to_ants(np.asarray(img.dataobj), Grid.of(img))


def from_ants(image) -> nb.Nifti1Image:
    """Return a nibabel image with the voxels and the world coordinates of an ANTs image."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.direction) * np.asarray(image.spacing)
    affine[:3, 3] = image.origin
    img = nb.Nifti1Image(image.numpy(), _FLIP @ affine)
    img.set_qform(img.affine, code=1)
    img.set_sform(img.affine, code=1)
    return img


def write_itk(matrix: np.ndarray, path: str | Path) -> Path:
    """Write a transform as an ITK text file.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Maps RAS+ world coordinates of the fixed image to those of the moving image.
    path : path-like
        ``*.txt``.
    """
    from nitransforms.linear import Affine

    path = Path(path)
    Affine(np.asarray(matrix, dtype=float)).to_filename(str(path), fmt='itk')
    return path


def read_itk(path: str | Path) -> np.ndarray:
    """Read a linear ITK transform, text or binary, as :func:`write_itk` states it."""
    from nitransforms.io.itk import ITKLinearTransform

    return np.asarray(ITKLinearTransform.from_filename(str(path)).to_ras(), dtype=float)
