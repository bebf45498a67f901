"""A brain laid on an average brain by a deformation, and images carried along."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np

from ..grids import Grid
from .antsreg import Stage, limit_threads, register_composite
from .conversion import array_to_ants, to_ants
from .intensity import cropped_brain
from .quality import Check, judge

#: Voxel size (mm) of the average while it is registered.
ZOOM_MM = 1.0
_MARGIN_MM = 10
_STAGES = (
    Stage('Affine[0.1]', (100, 60, 30), (6, 4, 2), (3, 2, 1), sampling=0.25),
    Stage('SyN[0.2,3,0]', (60, 40, 12), (6, 4, 2), (3, 2, 1), metric='CC', metric_parameter=2),
)


@dataclass(frozen=True)
class Normalization:
    """The way between a brain and an average brain.

    Attributes
    ----------
    forward : Path
        ITK composite transform (HDF5) that resamples the brain into the average's space: it maps
        points of the average to points of the brain.
    inverse : Path
        The other way.
    checks : tuple of Check
        Whether the deformation folds space, how much it stretches it, and how well the masks lie
        on one another.
    """

    forward: Path
    inverse: Path
    checks: tuple[Check, ...]


def normalize_brain(
    img: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    average: nb.spatialimages.SpatialImage,
    average_mask: nb.spatialimages.SpatialImage,
    folder: str | Path,
    *,
    seed: int = 1,
    threads: int | None = None,
    zoom: float = ZOOM_MM,
) -> Normalization:
    """Register an average brain with a brain: affine, then SyN (Avants et al., 2008).

    Parameters
    ----------
    img : SpatialImage
        3D, bias-corrected; best a T1w, acquired or synthetic.
    mask : SpatialImage
        Its brain, in the same world space.
    average, average_mask : SpatialImage
        T1w average and its brain.
    folder : path-like
        Where the transforms go.
    seed, threads : int
        Of ITK.
    zoom : float
        Voxel size in mm.

    Raises
    ------
    ScanError
        If a mask is empty or the registration fails.
    """
    limit_threads(threads)
    fixed, fixed_inside, fixed_grid = cropped_brain(average, average_mask, zoom, _MARGIN_MM)
    moving, moving_inside, moving_grid = cropped_brain(img, mask, zoom, _MARGIN_MM)
    forward, inverse = register_composite(
        array_to_ants(fixed, fixed_grid),
        array_to_ants(moving, moving_grid),
        _STAGES,
        start=centres_together(fixed_inside, fixed_grid, moving_inside, moving_grid),
        seed=seed,
        folder=folder,
    )
    there = carry(
        nb.Nifti1Image(moving_inside.astype(np.float32), moving_grid.affine),
        [forward],
        fixed_grid,
        interpolation='linear',
    )
    inside = np.asarray(there.dataobj) > 0.5
    total = inside.sum() + fixed_inside.sum()
    overlap = {'overlap-with-average': float(2 * (inside & fixed_inside).sum() / total)}
    smoothness = smoothness_measures(volume_change([forward], fixed_grid)[fixed_inside])
    return Normalization(forward, inverse, judge({**overlap, **smoothness}))


def smoothness_measures(change: np.ndarray) -> dict[str, float]:
    """Return how far a deformation folds and stretches, from its changes of volume in a brain."""
    low, high = np.percentile(change, (1, 99))
    return {
        'folded': float((change <= 0).mean()),
        'stretch': math.inf if low <= 0 else float(high / low),
    }


def carry(
    img: nb.spatialimages.SpatialImage,
    transforms: Sequence[str | Path],
    grid: Grid,
    *,
    interpolation: str = 'cubic',
) -> nb.Nifti1Image:
    """Sample an image on a grid of another space, in one interpolation.

    Parameters
    ----------
    img : SpatialImage
        3D, finite.
    transforms : sequence of path-like
        ITK files, the one that begins at the grid's space first.
    grid : Grid
    interpolation : {'cubic', 'linear', 'nearest'}
        What cubic splines overshoot is cut off at the range of the image.

    Returns
    -------
    Nifti1Image
        float32.
    """
    import ants

    names = {'cubic': 'bSpline', 'linear': 'linear', 'nearest': 'nearestNeighbor'}
    data = ants.apply_transforms(
        array_to_ants(np.zeros(grid.shape), grid),
        to_ants(img),
        [str(path) for path in transforms],
        interpolator=names[interpolation],
        whichtoinvert=[False] * len(transforms),
    ).numpy()
    values = np.asarray(img.dataobj)
    data = np.clip(data, min(0, values.min()), values.max()).astype(np.float32)
    return nb.Nifti1Image(data, grid.affine)


def volume_change(transforms: Sequence[str | Path], grid: Grid) -> np.ndarray:
    """Return the determinant of the Jacobian of a chain of transforms, at the voxels of a grid.

    1 keeps volumes, 2 doubles them, and 0 or less means that space is folded.

    Parameters
    ----------
    transforms : sequence of path-like
        As for :func:`carry`.
    grid : Grid
    """
    import ants

    empty = array_to_ants(np.zeros(grid.shape), grid)
    with tempfile.TemporaryDirectory(prefix='tumsyn-jac-') as folder:
        path = ants.apply_transforms(
            empty, empty, [str(path) for path in transforms], compose=str(Path(folder) / 'all_')
        )
        field = ants.image_read(path).numpy()
    # Displacements are in LPS+, and so has to be what they are derived by.
    step = np.diag([-1.0, -1.0, 1.0]) @ grid.affine[:3, :3]
    by_voxel = np.stack([np.stack(np.gradient(field[..., k]), -1) for k in range(3)], -2)
    return np.linalg.det(np.eye(3) + by_voxel @ np.linalg.inv(step))


def centres_together(fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid):
    """Return the shift that lays the centre of one mask on that of the other."""
    places = [
        nb.affines.apply_affine(grid.affine, np.argwhere(mask).mean(axis=0))
        for mask, grid in ((fixed, fixed_grid), (moving, moving_grid))
    ]
    start = np.eye(4)
    start[:3, 3] = places[1] - places[0]
    return start
