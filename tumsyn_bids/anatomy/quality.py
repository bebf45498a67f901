"""What is expected of masks and alignments, and what to look at where it is not met.

The thresholds were set on real clinical scans and on things that are no head;
``docs/preprocessing.md`` says what both reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..verdicts import FAIL, PASS, WARN

_ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class Limit:
    """What is expected of a measure.

    Attributes
    ----------
    text : str
        What the measure is.
    problem : str
        What is wrong where it is not met; ``{value}`` stands for the value.
    look : str
        What to look at then.
    usual, possible : tuple of 2 float
        Inside ``usual`` it passes, outside of ``possible`` it fails, in between it is doubtful.
    units : str
    """

    text: str
    problem: str = ''
    look: str = ''
    usual: tuple[float, float] = _ANY
    possible: tuple[float, float] = _ANY
    units: str = ''

    @property
    def meaning(self) -> str:
        """What the measure is, with its unit if it has one."""
        return f'{self.text} ({self.units})' if self.units else self.text


_OUTLINE = 'look at the outline of the brain mask in the report'
_FLICKER = 'compare the scan with the reference in the report'

#: Each measure, in the order in which they are shown.
LIMITS: dict[str, Limit] = {
    'volume': Limit(
        'Volume of the brain mask',
        'a brain of {value:.0f} ml is implausible for an adult',
        _OUTLINE,
        (800, 2200),
        (400, 2800),
        'ml',
    ),
    'edge': Limit(
        'How far grey values differ on both sides of the edge of the mask (0 to 1)',
        'the brain does not stand out from what surrounds it',
        _OUTLINE,
        (0.2, math.inf),
        (0.1, math.inf),
    ),
    'likeness': Limit(
        'Mutual information of the scan and an average brain inside the mask',
        'what lies inside the mask hardly looks like a brain',
        'check that the scan shows a head; ' + _OUTLINE,
        (0.18, math.inf),
        (0.13, math.inf),
        'nats',
    ),
    'cut': Limit(
        'Largest area of the mask on a border of the image',
        'the field of view cuts through the brain ({value:.0f} cm² lie on its border)',
        'check whether the brain is complete in the scan',
        (0, 60),
        (0, 100),
        'cm²',
    ),
    'information-before': Limit(
        'Mutual information with the reference by the headers alone', units='nats'
    ),
    'information-after': Limit(
        'Mutual information with the reference after the alignment', units='nats'
    ),
    'moved': Limit('Mean distance over which the alignment moved the brain', units='mm'),
    'covered': Limit(
        'Share of the brain that the scan covers',
        'the scan covers only {value:.0%} of the brain of the reference',
        _FLICKER,
        (0.9, math.inf),
        (0.6, math.inf),
    ),
    'likeness-to-mirrored': Limit(
        'Mutual information with the reference, against that of the mirrored scan',
        'the scan fits the reference hardly better than when mirrored: it may be another person',
        _FLICKER,
        (1.3, math.inf),
        (1.15, math.inf),
    ),
    'overlap': Limit(
        'Overlap (Dice) of the brain mask and the brain that the scan shows near it',
        'the brain mask does not fit the scan (overlap {value:.2f})',
        _FLICKER,
        (0.93, math.inf),
        (0.85, math.inf),
    ),
    'grey-share': Limit(
        'Share of grey matter in the brain mask',
        '{value:.0%} of the brain is called grey matter',
        'look at the tissues and at the outline of the brain mask',
        (0.3, 0.65),
        (0.15, 0.8),
    ),
    'white-share': Limit(
        'Share of white matter in the brain mask',
        '{value:.0%} of the brain is called white matter',
        'look at the tissues and at the outline of the brain mask',
        (0.2, 0.5),
        (0.1, 0.65),
    ),
    'overlap-with-average': Limit(
        'Overlap (Dice) of the brain mask, deformed, and the mask of the average brain',
        'the brain does not lie well on the average brain (overlap {value:.2f})',
        'look at the standard space in the report',
        (0.93, math.inf),
        (0.85, math.inf),
    ),
    'folded': Limit(
        'Share of the average brain where the deformation folds space',
        'the deformation folds space in {value:.2%} of the brain',
        'look at the standard space in the report',
        (0, 0.001),
        (0, 0.01),
    ),
    'stretch': Limit(
        'Ratio of the 99th to the 1st percentile of the change of volume by the deformation',
        'the deformation changes volumes very unevenly (by a factor of {value:.0f})',
        'look at the standard space in the report',
        (0, 15),
        (0, 60),
    ),
}


@dataclass(frozen=True)
class Check:
    """A measure and whether it is what was expected.

    Attributes
    ----------
    measure : str
        Key of :data:`LIMITS`.
    value : float
    result : {'pass', 'warn', 'fail'}
    message : str
        What is wrong and what to look at; empty where it passed.
    """

    measure: str
    value: float
    result: str
    message: str = ''


def judge(measures: Mapping[str, float]) -> tuple[Check, ...]:
    """Hold measures against what is expected of them; a value that is not finite fails."""
    return tuple(_judged(name, float(measures[name])) for name in LIMITS if name in measures)


def messages(checks: Iterable[Check]) -> tuple[str, ...]:
    """Return what is wrong, in words."""
    return tuple(check.message for check in checks if check.message)


def _judged(name: str, value: float) -> Check:
    limit = LIMITS[name]
    if _within(value, limit.usual):
        return Check(name, value, PASS)
    result = WARN if _within(value, limit.possible) else FAIL
    problem = limit.problem.format(value=value) if math.isfinite(value) else f'no {name} was found'
    return Check(name, value, result, f'{problem}; {limit.look}' if limit.look else problem)


def _within(value: float, interval: tuple[float, float]) -> bool:
    return math.isfinite(value) and interval[0] <= value <= interval[1]
