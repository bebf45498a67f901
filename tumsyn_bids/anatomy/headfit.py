"""The average brain laid on a head: a first idea of where the brain is.

An average without skull, laid naively on a head, grows into the scalp. So the head around it is
painted in (dark skull, bright scalp), only what resembles a head is compared, and the size may
deviate from that of a common brain at a price.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import optimize

from ..errors import ScanError
from ..grids import Grid
from .antsreg import Stage, register_stages
from .conversion import array_to_ants
from .intensity import isotropic
from .similarity import Comparison, mutual_information
from .templates import Template, brain_template

#: Voxel sizes (mm) of the search for the pose, and of the deformation.
SEARCH_ZOOM_MM, FIT_ZOOM_MM = 6.0, 3.0
#: How far (mm) beyond the brain the painted head is compared. Farther out, laying the brain on the
#: whole head, its scalp on air, makes a deeper minimum than the truth.
MARGIN_MM = 4.0
#: Starts of the search: the template's centre above that of the head (mm; more where the neck is
#: in the field of view), and the nod of the head (degrees).
_RISES_MM = (-20.0, 0.0, 20.0, 40.0, 60.0)
_NODS = (-20.0, 0.0, 20.0)
#: The averages are larger than most brains by about 7 % along each axis; deviating from that by
#: as much again costs this much mutual information.
_USUAL_SCALE = -1.4
_SCALE_PRICE = 0.02
_STAGES = (Stage('SyN[0.2,3,0]', (40, 20), (2, 1), (1, 0)),)


@dataclass(frozen=True)
class Prior:
    """The average brain, deformed onto a head.

    Attributes
    ----------
    probability : ndarray of float32
        Share of each voxel that the deformed mask covers.
    grid : Grid
        The field of view of the head in voxels of :data:`FIT_ZOOM_MM`.
    likeness : float
        Mutual information (nats) of the average's tissues and the head inside the mask: how much
        it looks like a brain.
    """

    probability: np.ndarray
    grid: Grid
    likeness: float


def brain_prior(img: nb.spatialimages.SpatialImage, contrast: str | None, seed: int) -> Prior:
    """Return the template's brain, deformed onto a head.

    A 9-parameter pose is searched by mutual information on coarse voxels; from there ANTs deforms
    the painted template (SyN, Mattes mutual information), and the mask is carried back.

    Parameters
    ----------
    img : SpatialImage
        3D, finite, orthogonal axes.
    contrast : str or None
        How to paint the template.
    seed : int
        Of ITK's random numbers.

    Raises
    ------
    ScanError
        If nothing like a head is found.
    """
    import ants

    template = _cropped(brain_template(FIT_ZOOM_MM))
    head, head_grid = isotropic(img, FIT_ZOOM_MM)
    pose = find_pose(img, contrast)
    moving = array_to_ants(head, head_grid)

    painted = template.painted(contrast)

    def carried_back(files: list[str], inverted: list[bool]) -> list[np.ndarray]:
        return [
            ants.apply_transforms(
                moving,
                array_to_ants(part, template.grid),
                files,
                interpolator='linear',
                whichtoinvert=inverted,
            ).numpy()
            for part in (template.mask, painted)
        ]

    _, (probability, carried) = register_stages(
        array_to_ants(painted, template.grid),
        moving,
        _STAGES,
        start=pose,
        seed=seed,
        fixed_mask=array_to_ants(template.trusted(MARGIN_MM), template.grid),
        inverse=carried_back,
    )
    inside = probability > 0.5
    return Prior(probability, head_grid, mutual_information(carried[inside], head[inside]))


def find_pose(img: nb.spatialimages.SpatialImage, contrast: str | None) -> np.ndarray:
    """Return the transform from template to head coordinates: rotation, shift, three scales.

    Raises
    ------
    ScanError
        If nothing like a head is found.
    """
    template = brain_template(SEARCH_ZOOM_MM)
    head, head_grid = isotropic(img, SEARCH_ZOOM_MM)
    comparison = Comparison(
        template.painted(contrast),
        template.grid,
        head,
        head_grid,
        template.trusted(MARGIN_MM),
    )

    def cost(parameters) -> float:
        odd = (np.asarray(parameters[6:]) / _USUAL_SCALE - 1) ** 2
        return comparison.cost(comparison.pose(parameters)) + _SCALE_PRICE * odd.mean()

    shift = comparison.moving_centre - comparison.centre
    starts = [
        [nod / 3, 0, 0, *(shift + np.array([0, 0, rise])) / 3, *(_USUAL_SCALE,) * 3]
        for rise in _RISES_MM
        for nod in _NODS
    ]
    found = [
        optimize.minimize(
            cost, start, method='Powell', options={'xtol': 0.05, 'ftol': 1e-4, 'maxiter': 6}
        )
        for start in sorted(starts, key=cost)[:3]
    ]
    best = min(found, key=lambda result: result.fun)
    pose = comparison.pose(best.x)
    if comparison.cost(pose) == 0:
        raise ScanError(
            'no brain was found in the image',
            remedy='Check that it shows a head, upright as its header says, and most of its brain',
        )
    return pose


def _cropped(template: Template) -> Template:
    """Leave out the part of the template that is not compared."""
    places = np.argwhere(template.trusted(MARGIN_MM))
    start = np.maximum(places.min(axis=0) - 2, 0)
    stop = np.minimum(places.max(axis=0) + 3, template.grid.shape)
    return template.cropped(start, stop)
