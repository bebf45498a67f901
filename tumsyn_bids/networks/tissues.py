"""Which tissue a voxel is of, from what it looks like and where in the brain it lies."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import N_SIGNALS

_WIDTH = 128
#: Sines and cosines of a place: the slowest goes once through its period in eight standard
#: deviations, farther than a brain reaches; the fastest in one, some 35 mm.
_FREQUENCIES = (math.pi / 4, math.pi / 2, math.pi, 2 * math.pi)


class TissueReader(nn.Module):
    """Features and place of a point to the tissues that it may be of.

    Parameters
    ----------
    dim : int
        Channels of the features.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim + 3 * (1 + 2 * len(_FREQUENCIES)), _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
            # One share more than tissues: what gives no signal.
            nn.Linear(_WIDTH, N_SIGNALS + 1),
        )

    def forward(self, points: torch.Tensor, place: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits.

        Parameters
        ----------
        points : Tensor, shape (B, K, C)
            Features.
        place : Tensor, shape (B, K, 3), optional
            In the brain (:meth:`tumsyn_bids.place.BrainFrame.places_of`); the middle if not given.

        Returns
        -------
        Tensor, shape (B, K, N_SIGNALS + 1)
        """
        if place is None:
            place = points.new_zeros(*points.shape[:2], 3)
        waves = [wave(place * f) for f in _FREQUENCIES for wave in (torch.sin, torch.cos)]
        return self.layers(
            torch.cat([points, place.to(points), *(w.to(points) for w in waves)], -1)
        )
