"""How thick the cortex is: DiReCT (Das et al., 2009) on the labels and tissues of a brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..anatomy.antsreg import limit_threads
from ..anatomy.conversion import array_to_ants
from ..errors import ScanError
from ..grids import Grid
from .labels import CEREBRAL_WHITE, CORPUS_CALLOSUM, CORTEX_BASE, ENCLOSED
from .refinement import Tissues

#: Step of DiReCT's gradient descent, and spread (mm) of the smoothing of its gradient. With ANTs'
#: 0.025 and 1.5 it comes to rest early and finds 2.2 mm in a shell of 3 mm.
STEP, SMOOTHING = 0.1, 1.5
#: Spread (mm) over which the volume of grey matter is compared with that of voxels called cortex.
SHARING_MM = 1.5
#: Most iterations. Slabs and shells of known thickness come out alike with twice as many.
ITERATIONS = 8
#: Thickness (mm) beyond which no cortex is.
THICKEST_MM = 8.0
#: Share of the cortex that must have got a thickness, or DiReCT counts as failed.
_LEAST_SHARE = 0.5
_MARGIN = 4
_NEIGHBOURS = np.ones((3, 3, 3))


@dataclass(frozen=True)
class Ribbon:
    """The cortex of a brain between its two borders, arrays of one shape.

    Attributes
    ----------
    inner : ndarray of float32
        Share of each voxel that lies within the cortex: white matter and what it encloses.
    grey : ndarray of float32
        Share of each voxel that is cortex.
    cortex : ndarray of bool
        Voxels labelled as cortex.
    """

    inner: np.ndarray
    grey: np.ndarray
    cortex: np.ndarray


def ribbon(labels: np.ndarray, tissues: Tissues, sides=('lh', 'rh')) -> Ribbon:
    """Return the cortex of one hemisphere or both.

    Deep grey matter, ventricles and half of the corpus callosum count as enclosed, so that no
    border but that of the cortex is left. Borders lie where the labels have them; inside of a
    border voxel, the tissue's probability tells how much of it belongs to which side.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers.
    tissues : Tissues
    sides : sequence of {'lh', 'rh'}
    """
    cortex = np.zeros(labels.shape, bool)
    enclosed, white = cortex.copy(), cortex.copy()
    for side in sides:
        cortex |= (labels > CORTEX_BASE[side]) & (labels < CORTEX_BASE[side] + 1000)
        enclosed |= np.isin(labels, ENCLOSED[side])
        white |= labels == CEREBRAL_WHITE[side]
    enclosed |= _callosum(labels, sides)
    near = ndimage.binary_dilation(cortex, _NEIGHBOURS)
    rim = white & near
    inner = enclosed.astype(np.float32)
    inner[rim] = np.clip(tissues.wm[rim], 0.5, 1)
    inner[cortex] = np.clip(tissues.wm[cortex], 0, 0.499)
    grey = np.zeros(labels.shape, np.float32)
    outer = near & (labels == 0)
    for part in (cortex, rim, outer):
        grey[part] = tissues.gm[part]
    grey[outer] = np.clip(grey[outer], 0, 0.499)
    return Ribbon(inner, np.minimum(grey, 1 - inner), cortex)


def thickness_map(found: Ribbon, grid: Grid, *, threads: int | None = None) -> np.ndarray:
    """Measure the thickness of the cortex with DiReCT.

    DiReCT is given whole voxels: from shares of voxels it finds up to a third too little where a
    border runs through voxels that are not called cortex. Its result is then scaled by the volume
    of grey matter around over that of the voxels that are called cortex, since thickness is
    volume over area.

    Parameters
    ----------
    found : Ribbon
    grid : Grid
        Of its arrays.
    threads : int
        Of ITK.

    Returns
    -------
    ndarray of float32
        mm; 0 where there is no cortex.

    Raises
    ------
    ScanError
        Where there is no cortex, or DiReCT fails or leaves half of it without a thickness.
    """
    import ants

    limit_threads(threads)
    if not found.cortex.any() or not (found.inner >= 0.5).any():
        raise ScanError('there is no cortex', remedy='Look at the labels')
    part = _crop(found.cortex | (found.inner >= 0.5))
    small = grid.cropped([piece.start for piece in part], found.cortex[part].shape)
    labels = np.where(found.cortex[part], 2, np.where(found.inner[part] >= 0.5, 3, 0))
    try:
        measured = ants.kelly_kapowski(
            s=array_to_ants(labels, small),
            g=array_to_ants((labels == 2).astype(np.float32), small),
            w=array_to_ants((labels == 3).astype(np.float32), small),
            its=ITERATIONS,
            r=STEP,
            m=SMOOTHING,
        ).numpy()
    except (RuntimeError, ValueError) as error:
        raise ScanError('DiReCT found no thickness', remedy='Look at the labels') from error
    thickness = np.zeros(grid.shape, np.float32)
    measured = np.where(np.isfinite(measured), measured, 0) * _filled(found, part, grid)
    thickness[part] = np.clip(measured, 0, THICKEST_MM)
    thickness[~found.cortex] = 0
    if (thickness[found.cortex] > 0).mean() < _LEAST_SHARE:
        raise ScanError(
            'DiReCT left more than half of the cortex without a thickness',
            remedy='Look at the labels',
        )
    return thickness


def _filled(found: Ribbon, part: tuple[slice, ...], grid: Grid) -> np.ndarray:
    """Return the volume of grey matter around, in volumes of the voxels called cortex."""
    sigma = SHARING_MM / grid.zooms
    grey, voxels = (
        ndimage.gaussian_filter(item[part].astype(np.float32), sigma)
        for item in (found.grey, found.cortex)
    )
    return np.divide(grey, voxels, out=np.ones_like(grey), where=voxels > 1e-3)


def _callosum(labels: np.ndarray, sides) -> np.ndarray:
    """Return the voxels of the corpus callosum that lie nearer to these hemispheres."""
    callosum = np.isin(labels, CORPUS_CALLOSUM)
    if not callosum.any():
        return callosum
    distances = {}
    for side in CEREBRAL_WHITE:
        own = labels == CEREBRAL_WHITE[side]
        distances[side] = (
            ndimage.distance_transform_edt(~own) if own.any() else np.full(labels.shape, np.inf)
        )
    nearer = distances['lh'] <= distances['rh']
    return callosum & ((nearer & ('lh' in sides)) | (~nearer & ('rh' in sides)))


def _crop(inside: np.ndarray) -> tuple[slice, ...]:
    places = np.argwhere(inside)
    start = np.maximum(places.min(axis=0) - _MARGIN, 0)
    stop = np.minimum(places.max(axis=0) + _MARGIN + 1, inside.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
