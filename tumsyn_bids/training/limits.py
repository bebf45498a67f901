"""What the numbers of a training can be."""

from __future__ import annotations

import math

from ..errors import UsageError


def check_rate(value: float, option: str = '--learning-rate') -> None:
    """Raise a :class:`UsageError` unless a learning rate is finite and above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f'{value:g} is no rate', field=option, remedy='Give a number above 0')


def check_share(value: float, option: str) -> None:
    """Raise a :class:`UsageError` unless a part of a whole is in [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(f'{value:g} is not in [0, 1]', field=option, remedy='Give a part of 1')


def check_held_out(value: float) -> None:
    """Raise a :class:`UsageError` unless the part of the people held out is in [0, 1)."""
    if not 0 <= value < 1:
        raise UsageError(
            f'{value:g} is not in [0, 1)',
            field='--held-out',
            remedy='Give a part of the people, such as 0.1; somebody has to be learned from',
        )


def check_count(value: int, option: str) -> None:
    """Raise a :class:`UsageError` unless a number of things is 1 or more."""
    if value < 1:
        raise UsageError(f'{value} is too few', field=option, remedy='Give 1 or more')
