"""Train what reads tissues, alone, on features that the encoder made once.

Encoding a patch costs many times what reading its tissues does. Patches of simulated people are
encoded once, a sample of their voxels is remembered, and the reader learns from many steps on
each: minutes on a CPU. Nothing else of the network changes, and so no image under the default
protocol of its contrast; what changes is what a prompt's parameters do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..networks.config import SynthesisConfig
from ..networks.model import Model
from .samples import Sample, to_tensors
from .step import encode_once, step_prompts, tissue_loss, without_margin


@dataclass(frozen=True)
class TissueRecipe:
    """How patches are remembered.

    Attributes
    ----------
    patch, margin : int
        Edge of a patch in voxels; voxels along its border that are encoded but not remembered.
    voxels, voxels_of_step : int
        Remembered of a patch, and of these looked at in a step.
    first, reuse : int
        Patches that are remembered before the first step, and steps for each new one.
    memory : int
        Patches that are remembered; the oldest are forgotten.
    batch : int
        Patches of a step.
    """

    patch: int = 96
    margin: int = 8
    voxels: int = 24_000
    voxels_of_step: int = 3_000
    first: int = 1
    reuse: int = 12
    memory: int = 120
    batch: int = 8


@dataclass(frozen=True)
class EncodedVoxels:
    """Voxels of a patch, as the reader meets them.

    Attributes
    ----------
    features : Tensor of float16, shape (K, C)
        Gated with the prompt of a target.
    place : Tensor of float16, shape (K, 3)
        In the brain.
    tissue : Tensor of int64, shape (K,)
        Place in :data:`~tumsyn_bids.physics.expected.BRAIN_SHARES`.
    """

    features: torch.Tensor
    place: torch.Tensor
    tissue: torch.Tensor

    def some(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        """Return a sample of the voxels, in single precision."""
        index = torch.from_numpy(rng.choice(len(self.place), count))
        return self.features[index].float(), self.place[index].float(), self.tissue[index]


@torch.no_grad()
def encode_voxels(
    model: Model, sample: Sample, config: SynthesisConfig, rng, recipe: TissueRecipe
) -> EncodedVoxels:
    """Encode a simulated patch and keep a sample of its voxels inside the brain."""
    source, _, mask = to_tensors(sample)
    prompts = step_prompts(sample.prompts, sample.source_prompt, sample.acquisitions, config)
    features, text = encode_once(model, source, prompts)
    gated = model.synthesis.fusion(features, text[:1])
    inside = without_margin(mask, recipe.margin).flatten().nonzero()[:, 0].numpy()
    chosen = torch.from_numpy(rng.choice(inside, min(recipe.voxels, len(inside)), replace=False))

    def at_chosen(volume):
        return without_margin(volume, recipe.margin)[0].flatten(1)[:, chosen].T

    place, tissue = (torch.from_numpy(array) for array in (sample.place, sample.tissue))
    return EncodedVoxels(
        at_chosen(gated).half(), at_chosen(place[None]).half(), at_chosen(tissue[None, None])[:, 0]
    )


class ReadingStep(nn.Module):
    """The tissues of remembered voxels, as logits, shape (K, N_SIGNALS + 1)."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        return self.model.synthesis.imnet.tissue_logits(features[None], place[None])[0]


def reading_loss(step, features, place, tissue) -> torch.Tensor:
    """Return how improbable the reader takes the tissues that voxels are of."""
    return tissue_loss(step(features, place), tissue[None])
