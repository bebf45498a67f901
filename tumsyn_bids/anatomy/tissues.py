"""Grey matter, white matter and CSF of a brain."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np

from ..errors import ScanError
from ..grids import Grid
from .antsreg import Stage, limit_threads, register_stages
from .conversion import array_to_ants
from .intensity import cropped_brain
from .quality import Check, judge
from .standard import centres_together
from .templates import brain_template

#: Voxel size (mm) of the result.
ZOOM_MM = 1.0
#: Numbers of the tissues in a label image, as in BIDS' table of generic tissues.
NUMBERS = {'GM': 1, 'WM': 2, 'CSF': 3}
_MARGIN_MM = 6
#: Voxel size (mm) on which the average is deformed onto the brain.
_PRIOR_ZOOM_MM = 3.0
#: How much the priors count against the grey values, as in ANTs' cortical thickness pipeline.
_PRIOR_WEIGHT = 0.25
_STAGES = (
    Stage('Affine[0.1]', (60, 30), (2, 1), (1, 0), sampling=0.5),
    Stage('SyN[0.2,3,0]', (30, 15), (2, 1), (1, 0)),
)


@dataclass(frozen=True)
class Tissues:
    """Probabilities of the tissues, arrays of one shape that add up to 1 inside the brain."""

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray


@dataclass(frozen=True)
class TissueMaps:
    """The tissues of a brain, with where they lie.

    Attributes
    ----------
    tissues : Tissues
    grid : Grid
        Isotropic voxels around the brain.
    checks : tuple of Check
        Whether the shares of the tissues are plausible.
    """

    tissues: Tissues
    grid: Grid
    checks: tuple[Check, ...]

    @property
    def labels(self) -> np.ndarray:
        """The most probable tissue of each voxel by :data:`NUMBERS`; 0 outside of the brain."""
        shares = np.stack([self.tissues.gm, self.tissues.wm, self.tissues.csf])
        numbers = np.array(list(NUMBERS.values()), dtype=np.uint8)
        return np.where(shares.sum(axis=0) > 0.5, numbers[shares.argmax(axis=0)], 0)


def map_tissues(
    t1w: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    *,
    seed: int = 1,
    threads: int | None = None,
    zoom: float = ZOOM_MM,
) -> TissueMaps:
    """Segment grey matter, white matter and CSF with Atropos and priors.

    The priors are the tissue maps of the embedded average, deformed onto the brain on 3 mm voxels.

    Parameters
    ----------
    t1w : SpatialImage
        3D, bias-corrected, acquired or synthetic; any voxel size.
    mask : SpatialImage
        Brain mask in the same world space.
    seed, threads : int
        Of ITK.
    zoom : float
        Voxel size of the result in mm.

    Raises
    ------
    ScanError
        If the mask is empty, or three tissues cannot be told.
    """
    limit_threads(threads)
    brain, inside, grid = cropped_brain(t1w, mask, zoom, _MARGIN_MM)
    priors = _deformed_priors(t1w, mask, inside, grid, seed)
    tissues = segment_tissues(brain, inside, priors, grid.zooms)
    total = tissues.gm.sum() + tissues.wm.sum() + tissues.csf.sum()
    measures = {
        'grey-share': float(tissues.gm.sum() / max(total, 1e-6)),
        'white-share': float(tissues.wm.sum() / max(total, 1e-6)),
    }
    return TissueMaps(tissues, grid, judge(measures))


def segment_tissues(brain: np.ndarray, inside: np.ndarray, priors: Tissues, zooms) -> Tissues:
    """Return the tissue probabilities of a T1w brain (Atropos; Avants et al., 2011).

    Parameters
    ----------
    brain : ndarray
        Intensities.
    inside : ndarray of bool
        Brain mask.
    priors : Tissues
        How probable each tissue is at a place, before its brightness is known.
    zooms : sequence of 3 float
        Voxel size in mm.

    Raises
    ------
    ScanError
        If Atropos fails, as it does in an image without contrast.
    """
    import ants

    def image(data: np.ndarray):
        # Atropos reads priors from files and wants them to match to the last digit, which an
        # oblique grid does not survive: all lie on a plain grid of the same voxels.
        data = np.ascontiguousarray(data, dtype=np.float32)
        return ants.from_numpy(data, spacing=tuple(float(zoom) for zoom in zooms))

    try:
        found = ants.atropos(
            a=image(brain),
            x=image(inside),
            i=[image(share) for share in (priors.csf, priors.gm, priors.wm)],
            m='[0.1,1x1x1]',
            c='[5,0]',
            priorweight=_PRIOR_WEIGHT,
        )
        csf, gm, wm = (item.numpy() for item in found['probabilityimages'])
    except Exception as error:  # ANTsPy raises just that
        raise ScanError(
            'Atropos found no three tissues', remedy='Check that the image is a T1w brain'
        ) from error
    return Tissues(gm=gm, wm=wm, csf=csf)


def _deformed_priors(t1w, mask, inside: np.ndarray, grid: Grid, seed: int) -> Tissues:
    """Return the average's tissue maps on the brain; they add up to 1 inside of it."""
    import ants

    template = brain_template(_PRIOR_ZOOM_MM)
    average = template.painted('T1w') * (template.mask > 0.5)
    coarse, coarse_inside, coarse_grid = cropped_brain(t1w, mask, _PRIOR_ZOOM_MM, 12)
    target = array_to_ants(inside, grid)

    def carried_back(files: list[str], inverted: list[bool]) -> list[np.ndarray]:
        return [
            ants.apply_transforms(
                target,
                array_to_ants(share, template.grid),
                files,
                interpolator='linear',
                whichtoinvert=inverted,
            ).numpy()
            for share in (template.csf, template.gm, template.wm)
        ]

    _, shares = register_stages(
        array_to_ants(average, template.grid),
        array_to_ants(coarse, coarse_grid),
        _STAGES,
        start=centres_together(template.mask > 0.5, template.grid, coarse_inside, coarse_grid),
        seed=seed,
        inverse=carried_back,
    )
    # No tissue is impossible anywhere in the mask: what the average leaves out may be any.
    shares = np.stack(shares) + 0.02
    shares = shares / shares.sum(axis=0) * inside
    return Tissues(csf=shares[0], gm=shares[1], wm=shares[2])
