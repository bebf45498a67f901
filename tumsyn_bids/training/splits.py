"""Who is learned from and who is kept to test on: by person, so that no one is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..errors import UsageError


def split_people(
    labels: Sequence[str], *, held_out: float, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Divide people into those to train on and those held out.

    A person's sessions (``sub-01_ses-1``, ``sub-01_ses-2``) stay together. The order of people
    comes from a hash, so it does not depend on the order of files.

    Parameters
    ----------
    labels : sequence of str
    held_out : float
        Part of the people to hold out, in [0, 1); at least one of two or more if above 0.
    seed : int

    Returns
    -------
    train, test : list of str

    Raises
    ------
    UsageError
        If the part is out of range, or one person alone would have to be divided.
    """
    if not 0 <= held_out < 1:
        raise UsageError('is not in [0, 1)', field='--held-out')
    people = sorted({_person(label) for label in labels}, key=lambda name: _hash(name, seed))
    if held_out > 0 and len(people) < 2:
        raise UsageError(
            'one person cannot be both learned from and held out',
            field='--held-out',
            remedy='Give more people, or --held-out 0',
        )
    n_test = min(max(round(held_out * len(people)), 1), len(people) - 1) if held_out else 0
    tested = set(people[:n_test])
    train = [label for label in labels if _person(label) not in tested]
    return train, [label for label in labels if _person(label) in tested]


def _person(label: str) -> str:
    return label.split('_ses-')[0]


def _hash(name: str, seed: int) -> str:
    return hashlib.sha256(f'{seed} {name}'.encode()).hexdigest()
