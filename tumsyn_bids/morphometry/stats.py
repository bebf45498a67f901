"""The text of FreeSurfer's tables: ``aseg.stats`` and ``?h.aparc.stats``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .. import __version__
from .labels import CORTEX_BASE

_MM3 = 'mm^3'
#: For each measure of the brain: FreeSurfer's field, its description and unit.
_BRAIN = {
    'BrainSeg': ('BrainSegVol', 'Brain Segmentation Volume', _MM3),
    'BrainSegNotVent': (
        'BrainSegVolNotVent',
        'Brain Segmentation Volume Without Ventricles',
        _MM3,
    ),
    'VentricleChoroidVol': (
        'VentricleChoroidVol',
        'Volume of ventricles and choroid plexus',
        _MM3,
    ),
    'lhCortex': ('lhCortexVol', 'Left hemisphere cortical gray matter volume', _MM3),
    'rhCortex': ('rhCortexVol', 'Right hemisphere cortical gray matter volume', _MM3),
    'Cortex': ('CortexVol', 'Total cortical gray matter volume', _MM3),
    'lhCerebralWhiteMatter': (
        'lhCerebralWhiteMatterVol',
        'Left hemisphere cerebral white matter volume',
        _MM3,
    ),
    'rhCerebralWhiteMatter': (
        'rhCerebralWhiteMatterVol',
        'Right hemisphere cerebral white matter volume',
        _MM3,
    ),
    'CerebralWhiteMatter': (
        'CerebralWhiteMatterVol',
        'Total cerebral white matter volume',
        _MM3,
    ),
    'SubCortGray': ('SubCortGrayVol', 'Subcortical gray matter volume', _MM3),
    'TotalGray': ('TotalGrayVol', 'Total gray matter volume', _MM3),
    'SupraTentorial': ('SupraTentorialVol', 'Supratentorial volume', _MM3),
    'SupraTentorialNotVent': ('SupraTentorialVolNotVent', 'Supratentorial volume', _MM3),
    'Mask': ('MaskVol', 'Mask Volume', _MM3),
    'BrainSegVol-to-eTIV': ('BrainSegVol-to-eTIV', 'Ratio of BrainSegVol to eTIV', 'unitless'),
    'MaskVol-to-eTIV': ('MaskVol-to-eTIV', 'Ratio of MaskVol to eTIV', 'unitless'),
    'EstimatedTotalIntraCranialVol': ('eTIV', 'Estimated Total Intracranial Volume', _MM3),
}
_ASEG_COLUMNS = (
    ('Index', 'Index', 'NA'),
    ('SegId', 'Segmentation Id', 'NA'),
    ('NVoxels', 'Number of Voxels', 'unitless'),
    ('Volume_mm3', 'Volume', _MM3),
    ('StructName', 'Structure Name', 'NA'),
    ('normMean', 'Intensity normMean', 'MR'),
    ('normStdDev', 'Intensity normStdDev', 'MR'),
    ('normMin', 'Intensity normMin', 'MR'),
    ('normMax', 'Intensity normMax', 'MR'),
    ('normRange', 'Intensity normRange', 'MR'),
)
_APARC_COLUMNS = (
    ('StructName', 'Structure Name', 'NA'),
    ('NumVert', 'Number of Vertices', 'unitless'),
    ('SurfArea', 'Surface Area', 'mm^2'),
    ('GrayVol', 'Gray Matter Volume', _MM3),
    ('ThickAvg', 'Average Thickness', 'mm'),
    ('ThickStd', 'Thickness StdDev', 'mm'),
    ('MeanCurv', 'Integrated Rectified Mean Curvature', 'mm^-1'),
    ('GausCurv', 'Integrated Rectified Gaussian Curvature', 'mm^-2'),
    ('FoldInd', 'Folding Index', 'unitless'),
    ('CurvInd', 'Intrinsic Curvature Index', 'unitless'),
)


def aseg_stats(record: Mapping, subject: str, origin: str) -> str:
    """Word the volumes of all structures but cortical parcels as FreeSurfer's ``aseg.stats``.

    Parameters
    ----------
    record : mapping
        As :func:`tumsyn_bids.morphometry.tables.to_record` gives it.
    subject : str
    origin : {'acquired', 'synthetic'}
        Of the T1w.
    """
    lines = ['# Title Segmentation Statistics', '#', *_provenance(subject, origin)]
    lines += [_measure(name, value) for name, value in record['brain'].items()]
    lines += _holes(record.get('hemispheres', {}))
    rows = [row for row in record['structures'] if row['number'] < 1000]
    lines += ['# NTableCols 10', f'# NRows {len(rows)}', *_columns(_ASEG_COLUMNS, '  ')]
    for index, row in enumerate(rows, start=1):
        low, high = _number(row['low']), _number(row['high'])
        lines.append(
            f'{index:3d} {row["number"]:3d} {row["voxels"]:8d} '
            f'{_number(row["volume_mm3"]):10.1f}  {row["name"]:<30s} '
            f'{_number(row["mean"]):9.4f} {_number(row["sd"]):9.4f} '
            f'{low:9.4f} {high:9.4f} {high - low:9.4f}'
        )
    return '\n'.join(lines) + '\n'


def aparc_stats(record: Mapping, subject: str, hemisphere: str, origin: str) -> str:
    """Word what was measured of a hemisphere's parcels as ``?h.aparc.stats``.

    Columns that were not measured hold ``NaN``. Parameters as for :func:`aseg_stats`, and
    ``hemisphere`` is ``'lh'`` or ``'rh'``.
    """
    lines = ['# Table of FreeSurfer cortical parcellation anatomical statistics', '#']
    lines += [*_provenance(subject, origin), f'# hemi {hemisphere}']
    lines.append(f'# AnnotationFile ../label/{hemisphere}.aparc.annot')
    whole = record.get('hemispheres', {}).get(hemisphere, {})
    lines += [
        f'# Measure Cortex, {name}, {text}, {_number(whole.get(key)):{form}}, {unit}'
        for key, name, text, form, unit in _HEMISPHERE
    ]
    for name in (
        f'{hemisphere}Cortex',
        'BrainSeg',
        'BrainSegNotVent',
        'Cortex',
        'EstimatedTotalIntraCranialVol',
    ):
        lines.append(_measure(name, record['brain'][name]))
    prefix = f'ctx-{hemisphere}-'
    rows = [row for row in record['structures'] if row['name'].startswith(prefix)]
    lines += ['# NTableCols 10', *_columns(_APARC_COLUMNS, ' ')]
    for row in rows:
        values = [_shown(row.get(key), form) for key, form in _APARC_VALUES]
        lines.append(f'{row["name"].removeprefix(prefix):<35s} ' + ' '.join(values))
    return '\n'.join(lines) + '\n'


#: Of the record: key, FreeSurfer's name, description, format, unit.
_HEMISPHERE = (
    ('vertices', 'NumVert', 'Number of Vertices', '.0f', 'unitless'),
    ('white_area_mm2', 'WhiteSurfArea', 'White Surface Total Area', '.2f', 'mm^2'),
    ('thickness_mm', 'MeanThickness', 'Mean Thickness', '.5f', 'mm'),
)
#: Of a parcel: key of its row and format, in the order of the columns. FreeSurfer's Gaussian
#: curvature and its indices of folding are not measured.
_APARC_VALUES = (
    ('vertices', '6.0f'),
    ('area_mm2', '6.0f'),
    ('volume_mm3', '6.0f'),
    ('thickness_mm', '6.3f'),
    ('thickness_sd_mm', '6.3f'),
    ('curvature', '9.3f'),
    ('gaussian_curvature', '9.3f'),
    ('folding_index', '6.0f'),
    ('intrinsic_curvature_index', '6.1f'),
)


def _shown(value: float | None, form: str) -> str:
    width = int(form.split('.')[0])
    return f'{"NaN":>{width}s}' if value is None else format(value, form)


def _provenance(subject: str, origin: str) -> list[str]:
    return [
        '# generating_program tumsyn-bids',
        f'# cvs_version tumsyn-bids {__version__}',
        f'# cmdline tumsyn-bids --morphometry # measured on the {origin} T1w; not by FreeSurfer',
        '# sysname Linux',
        '# hostname unknown',
        '# machine unknown',
        '# user unknown',
        '# anatomy_type volume',
        f'# subjectname {subject}',
    ]


def _measure(name: str, value: float | None) -> str:
    field, text, unit = _BRAIN[name]
    return f'# Measure {name}, {field}, {text}, {_number(value):.6f}, {unit}'


def _holes(hemispheres: Mapping) -> list[str]:
    """Word the handles of the white surfaces, which are not removed, by FreeSurfer's names."""
    found = {
        f'{side}SurfaceHoles': (f'{side} surfaces', 1 - values['euler'] // 2)
        for side, values in hemispheres.items()
    }
    if len(found) == len(CORTEX_BASE):
        found['SurfaceHoles'] = ('surfaces', sum(count for _, count in found.values()))
    return [
        f'# Measure {name}, {name}, Number of defect holes in {where}, {count}, unitless'
        for name, (where, count) in found.items()
    ]


def _columns(columns, gap: str) -> list[str]:
    lines = []
    for number, (name, field, unit) in enumerate(columns, start=1):
        lines.append(f'# TableCol {number:2d} ColHeader {name}')
        lines.append(f'# TableCol {number:2d} FieldName {field}')
        lines.append(f'# TableCol {number:2d} Units     {unit}')
    return [*lines, f'# ColHeaders{gap}' + ' '.join(name for name, _, _ in columns)]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
