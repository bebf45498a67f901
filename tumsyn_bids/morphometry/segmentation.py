"""Which structure each voxel of a brain belongs to: the embedded atlas, deformed onto the brain.

The average brain of the atlas and its mirror image are registered to a T1w image (affine, then SyN
with cross-correlation; Avants et al., 2008), the labels of both are carried over and fused, and
what the image itself shows is then heard: cortex ends where grey matter ends, ventricles are where
CSF is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nb
import numpy as np

from ..anatomy.antsreg import Stage, limit_threads, register_stages
from ..anatomy.conversion import array_to_ants
from ..anatomy.intensity import carried_mask
from ..anatomy.tissues import Tissues
from ..errors import ScanError
from ..grids import Grid, resample
from .fusion import fuse_mirrored, other_side
from .guided import guided_tissues
from .labels import PERSONAL, atlas_file, structures, template_file
from .refinement import refine

#: Voxel size (mm) on which brains are segmented, whatever that of the scan.
ZOOM_MM = 1.0
_MARGIN_MM = 6
#: Share of a structure's voxels in the outermost voxels of the image from which it counts as cut.
_CUT_SHARE = 0.01
_STAGES = (
    Stage('Affine[0.1]', (100, 60, 30), (6, 4, 2), (3, 2, 1), sampling=0.25),
    Stage('SyN[0.2,3,0]', (60, 40, 12), (6, 4, 2), (3, 2, 1), metric='CC', metric_parameter=2),
)


@dataclass(frozen=True)
class Segmentation:
    """A segmented brain.

    Attributes
    ----------
    labels : ndarray of int32
        FreeSurfer's numbers; 0 outside of all structures.
    tissues : Tissues
        Probabilities on the same grid.
    brain : ndarray of float32
        The T1w image inside the mask, on the same grid.
    mask : ndarray of bool
        The brain mask.
    grid : Grid
        1 mm, stored RAS+, cropped to the brain.
    affine : ndarray, shape (4, 4)
        World coordinates of the atlas (MNI152NLin2009cAsym) to those of the brain.
    intracranial_mm3 : float
        Volume of the average's brain mask, scaled by ``affine``.
    cut : frozenset of int
        Structures that the end of the image cuts off.
    """

    labels: np.ndarray
    tissues: Tissues
    brain: np.ndarray
    mask: np.ndarray
    grid: Grid
    affine: np.ndarray
    intracranial_mm3: float
    cut: frozenset[int] = frozenset()

    @property
    def img(self) -> nb.Nifti1Image:
        """The labels as an image."""
        return nb.Nifti1Image(self.labels.astype(np.int32), self.grid.affine)


#: What segments a brain. Another route (a learned one) is a function like this.
Segmenter = Callable[..., Segmentation]


def segment_brain(
    t1w: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    *,
    seed: int = 1,
    threads: int | None = None,
    zoom: float | None = None,
) -> Segmentation:
    """Label the structures of a brain by registration of the embedded atlas.

    Parameters
    ----------
    t1w : SpatialImage
        3D, bias-corrected, acquired or synthetic; any voxel size.
    mask : SpatialImage
        Brain mask in the same world space; grids may differ.
    seed, threads : int
        Of ITK.
    zoom : float, optional
        Voxel size in mm, :data:`ZOOM_MM` if not given. Coarser is quicker and worse.

    Raises
    ------
    ScanError
        If the mask is empty or the registration fails.
    """
    limit_threads(threads)
    zoom = zoom or ZOOM_MM
    brain, inside, grid = working_image(t1w, mask, zoom)
    carried, affine, volume = carry_atlas(brain, grid, seed)
    mirrored, *_ = carry_atlas(brain, grid, seed, mirrored=True)
    labels = fuse_mirrored(carried, mirrored, grid.zooms)
    tissues = guided_tissues(brain, inside, labels, grid.zooms)
    labels = refine(labels, tissues, inside, grid.zooms)
    cut = cut_structures(labels, grid, Grid.of(t1w))
    return Segmentation(labels, tissues, brain, inside, grid, affine, volume, cut)


def cut_structures(labels: np.ndarray, grid: Grid, image: Grid) -> frozenset[int]:
    """Return the structures of which a part lies in the outermost voxels of an image.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers.
    grid, image : Grid
        Of the labels, and of the image that they were found on.
    """
    places = np.argwhere(labels > 0)
    numbers = labels[tuple(places.T)]
    index = nb.affines.apply_affine(np.linalg.inv(image.affine) @ grid.affine, places)
    at_end = ((index < 0.5) | (index > np.asarray(image.shape) - 1.5)).any(axis=1)
    voxels, outer = (np.bincount(part, minlength=1) for part in (numbers, numbers[at_end]))
    outer = np.pad(outer, (0, len(voxels) - len(outer)))
    return frozenset(int(n) for n in np.flatnonzero((outer > 0) & (outer >= _CUT_SHARE * voxels)))


def unsegmented(
    t1w: nb.spatialimages.SpatialImage, mask: nb.spatialimages.SpatialImage
) -> Segmentation:
    """Return what is known of a brain that could not be segmented: no structure, no size."""
    grid = Grid.of(t1w).canonical().with_zooms((ZOOM_MM,) * 3)
    inside = carried_mask(mask, grid)
    nothing = np.zeros(grid.shape, np.float32)
    return Segmentation(
        nothing.astype(np.int32),
        Tissues(nothing, nothing, nothing),
        np.maximum(resample(t1w, grid), 0) * inside,
        inside,
        grid,
        np.eye(4),
        math.nan,
    )


def working_image(
    t1w: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    zoom: float = ZOOM_MM,
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Return the brain, its mask and the grid: isotropic, stored RAS+, cropped to the brain."""
    grid = Grid.of(t1w).canonical().with_zooms((zoom,) * 3)
    inside = carried_mask(mask, grid)
    if not inside.any():
        raise ScanError('the brain mask is empty', remedy='Look at the scan and at its mask')
    grid = grid.around(inside, round(_MARGIN_MM / zoom))
    inside = carried_mask(mask, grid)
    return np.maximum(resample(t1w, grid), 0) * inside, inside, grid


def carry_atlas(
    brain: np.ndarray, grid: Grid, seed: int, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray, float]:
    """Register the average brain of the atlas to a brain and carry the labels over.

    Parameters
    ----------
    brain : ndarray
    grid : Grid
        As :func:`working_image` returns them.
    seed : int
        Of ITK.
    mirrored : bool
        Take the mirror image of the average, with left and right of its labels exchanged.

    Returns
    -------
    labels : ndarray of int32
        On ``grid``.
    affine : ndarray, shape (4, 4)
        World coordinates of the average to those of the brain.
    intracranial_mm3 : float
        Volume of the average, scaled by ``affine``.

    Raises
    ------
    ScanError
        If the registration fails.
    """
    import ants

    average, average_grid, volume = _average(float(grid.zooms.mean()))
    labels = _atlas_labels(average_grid)
    if mirrored:
        average, labels = average[::-1], other_side(labels[::-1])
        average_grid = _mirrored(average_grid)
    moving = array_to_ants(brain, grid)
    fixed = array_to_ants(average, average_grid)
    start = _centres(average, average_grid, brain, grid)

    def carried_back(files: list[str], inverted: list[bool]) -> np.ndarray:
        return ants.apply_transforms(
            moving,
            array_to_ants(labels, average_grid),
            files,
            interpolator='genericLabel',
            whichtoinvert=inverted,
        ).numpy()

    affine, carried = register_stages(
        fixed, moving, _STAGES, start=start, seed=seed, inverse=carried_back
    )
    scale = abs(float(np.linalg.det(affine[:3, :3])))
    return np.rint(carried).astype(np.int32), affine, volume * scale


def _mirrored(grid: Grid) -> Grid:
    """Return the grid, stored RAS+ too, of arrays that are reversed along their first axis."""
    affine = grid.affine.copy()
    affine[0, 3] = -(affine[0, 3] + (grid.shape[0] - 1) * affine[0, 0])
    return Grid(grid.shape, affine)


def _average(zoom: float) -> tuple[np.ndarray, Grid, float]:
    """Return the average brain, its grid and its volume in mm³."""
    img = nb.load(template_file())
    data = np.asarray(img.dataobj, dtype=np.float32)
    grid = Grid.of(img).around(data > 0, 6)
    grid = grid.with_zooms((zoom,) * 3)
    volume = float((data > 0).sum() * Grid.of(img).zooms.prod())
    return resample(img, grid), grid, volume


def _atlas_labels(grid: Grid) -> np.ndarray:
    """Return the atlas on the average's grid, without what is one person's."""
    img = nb.load(atlas_file())
    labels = np.rint(resample(img, grid, order=0)).astype(np.int32)
    left = np.arange(grid.shape[0])[:, None, None] * grid.affine[0, 0] + grid.affine[0, 3] < 0
    white = np.broadcast_to(np.where(left, 2, 41), labels.shape)
    for number in PERSONAL:
        labels = np.where(labels == number, white, labels)
    labels[~np.isin(labels, list(structures()))] = 0
    return labels


def _centres(fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid):
    """Return the shift that lays one centre of gravity on the other."""
    from scipy.ndimage import center_of_mass

    centres = [
        nb.affines.apply_affine(grid.affine, center_of_mass(data > 0))
        for data, grid in ((fixed, fixed_grid), (moving, moving_grid))
    ]
    start = np.eye(4)
    start[:3, 3] = centres[1] - centres[0]
    return start
