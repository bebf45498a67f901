"""Draw plausible acquisitions: families of sequences with the ranges seen in practice.

The ranges bracket the sidecars of public datasets and the protocols of large studies (HCP, UK
Biobank, ADNI); they describe what exists, not one preferred protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..acquisition import Acquisition
from ..physics.signals import null_inversion_time
from ..physics.tissues import relaxation
from ..values import canonical_manufacturer


@dataclass(frozen=True)
class Family:
    """Ranges of one kind of sequence; times in seconds, angles in degrees."""

    contrast: str
    weight: float
    tr: tuple[float, float]
    te: tuple[float, float]
    flip_angle: tuple[float, float]
    ti: tuple[float, float] | None = None
    nulls_csf: bool = False


FAMILIES: tuple[Family, ...] = (
    Family('T1w', 5, (1.5, 2.8), (0.002, 0.0045), (7, 12), ti=(0.7, 1.2)),
    Family('T1w', 2, (0.38, 0.8), (0.007, 0.02), (65, 90)),
    Family('T1w', 1, (0.006, 0.03), (0.002, 0.006), (10, 30)),
    Family('T1w', 1, (1.6, 4.1), (0.008, 0.022), (110, 160), ti=(0.7, 1.2)),
    Family('T2w', 5, (2.5, 9.0), (0.07, 0.13), (90, 180)),
    Family('T2w', 3, (2.5, 3.4), (0.28, 0.57), (110, 130)),
    Family('FLAIR', 4, (7.0, 12.0), (0.08, 0.15), (90, 180), nulls_csf=True),
    Family('FLAIR', 4, (4.7, 7.5), (0.28, 0.40), (90, 130), nulls_csf=True),
    Family('PDw', 4, (2.0, 5.5), (0.008, 0.035), (90, 180)),
    Family('T2starw', 4, (0.4, 1.0), (0.012, 0.03), (15, 30)),
    Family('SWI', 4, (0.022, 0.05), (0.013, 0.04), (8, 20)),
    Family('T1CE', 3, (1.5, 2.8), (0.002, 0.0045), (7, 12), ti=(0.7, 1.2)),
    Family('T1CE', 2, (0.38, 0.8), (0.007, 0.02), (65, 90)),
    Family('T1CE', 1, (0.006, 0.03), (0.002, 0.006), (10, 30)),
)
_FIELDS = ((3.0, 0.5), (1.5, 0.35), (7.0, 0.08), (None, 0.07))
#: Years; each as often.
AGES = (4.0, 90.0)
#: Inversion times that are to null fluid are drawn around the time that does, as parts of it.
_AROUND_NULL = (0.93, 1.05)
#: As sidecars are read: what prompts call a scanner must not depend on who writes them.
_MANUFACTURERS = tuple(map(canonical_manufacturer, ('Siemens', 'GE', 'Philips', 'UIH')))


def draw_acquisition(
    rng: np.random.Generator, contrast: str, *, family: Family | None = None
) -> Acquisition:
    """Draw an acquisition of a contrast, without a person and a voxel size.

    Parameters
    ----------
    rng : numpy.random.Generator
    contrast : str
        A key of ``CONTRASTS``.
    family : Family, optional
        The kind of sequence; drawn from those of the contrast if not given.
    """
    if family is None:
        families = [family for family in FAMILIES if family.contrast == contrast]
        weights = np.array([family.weight for family in families], dtype=float)
        family = families[rng.choice(len(families), p=weights / weights.sum())]
    tr, te = _log_uniform(rng, family.tr), _log_uniform(rng, family.te)
    if family.te[0] > tr / 3:
        te = min(te, tr / 2)
    te = min(te, 0.7 * tr)
    return Acquisition(
        contrast=contrast,
        field_strength=draw_field_strength(rng),
        manufacturer=str(rng.choice(_MANUFACTURERS)),
        repetition_time=tr,
        echo_time=te,
        inversion_time=_inversion_time(rng, family, tr, te),
        flip_angle=float(rng.uniform(*family.flip_angle)),
    )


def scanners() -> list[tuple[float, str]]:
    """Return every field strength (tesla) and manufacturer that acquisitions are drawn with."""
    fields = [field for field, _ in _FIELDS if field is not None]
    return [(field, name) for field in fields for name in _MANUFACTURERS]


def training_ranges() -> dict[str, dict[str, tuple[float, float]]]:
    """Return, for each contrast, the extremes of each parameter over its families.

    Returns
    -------
    dict of str to dict
        Contrast to field of ``Acquisition`` to lowest and highest value (seconds, degrees,
        tesla, years).
    """
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    for family in FAMILIES:
        fields = {
            'repetition_time': family.tr,
            'echo_time': family.te,
            'inversion_time': _nulling_times(family) if family.nulls_csf else family.ti,
            'flip_angle': family.flip_angle,
            'field_strength': (0.5, 7.0),
            'age': AGES,
        }
        known = ranges.setdefault(family.contrast, {})
        for name, limits in fields.items():
            if limits is not None:
                low, high = known.get(name, limits)
                known[name] = (min(low, limits[0]), max(high, limits[1]))
    return ranges


def draw_person(rng: np.random.Generator) -> dict[str, float | str]:
    """Draw an age in years and a sex, as fields of an ``Acquisition``."""
    return {'age': float(round(rng.uniform(*AGES))), 'sex': str(rng.choice(['M', 'F']))}


def draw_field_strength(rng: np.random.Generator) -> float:
    """Draw a field strength in tesla: mostly 3 and 1.5, some 7 and a few others."""
    index = rng.choice(len(_FIELDS), p=[weight for _, weight in _FIELDS])
    value = _FIELDS[index][0]
    return value if value is not None else round(float(rng.uniform(0.5, 4.7)), 1)


def _inversion_time(rng, family: Family, tr: float, te: float) -> float | None:
    if family.nulls_csf:
        return _nulling_time(tr, te) * float(rng.uniform(*_AROUND_NULL))
    if family.ti is None:
        return None
    return min(float(rng.uniform(*family.ti)), 0.6 * tr)


def _nulling_time(tr: float, te: float) -> float:
    fluid = relaxation('csf')
    return null_inversion_time(fluid.t1, fluid.t2, tr=tr, te=te)


def _nulling_times(family: Family) -> tuple[float, float]:
    times = [_nulling_time(tr, te) for tr in family.tr for te in family.te]
    return float(min(times)) * _AROUND_NULL[0], float(max(times)) * _AROUND_NULL[1]


def _log_uniform(rng, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))
