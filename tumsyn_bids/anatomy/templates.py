"""The average brain that masks are carried over from; it comes with a dependency, off-line.

nilearn's wheel holds the MNI152 nonlinear symmetric 2009a average (Fonov et al., NeuroImage
2011): its T1w brain and its probability maps of grey and white matter, 1 mm. What a head would
look like in each contrast is painted from them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..errors import SessionError
from ..grids import Grid, resample

#: Name of the space, as nilearn and TemplateFlow's documentation spell it.
TEMPLATE_SPACE = 'MNI152NLin2009aSym'
_FILES = {
    't1w': (
        'mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz',
        '421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6',
    ),
    'gm': (
        'mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz',
        '97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed',
    ),
    'wm': (
        'mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz',
        '382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db',
    ),
}
#: Brightness of grey matter, white matter, CSF, bone and scalp in each contrast. Mutual
#: information asks only that what differs in the scan differs here: above all CSF, which is as
#: dark as bone in T1w and FLAIR, and far brighter in the others.
_PAINT: dict[str, tuple[float, float, float, float, float]] = {
    'T1w': (0.65, 0.9, 0.25, 0.15, 1.0),
    'T1CE': (0.65, 0.9, 0.25, 0.15, 1.0),
    'T2w': (0.55, 0.4, 1.0, 0.1, 0.75),
    'PDw': (0.9, 0.75, 1.0, 0.1, 0.9),
    'T2starw': (0.7, 0.6, 1.0, 0.05, 0.8),
    'SWI': (0.75, 0.7, 0.95, 0.05, 0.7),
    'FLAIR': (1.0, 0.8, 0.25, 0.1, 0.6),
}
#: Thickness in mm of the shells painted around the brain: skull, scalp. They only have to say that
#: something dark follows the brain, then something bright, then air.
_SKULL_MM, _SCALP_MM = 7.0, 6.0
#: Height (mm, template space) below which the head is no shell: neck and face.
_SHELL_FLOOR_MM = -10.0


@dataclass(frozen=True)
class Template:
    """An average brain on one isotropic grid, stored RAS+.

    Attributes
    ----------
    grid : Grid
    mask : ndarray of float32
        Share of each voxel that is brain or its subarachnoid CSF.
    gm, wm, csf : ndarray of float32
        Shares of the tissues; they add up to ``mask``.
    """

    grid: Grid
    mask: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray

    def painted(self, contrast: str | None) -> np.ndarray:
        """Return what the average head would look like in a contrast; T1w if it is unknown.

        Tissues are mixed by their probabilities; skull and scalp are shells of constant thickness
        around the brain. See :meth:`trusted` for where that resembles a head.

        Returns
        -------
        ndarray of float32
            On :attr:`grid`.
        """
        paint = _PAINT.get(contrast or 'T1w', _PAINT['T1w'])
        data = paint[0] * self.gm + paint[1] * self.wm + paint[2] * self.csf
        outside = self._outside()
        data[(outside > 0) & (outside <= _SKULL_MM)] = paint[3]
        data[(outside > _SKULL_MM) & (outside <= _SKULL_MM + _SCALP_MM)] = paint[4]
        return data.astype(np.float32)

    def trusted(self, margin_mm: float) -> np.ndarray:
        """Return where a painted head resembles one: the brain and, above its base, a margin.

        Returns
        -------
        ndarray of bool
            On :attr:`grid`.
        """
        outside = self._outside()
        height = np.arange(self.grid.shape[2]) * self.grid.zooms[2] + self.grid.affine[2, 3]
        return (outside <= 2) | ((outside <= margin_mm) & (height > _SHELL_FLOOR_MM))

    def cropped(self, start, stop) -> Template:
        """Return the part from voxel ``start`` up to, not including, voxel ``stop``."""
        part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        mask = self.mask[part]
        grid = self.grid.cropped(start, mask.shape)
        return Template(grid, mask, self.gm[part], self.wm[part], self.csf[part])

    def _outside(self) -> np.ndarray:
        """Return the distance (mm) from the brain, 0 inside."""
        return ndimage.distance_transform_edt(self.mask < 0.5, sampling=self.grid.zooms)


@lru_cache(maxsize=2)
def brain_template(zoom: float = 3.0) -> Template:
    """Load the embedded template.

    Parameters
    ----------
    zoom : float
        Voxel size in mm; the files have 1 mm.

    Raises
    ------
    SessionError
        If a file is missing or is not the one that this version was tested with.
    """
    t1w, gm, wm = (_load(key) for key in ('t1w', 'gm', 'wm'))
    grid = Grid.of(t1w).with_zooms((zoom,) * 3)
    brain = (np.asarray(t1w.dataobj) > 0).astype(np.float32)
    mask = resample(nb.Nifti1Image(brain, t1w.affine), grid)
    grey, white = (
        resample(nb.Nifti1Image(np.asarray(img.dataobj) * brain / 255, img.affine), grid)
        for img in (gm, wm)
    )
    # The maps are rounded to 8 bits, so grey and white may add up to a little more than all.
    share = mask / np.maximum(grey + white, np.maximum(mask, 1e-6))
    return Template(grid, mask, grey * share, white * share, mask - (grey + white) * share)


def _load(key: str) -> nb.Nifti1Image:
    name, sha256 = _FILES[key]
    file = resources.files('nilearn.datasets').joinpath('data', name)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SessionError(
            'the brain template is missing from nilearn',
            path=str(file),
            remedy='Install the versions in constraints.txt',
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SessionError(
            'the brain template is not the one that this version was tested with',
            path=str(file),
            remedy='Install the versions in constraints.txt',
        )
    with resources.as_file(file) as path:
        img = nb.load(path)
        return nb.Nifti1Image(np.asarray(img.dataobj), img.affine)
