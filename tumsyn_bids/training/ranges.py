"""What a model has been told of the images that it learned to make, for its card.

Ranges are by contrast and field of :class:`~tumsyn_bids.acquisition.Acquisition`: the lowest and
the highest value (seconds, degrees, tesla, years). A contrast that is not there was not learned;
a field that is not there is not limited.
"""

from __future__ import annotations

from collections.abc import Iterable

from .people import PairedSubject

Ranges = dict[str, dict[str, tuple[float, float]]]

_FIELDS = ('repetition_time', 'echo_time', 'inversion_time', 'flip_angle', 'field_strength')


def ranges_of(people: Iterable[PairedSubject]) -> Ranges:
    """Return the contrasts of some people's images, and the extremes of what is documented.

    Parameters
    ----------
    people : iterable of PairedSubject

    Returns
    -------
    dict of str to dict
        A contrast of which nothing is documented has no limits.
    """
    found: Ranges = {}
    for person in people:
        for contrast in person.images:
            acquisition = person.acquisition(contrast)
            said = {name: getattr(acquisition, name) for name in _FIELDS}
            said = {name: (value, value) for name, value in said.items() if value is not None}
            known = found.setdefault(contrast, {})
            known.update({name: _hull(limits, known.get(name)) for name, limits in said.items()})
    return found


def merged(first: Ranges, second: Ranges) -> Ranges:
    """Return what a model knows that has learned from two sets of images.

    Of a contrast that both have, a field is limited where both limit it: what one leaves open,
    it may have seen anything of. A side that limits nothing says nothing of the contrast's
    parameters and does not count.
    """
    together = {**first, **second}
    for contrast in first.keys() & second.keys():
        a, b = first[contrast], second[contrast]
        both = {name: _hull(a[name], b[name]) for name in a if name in b}
        together[contrast] = both if a and b else a or b
    return together


def _hull(limits, others) -> tuple[float, float]:
    return limits if others is None else (min(limits[0], others[0]), max(limits[1], others[1]))
