"""Who is learned from and who is kept to test on: by person, so that no one is on both sides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..errors import UsageError
from .limits import check_held_out


def split_people(
    labels: Sequence[str], *, held_out: float, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Divide people into those to train on and those held out.

    What is named after one person (``sub-01_ses-1``, ``sub-01_ses-2``, a label map
    ``sub-01_dseg.nii.gz``) stays together. The order of people
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
    check_held_out(held_out)
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


def keep_apart(kinds: Sequence[Sequence[str]], *, held_out: float, seed: int = 0) -> set[str]:
    """Choose whom to hold out of each kind of data, such as label maps and real people.

    Who is held out of one kind is held out of all. A kind with a single entry gives up nobody of
    its own accord.

    Parameters
    ----------
    kinds : sequence of sequence of str
        Labels of each kind.
    held_out, seed
        As of :func:`split_people`.

    Returns
    -------
    set of str
        Labels held out.
    """
    if held_out == 0:
        return set()
    parts = [split_people(labels, held_out=held_out, seed=seed) for labels in kinds if labels[1:]]
    people = {_person(label) for _, kept in parts for label in kept}
    return {label for labels in kinds for label in labels if _person(label) in people}


def is_excluded(name: str, exclude: Sequence[str]) -> bool:
    """Return whether someone must not be seen: a label map by its name or by its person's."""
    return name in exclude or _person(name) in exclude


def _person(label: str) -> str:
    named = re.match('sub-[A-Za-z0-9]+', label)
    return named.group() if named else label


def _hash(name: str, seed: int) -> str:
    return hashlib.sha256(f'{seed} {name}'.encode()).hexdigest()
