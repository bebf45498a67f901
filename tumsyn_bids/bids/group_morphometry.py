"""Measures of all sessions: wide tables as FreeSurfer's programs write them, and a long one.

The wide tables have the column names of ``asegstats2table`` and ``aparcstats2table``, after those
that say whose measures they are and whether the T1w was acquired or synthetic.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

MORPHOMETRY_TABLES = (
    'morphometry',
    'aseg_volume',
    'aparc_lh_volume',
    'aparc_rh_volume',
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
        Rows of the sessions' ``_morph.tsv`` with ``participant``, ``session``, ``name`` and
        ``volume-mm3`` (a number or ``None``). No tables come of no rows.
    """
    if not rows:
        return {}
    scores = _scores(rows)
    tidy = []
    for row, score in zip(rows, scores, strict=True):
        outlier = None if score is None else 'yes' if abs(score) > OUTLIER_Z else 'no'
        shown = _shown(row['volume-mm3'])
        tidy.append({**row, 'volume-mm3': shown, 'robust-z': score, 'outlier': outlier})
    tables: dict[str, Table] = {
        'morphometry': (tidy, ('participant', 'session', 'index', 'name')),
        'aseg_volume': _wide(rows, _aseg_column),
    }
    for side in ('lh', 'rh'):
        tables[f'aparc_{side}_volume'] = _wide(rows, _aparc_column(side))
    return tables


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


def _scores(rows: Sequence[Mapping]) -> list[float | None]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row['name'], []).append(place)
    scores: list[float | None] = [None] * len(rows)
    for found in places.values():
        for place, score in zip(
            found, robust_z(rows[place]['volume-mm3'] for place in found), strict=True
        ):
            scores[place] = score
    return scores


def _wide(rows: Sequence[Mapping], column) -> Table:
    lines: dict[tuple, dict] = {}
    for row in rows:
        name = column(row['name'])
        if name:
            who = {key: row.get(key) for key in _WHO}
            lines.setdefault(tuple(who.values()), who)[name] = _shown(row['volume-mm3'])
    return list(lines.values()), _WHO


def _shown(volume: float | None) -> str | None:
    return None if volume is None else f'{volume:.1f}'


def _aseg_column(name: str) -> str:
    if name.startswith('ctx-'):
        return ''
    structure = '-' in name or name == 'CSF' or name.startswith('CC_')
    return name if structure or name.endswith('Vol') else f'{name}Vol'


def _aparc_column(side: str):
    prefix = f'ctx-{side}-'

    def column(name: str) -> str:
        return f'{side}_{name.removeprefix(prefix)}_volume' if name.startswith(prefix) else ''

    return column
