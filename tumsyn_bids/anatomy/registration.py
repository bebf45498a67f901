"""Rigid co-registration of scans of one head, of any contrast, thickness and field of view."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from ..errors import ScanError
from ..grids import Grid, resample
from .antsreg import Stage, limit_threads, register_stages
from .conversion import array_to_ants, read_itk, write_itk
from .geometry import winsorize
from .intensity import head_mask

__all__ = ['Registration', 'read_itk', 'register_rigid', 'similarity', 'write_itk']

#: Voxel size (mm) at which ANTs refines.
WORKING_ZOOM_MM = 2.0
#: Voxel size (mm) at which starts are compared.
SEARCH_ZOOM_MM = 6.0
BINS = 32
#: Share of the compared points that must lie inside the moving image for a pose to be credible.
MIN_OVERLAP = 0.3
_ANGLES = (-30, -15, 0, 15, 30)


@dataclass(frozen=True)
class Registration:
    """Where a scan lies against another.

    Attributes
    ----------
    matrix : ndarray, shape (4, 4)
        Maps RAS+ world coordinates of the fixed image to those of the moving image.
    cost_before, cost_after : float
        Negative mutual information in nats (lower is better) under the identity and under
        ``matrix``, over the same points.
    start : str
        The start that led to it.
    warnings : tuple of str
        What the self-check found.
    """

    matrix: np.ndarray
    cost_before: float
    cost_after: float
    start: str = 'header'
    warnings: tuple[str, ...] = ()


class Comparison:
    """Two heads, blurred and sampled for one another, and the cost of laying them together.

    Parameters
    ----------
    fixed_img, moving_img : SpatialImage
        Finite and with orthogonal axes.
    zoom : float
        Distance of the points compared, in mm.
    fixed_mask : SpatialImage, optional
        On any grid in the space of ``fixed_img``; where to compare. The head if not given.
    """

    def __init__(self, fixed_img, moving_img, zoom: float, fixed_mask=None):
        fixed, fixed_grid = isotropic(fixed_img, zoom)
        self.moving, self.moving_grid = isotropic(moving_img, zoom)
        inside = _compared(fixed, fixed_grid, fixed_mask)
        self.points = nb.affines.apply_affine(fixed_grid.affine, np.argwhere(inside))
        self.centre = self.points.mean(axis=0)
        self._fixed_bins = _bins(fixed[inside])
        self._moving_scale = _range(self.moving)
        moving_head = np.argwhere(head_mask(self.moving))
        middle = moving_head.mean(axis=0) if len(moving_head) else np.array(self.moving.shape) / 2
        self.moving_centre = nb.affines.apply_affine(self.moving_grid.affine, middle)

    def cost(self, matrix: np.ndarray) -> float:
        """Return the negative mutual information (nats), scaled by the overlap."""
        to_voxels = np.linalg.inv(self.moving_grid.affine) @ matrix
        places = nb.affines.apply_affine(to_voxels, self.points).T
        limits = np.array(self.moving.shape)[:, None] - 1
        inside = ((places >= 0) & (places <= limits)).all(axis=0)
        overlap = inside.mean()
        if overlap < MIN_OVERLAP:
            return 0.0
        values = ndimage.map_coordinates(self.moving, places[:, inside], order=1)
        low, high = self._moving_scale
        return -overlap * _mutual_information(
            self._fixed_bins[inside], (values - low) / (high - low) * (BINS - 1)
        )

    def pose(self, parameters) -> np.ndarray:
        """Return the matrix of 3 rotations (radians) about the centre and 3 shifts (mm)."""
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler('xyz', parameters[:3]).as_matrix()
        matrix[:3, 3] = self.centre - matrix[:3, :3] @ self.centre + parameters[3:]
        return matrix


def register_rigid(
    fixed_img: nb.spatialimages.SpatialImage,
    moving_img: nb.spatialimages.SpatialImage,
    *,
    seed: int = 1,
    fixed_mask: nb.spatialimages.SpatialImage | None = None,
    transform: str = 'rigid',
    threads: int | None = None,
) -> Registration:
    """Find the rigid motion between two scans of one head.

    Starts (the headers as they are, the centres of the heads laid together, each turned by up to
    30 degrees about each axis) are ranked by mutual information on coarse voxels, the best are
    optimised there, and ANTs refines from the winner (Mattes mutual information, 2 mm). The
    result is kept only if it is at least as good as its start by a measure that ANTs did not
    optimise; otherwise the next start is tried.

    Parameters
    ----------
    fixed_img, moving_img : SpatialImage
        3D, finite, orthogonal axes (see :func:`tumsyn_bids.anatomy.geometry.sanitize`).
    seed : int
        Of ITK's random numbers.
    fixed_mask : SpatialImage, optional
        Brain mask in the space of ``fixed_img``; it is dilated, so that the edge of the brain
        counts. Without it the head is compared, and a moving jaw or neck may tilt the result.
    transform : {'rigid', 'affine'}
        Affine lets a scan that differs in scale (gradient calibration) be followed.
    threads : int, optional
        See :func:`tumsyn_bids.anatomy.antsreg.limit_threads`.

    Raises
    ------
    ScanError
        If the images never overlap enough to be compared.
    """
    limit_threads(threads)
    coarse = Comparison(fixed_img, moving_img, SEARCH_ZOOM_MM, fixed_mask)
    fine = Comparison(fixed_img, moving_img, WORKING_ZOOM_MM * 2, fixed_mask)
    starts = _ranked_starts(coarse)
    best = None
    for name, start in starts:
        matrix = _refine(fixed_img, moving_img, start, fixed_mask, transform, seed)
        costs = {name: fine.cost(matrix), f'{name}, not refined': fine.cost(start)}
        for label, candidate in zip(costs, (matrix, start), strict=True):
            if best is None or costs[label] < best.cost_after:
                best = Registration(candidate, fine.cost(np.eye(4)), costs[label], label)
        if best.start == name:
            break
    if best is None or best.cost_after == 0:
        raise ScanError(
            'the two scans cannot be laid on one another: they hardly overlap',
            remedy='Check that both show the same head',
        )
    return best


def similarity(fixed_img, moving_img, matrix, *, fixed_mask=None) -> float:
    """Return the mutual information (nats) of two scans under a transform, on 4 mm points."""
    return -Comparison(fixed_img, moving_img, WORKING_ZOOM_MM * 2, fixed_mask).cost(matrix)


def isotropic(img, zoom: float) -> tuple[np.ndarray, Grid]:
    """Return an image, winsorised and non-negative, on isotropic voxels stored close to RAS+."""
    grid = Grid.of(img).canonical().with_zooms((zoom,) * 3)
    data = np.maximum(winsorize(np.asarray(img.dataobj, dtype=np.float32)), 0)
    return resample(nb.Nifti1Image(data, img.affine), grid), grid


def _ranked_starts(comparison: Comparison, keep: int = 3) -> list[tuple[str, np.ndarray]]:
    shift = comparison.moving_centre - comparison.centre
    poses = {}
    for (name, move), axis, angle in itertools.product(
        (('header', np.zeros(3)), ('centres', shift)), range(3), _ANGLES
    ):
        turn = np.zeros(3)
        turn[axis] = np.deg2rad(angle)
        label = f'{name}, turned {angle}° about {"xyz"[axis]}' if angle else name
        poses[label] = np.concatenate([turn, move])
    ranked = sorted(poses, key=lambda label: comparison.cost(comparison.pose(poses[label])))
    optimised = []
    for label in ranked[:keep]:
        found = optimize.minimize(
            lambda scaled: comparison.cost(comparison.pose(scaled * _STEPS)),
            poses[label] / _STEPS,
            method='Powell',
            options={'xtol': 0.02, 'ftol': 1e-4, 'maxiter': 6},
        )
        optimised.append((found.fun, label, comparison.pose(found.x * _STEPS)))
    return [(label, pose) for _, label, pose in sorted(optimised, key=lambda item: item[0])]


#: One unit of the search: 3 degrees and 3 mm move the surface of the brain about equally.
_STEPS = np.array([np.deg2rad(3)] * 3 + [3.0] * 3)


def _refine(fixed_img, moving_img, start, fixed_mask, transform, seed) -> np.ndarray:
    fixed, fixed_grid = isotropic(fixed_img, WORKING_ZOOM_MM)
    moving, moving_grid = isotropic(moving_img, WORKING_ZOOM_MM)
    compared = _compared(fixed, fixed_grid, fixed_mask)
    stages = [Stage('Rigid[0.1]', (100, 50, 30), (4, 2, 1), (2, 1, 0), sampling=0.25)]
    if transform == 'affine':
        stages.append(Stage('Affine[0.1]', (50, 30), (2, 1), (1, 0), sampling=0.25))
    matrix, _ = register_stages(
        array_to_ants(fixed, fixed_grid),
        array_to_ants(moving, moving_grid),
        stages,
        start=start,
        seed=seed,
        fixed_mask=array_to_ants(compared, fixed_grid),
    )
    return matrix


def _compared(fixed: np.ndarray, grid: Grid, mask) -> np.ndarray:
    """Return where to compare: the head, or a mask grown by about 8 mm."""
    if mask is None:
        return head_mask(fixed)
    data = (np.asarray(mask.dataobj) > 0).astype(np.float32)
    inside = resample(nb.Nifti1Image(data, mask.affine), grid) > 0.5
    steps = max(1, round(8 / grid.zooms.mean()))
    return ndimage.binary_dilation(inside, iterations=steps)


def _range(data: np.ndarray) -> tuple[float, float]:
    low, high = float(data.min()), float(data.max())
    return low, high if high > low else low + 1


def _bins(values: np.ndarray) -> np.ndarray:
    low, high = _range(values)
    return ((values - low) / (high - low) * (BINS - 1)).round().astype(np.int64)


def _mutual_information(fixed_bins: np.ndarray, moving_places: np.ndarray) -> float:
    """Return the mutual information of a binned and a linearly binned variable, in nats."""
    lower = np.clip(np.floor(moving_places), 0, BINS - 2).astype(np.int64)
    upper_share = moving_places - lower
    joint = np.bincount(fixed_bins * BINS + lower, 1 - upper_share, BINS * BINS)
    joint += np.bincount(fixed_bins * BINS + lower + 1, upper_share, BINS * BINS)
    joint = joint.reshape(BINS, BINS) / len(fixed_bins)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / expected[filled])).sum())
