"""Train the decoder alone, on features that the encoder made once.

Encoding a patch costs many times what decoding voxels of it does. Here patches are encoded once,
a sample of their voxels is remembered, and the decoder learns from many steps on each: what the
encoder sees is left as it is, what is made of it, with the place in the brain, is learned in
minutes on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..networks.config import SynthesisConfig
from ..networks.model import Model
from .losses import voxel_loss
from .samples import Sample, to_tensors
from .step import step_prompts, tissue_loss, without_margin


@dataclass(frozen=True)
class DecoderRecipe:
    """How patches are remembered.

    Attributes
    ----------
    patch, margin : int
        Edge of a patch in voxels; voxels along its border that are encoded but not remembered.
    voxels, voxels_of_step : int
        Remembered of a patch, and of these looked at in a step.
    reuse : int
        Steps for each new patch.
    memory : int
        Patches that are remembered; the oldest are forgotten.
    batch : int
        Patches of a step.
    """

    patch: int = 96
    margin: int = 8
    voxels: int = 24_000
    voxels_of_step: int = 2_500
    reuse: int = 24
    memory: int = 150
    batch: int = 8


@dataclass(frozen=True)
class EncodedVoxels:
    """Voxels of a patch, as the decoder meets them.

    Attributes
    ----------
    features : Tensor of float16, shape (T, K, C)
        Gated with the prompt of each target.
    place : Tensor of float16, shape (K, 3)
    text : Tensor, shape (T, prompt_dim)
        Embedded prompts.
    signals : Tensor, shape (T, N_SIGNALS), or None
    values : Tensor of float16, shape (T, K)
        What is right.
    tissue : Tensor of int64, shape (K,), or None
    """

    features: torch.Tensor
    place: torch.Tensor
    text: torch.Tensor
    signals: torch.Tensor | None
    values: torch.Tensor
    tissue: torch.Tensor | None

    def some(self, rng: np.random.Generator, count: int) -> tuple:
        """Return a sample of the voxels, in single precision, as :class:`DecoderStep` takes it."""
        index = torch.from_numpy(rng.choice(len(self.place), min(count, len(self.place)), False))
        tissue = None if self.tissue is None else self.tissue[index]
        return (
            self.features[:, index].float(),
            self.place[index].float(),
            self.text,
            self.signals,
            self.values[:, index].float(),
            tissue,
        )


@torch.no_grad()
def encode_voxels(
    model: Model, sample: Sample, config: SynthesisConfig, rng, recipe: DecoderRecipe
) -> EncodedVoxels:
    """Encode a patch and keep a sample of its voxels inside the brain."""
    source, targets, mask = to_tensors(sample)
    ids, numbers, signals = step_prompts(
        sample.prompts, sample.source_prompt, sample.acquisitions, config
    )
    text = model.prompt(ids, numbers)
    source = source.contiguous(memory_format=torch.channels_last_3d)
    place = torch.from_numpy(sample.place)[None]
    features = model.synthesis.encoder(source, text[-1:], place)
    inside = without_margin(mask, recipe.margin)[0, 0].flatten().nonzero()[:, 0].numpy()
    chosen = torch.from_numpy(rng.choice(inside, min(recipe.voxels, len(inside)), False))

    def at_chosen(volume):
        return without_margin(volume, recipe.margin)[0].flatten(1)[:, chosen]

    gated = [at_chosen(model.synthesis.fusion(features, row[None])).T for row in text[:-1]]
    tissue = None
    if sample.tissue is not None:
        tissue = at_chosen(torch.from_numpy(sample.tissue)[None, None])[0]
    return EncodedVoxels(
        torch.stack(gated).half(),
        at_chosen(place).T.half(),
        text[:-1].clone(),
        signals,
        at_chosen(targets).half(),
        tissue,
    )


class DecoderStep(nn.Module):
    """What the decoder makes of remembered voxels."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, features, place, text, signals) -> tuple:
        """Return values, shape (T, K), and the logits of the shares for the first target."""
        decoder = self.model.synthesis.imnet
        places = place.expand(len(text), *place.shape)
        values = decoder.at_voxels(features, text, signals=signals, place=places)
        shares = None
        if decoder.shares is not None:
            shares = decoder.share_logits(features[:1], place[None])[0]
        return values, shares


def decoder_loss(step, items, *, tissue_weight: float) -> torch.Tensor:
    """Return how far the decoder is from what is right, on average over patches.

    Parameters
    ----------
    step : DecoderStep
    items : list of tuple
        Of :meth:`EncodedVoxels.some`.
    tissue_weight : float
        Of the shares being those of the tissues.
    """
    total = 0.0
    for *told, truth, tissue in items:
        values, shares = step(*told)
        volume = (1, len(truth), -1, 1, 1)
        everywhere = truth.new_ones(1, 1, truth.shape[1], 1, 1)
        total = total + voxel_loss(values.reshape(volume), truth.reshape(volume), everywhere)
        if tissue is not None and shares is not None:
            total = total + tissue_weight * tissue_loss(shares, tissue[None])
    return total / len(items)
