"""Agreement of measures from acquired and synthetic T1w images, over the people of a group."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

#: Name of a quantity and its unit, as they stand in the columns of the sessions' tables.
QUANTITIES = {'volume': 'mm3', 'thickness': 'mm'}
SUMMARY_COLUMNS = ('name', 'measure', 'unit', 'n', 'dice')


def summarize_agreement(
    rows: Sequence[Mapping], compare: Callable[[list[float], list[float]], Mapping]
) -> list[dict]:
    """Return one row for each structure and quantity.

    Sessions of one person are averaged first, since they are no separate evidence.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the sessions' tables with ``participant``.
    compare : callable
        Given the values of all people on acquired and on synthetic images, returns columns.
    """
    found = []
    for name in dict.fromkeys(row['name'] for row in rows):
        own = [row for row in rows if row['name'] == name]
        for quantity, unit in QUANTITIES.items():
            first, second = person_pairs(own, quantity)
            if not first:
                continue
            dice = [value for row in own if (value := _number(row.get('dice'))) is not None]
            found.append({
                'name': name,
                'measure': quantity,
                'unit': unit,
                'dice': f'{statistics.fmean(dice):.4f}' if dice else None,
                **{key: _shown(value) for key, value in compare(first, second).items()},
            })  # fmt: skip
    return found


def person_pairs(rows: Sequence[Mapping], quantity: str) -> tuple[list[float], list[float]]:
    """Return what was measured of each person on acquired and on synthetic images.

    Parameters
    ----------
    rows : sequence of mapping
        Of one structure.
    quantity : str
        Of :data:`QUANTITIES`.
    """
    people = _people(rows, quantity).values()
    return [pair[0] for pair in people], [pair[1] for pair in people]


def _people(rows: Sequence[Mapping], quantity: str) -> dict[str, tuple[float, float]]:
    unit = QUANTITIES[quantity]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        pair = tuple(
            _number(row.get(f'{quantity}-{kind}-{unit}')) for kind in ('acquired', 'synthetic')
        )
        if None not in pair:
            pairs.setdefault(row['participant'], []).append(pair)
    return {
        person: (statistics.fmean(p[0] for p in own), statistics.fmean(p[1] for p in own))
        for person, own in pairs.items()
    }


#: What the figure shows: title to structures, whose values are added up, and quantity.
_PANELS = {
    'Hippocampus, mm³': (('Left-Hippocampus', 'Right-Hippocampus'), 'volume'),
    'Thalamus, mm³': (('Left-Thalamus-Proper', 'Right-Thalamus-Proper'), 'volume'),
    'Lateral ventricles, mm³': (('Left-Lateral-Ventricle', 'Right-Lateral-Ventricle'), 'volume'),
    'Cortex, mm³': (('Cortex',), 'volume'),
    'Cerebral white matter, mm³': (('CerebralWhiteMatter',), 'volume'),
    'Cortical thickness (left), mm': (('lhWhiteSurface',), 'thickness'),
    'Cortical thickness (right), mm': (('rhWhiteSurface',), 'thickness'),
}


def agreement_panels(rows: Sequence[Mapping]) -> dict[str, tuple[list[float], list[float]]]:
    """Return the panels of the figure: title to values on acquired and on synthetic images.

    A panel of several structures shows their sum, for people in whom all were found.
    """
    panels = {}
    for title, (names, quantity) in _PANELS.items():
        own = [_people([row for row in rows if row['name'] == name], quantity) for name in names]
        people = [person for person in own[0] if all(person in part for part in own)]
        if people:
            sums = [
                [sum(part[person][kind] for part in own) for person in people] for kind in (0, 1)
            ]
            panels[title] = (sums[0], sums[1])
    return panels


def _number(text: str | None) -> float | None:
    return None if text in (None, 'n/a', '') else float(text)


def _shown(value) -> str | int | None:
    if isinstance(value, float):
        return f'{value:.6g}' if math.isfinite(value) else None
    return value
