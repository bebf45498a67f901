"""What the intensity of a voxel owes to where it lies and to what kind of scan the source is."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..greys import PERCENTILES
from .waves import PLACE_FEATURES, with_place


class ScanKinds(NamedTuple):
    """What kinds of scans the correction leads from and to.

    Attributes
    ----------
    target : Tensor, shape (B, text_dim)
        Embedded prompt of the target, without the person: what few people's scans teach must not
        be learned as their ages.
    source : Tensor, shape (B, len(PERCENTILES))
        Grey levels of the source (:func:`tumsyn_bids.greys.grey_levels`).
    """

    target: torch.Tensor
    source: torch.Tensor


class PlacedCorrection(nn.Module):
    """Features, place and target of a point to what is added to its intensity.

    Wider than the layers that answer first, and told what they do not know: where in the brain a
    point lies, as the same grey value of a T1w means another one of a T2w in the putamen than in
    the cortex; and how the grey values of all of the source are distributed, as scans of the same
    contrast differ from scanner to scanner.

    Parameters
    ----------
    dim : int
        Channels of the features.
    text_dim : int
        Size of the prompt embedding.
    widths : sequence of int
        Of the hidden layers.
    """

    def __init__(self, dim: int, text_dim: int, widths):
        super().__init__()
        self.told = nn.Linear(text_dim + len(PERCENTILES), widths[0], bias=False)
        sizes = (dim + PLACE_FEATURES, *widths)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, points, place, kinds: ScanKinds) -> torch.Tensor:
        """Return the correction.

        Parameters
        ----------
        points : Tensor, shape (B, K, C)
            Features.
        place : Tensor, shape (B, K, 3), or None
            In the brain (:meth:`tumsyn_bids.place.BrainFrame.places_of`); the middle if None.
        kinds : ScanKinds

        Returns
        -------
        Tensor of float32, shape (B, K)
        """
        first, *others = self.hidden
        target, source = kinds
        told = self.told(torch.cat([target, source.to(target)], dim=1).to(points))
        x = first(with_place(points, place)) + told[:, None]
        for layer in others:
            x = layer(F.relu(x, inplace=True))
        # As the decoder's last layer: bfloat16 would leave visible steps of intensity.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.output.weight.float(), self.output.bias.float()
            return F.linear(F.relu(x).float(), weight, bias)[..., 0]
