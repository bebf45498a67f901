"""Where the brain is, in a scan of any contrast."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..grids import Grid, resample
from .antsreg import limit_threads
from .boundary import distinctness, moved_edge
from .hdbet import hd_bet
from .headfit import brain_prior
from .intensity import carried, grown, isotropic, largest_part, shrunk
from .quality import Check, judge, messages

#: Voxel size (mm) at which the edge of the brain is found.
EDGE_ZOOM_MM = 1.5
#: Thickness (mm) of what belongs to the mask beyond the edge that the intensities show: the
#: subarachnoid space is as dark as bone where CSF is dark, and the edge then is that of cortex.
_RIM_MM = {
    'T1w': 1.75,
    'T1CE': 1.75,
    'FLAIR': 1.0,
    'T2w': 1.25,
    'PDw': 1.25,
    'T2starw': 1.25,
    'SWI': 1.25,
}
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
    checks : tuple of Check
        Its volume, its edge, whether it looks like a brain and is complete.
    """

    img: nb.Nifti1Image
    volume_ml: float
    method: str
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


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
        As for :func:`tumsyn_bids.anatomy.registration.register_linear`.
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
    measures: dict[str, float] = {}
    if method == 'ants' and is_stripped(img):
        method, notes = 'none', ('the image came without its skull; its non-zero part was taken',)
    if method == 'none':
        inside = nonzero_brain(data, Grid.of(img).zooms)
    elif method == 'hd-bet':
        inside = hd_bet(img)
    elif method == 'ants':
        inside, measures = _from_template(img, contrast, seed)
    else:
        raise ValueError(f'unknown method {method!r}; known: ants, hd-bet, none')
    return _judged(img, inside, method, notes, measures)


def is_stripped(img: nb.spatialimages.SpatialImage) -> bool:
    """Tell whether skull and scalp have been set to zero.

    A defaced scan is mostly exact zeros as well, but it keeps its scalp, so what is left of it is
    larger than any brain, and goes on to the border of the image at the neck.
    """
    data = np.asarray(img.dataobj)
    if (data == 0).mean() < 0.5:
        return False
    zooms = Grid.of(img).zooms
    part = largest_part(data != 0)
    if part.sum() * zooms.prod() / 1000 >= STRIPPED_BELOW_ML or _border_share(part) >= 0.1:
        return False  # Closing its sulci only makes it larger.
    inside = nonzero_brain(data, zooms)
    volume = inside.sum() * zooms.prod() / 1000
    return bool(volume < STRIPPED_BELOW_ML and _border_share(inside) < 0.1)


def _border_share(mask: np.ndarray) -> float:
    """Return the largest share of a face of the image that a mask covers."""
    faces = [np.take(mask, end, axis=axis).mean() for axis in range(3) for end in (0, -1)]
    return float(max(faces))


def nonzero_brain(data: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Return the largest non-zero part, with sulci and ventricles closed.

    Parameters
    ----------
    data : ndarray, 3D
    zooms : sequence of 3 float
        Voxel size in mm.
    """
    pad = [int(np.ceil(_CLOSING_MM / zoom)) + 1 for zoom in zooms]
    whole = largest_part(data != 0)
    boxes = ndimage.find_objects(whole.astype(np.uint8))
    if not boxes:
        return whole
    inside = np.pad(whole[boxes[0]], [(n, n) for n in pad])
    closed = shrunk(grown(inside, _CLOSING_MM, zooms), _CLOSING_MM, zooms)
    closed = ndimage.binary_fill_holes(closed | inside)
    whole[boxes[0]] = closed[tuple(slice(n, -n) for n in pad)]
    return whole


def brain_near(
    img: nb.spatialimages.SpatialImage,
    contrast: str | None,
    mask: nb.spatialimages.SpatialImage,
    *,
    world: np.ndarray | None = None,
) -> tuple[np.ndarray, Grid]:
    """Return the brain that a scan shows in the neighbourhood of a mask made from another scan.

    Parameters
    ----------
    img : SpatialImage
    contrast : str or None
    mask : SpatialImage
    world : ndarray, shape (4, 4), optional
        Maps world coordinates of ``img`` to those of ``mask``; identity if not given.

    Returns
    -------
    inside : ndarray of bool
    grid : Grid
        The field of view of ``img`` in voxels of :data:`EDGE_ZOOM_MM`.
    """
    head, grid = isotropic(img, EDGE_ZOOM_MM)
    if is_stripped(img):
        return nonzero_brain(head, grid.zooms), grid
    data = (np.asarray(mask.dataobj) > 0).astype(np.float32)
    prior = resample(nb.Nifti1Image(data, mask.affine), grid, world=world, antialias=False)
    return moved_edge(head, grid, prior, grid) > -_rim(contrast), grid


def _rim(contrast: str | None) -> float:
    return _RIM_MM.get(contrast or 'T1w', _RIM_MM['T1w'])


def _from_template(
    img: nb.spatialimages.SpatialImage, contrast: str | None, seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    prior = brain_prior(img, contrast, seed)
    head, grid = isotropic(img, EDGE_ZOOM_MM)
    edge = moved_edge(head, grid, prior.probability, prior.grid)
    measures = {'edge': distinctness(head, edge), 'likeness': prior.likeness}
    return carried(edge, grid, Grid.of(img)) > -_rim(contrast), measures


def _judged(img, inside: np.ndarray, method: str, notes, measures: dict) -> BrainMask:
    volume = float(inside.sum() * abs(np.linalg.det(img.affine[:3, :3])) / 1000)
    checks = judge({**measures, 'volume': volume, 'cut': _cut_area(inside, Grid.of(img).zooms)})
    mask = nb.Nifti1Image(inside.astype(np.uint8), img.affine)
    mask.set_qform(img.affine, code=1)
    mask.set_sform(img.affine, code=1)
    return BrainMask(mask, volume, method, (*notes, *messages(checks)), checks)


def _cut_area(inside: np.ndarray, zooms: np.ndarray) -> float:
    """Return the largest area (cm²) that a mask has on a border of its image."""
    areas = np.prod(zooms) / zooms / 100
    return max(
        float(np.take(inside, end, axis=axis).sum() * areas[axis])
        for axis in range(3)
        for end in (0, -1)
    )
