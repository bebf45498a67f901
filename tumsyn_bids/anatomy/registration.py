"""Co-registration of scans of one head, of any contrast, slice thickness and field of view."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage, optimize

from ..errors import ScanError
from .antsreg import Stage, limit_threads, register_composite, register_stages
from .conversion import array_to_ants, read_itk, write_itk
from .intensity import carried_mask, head_mask, isotropic
from .similarity import Comparison

__all__ = [
    'Registration',
    'deform',
    'read_itk',
    'register_linear',
    'similarity',
    'write_itk',
]

#: Voxel sizes (mm) at which starts are searched, results are judged, ANTs refines, and the best
#: result is polished.
SEARCH_ZOOM_MM, JUDGE_ZOOM_MM, WORKING_ZOOM_MM, FINE_ZOOM_MM = 6.0, 3.0, 1.5, 2.0
#: How far (mm) around the brain mask the images are compared.
MARGIN_MM = 8.0
#: A result is taken without trying another start if it is not worse than this share of its start.
_KEEPS = 0.98
_ANGLES = (-30, -15, 0, 15, 30)
_STAGES = {
    'rigid': (Stage('Rigid[0.05]', (50, 30), (2, 1), (0.5, 0), sampling=0.25),),
    'affine': (
        Stage('Rigid[0.05]', (50, 30), (2, 1), (0.5, 0), sampling=0.25),
        Stage('Affine[0.05]', (50, 30), (2, 1), (0.5, 0), sampling=0.25),
    ),
}
_DEFORMATION = (Stage('SyN[0.1,3,0]', (30, 15), (2, 1), (1, 0)),)


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
        What it was found from.
    """

    matrix: np.ndarray
    cost_before: float
    cost_after: float
    start: str = 'header'


def register_linear(
    fixed_img: nb.spatialimages.SpatialImage,
    moving_img: nb.spatialimages.SpatialImage,
    *,
    seed: int = 1,
    fixed_mask: nb.spatialimages.SpatialImage | None = None,
    transform: str = 'rigid',
    threads: int | None = None,
) -> Registration:
    """Find the rigid motion, or the affine map, between two scans of one head.

    Starts (the headers as they are; the centres of the heads laid together; each turned by up to
    30 degrees about each axis) are ranked by mutual information on 6 mm voxels, and the best are
    optimised there. ANTs refines from the first (Mattes mutual information, 1.5 mm). Its result
    is judged by a mutual information that ANTs did not optimise, over 3 mm points: if it is worse
    than the start, the next start is tried. The best of all that was seen, the headers as they
    are included, is polished: Powell's method on the judging measure over 3 mm and over 2 mm
    points. (Left to itself ANTs' optimiser drifts off by millimetres on some pairs with few
    distinct intensities, even from the true transform; the judge sees that.)

    Parameters
    ----------
    fixed_img, moving_img : SpatialImage
        3D, finite, orthogonal axes (see :func:`tumsyn_bids.anatomy.geometry.sanitize`).
    seed : int
        Of ITK's random numbers.
    fixed_mask : SpatialImage, optional
        Brain mask in the space of ``fixed_img``; what lies within :data:`MARGIN_MM` of it is
        compared. Without it the head is, and a moving jaw or neck may tilt the result.
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
    judge = _comparison(fixed_img, moving_img, JUDGE_ZOOM_MM, fixed_mask)
    before = judge.cost(np.eye(4))
    seen = [(before, 'header, not moved', np.eye(4))]
    search = _comparison(fixed_img, moving_img, SEARCH_ZOOM_MM, fixed_mask)
    for name, start in _starts(search):
        reached = judge.cost(start)
        seen.append((reached, f'{name}, not refined', start))
        if reached == 0:
            continue
        matrix = _refined(fixed_img, moving_img, start, fixed_mask, transform, seed)
        refined = judge.cost(matrix)
        seen.append((refined, name, matrix))
        if refined <= _KEEPS * min(reached, before):
            break
    cost, name, matrix = min(seen, key=lambda item: item[0])
    if cost == 0:
        raise ScanError(
            'the two scans cannot be laid on one another: they hardly overlap',
            remedy='Check that both show the same head',
        )
    if transform == 'rigid':
        matrix = polished(judge, matrix)
        matrix = polished(_comparison(fixed_img, moving_img, FINE_ZOOM_MM, fixed_mask), matrix)
        cost = judge.cost(matrix)
    return Registration(matrix, before, cost, name)


def deform(
    fixed_img: nb.spatialimages.SpatialImage,
    moving_img: nb.spatialimages.SpatialImage,
    start: np.ndarray,
    folder: str | Path,
    *,
    mask: nb.spatialimages.SpatialImage,
    seed: int = 1,
) -> tuple[Path, Path]:
    """Deform a scan onto another (SyN with mutual information, 1.5 mm), around the brain.

    Parameters
    ----------
    fixed_img, moving_img : SpatialImage
        As for :func:`register_linear`.
    start : ndarray, shape (4, 4)
        What that found.
    folder : path-like
        Where the transforms go.
    mask : SpatialImage
        Brain mask in the space of ``fixed_img``.
    seed : int
        Of ITK's random numbers.

    Returns
    -------
    forward, inverse : Path
        ITK composite transforms (HDF5). ``forward`` maps points of the fixed scan to points of
        the moving one.

    Raises
    ------
    ScanError
        If ANTs fails.
    """
    fixed, fixed_grid = isotropic(fixed_img, WORKING_ZOOM_MM)
    moving, moving_grid = isotropic(moving_img, WORKING_ZOOM_MM)
    return register_composite(
        array_to_ants(fixed, fixed_grid),
        array_to_ants(moving, moving_grid),
        _DEFORMATION,
        start=start,
        seed=seed,
        folder=folder,
        fixed_mask=array_to_ants(_compared(fixed, fixed_grid, mask), fixed_grid),
    )


def similarity(
    fixed_img: nb.spatialimages.SpatialImage,
    moving_img: nb.spatialimages.SpatialImage,
    matrix: np.ndarray,
    *,
    fixed_mask: nb.spatialimages.SpatialImage | None = None,
) -> float:
    """Return the mutual information (nats) of two scans under a transform, over 3 mm points.

    The arguments are those of :func:`register_linear`; ``matrix`` is what it returns.
    """
    return -_comparison(fixed_img, moving_img, JUDGE_ZOOM_MM, fixed_mask).cost(matrix)


def _comparison(fixed_img, moving_img, zoom: float, fixed_mask) -> Comparison:
    fixed, fixed_grid = isotropic(fixed_img, zoom)
    moving, moving_grid = isotropic(moving_img, zoom)
    inside = _compared(fixed, fixed_grid, fixed_mask)
    return Comparison(fixed, fixed_grid, moving, moving_grid, inside)


def _compared(fixed: np.ndarray, grid, mask) -> np.ndarray:
    """Return where to compare: around the brain, else the head."""
    inside = head_mask(fixed) if mask is None else carried_mask(mask, grid)
    if not inside.any():
        raise ScanError('the mask leaves nothing to compare', remedy='Check the brain mask')
    if mask is None:
        return inside
    distance = ndimage.distance_transform_edt(~inside, sampling=grid.zooms)
    return distance <= MARGIN_MM


def _starts(comparison: Comparison, keep: int = 3) -> list[tuple[str, np.ndarray]]:
    """Return the best starts, optimised on coarse voxels, the best first."""
    poses = {}
    shift = (comparison.moving_centre - comparison.centre) / 3
    for (name, move), axis, angle in itertools.product(
        (('header', np.zeros(3)), ('centres', shift)), range(3), _ANGLES
    ):
        turn = np.zeros(3)
        turn[axis] = angle / 3
        label = f'{name}, turned {angle}° about {"xyz"[axis]}' if angle else name
        poses[label] = np.concatenate([turn, move])
    costs = {label: comparison.cost(comparison.pose(pose)) for label, pose in poses.items()}
    optimised = []
    for label in sorted(costs, key=costs.get)[:keep]:
        found = optimize.minimize(
            lambda pose: comparison.cost(comparison.pose(pose)),
            poses[label],
            method='Powell',
            options={'xtol': 0.02, 'ftol': 1e-4, 'maxiter': 6},
        )
        optimised.append((found.fun, label, comparison.pose(found.x)))
    return [(label, pose) for _, label, pose in sorted(optimised, key=lambda item: item[0])]


def polished(comparison: Comparison, matrix: np.ndarray) -> np.ndarray:
    """Return the transform of least cost near a transform, reached by a rigid motion."""
    found = optimize.minimize(
        lambda pose: comparison.cost(matrix @ comparison.pose(pose)),
        np.zeros(6),
        method='Powell',
        options={'xtol': 0.02, 'ftol': 1e-5, 'maxiter': 4, 'direc': 0.3 * np.eye(6)},
    )
    return matrix @ comparison.pose(found.x)


def _refined(fixed_img, moving_img, start, fixed_mask, transform, seed) -> np.ndarray:
    fixed, fixed_grid = isotropic(fixed_img, WORKING_ZOOM_MM)
    moving, moving_grid = isotropic(moving_img, WORKING_ZOOM_MM)
    compared = _compared(fixed, fixed_grid, fixed_mask)
    matrix, _ = register_stages(
        array_to_ants(fixed, fixed_grid),
        array_to_ants(moving, moving_grid),
        _STAGES[transform],
        start=start,
        seed=seed,
        fixed_mask=array_to_ants(compared, fixed_grid),
    )
    return matrix
