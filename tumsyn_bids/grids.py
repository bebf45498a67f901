"""Sampling grids: a shape and an affine, and images resampled onto them."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie.

    Attributes
    ----------
    shape : tuple of 3 int
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS+ world coordinates in mm; voxel centres have integer indices.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def zooms(self) -> np.ndarray:
        """Voxel size in mm along each axis, shape (3,)."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @classmethod
    def of(cls, img: nb.spatialimages.SpatialImage) -> Grid:
        """Return the grid of an image."""
        return cls(tuple(int(n) for n in img.shape[:3]), np.asarray(img.affine, dtype=float))

    def with_zooms(self, zooms) -> Grid:
        """Cover the same field of view with other voxels.

        The corner of the first voxel stays where it is, the number of voxels is rounded up so
        that nothing of the field of view is lost, and the directions of the axes are kept. The
        centre of the first voxel therefore moves by half the difference of the voxel sizes.

        Parameters
        ----------
        zooms : sequence of 3 float
            New voxel size in mm along the axes of this grid.
        """
        zooms = np.asarray(zooms, dtype=float)
        extent = self.zooms * self.shape
        # 1e-4 voxel of tolerance: 39 * 3.0000001 mm must not become 40 voxels of 3 mm.
        shape = np.maximum(np.ceil(extent / zooms - 1e-4), 1).astype(int)
        scale = zooms / self.zooms
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * scale
        affine[:3, 3] += self.affine[:3, :3] @ ((scale - 1) / 2)
        return Grid(tuple(int(n) for n in shape), affine)

    def cropped(self, start, shape) -> Grid:
        """Return the part of this grid that begins at voxel ``start`` and has ``shape``."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ np.append(np.asarray(start, dtype=float), 1))[:3]
        return Grid(tuple(int(n) for n in shape), affine)

    def around(self, inside: np.ndarray, margin: int) -> Grid:
        """Return the part of the grid that holds some of its voxels.

        Parameters
        ----------
        inside : ndarray of bool, shape ``self.shape``
            At least one voxel.
        margin : int
            Voxels beyond them on each side; these may lie outside of the grid.
        """
        places = np.argwhere(inside)
        start = places.min(axis=0) - margin
        return self.cropped(start, places.max(axis=0) + margin + 1 - start)

    def canonical(self) -> Grid:
        """Return the same voxels stored closest to RAS+ (axes permuted and flipped only)."""
        ornt = nb.io_orientation(self.affine)
        shape = np.empty(3, dtype=int)
        shape[ornt[:, 0].astype(int)] = self.shape
        affine = self.affine @ nb.orientations.inv_ornt_aff(ornt, self.shape)
        return Grid(tuple(int(n) for n in shape), affine)


def resample(
    img: nb.spatialimages.SpatialImage,
    grid: Grid,
    *,
    world: np.ndarray | None = None,
    order: int = 1,
    antialias: bool = True,
) -> np.ndarray:
    """Sample an image at the voxel centres of a grid, in one interpolation.

    Parameters
    ----------
    img : SpatialImage
        A 3D image.
    grid : Grid
        Where to sample.
    world : ndarray, shape (4, 4), optional
        Maps world coordinates (RAS+, mm) of ``grid`` to world coordinates of ``img``, like the
        transforms that registration yields with the grid's space as the fixed one. Identity if
        not given.
    order : int
        Spline order; 0 for labels, 1 linear, 3 cubic.
    antialias : bool
        Smooth along the axes of ``img`` that are sampled more coarsely than stored, with a
        Gaussian whose width makes up for the difference of the voxel profiles. Ignored when
        ``order`` is 0.

    Returns
    -------
    ndarray of float32, shape ``grid.shape``
        0 outside ``img``.
    """
    data = np.asarray(img.dataobj, dtype=np.float32)
    world = np.eye(4) if world is None else world
    matrix = np.linalg.inv(img.affine) @ world @ grid.affine
    if antialias and order > 0:
        steps = np.abs(matrix[:3, :3]).max(axis=1)
        # FWHM of the extra blur in voxels of img: sqrt(step^2 - 1), 2.355 sigma.
        sigma = np.sqrt(np.maximum(steps**2 - 1, 0)) / 2.355
        if (sigma > 0.2).any():
            data = ndimage.gaussian_filter(data, np.where(sigma > 0.2, sigma, 0), mode='nearest')
    # 'grid-constant' and not 'constant': the latter drops border voxels that rounding errors put
    # 1e-16 outside of the image.
    return ndimage.affine_transform(
        data,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=grid.shape,
        order=order,
        mode='grid-constant',
        cval=0.0,
    )


def covers(
    img: nb.spatialimages.SpatialImage, grid: Grid, *, world: np.ndarray | None = None
) -> np.ndarray:
    """Return which voxels of a grid have their centre inside an image's field of view.

    Parameters
    ----------
    img, grid, world
        As for :func:`resample`.

    Returns
    -------
    ndarray of bool, shape ``grid.shape``
    """
    ones = nb.Nifti1Image(np.ones(img.shape[:3], dtype=np.uint8), img.affine)
    return resample(ones, grid, world=world, order=1, antialias=False) >= 0.5
