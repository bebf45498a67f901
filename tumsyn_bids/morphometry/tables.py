"""Measures as rows: for the tidy table, for the report, for the tables in FreeSurfer's format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from .labels import structures
from .volumes import Measure

_SHOWN = (
    'Lateral-Ventricle',
    'Thalamus-Proper',
    'Caudate',
    'Putamen',
    'Pallidum',
    'Hippocampus',
    'Amygdala',
    'Accumbens-area',
    'Cerebral-White-Matter',
    'Cerebellum-Cortex',
)


def to_record(measures: list[Measure], parts: Mapping[str, float], affine: np.ndarray) -> dict:
    """Return all measures of a brain as what JSON can hold.

    Returns
    -------
    dict
        ``structures`` (one dictionary each; what is unknown is ``None``), ``brain`` (volumes of
        its parts by FreeSurfer's names) and ``affine`` (atlas to brain, RAS+).
    """
    rows = []
    for item in measures:
        values = {**asdict(item), 'hemisphere': item.structure.hemisphere}
        structure = values.pop('structure')
        rows.append({**structure, **{key: _known(value) for key, value in values.items()}})
    return {
        'structures': rows,
        'brain': {name: _known(value) for name, value in parts.items()},
        'affine': np.asarray(affine).tolist(),
    }


def label_rows() -> list[dict]:
    """Return the rows of the table beside the label image."""
    return [
        {
            'index': number,
            'name': item.name,
            'hemisphere': item.hemisphere or None,
            'tissue': item.tissue,
        }
        for number, item in sorted(structures().items())
    ]


def morph_rows(record: Mapping) -> list[dict]:
    """Return the rows of the tidy table: structures, then parts of the brain."""
    rows = [
        {
            'index': row['number'],
            'name': row['name'],
            'hemisphere': row['hemisphere'] or None,
            'volume-mm3': _rounded(row['volume_mm3']),
            'voxels': row['voxels'] or None,
            **_cortical(row),
            'flag': row['flag'] or None,
        }
        for row in record['structures']
    ]
    parts = [
        {
            'index': None,
            'name': name,
            'hemisphere': name[:2] if name[:2] in ('lh', 'rh') else None,
            'volume-mm3': _rounded(value),
        }
        for name, value in record['brain'].items()
        if '-to-' not in name
    ]
    software = record.get('software', 'tumsyn-bids')
    found = [*rows, *parts, *_hemisphere_rows(record)]
    return [{**row, 'software': software} for row in found]


def report_rows(record: Mapping) -> list[dict]:
    """Return a short table for people: volumes in ml, left and right."""
    volumes = {row['name']: row['volume_mm3'] for row in record['structures']}
    rows = [
        {
            'structure': name.replace('-', ' '),
            'left': _millilitres(volumes.get(f'Left-{name}')),
            'right': _millilitres(volumes.get(f'Right-{name}')),
        }
        for name in _SHOWN
    ]
    brain = record['brain']
    cortex = {side: _millilitres(brain[f'{side}Cortex']) for side in ('lh', 'rh')}
    rows.append({'structure': 'Cortex', 'left': cortex['lh'], 'right': cortex['rh']})
    total = _millilitres(brain['EstimatedTotalIntraCranialVol'])
    sides = record.get('hemispheres', {})
    if sides:
        mean = {side: sides.get(side, {}).get('thickness_mm') for side in ('lh', 'rh')}
        shown = {side: 'n/a' if mm is None else f'{mm:.2f} mm' for side, mm in mean.items()}
        name = 'Thickness of the cortex (mean)'
        rows.append({'structure': name, 'left': shown['lh'], 'right': shown['rh']})
        euler = {side: sides.get(side, {}).get('euler', 'n/a') for side in ('lh', 'rh')}
        name = 'Euler number of the white surface'
        rows.append({'structure': name, 'left': str(euler['lh']), 'right': str(euler['rh'])})
    rows.append({'structure': 'Intracranial volume (estimate)', 'left': total, 'right': ''})
    return rows


#: Keys of a record and the columns of the tidy table that they go to, with their formats.
_CORTICAL = {
    'thickness_mm': ('thickness-avg-mm', '.3f'),
    'thickness_sd_mm': ('thickness-std-mm', '.3f'),
    'area_mm2': ('area-mm2', '.1f'),
    'curvature': ('curvature-avg-permm', '.4f'),
}


def _cortical(row: Mapping) -> dict:
    return {
        column: None if row.get(key) is None else format(row[key], form)
        for key, (column, form) in _CORTICAL.items()
    }


def _hemisphere_rows(record: Mapping) -> list[dict]:
    return [
        {
            'index': None,
            'name': f'{side}{name}',
            'hemisphere': side,
            **_cortical({'area_mm2': values[key], 'thickness_mm': values.get(thickness)}),
            'euler-number': values.get('euler') if name == 'WhiteSurface' else None,
        }
        for side, values in record.get('hemispheres', {}).items()
        for name, key, thickness in (
            ('WhiteSurface', 'white_area_mm2', 'thickness_mm'),
            ('PialSurface', 'pial_area_mm2', ''),
        )
    ]


def _millilitres(volume: float | None) -> str:
    return 'n/a' if volume is None else f'{volume / 1000:.4g}'


def _rounded(volume: float | None) -> str | None:
    return None if volume is None else f'{volume:.1f}'


def _known(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
