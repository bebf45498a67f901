"""Places in the brain as features."""

from __future__ import annotations

import math

import torch
from torch import nn

#: Channels of an embedded place.
PLACE_WIDTH = 32
#: Sines and cosines of a place: the slowest goes once through its period in eight standard
#: deviations, farther than a brain reaches; the fastest in one, some 35 mm.
_FREQUENCIES = (math.pi / 4, math.pi / 2, math.pi, 2 * math.pi)


class PlaceEmbedding(nn.Module):
    """Turn places in the brain (:mod:`tumsyn_bids.place`) into features, point by point."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * (1 + 2 * len(_FREQUENCIES)), PLACE_WIDTH)

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        """Embed places, shape (..., 3); the features have shape (..., PLACE_WIDTH)."""
        waves = [wave(place * f) for f in _FREQUENCIES for wave in (torch.sin, torch.cos)]
        return torch.relu(self.layer(torch.cat([place, *waves], dim=-1)))
