"""A subject's folder as FreeSurfer has it: images in conformed space, tables of measures.

FreeSurfer is not run and not needed. The files follow the formats of FreeSurfer 7 so that its
programs, FreeView and readers in Python take them in; every table says in its header where its
numbers come from. What was not measured is ``NaN``, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import nibabel as nb
import numpy as np

from ..files import staged, write_text
from ..grids import Grid, resample
from .stats import aparc_stats, aseg_stats
from .surface_files import write_freesurfer
from .surfaces import Surface

#: FreeSurfer's conformed space: voxels of 1 mm, 256 along each axis, stored LIA.
CONFORMED_SHAPE = (256, 256, 256)
_LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
#: FreeSurfer's names of second images, in ``mri/orig``.
RAW = {'T2w': 'T2raw.mgz', 'FLAIR': 'FLAIRraw.mgz'}
#: Cortex as a whole, as ``aseg.mgz`` has it.
_CORTEX = {1: 3, 2: 42}
#: From MNI305, in which FreeSurfer's ``talairach.xfm`` ends, to MNI152: the matrix that
#: FreeSurfer's documentation gives (CoordinateSystems, case 8).
MNI305_TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
#: Percentile of the brain's intensities that becomes FreeSurfer's 110.
_WHITE_PERCENTILE, _WHITE_VALUE = 90, 110


def conformed_grid(centre: np.ndarray) -> Grid:
    """Return the conformed grid whose voxel (128, 128, 128) lies at a point.

    Parameters
    ----------
    centre : ndarray, shape (3,)
        RAS+ world coordinates, mm.
    """
    affine = np.eye(4)
    affine[:3, :3] = _LIA
    affine[:3, 3] = np.asarray(centre) - _LIA @ np.full(3, 128.0)
    return Grid(CONFORMED_SHAPE, affine)


def write_subject(
    subjects_dir: str | Path,
    subject: str,
    *,
    t1w: nb.spatialimages.SpatialImage,
    brain: nb.spatialimages.SpatialImage,
    labels: nb.spatialimages.SpatialImage,
    record: Mapping,
    origin: str = 'acquired',
    surfaces: Mapping[str, Surface] | None = None,
    others: Mapping[str, nb.spatialimages.SpatialImage] | None = None,
) -> Path:
    """Write a subject's folder of a FreeSurfer subjects directory.

    Parameters
    ----------
    subjects_dir : path-like
        ``SUBJECTS_DIR``; made where it is absent.
    subject : str
        Name of the folder, e.g. ``sub-01_ses-1``.
    t1w : SpatialImage
        What was measured, with or without skull.
    brain, labels : SpatialImage
        Its brain, and FreeSurfer's numbers, on one grid.
    record : mapping
        As :func:`tumsyn_bids.morphometry.tables.to_record` gives it.
    origin : {'acquired', 'synthetic'}
        Of the T1w; stands in the header of each table.
    surfaces : mapping of {'lh', 'rh'} to Surface, optional
    others : mapping of {'T2w', 'FLAIR'} to SpatialImage, optional
        Acquired scans in the same world space, for ``T2raw.mgz`` and ``FLAIRraw.mgz``.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(subjects_dir) / subject
    for part in ('mri/orig', 'mri/transforms', 'stats', 'surf', 'label', 'scripts', 'touch'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    mri = folder / 'mri'
    grid = conformed_grid(_centre(labels))
    scale = _scale(brain)
    _save(np.asarray(t1w.dataobj, np.float32), t1w.affine, mri / 'orig' / '001.mgz')
    for img, names in ((t1w, ('orig', 'T1')), (brain, ('brainmask',))):
        data = np.clip(np.rint(_onto(img, grid) * scale), 0, 255).astype(np.uint8)
        for name in names:
            _save(data, grid.affine, mri / f'{name}.mgz')
    for contrast, img in (others or {}).items():
        _save(np.asarray(img.dataobj, np.float32), img.affine, mri / 'orig' / RAW[contrast])
    numbers = np.rint(_onto(labels, grid, order=0)).astype(np.int32)
    _save(numbers, grid.affine, mri / 'aparc+aseg.mgz')
    whole = numbers.copy()
    for thousand, number in _CORTEX.items():
        whole[numbers // 1000 == thousand] = number
    _save(whole, grid.affine, mri / 'aseg.mgz')
    write_text(mri / 'transforms' / 'talairach.xfm', xfm_text(record['affine']))
    write_text(folder / 'stats' / 'aseg.stats', aseg_stats(record, subject, origin))
    for side in ('lh', 'rh'):
        text = aparc_stats(record, subject, side, origin)
        write_text(folder / 'stats' / f'{side}.aparc.stats', text)
    for side, surface in (surfaces or {}).items():
        write_freesurfer(folder, side, surface, _centre(labels))
    return folder


def xfm_text(atlas_to_brain) -> str:
    """Word the way from a brain to MNI305 as an MNI ``.xfm`` file.

    The brain was registered to MNI152; from there, :data:`MNI305_TO_MNI152` leads on.

    Parameters
    ----------
    atlas_to_brain : array-like, shape (4, 4)
        MNI152 to the brain, RAS+ world coordinates.
    """
    to_mni152 = np.linalg.inv(np.asarray(atlas_to_brain, dtype=float))
    matrix = (np.linalg.inv(MNI305_TO_MNI152) @ to_mni152)[:3]
    lines = [' '.join(f'{value:.8f}' for value in row) for row in matrix]
    return (
        'MNI Transform File\n% affine to MNI305 by tumsyn-bids, by way of MNI152NLin2009cAsym\n\n'
        'Transform_Type = Linear;\nLinear_Transform =\n' + '\n'.join(lines) + ';\n'
    )


def _centre(img: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Return the middle voxel of an image: its grid and the conformed one then share voxels."""
    return nb.affines.apply_affine(img.affine, np.array(img.shape[:3]) // 2)


def _onto(img: nb.spatialimages.SpatialImage, grid: Grid, order: int = 1) -> np.ndarray:
    """Resample an image onto the conformed grid, but only where it lies; 0 elsewhere."""
    corners = np.array(np.meshgrid(*[(-1, size) for size in img.shape[:3]])).reshape(3, -1).T
    places = nb.affines.apply_affine(np.linalg.inv(grid.affine) @ img.affine, corners)
    start = np.clip(np.floor(places.min(axis=0)), 0, 255).astype(int)
    stop = np.clip(np.ceil(places.max(axis=0)) + 1, start + 1, 256).astype(int)
    data = np.zeros(grid.shape, np.float32)
    part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    data[part] = resample(img, grid.cropped(start, stop - start), order=order)
    return data


def _scale(brain: nb.spatialimages.SpatialImage) -> float:
    values = np.asarray(brain.dataobj, dtype=np.float32)
    values = values[values > 0]
    white = float(np.percentile(values, _WHITE_PERCENTILE)) if values.size else math.nan
    return _WHITE_VALUE / white if white > 0 else 1.0


def _save(data: np.ndarray, affine: np.ndarray, path: Path) -> None:
    with staged(path) as temporary:
        nb.MGHImage(data, affine).to_filename(temporary)
