"""What FreeSurfer measured, read from the tables that its programs write."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from ..errors import ScanError

#: Columns of ``?h.aparc.stats`` and of a record's rows.
_APARC = {
    'NumVert': 'vertices',
    'SurfArea': 'area_mm2',
    'GrayVol': 'volume_mm3',
    'ThickAvg': 'thickness_mm',
    'ThickStd': 'thickness_sd_mm',
    'MeanCurv': 'curvature',
}
_ASEG = {
    'NVoxels': 'voxels',
    'Volume_mm3': 'volume_mm3',
    'normMean': 'mean',
    'normStdDev': 'sd',
    'normMin': 'low',
    'normMax': 'high',
}
#: Measures in the header of ``?h.aparc.stats`` and keys of a record's hemispheres.
_HEMISPHERE = {
    'NumVert': 'vertices',
    'WhiteSurfArea': 'white_area_mm2',
    'MeanThickness': 'thickness_mm',
}
_COUNTS = ('voxels', 'vertices')
#: Structures whose names changed between versions of FreeSurfer.
_OLDER = {'Left-Thalamus': 'Left-Thalamus-Proper', 'Right-Thalamus': 'Right-Thalamus-Proper'}


def read_subject(folder: str | Path, record: Mapping, software: str) -> dict:
    """Return a record of measures whose numbers are FreeSurfer's.

    Parameters
    ----------
    folder : path-like
        A subject's folder: ``stats/aseg.stats`` or ``stats/synthseg.vol.csv``, and
        ``stats/?h.aparc.stats`` where there are surfaces.
    record : mapping
        Measures of our own: which structures there are, and the affine. Their numbers are dropped.
    software : str
        Which program wrote the tables.

    Returns
    -------
    dict
        As :func:`tumsyn_bids.morphometry.tables.to_record` gives it, with ``software``.

    Raises
    ------
    ScanError
        If the tables are missing or not readable.
    """
    stats = Path(folder) / 'stats'
    try:
        if (stats / 'aseg.stats').is_file():
            header, rows = _read_stats(stats / 'aseg.stats')
            found = {row['StructName']: _picked(row, _ASEG) for row in rows}
            brain = {name: header.get(name) for name in record['brain']}
        else:
            found, brain = _read_synthseg(stats / 'synthseg.vol.csv', record)
        sides = {side: _read_side(stats, side, found) for side in ('lh', 'rh')}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ScanError(
            'the tables that FreeSurfer wrote cannot be read',
            path=stats,
            remedy="Look at FreeSurfer's log, scripts/recon-all.log",
        ) from error
    found = {_OLDER.get(name, name): values for name, values in found.items()}
    return {
        'structures': [_row(row, found.get(row['name'], {})) for row in record['structures']],
        'brain': brain,
        'affine': record['affine'],
        'hemispheres': {side: values for side, values in sides.items() if values},
        'software': software,
    }


def _row(row: Mapping, values: Mapping) -> dict:
    unknown = dict.fromkeys((*_ASEG.values(), *_APARC.values()))
    known = values.get('volume_mm3') is not None
    return {
        **{key: row[key] for key in ('number', 'name', 'hemisphere')},
        **unknown,
        **values,
        'voxels': values.get('voxels') or 0,
        'flag': '' if known else 'not found',
    }


def _read_stats(path: Path) -> tuple[dict[str, float], list[dict[str, str]]]:
    """Return the measures in the header of a table and its rows."""
    header, rows, columns = {}, [], []
    for line in path.read_text(encoding='utf-8').splitlines():
        if line.startswith('# Measure '):
            parts = [part.strip() for part in line.removeprefix('# Measure ').split(',')]
            name = parts[1] if parts[0] == 'Cortex' and len(parts) == 5 else parts[0]
            # CortexVol is told as "Cortex, CortexVol", the header of a hemisphere as "Cortex, X".
            header['Cortex' if name == 'CortexVol' else name] = float(parts[-2])
        elif line.startswith('# ColHeaders'):
            columns = line.split()[2:]
        elif line.strip() and not line.startswith('#'):
            rows.append(dict(zip(columns, line.split(), strict=True)))
    return header, rows


def _read_side(stats: Path, side: str, found: dict) -> dict:
    """Put the parcels of a hemisphere into what was found; return the hemisphere's measures."""
    path = stats / f'{side}.aparc.stats'
    if not path.is_file():
        return {}
    header, rows = _read_stats(path)
    for row in rows:
        name = f'ctx-{side}-{row["StructName"]}'
        found[name] = {**found.get(name, {}), **_picked(row, _APARC)}
    values = {key: header.get(name) for name, key in _HEMISPHERE.items()}
    return {**values, 'vertices': int(values['vertices'] or 0), 'pial_area_mm2': None}


def _picked(row: Mapping[str, str], columns: Mapping[str, str]) -> dict:
    values = {}
    for column, key in columns.items():
        value = float(row[column])
        known = math.isfinite(value)
        values[key] = (int(value) if key in _COUNTS else value) if known else None
    return values


def _read_synthseg(path: Path, record: Mapping) -> tuple[dict, dict]:
    """Read volumes by SynthSeg: one row, columns named in small letters."""
    with path.open(encoding='utf-8', newline='') as file:
        row = next(csv.DictReader(file))
    names = {_plain(item['name']): item['name'] for item in record['structures']}
    names |= {_plain(new): old for new, old in _OLDER.items()}
    found = {
        names[_plain(column)]: {'volume_mm3': float(value)}
        for column, value in row.items()
        if column and _plain(column) in names
    }
    total = row.get('total intracranial')
    brain = dict.fromkeys(record['brain'])
    brain['EstimatedTotalIntraCranialVol'] = float(total) if total else None
    return found, brain


def _plain(name: str) -> str:
    return name.lower().replace('-', ' ').strip()
