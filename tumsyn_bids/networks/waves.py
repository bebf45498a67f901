"""How a network is told a place in the brain (:mod:`tumsyn_bids.place`)."""

from __future__ import annotations

import math

import torch

#: Sines and cosines of a place: the slowest goes once through its period in eight standard
#: deviations, farther than a brain reaches; the fastest in one, some 35 mm.
_FREQUENCIES = (math.pi / 4, math.pi / 2, math.pi, 2 * math.pi)
#: Numbers that a place is told with.
PLACE_FEATURES = 3 * (1 + 2 * len(_FREQUENCIES))


def with_place(points: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
    """Return features of points with what tells their places.

    Parameters
    ----------
    points : Tensor, shape (B, K, C)
    place : Tensor, shape (B, K, 3), optional
        The middle of the brain if not given.

    Returns
    -------
    Tensor, shape (B, K, C + PLACE_FEATURES)
    """
    if place is None:
        place = points.new_zeros(*points.shape[:2], 3)
    waves = [wave(place * f) for f in _FREQUENCIES for wave in (torch.sin, torch.cos)]
    return torch.cat([points, place.to(points), *(w.to(points) for w in waves)], -1)
