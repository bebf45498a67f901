"""Values as files spell them, made into values as an :class:`Acquisition` holds them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

#: What is done about a value that cannot be right, as findings word it.
TREATED_AS_MISSING = 'treated as missing'


@dataclass(frozen=True)
class Range:
    """What a number can reasonably be.

    Attributes
    ----------
    low, high : float
        Inclusive, in ``unit``.
    unit : str
    slips : tuple of (float, str)
        Factors by which a value in a wrong unit is too large, and that unit.
    """

    low: float
    high: float
    unit: str
    slips: tuple[tuple[float, str], ...] = ()


_MILLISECONDS = ((1000.0, 'milliseconds'),)

#: Per field of an :class:`~tumsyn_bids.acquisition.Acquisition`. Wide: they are there to catch
#: wrong units and typing errors, not unusual protocols.
PLAUSIBLE: dict[str, Range] = {
    'age': Range(0, 120, 'years'),
    'field_strength': Range(0.01, 15, 'T', ((1000.0, 'millitesla'), (10000.0, 'gauss'))),
    'repetition_time': Range(0.001, 30, 's', _MILLISECONDS),
    'echo_time': Range(1e-5, 1, 's', _MILLISECONDS),
    'inversion_time': Range(0.005, 8, 's', _MILLISECONDS),
    'flip_angle': Range(0.1, 360, 'degrees'),
    'voxel_size': Range(0.05, 20, 'mm', ((1000.0, 'micrometres'),)),
}

#: In seconds. A repetition time up to this, of a T1w with an inversion time, is no time from one
#: inversion to the next: GE and Philips write the echo spacing of such sequences, 6 to 10 ms.
LONGEST_ECHO_SPACING = 0.1

#: Field strengths that scanners are sold as, in tesla. Files give the true one (2.89 for "3 T").
_NOMINAL = (0.064, 0.2, 0.3, 0.35, 0.5, 0.55, 1.0, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4, 10.5, 11.7)
_NOMINAL_TOLERANCE = 0.05

_MANUFACTURERS = {
    'siemens': 'Siemens',
    'ge': 'GE',
    'generalelectric': 'GE',
    'philips': 'Philips',
    'canon': 'Canon',
    'toshiba': 'Toshiba',
    'hitachi': 'Hitachi',
    'fujifilm': 'Fujifilm',
    'hyperfine': 'Hyperfine',
    'uih': 'United Imaging',
    'unitedimaging': 'United Imaging',
    'bruker': 'Bruker',
    'neusoft': 'Neusoft',
    'esaote': 'Esaote',
    'marconi': 'Marconi',
    'picker': 'Picker',
}
_NOTHING = ('', 'n/a', 'na', 'nan', 'none', 'null', 'unknown')


def is_missing(value: object) -> bool:
    """Tell whether a value says that nothing is known (``None``, ``'n/a'``, blank)."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def as_number(value: object) -> float | None:
    """Return a finite number given as a number or as text (``3``, ``'3.0'``), else ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def doubt(field: str, value: float) -> str | None:
    """Say why a number cannot be right, or return ``None``.

    Parameters
    ----------
    field : str
        Key of :data:`PLAUSIBLE`.
    value : float

    Returns
    -------
    str or None
        Such as ``'2300 s is outside 0.001 to 30 s; it looks like milliseconds'``.
    """
    limits = PLAUSIBLE[field]
    if limits.low <= value <= limits.high:
        return None
    text = f'{value:g} {limits.unit} is outside {limits.low:g} to {limits.high:g} {limits.unit}'
    unit = wrong_unit(field, value)
    return f'{text}; it looks like {unit[1]}' if unit else text


def wrong_unit(field: str, value: float) -> tuple[float, str] | None:
    """Return the value in the right unit, and the wrong unit, if a slip explains the value."""
    limits = PLAUSIBLE[field]
    for factor, unit in limits.slips:
        if value > limits.high and limits.low <= value / factor <= limits.high:
            return value / factor, unit
    return None


def nominal_field_strength(tesla: float) -> float:
    """Return the field strength that a scanner is sold as: 3.0 for 2.89362, 7.0 for 6.98.

    Values that are not within 5 % of one known are returned as they are.
    """
    nearest = min(_NOMINAL, key=lambda nominal: abs(nominal - tesla))
    return nearest if abs(nearest - tesla) <= _NOMINAL_TOLERANCE * nearest else tesla


def canonical_manufacturer(text: str) -> str | None:
    """Return a vendor's canonical name, ``None`` if it is not one of those known.

    Prompts name vendors, and nothing else that the field may hold (institutions, models).
    """
    words = re.findall(r'[a-z]+', text.lower())
    for length in (1, 2):
        name = _MANUFACTURERS.get(''.join(words[:length]))
        if name and len(words) >= length:
            return name
    return None
