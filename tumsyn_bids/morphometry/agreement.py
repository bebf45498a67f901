"""What two T1w images of one brain, an acquired and a synthetic one, say about its structures."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nb
import numpy as np

from ..grids import Grid, resample

#: Quantities of a record that are compared: key of a row, column, unit.
_COMPARED = (
    ('volume_mm3', 'volume', 'mm3', '.1f'),
    ('thickness_mm', 'thickness', 'mm', '.3f'),
)


def dice_by_label(
    first: nb.spatialimages.SpatialImage, second: nb.spatialimages.SpatialImage
) -> dict[int, float]:
    """Return the Dice overlap of each label that is in both images or in one.

    Parameters
    ----------
    first, second : SpatialImage
        Labels in one world space; the second is brought onto the grid of the first.
    """
    a = np.asarray(first.dataobj).astype(np.int32)
    b = np.rint(resample(second, Grid.of(first), order=0)).astype(np.int32)
    size = int(max(a.max(), b.max())) + 1
    in_a, in_b, both = (
        np.bincount(part.ravel(), minlength=size) for part in (a, b, np.where(a == b, a, 0))
    )
    return {
        int(label): float(2 * both[label] / (in_a[label] + in_b[label]))
        for label in np.flatnonzero(in_a + in_b)
        if label
    }


def agreement_rows(acquired: Mapping, synthetic: Mapping, dice: Mapping[int, float]) -> list[dict]:
    """Return one row a structure, then one a part of the brain.

    Parameters
    ----------
    acquired, synthetic : mapping
        Records, as :func:`tumsyn_bids.morphometry.tables.to_record` gives them.
    dice : mapping
        As :func:`dice_by_label` gives it.

    Returns
    -------
    list of dict
        ``name``, ``index``, ``dice``, and for volume (mm³) and thickness (mm) what was measured
        on either image and how much more it is on the synthetic one. Unknown is ``None``.
    """
    others = {row['name']: row for row in synthetic['structures']}
    rows = [
        {
            'index': row['number'],
            'name': row['name'],
            'dice': _text(dice.get(row['number']), '.4f'),
            **_compared(row, others.get(row['name'], {})),
        }
        for row in acquired['structures']
    ]
    for name, volume in acquired['brain'].items():
        if '-to-' not in name:
            both = {'volume_mm3': volume}, {'volume_mm3': synthetic['brain'].get(name)}
            rows.append({'index': None, 'name': name, 'dice': None, **_compared(*both)})
    for side, values in acquired.get('hemispheres', {}).items():
        other = synthetic.get('hemispheres', {}).get(side, {})
        rows.append({'index': None, 'name': f'{side}WhiteSurface', **_compared(values, other)})
    return rows


def _compared(acquired: Mapping, synthetic: Mapping) -> dict:
    values = {}
    for key, name, unit, form in _COMPARED:
        first, second = acquired.get(key), synthetic.get(key)
        known = first is not None and second is not None
        values |= {
            f'{name}-acquired-{unit}': _text(first, form),
            f'{name}-synthetic-{unit}': _text(second, form),
            f'{name}-difference-{unit}': _text(second - first if known else None, form),
        }
    return values


def _text(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
