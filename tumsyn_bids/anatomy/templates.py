"""The average brain that masks are carried over from; it comes with a dependency, off-line.

nilearn's wheel holds the MNI152 nonlinear symmetric 2009a average (Fonov et al., NeuroImage 2011):
its T1w brain and its probability maps of grey and white matter, 1 mm. What a contrast other than
T1w would look like is painted from the maps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import nibabel as nb
import numpy as np

from ..errors import SessionError

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
#: Brightness of grey matter, white matter and CSF, relative to the brightest, in each contrast.
#: Mutual information asks only that what differs in the scan differs here: above all CSF, which is
#: as dark as bone in T1w and FLAIR, and far brighter in the others.
_PAINT: dict[str, tuple[float, float, float]] = {
    'T1w': (0.65, 1.0, 0.2),
    'T1CE': (0.65, 1.0, 0.2),
    'T2w': (0.55, 0.4, 1.0),
    'PDw': (0.9, 0.75, 1.0),
    'T2starw': (0.7, 0.6, 1.0),
    'SWI': (0.75, 0.7, 0.95),
    'FLAIR': (1.0, 0.8, 0.25),
}


@dataclass(frozen=True)
class Template:
    """An average brain; all images share one grid.

    Attributes
    ----------
    t1w : Nifti1Image
        Brain only, float32.
    mask : Nifti1Image
        Brain with its subarachnoid CSF, uint8.
    gm, wm, csf : Nifti1Image
        Probabilities, float32; they add up to 1 inside the mask.
    """

    t1w: nb.Nifti1Image
    mask: nb.Nifti1Image
    gm: nb.Nifti1Image
    wm: nb.Nifti1Image
    csf: nb.Nifti1Image

    def painted(self, contrast: str | None) -> nb.Nifti1Image:
        """Return what the average brain would look like in a contrast; T1w if it is unknown."""
        brightness = _PAINT.get(contrast or 'T1w', _PAINT['T1w'])
        maps = (self.gm, self.wm, self.csf)
        data = sum(b * np.asarray(m.dataobj) for b, m in zip(brightness, maps, strict=True))
        return nb.Nifti1Image(data.astype(np.float32), self.t1w.affine)


@lru_cache(maxsize=1)
def brain_template() -> Template:
    """Load the embedded template.

    Raises
    ------
    SessionError
        If a file is missing or is not the one that this version was tested with.
    """
    t1w, gm, wm = (_load(key) for key in ('t1w', 'gm', 'wm'))
    affine = t1w.affine
    mask = np.asarray(t1w.dataobj) > 0
    grey, white = (np.asarray(img.dataobj, dtype=np.float32) / 255 * mask for img in (gm, wm))
    csf = np.clip(1 - grey - white, 0, 1) * mask
    total = np.where(mask, grey + white + csf, 1)
    grey, white, csf = (nb.Nifti1Image(part / total, affine) for part in (grey, white, csf))
    brain = nb.Nifti1Image(np.asarray(t1w.dataobj, dtype=np.float32), affine)
    return Template(brain, nb.Nifti1Image(mask.astype(np.uint8), affine), grey, white, csf)


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
