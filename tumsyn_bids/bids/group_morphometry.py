"""Measures of all sessions: wide tables as FreeSurfer's programs write them, and a long one.

The wide tables have the column names of ``asegstats2table`` and ``aparcstats2table``, after those
that say whose measures they are and whether the T1w was acquired or synthetic.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

#: Measures of a parcel: FreeSurfer's name, and the column of a session's table.
MEASURES = {
    'volume': 'volume-mm3',
    'thickness': 'thickness-avg-mm',
    'thicknessstd': 'thickness-std-mm',
    'area': 'area-mm2',
    'meancurv': 'curvature-avg-permm',
}
MORPHOMETRY_TABLES = (
    'morphometry',
    'aseg_volume',
    *(f'aparc_{side}_{name}' for side in ('lh', 'rh') for name in MEASURES),
)
#: A robust z beyond this, in amount, is called an outlier.
OUTLIER_Z = 3.5
#: Fewer sessions than this have no spread worth the name.
LEAST_SESSIONS = 5

_WHO = ('participant', 'session', 't1w')

Table = tuple[list[dict], tuple[str, ...]]


def number(text: str) -> float | None:
    """Read a value of a table; ``n/a`` is ``None``."""
    return None if text in ('n/a', '') else float(text)


def morphometry_tables(rows: Sequence[Mapping]) -> dict[str, Table]:
    """Return the tables of a group by name: their rows, and the columns that come first.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the sessions' ``_morph.tsv`` as :func:`numeric` gives them, with ``participant``,
        ``session`` and ``name``. No tables come of no rows, and none of a measure that no row has.
    """
    if not rows:
        return {}
    volumes, thicknesses = (_scores(rows, MEASURES[name]) for name in ('volume', 'thickness'))
    tables: dict[str, Table] = {
        'morphometry': (
            [
                {**row, **_texts(row), **_judged(*scores)}
                for row, *scores in zip(rows, volumes, thicknesses, strict=True)
            ],
            ('participant', 'session', 'index', 'name'),
        ),
        'aseg_volume': _wide(rows, _aseg_column, 'volume-mm3'),
    }
    for name, measure in MEASURES.items():
        if all(row.get(measure) is None for row in rows) and name != 'volume':
            continue
        for side in ('lh', 'rh'):
            tables[f'aparc_{side}_{name}'] = _wide(rows, _aparc_column(side, name), measure)
    return tables


def numeric(row: Mapping) -> dict:
    """Return a row of a session's table with its measures as numbers; unknown is ``None``."""
    known = {column: number(row.get(column, 'n/a')) for column in MEASURES.values()}
    return {**row, 'volume-mm3': number(row['volume-mm3']), **known}


def robust_z(values: Iterable[float | None]) -> list[float | None]:
    """Return how far each value lies from the median, in robust standard deviations.

    The median absolute deviation times 1.4826 stands for the standard deviation (Iglewicz and
    Hoaglin, 1993). ``None`` where a value is unknown, values are fewer than
    :data:`LEAST_SESSIONS`, or more than half of them are equal.
    """
    values = list(values)
    known = [value for value in values if value is not None]
    if len(known) < LEAST_SESSIONS:
        return [None] * len(values)
    middle = statistics.median(known)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in known)
    if spread == 0:
        return [None] * len(values)
    return [None if value is None else (value - middle) / spread for value in values]


def _scores(rows: Sequence[Mapping], measure: str) -> list[float | None]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row['name'], []).append(place)
    scores: list[float | None] = [None] * len(rows)
    for found in places.values():
        values = robust_z(rows[place].get(measure) for place in found)
        for place, score in zip(found, values, strict=True):
            scores[place] = score
    return scores


def _judged(volume: float | None, thickness: float | None) -> dict:
    """Return the scores of a row, and whether one of them makes it an outlier."""
    known = [abs(score) for score in (volume, thickness) if score is not None]
    outlier = ('yes' if max(known) > OUTLIER_Z else 'no') if known else None
    return {'robust-z': volume, 'robust-z-thickness': thickness, 'outlier': outlier}


def _wide(rows: Sequence[Mapping], column, measure: str) -> Table:
    lines: dict[tuple, dict] = {}
    for row in rows:
        name = column(row['name'])
        if name:
            who = {key: row.get(key) for key in _WHO}
            text = _texts(row).get(measure)
            lines.setdefault(tuple(who.values()), who)[name] = text
    return list(lines.values()), _WHO


def _texts(row: Mapping) -> dict:
    return {
        measure: None if row[measure] is None else format(row[measure], _FORMS[name])
        for name, measure in MEASURES.items()
        if measure in row
    }


_FORMS = {
    'volume': '.1f',
    'thickness': '.3f',
    'thicknessstd': '.3f',
    'area': '.1f',
    'meancurv': '.4f',
}


def _aseg_column(name: str) -> str:
    if name.startswith('ctx-') or name.endswith('Surface'):
        return ''
    structure = '-' in name or name == 'CSF' or name.startswith('CC_')
    return name if structure or name.endswith('Vol') else f'{name}Vol'


#: What ``aparcstats2table`` adds for a whole hemisphere: measure to name.
_WHOLE = {'thickness': 'MeanThickness', 'area': 'WhiteSurfArea'}


def _aparc_column(side: str, measure: str):
    prefix = f'ctx-{side}-'

    def column(name: str) -> str:
        if name == f'{side}WhiteSurface' and measure in _WHOLE:
            return f'{side}_{_WHOLE[measure]}_{measure}'
        return f'{side}_{name.removeprefix(prefix)}_{measure}' if name.startswith(prefix) else ''

    return column
