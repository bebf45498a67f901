"""Which tissue a voxel is of, from what it looks like and where in the brain it lies."""

from __future__ import annotations

import torch
from torch import nn

from .config import N_SIGNALS
from .waves import PLACE_FEATURES, with_place

_WIDTH = 128


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
            nn.Linear(dim + PLACE_FEATURES, _WIDTH),
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
        return self.layers(with_place(points, place))
