"""Where the brain is, in a scan of any contrast."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from ..grids import Grid, resample
from .antsreg import Stage, limit_threads, register_stages
from .conversion import array_to_ants
from .hdbet import hd_bet
from .registration import Comparison, isotropic
from .templates import Template, brain_template

#: Voxel size (mm) at which the template is laid on the head.
WORKING_ZOOM_MM = 2.0
SEARCH_ZOOM_MM = 6.0
#: How far (mm) beyond the template's brain the images are compared: the dark skull counts.
MARGIN_MM = 10.0
#: Volumes (ml) outside which an adult's mask is called implausible.
PLAUSIBLE_ML = (800.0, 2200.0)
#: Largest volume (ml) of the non-zero part of an image without its skull.
STRIPPED_BELOW_ML = 2000.0
#: How far (mm) a stripped image's mask is smoothed to close the sulci.
_CLOSING_MM = 5.0


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and how far to trust it.

    Attributes
    ----------
    img : Nifti1Image
        uint8, 0 or 1, on the grid of the image it was made from.
    volume_ml : float
    method : {'ants', 'hd-bet', 'none'}
        ``'none'`` if the image came without its skull.
    warnings : tuple of str
        What looks wrong.
    """

    img: nb.Nifti1Image
    volume_ml: float
    method: str
    warnings: tuple[str, ...] = ()


def extract_brain(
    img: nb.spatialimages.SpatialImage,
    contrast: str | None,
    *,
    seed: int = 1,
    threads: int | None = None,
    method: str = 'ants',
) -> BrainMask:
    """Return the brain mask of a scan, with the subarachnoid space of the sulci.

    Parameters
    ----------
    img : SpatialImage
        3D, finite, orthogonal axes; best bias-corrected.
    contrast : str or None
        Key of :data:`tumsyn_bids.acquisition.CONTRASTS`; how the template is painted.
    seed, threads : int
        As for :func:`tumsyn_bids.anatomy.registration.register_rigid`.
    method : {'ants', 'hd-bet', 'none'}
        ``'ants'`` carries the mask of the embedded template over, unless the image has been
        stripped already. ``'hd-bet'`` runs that network, if installed. ``'none'`` takes the
        image's non-zero part.

    Raises
    ------
    UsageError
        If ``hd-bet`` is asked for and not installed.
    ValueError
        If the method is unknown.
    """
    limit_threads(threads)
    data = np.asarray(img.dataobj, dtype=np.float32)
    notes: tuple[str, ...] = ()
    if method == 'ants' and is_stripped(img):
        method, notes = 'none', ('the image came without its skull; its non-zero part was taken',)
    if method == 'none':
        inside = nonzero_brain(data, Grid.of(img).zooms)
    elif method == 'hd-bet':
        inside = hd_bet(img)
    elif method == 'ants':
        inside = _from_template(img, contrast, brain_template(), seed)
    else:
        raise ValueError(f'unknown method {method!r}; known: ants, hd-bet, none')
    return _judged(img, inside, method, notes)


def is_stripped(img: nb.spatialimages.SpatialImage) -> bool:
    """Tell whether skull and scalp have been set to zero.

    A defaced scan is mostly exact zeros as well, but it keeps its scalp, so what is left of it is
    larger than any brain, and goes on to the border of the image at the neck.
    """
    data = np.asarray(img.dataobj)
    if (data == 0).mean() < 0.5:
        return False
    zooms = Grid.of(img).zooms
    inside = nonzero_brain(data, zooms)
    volume = inside.sum() * zooms.prod() / 1000
    return bool(volume < STRIPPED_BELOW_ML and _border_share(inside) < 0.1)


def _border_share(mask: np.ndarray) -> float:
    """Return the largest share of a face of the image that a mask covers."""
    faces = [np.take(mask, end, axis=axis).mean() for axis in range(3) for end in (0, -1)]
    return float(max(faces))


def nonzero_brain(data: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Return the largest non-zero part, closed and filled."""
    labels, count = ndimage.label(data != 0)
    if count == 0:
        return np.zeros(data.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == sizes.argmax()
    return ndimage.binary_fill_holes(_closed(largest, zooms, _CLOSING_MM))


def _closed(mask: np.ndarray, zooms: np.ndarray, radius: float) -> np.ndarray:
    """Close a mask with a ball of ``radius`` mm, by distances, so thick slices are no matter."""
    pad = [int(np.ceil(radius / zoom)) + 1 for zoom in zooms]
    padded = np.pad(mask, [(n, n) for n in pad])
    grown = ndimage.distance_transform_edt(~padded, sampling=zooms) <= radius
    closed = ndimage.distance_transform_edt(grown, sampling=zooms) > radius
    core = tuple(slice(n, n + size) for n, size in zip(pad, mask.shape, strict=True))
    return closed[core] | mask


def _from_template(img, contrast: str | None, template: Template, seed: int) -> np.ndarray:
    import ants

    head, head_grid = isotropic(img, WORKING_ZOOM_MM)
    start = _first_guess(img, contrast, template)
    brain, brain_grid = isotropic(template.painted(contrast), WORKING_ZOOM_MM)
    mask, _ = isotropic(template.mask, WORKING_ZOOM_MM)
    compared = ndimage.binary_dilation(mask > 0.5, iterations=round(MARGIN_MM / WORKING_ZOOM_MM))
    fixed = array_to_ants(brain, brain_grid)
    moving = array_to_ants(head, head_grid)

    def carried_back(_forward, inverse, flags):
        return ants.apply_transforms(
            moving,
            array_to_ants(mask, brain_grid),
            inverse,
            interpolator='linear',
            whichtoinvert=flags,
        ).numpy()

    _, probability = register_stages(
        fixed,
        moving,
        _STAGES,
        start=start,
        seed=seed,
        fixed_mask=array_to_ants(compared, brain_grid),
        apply=carried_back,
    )
    lying = nb.Nifti1Image(probability, head_grid.affine)
    return resample(lying, Grid.of(img), antialias=False) > 0.5


_STAGES = (
    Stage('Affine[0.1]', (100, 50), (2, 1), (2, 1), sampling=0.25),
    Stage('SyN[0.2,3,0]', (40, 20), (2, 1), (1, 0)),
)


def _first_guess(img, contrast: str | None, template: Template) -> np.ndarray:
    """Return a 9-parameter transform from the template to the head, found on coarse voxels."""
    comparison = Comparison(
        template.painted(contrast), img, SEARCH_ZOOM_MM, fixed_mask=template.mask
    )

    def cost(parameters):
        return comparison.cost(_nine(parameters, comparison.centre))

    shift = comparison.moving_centre - comparison.centre
    candidates = []
    for rise in (-20.0, 0.0, 20.0, 40.0):
        for nod in (-20.0, 0.0, 20.0):
            first = np.zeros(9)
            first[0] = nod / 3
            first[3:6] = np.add(shift, [0, 0, rise]) / 3
            candidates.append((cost(first), tuple(first)))
    best = []
    for _, first in sorted(candidates)[:3]:
        found = optimize.minimize(
            cost, first, method='Powell', options={'xtol': 0.05, 'ftol': 1e-4, 'maxiter': 6}
        )
        best.append((found.fun, tuple(found.x)))
    return _nine(np.array(min(best)[1]), comparison.centre)


def _nine(parameters, centre: np.ndarray) -> np.ndarray:
    """Return the matrix of 3 rotations (in 3 degrees), 3 shifts (in 3 mm), 3 scales (in 5 %)."""
    parameters = np.asarray(parameters)
    matrix = np.eye(4)
    turn = Rotation.from_euler('xyz', np.deg2rad(3) * parameters[:3]).as_matrix()
    matrix[:3, :3] = turn * np.exp(0.05 * parameters[6:])
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + 3 * parameters[3:6]
    return matrix


def _judged(img, inside: np.ndarray, method: str, notes: tuple[str, ...]) -> BrainMask:
    volume = float(inside.sum() * abs(np.linalg.det(img.affine[:3, :3])) / 1000)
    low, high = PLAUSIBLE_ML
    if not low <= volume <= high:
        notes += (f'a brain of {volume:.0f} ml is implausible for an adult',)
    mask = nb.Nifti1Image(inside.astype(np.uint8), img.affine)
    mask.set_qform(img.affine, code=1)
    mask.set_sform(img.affine, code=1)
    return BrainMask(mask, volume, method, notes)
