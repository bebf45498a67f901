"""Write the outputs of a session: image and sidecar together, complete or absent.

Sidecars follow the rules of the BIDS specification for derivatives. What was *requested* of a
synthetic image is no acquisition that took place, so it never stands at the top level of a
sidecar under ``RepetitionTime`` and the like, but under ``RequestedParameters``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from ..acquisition import BIDS_KEYS, Acquisition
from ..files import staged, write_text
from ..plan import Scan, SessionPlan, SynthesisTask
from ..verdicts import FAIL, PASS, WARN
from .naming import DEFAULT_VOXEL_SIZE, sidecar_path
from .tables import to_tsv

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

#: NIfTI codes: coordinates of the scanner, and coordinates of another image of the session.
SCANNER, ALIGNED = 1, 2

_REQUEST_KEYS = {
    'contrast': 'Contrast',
    'age': 'Age',
    'sex': 'Sex',
    'voxel_size': 'AcquisitionVoxelSize',
    **BIDS_KEYS,
}


@dataclass(frozen=True)
class ModelRecord:
    """Which model made an image.

    Attributes
    ----------
    name, version, sha256 : str
        As the loaded model reports them.
    """

    name: str
    version: str
    sha256: str


def raw_uri(path: str | Path, bids_dir: str | Path) -> str:
    """Return the BIDS URI of a file of the input dataset (``file://`` for one outside of it)."""
    path = Path(path)
    try:
        inside = path.relative_to(bids_dir)
    except ValueError:
        return path.absolute().as_uri()
    return f'bids:raw:{quote(inside.as_posix())}'


def own_uri(path: Path) -> str:
    """Return the BIDS URI of one of our outputs, given relative to the output directory."""
    return f'bids::{quote(path.as_posix())}'


def requested_parameters(acquisition: Acquisition) -> dict:
    """Return the known fields of a target under BIDS keys, in BIDS units."""
    values = acquisition.to_dict()
    values['voxel_size'] = values['voxel_size'] or list(DEFAULT_VOXEL_SIZE)
    return {_REQUEST_KEYS[name]: value for name, value in values.items() if value is not None}


def requested_origins(task: SynthesisTask) -> dict:
    """Return, under the same keys, where each requested value came from."""
    origins = task.requested.provenance
    return {_REQUEST_KEYS[name]: text for name, text in origins.items() if name in _REQUEST_KEYS}


def synthetic_sidecar(
    plan: SessionPlan,
    task: SynthesisTask,
    *,
    bids_dir: str | Path,
    model: ModelRecord,
    mask: Path,
    skull_stripped: bool = True,
    confidence: Mapping | None = None,
    donors: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> dict:
    """Describe a synthetic image.

    Parameters
    ----------
    plan : SessionPlan
    task : SynthesisTask
    bids_dir : path-like
        The input dataset.
    model : ModelRecord
    mask : Path
        The brain mask that was used, relative to the output directory.
    skull_stripped : bool
        False where that mask holds the whole head.
    confidence : mapping, optional
        Figures of :class:`tumsyn_bids.synthesis.confidence.Confidence` and ``verdict``.
    donors : sequence of str
        Scans whose brightness the image has.
    warnings : sequence of str
        Reasons not to trust the image blindly.
    """
    contrast, source = task.target.contrast, plan.scan(task.source).contrast
    sidecar = {
        'Description': f'SYNTHETIC {contrast} computed from the acquired {source}; '
        'no scanner measured this image',
        'Synthetic': True,
        'Sources': [raw_uri(task.source, bids_dir), own_uri(mask)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
        'SkullStripped': skull_stripped,
        'Resolution': _resolution_text(task.target.acquisition),
        'SynthesisModel': {
            'Name': model.name,
            'Version': model.version,
            'SHA256': model.sha256,
            'Prompt': task.prompt,
        },
        'RequestedParameters': requested_parameters(task.requested.acquisition),
        'RequestedParametersOrigin': requested_origins(task),
        'Purpose': task.purpose,
        'SourceReason': task.reason,
    }
    if task.target.name:
        sidecar['TargetName'] = task.target.name
    if donors:
        sidecar['BrightnessSources'] = [raw_uri(path, bids_dir) for path in donors]
    if confidence:
        sidecar['Confidence'] = confidence_fields(confidence)
    if warnings:
        sidecar['Warnings'] = list(warnings)
    return sidecar


def confidence_fields(figures: Mapping) -> dict:
    """Return figures of confidence and the verdict as a sidecar has them."""
    return {
        ''.join(word.capitalize() for word in name.split('_')): _rounded(value)
        for name, value in figures.items()
    }


def preproc_sidecar(
    plan: SessionPlan, scan: Scan, *, bids_dir: str | Path, transform: Path | None = None
) -> dict:
    """Describe a bias-corrected scan on the reference's grid; its acquisition goes with it.

    Parameters
    ----------
    plan : SessionPlan
    scan : Scan
    bids_dir : path-like
        The input dataset.
    transform : Path, optional
        What resampled it, relative to the output directory.
    """
    sidecar = {
        'Description': f'Acquired {scan.contrast}, corrected for intensity non-uniformity',
        'Sources': [raw_uri(scan.path, bids_dir)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
        'SkullStripped': False,
    }
    if scan.path != plan.reference:
        sidecar['Description'] += ', aligned with the reference and resampled onto it'
    if transform is not None:
        sidecar['Sources'].append(own_uri(transform))
    acquired = {key: getattr(scan.acquisition, name) for name, key in BIDS_KEYS.items()}
    return sidecar | {key: value for key, value in acquired.items() if value is not None}


def mask_sidecar(
    plan: SessionPlan,
    *,
    bids_dir: str | Path,
    method: str,
    volume_ml: float | None = None,
    warnings: Sequence[str] = (),
) -> dict:
    """Describe the brain mask of the reference."""
    sidecar = {
        'Type': 'Brain',
        'Description': 'Brain of the reference scan of the session',
        'Sources': [raw_uri(plan.reference, bids_dir)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
        'Method': method,
    }
    if volume_ml is not None:
        sidecar['VolumeMl'] = round(float(volume_ml), 1)
    if warnings:
        sidecar['Warnings'] = list(warnings)
    return sidecar


def transform_sidecar(
    plan: SessionPlan,
    scan: Scan,
    *,
    bids_dir: str | Path,
    kind: str = 'rigid',
    inverse: bool = False,
    cost_before: float | None = None,
    cost_after: float | None = None,
) -> dict:
    """Describe a transform between a scan and the reference.

    Parameters
    ----------
    plan : SessionPlan
    scan : Scan
    bids_dir : path-like
    kind : {'rigid', 'affine', 'syn'}
    inverse : bool
        It resamples the reference onto the scan, not the scan onto the reference.
    cost_before, cost_after : float, optional
        Negative mutual information in nats.
    """
    ends = (f'the {scan.contrast}', 'the reference')
    start, end = ends[::-1] if inverse else ends
    words = {'rigid': 'Rigid', 'affine': 'Affine', 'syn': 'Affine and deformable'}
    sidecar = {
        'Description': f'{words[kind]} ITK transform that resamples {start} onto {end}: it maps '
        f'points of {end} to points of {start} (LPS, mm)',
        'Sources': [raw_uri(scan.path, bids_dir), raw_uri(plan.reference, bids_dir)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
    }
    costs = {'CostBefore': cost_before, 'CostAfter': cost_after}
    return sidecar | {key: float(value) for key, value in costs.items() if value is not None}


def save_image(
    img: SpatialImage,
    path: str | Path,
    sidecar: Mapping,
    *,
    dtype: type | str = np.float32,
    code: int = ALIGNED,
    descrip: str = '',
) -> Path:
    """Write an image and its sidecar so that either both are complete or the image is absent.

    Parameters
    ----------
    img : SpatialImage
        Its values are rounded and clipped where ``dtype`` is an integer type, never rescaled.
    path : path-like
        Where the image goes, ``.nii.gz``; the sidecar goes beside it.
    sidecar : mapping
    dtype : numpy dtype
        On disk.
    code : int
        NIfTI code of sform and qform. Both forms are written and say the same; a sheared affine,
        which no qform can hold, leaves the qform unset.
    descrip : str
        NIfTI ``descrip``, cut to 79 characters.

    Returns
    -------
    Path
    """
    path = Path(path)
    out = _with_header(img, np.dtype(dtype), code, descrip)
    with staged(path) as temporary:
        out.to_filename(temporary)
        # An image is never seen beside the sidecar of another one: out with the old image first,
        # then the new sidecar, then the new image.
        path.unlink(missing_ok=True)
        write_sidecar(path, sidecar)
    return path


def save_synthetic(img: SpatialImage, path: str | Path, sidecar: Mapping) -> Path:
    """Write a synthetic image as int16; its header says SYNTHETIC."""
    source = sidecar.get('Description', '')
    return save_image(
        img,
        path,
        sidecar,
        dtype=np.int16,
        descrip=source if source.startswith('SYNTHETIC') else f'SYNTHETIC {source}',
    )


def save_copy(source: str | Path, path: str | Path, sidecar: Mapping) -> Path:
    """Copy a file (a transform) to the outputs, with a sidecar, under the same promise."""
    path = Path(path)
    with staged(path) as temporary:
        shutil.copyfile(source, temporary)
        path.unlink(missing_ok=True)
        write_sidecar(path, sidecar)
    return path


def save_scores(rows: Sequence[Mapping], path: str | Path) -> Path:
    """Write the table of agreement of a session, one row for each validated image.

    Parameters
    ----------
    rows : sequence of mapping
        Column to value; the first columns are ``synthetic`` (BIDS URI), ``contrast``, ``source``
        and ``acquired`` (BIDS URI). Columns that a row lacks become ``n/a``.
    path : path-like
        The JSON file beside it explains the columns.
    """
    path = Path(path)
    names = dict.fromkeys([*_COMPARED_COLUMNS, *(name for row in rows for name in row)])
    write_sidecar(path, {name: _score_column(name) for name in names})
    return write_text(path, to_tsv(rows, tuple(_COMPARED_COLUMNS)))


def _score_column(name: str) -> dict:
    """Explain a column of the table of agreement."""
    if name in _COMPARED_COLUMNS:
        return _COMPARED_COLUMNS[name]
    about = _SCORES.get(name.removeprefix('lut_'), {'Description': name})
    if not name.startswith('lut_'):
        return about
    return {**about, 'Description': f'{about["Description"]}; {_OF_LOOK_UP_TABLE}'}


def save_confidence(rows: Sequence[Mapping], path: str | Path) -> Path:
    """Write the table that says how far each synthetic image of a session can be trusted.

    Parameters
    ----------
    rows : sequence of mapping
        ``synthetic`` (BIDS URI), ``contrast``, ``source``, the figures of
        :class:`tumsyn_bids.synthesis.confidence.Confidence` and ``verdict``.
    path : path-like
        The JSON file beside it explains the columns.
    """
    path = Path(path)
    write_sidecar(path, _CONFIDENCE_COLUMNS)
    rounded = [{name: _rounded(value) for name, value in row.items()} for row in rows]
    return write_text(path, to_tsv(rounded, tuple(_CONFIDENCE_COLUMNS)))


_IMAGE_COLUMNS = {
    'synthetic': {'Description': 'BIDS URI of the synthetic image'},
    'contrast': {'Description': 'What it shows'},
    'source': {'Description': 'Contrast of the acquired scan that it was made from'},
}

_COMPARED_COLUMNS = {
    **_IMAGE_COLUMNS,
    'acquired': {'Description': 'BIDS URI of the acquired scan that it was compared with'},
}
_SCALED = 'both images being scaled to 0 to 1 in the brain'
_SCORES = {
    'psnr_whole': {
        'Description': f'Peak signal-to-noise ratio over the whole volume, 0 outside the brain, '
        f'{_SCALED}',
        'Units': 'dB',
    },
    'psnr_brain': {
        'Description': f'Peak signal-to-noise ratio in the brain, {_SCALED}',
        'Units': 'dB',
    },
    'ssim_whole': {
        'Description': 'Structural similarity over the whole volume, 0 outside the brain '
        '(at best 1)'
    },
    'ssim_brain': {'Description': 'Structural similarity in the brain (at best 1)'},
    'pearson': {'Description': 'Pearson correlation in the brain'},
    'mae': {'Description': f'Mean absolute difference in the brain, {_SCALED}'},
}
_OF_LOOK_UP_TABLE = (
    'not of the synthetic image but of the source under the look-up table of grey values that '
    'brings it closest to the acquired scan: what a model has to beat'
)

_CONFIDENCE_COLUMNS = {
    **_IMAGE_COLUMNS,
    'reconstruction': {
        'Description': 'Pearson correlation, in the middle of the brain, of the source and of '
        "what the model gives for the source's own acquisition"
    },
    'cycle': {
        'Description': 'The same for the source and what the model makes of the synthetic image'
    },
    'prompt_deviation': {
        'Description': 'Root mean square difference of the brightness of white matter, cortex '
        'and fluid from that of the sequence equations, the brightest of the three being 1'
    },
    'verdict': {
        'Description': 'That of the worst figure',
        'Levels': {
            PASS: 'nothing odd was found',
            WARN: 'look at the image',
            FAIL: 'do not use the image before you know why',
        },
    },
}


def _rounded(value):
    return round(value, 4) if isinstance(value, float) else value


def write_sidecar(path: Path, sidecar: Mapping) -> Path:
    """Write the JSON file of a data file."""
    text = json.dumps(dict(sidecar), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(sidecar_path(path), text + '\n')


def _resolution_text(acquisition: Acquisition) -> str:
    size = acquisition.voxel_size or DEFAULT_VOXEL_SIZE
    voxel = ' x '.join(f'{value:g}' for value in size)
    return f'{voxel} mm voxels on the field of view of the reference'


def _with_header(img: SpatialImage, dtype: np.dtype, code: int, descrip: str):
    import nibabel as nb

    data = np.asarray(img.dataobj)
    if dtype.kind in 'iu':
        limits = np.iinfo(dtype)
        data = np.clip(np.rint(np.nan_to_num(data)), limits.min, limits.max)
    out = nb.Nifti1Image(data.astype(dtype), img.affine)
    out.header.set_data_dtype(dtype)
    out.header.set_slope_inter(1, 0)
    out.header.set_xyzt_units('mm')
    out.header['descrip'] = descrip.encode('ascii', 'replace')[:79]
    out.set_sform(img.affine, code)
    out.set_qform(img.affine, code)
    if not np.allclose(out.get_qform(), img.affine, atol=1e-3):
        out.set_qform(img.affine, 0)
    return out
