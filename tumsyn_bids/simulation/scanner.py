"""A scanner: from the tissues of a head and an acquisition to an image file's worth of voxels.

>>> anatomy = build_anatomy(2)                                          # doctest: +SKIP
>>> person = draw_person(np.random.default_rng(1))                      # doctest: +SKIP
>>> protocol = default_protocol('T2w', 3.0)                             # doctest: +SKIP
>>> grid = scan_grid((1, 1, 4), (180, 220, 150), 'LPS', tilt_deg=(-15, 0, 3))  # doctest: +SKIP
>>> img = scan(anatomy, person, protocol, grid, seed=1)                 # doctest: +SKIP
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..acquisition import Acquisition
from ..grids import Grid
from ..physics.signals import signal
from ..physics.tissues import relaxation
from .anatomy import TISSUE_NAMES, Anatomy
from .phantom import Person, rigid, transform_points

DEFAULT_FIELD_STRENGTH = 3.0
_BIAS_WAVES = 3


def scan_grid(zooms, fov_mm, axcodes: str, *, centre=(0, 0, 0), tilt_deg=(0, 0, 0)) -> Grid:
    """Return the grid of an acquisition as a scanner would store it.

    Parameters
    ----------
    zooms, fov_mm : sequence of 3 float
        Voxel size and field of view along the storage axes, in mm.
    axcodes : str
        The directions of increasing storage indices, such as ``'LPS'`` or ``'PIR'``.
    centre : sequence of 3 float
        World position (RAS+) of the middle of the field of view.
    tilt_deg : sequence of 3 float
        Rotation of the field of view about the world axes; not 0 makes it oblique.
    """
    zooms = np.asarray(zooms, dtype=float)
    shape = np.rint(np.asarray(fov_mm) / zooms).astype(int)
    directions = np.zeros((3, 3))
    for axis, (row, sign) in enumerate(nb.orientations.axcodes2ornt(axcodes)):
        directions[int(row), axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = rigid(tilt_deg)[:3, :3] @ directions * zooms
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


@dataclass(frozen=True)
class View:
    """Where the voxels of a scan lie in the anatomy.

    Attributes
    ----------
    anatomy : Anatomy
    grid : Grid
        In scanner coordinates.
    at : ndarray of float64, shape (3, X, Y, Z)
        Voxel indices of the anatomy at the voxel centres of the grid.
    """

    anatomy: Anatomy
    grid: Grid
    at: np.ndarray

    @classmethod
    def of(
        cls, anatomy: Anatomy, person: Person, grid: Grid, pose: np.ndarray | None = None
    ) -> View:
        """Locate the voxels of a grid.

        Parameters
        ----------
        anatomy : Anatomy
        person : Person
        grid : Grid
            In scanner coordinates (RAS+, mm).
        pose : ndarray, shape (4, 4), optional
            Scanner coordinates to the coordinates of the head: how the person lies.
        """
        to_head = grid.affine if pose is None else pose @ grid.affine
        index = np.indices(grid.shape, dtype=np.float64)
        template = person.to_template(transform_points(to_head, index))
        return cls(anatomy, grid, transform_points(np.linalg.inv(anatomy.affine), template))

    def mean(self, volume: np.ndarray, slice_thickness_mm: float | None = None) -> np.ndarray:
        """Average a map of the anatomy over each voxel, as the coils see it.

        Parameters
        ----------
        volume : ndarray, shape of the anatomy
            Any property, such as a signal or the share of a tissue.
        slice_thickness_mm : float, optional
            Width of the voxels along the last axis; their distance if not given.

        Returns
        -------
        ndarray of float64, shape ``grid.shape``
            0 outside the anatomy.
        """
        zooms = self.grid.zooms
        width = np.array([*zooms[:2], slice_thickness_mm or zooms[2]])
        # One sample per voxel of the anatomy: linear interpolation covers what lies between.
        counts = np.maximum(np.ceil(width / self.anatomy.affine[0, 0] - 1e-6), 1).astype(int)
        if counts.max() == 1:
            return ndimage.map_coordinates(volume, self.at, order=1)
        steps = [
            ((np.arange(count) + 0.5) / count - 0.5) * share
            for count, share in zip(counts, width / zooms, strict=True)
        ]
        # The head bends gently: within a voxel, positions change in proportion.
        slopes = [np.gradient(self.at, axis=axis) for axis in (1, 2, 3)]
        total = np.zeros(self.grid.shape)
        for step in itertools.product(*steps):
            near = self.at + sum(part * slope for part, slope in zip(step, slopes, strict=True))
            total += ndimage.map_coordinates(volume, near, order=1)
        return total / counts.prod()

    def nearest(self, volume: np.ndarray) -> np.ndarray:
        """Return the value of a map of the anatomy at the middle of each voxel."""
        return ndimage.map_coordinates(volume, self.at, order=0)


def scan(
    anatomy: Anatomy,
    person: Person,
    acquisition: Acquisition,
    grid: Grid,
    *,
    pose: np.ndarray | None = None,
    slice_thickness_mm: float | None = None,
    level: float = 100.0,
    snr: float | None = 40.0,
    bias: float = 0.15,
    floor: float = 0.0,
    seed: int | tuple[int, ...] = 0,
) -> nb.Nifti1Image:
    """Image a person.

    Parameters
    ----------
    anatomy : Anatomy
    person : Person
    acquisition : Acquisition
        Contrast and imaging parameters; its voxel size is not looked at, the grid decides.
    grid : Grid
        Where the voxels lie in scanner coordinates.
    pose : ndarray, shape (4, 4), optional
        Scanner coordinates to the coordinates of the head (RAS+, mm): how the person lies.
    slice_thickness_mm : float, optional
        Along the last axis of the grid, when there are gaps between slices or overlap.
    level : float
        Mean of the brain in the noise-free image, in stored units.
    snr : float or None
        Mean of the brain over the standard deviation of the noise; ``None`` for no noise. The
        noise is Rician.
    bias : float
        Standard deviation of the logarithm of the smooth shading; 0 for none.
    floor : float
        Stored values below it become 0, as in the background that some reconstructions clear.
    seed : int or tuple of int
        Of noise and shading.

    Returns
    -------
    Nifti1Image
        int16, scanner coordinates in both qform and sform.

    Notes
    -----
    A voxel is the mean over its box, that is, over the thickness of the slice and not over its
    distance to the next. All arithmetic is in double precision and the result is rounded to
    whole numbers, so that a last bit that differs between versions of numpy or processors does
    not reach the file.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    view = View.of(anatomy, person, grid, pose)
    image = view.mean(contrast_map(anatomy, acquisition, level), slice_thickness_mm)
    if bias > 0:
        image *= _shading(rng, grid.shape, bias)
    if snr is not None:
        sigma = level / snr
        real = image + rng.normal(0, sigma, grid.shape)
        image = np.sqrt(real * real + rng.normal(0, sigma, grid.shape) ** 2)
    image[image < floor] = 0
    return as_image(np.minimum(np.rint(image), np.iinfo(np.int16).max).astype(np.int16), grid)


def contrast_map(anatomy: Anatomy, acquisition: Acquisition, level: float = 100.0) -> np.ndarray:
    """Return the signal of each voxel of the anatomy, scaled to a mean of the brain.

    Parameters
    ----------
    anatomy : Anatomy
    acquisition : Acquisition
        At 3 T if the field strength is unknown.
    level : float
        Mean of the brain.

    Returns
    -------
    ndarray of float64, shape of the anatomy
    """
    strength = acquisition.field_strength or DEFAULT_FIELD_STRENGTH
    contrast = anatomy.mix(
        {name: float(signal(acquisition, relaxation(name, strength))) for name in TISSUE_NAMES}
    )
    return contrast * (level / contrast[anatomy.brain].mean())


def as_image(data: np.ndarray, grid: Grid) -> nb.Nifti1Image:
    """Return a NIfTI image in scanner coordinates."""
    img = nb.Nifti1Image(data, grid.affine)
    img.set_qform(grid.affine, code=1)
    img.set_sform(grid.affine, code=1)
    img.header.set_xyzt_units('mm', 'sec')
    return img


def _shading(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Return a smooth positive field with mean 1 in the logarithm, of low cosine waves."""
    waves = rng.normal(0, 1, (_BIAS_WAVES,) * 3)
    waves[0, 0, 0] = 0
    order = np.arange(_BIAS_WAVES)
    for n in shape:
        basis = np.cos(np.pi * np.outer(order, np.arange(n) + 0.5) / n)
        # The first axis leaves and the new one comes last, so three turns restore the order.
        waves = np.tensordot(waves, basis, axes=(0, 0))
    return np.exp(strength * waves / waves.std())
