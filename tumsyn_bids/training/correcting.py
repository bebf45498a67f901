"""Train what corrects images by place and grey levels, alone, on brains that are encoded once.

Encoding a brain and drawing it cost many times what decoding a part of it does. Blocks of real and
of simulated brains are encoded once and remembered, and the correction learns many times from
each. Nothing else of the network changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..networks.config import SynthesisConfig
from ..networks.model import Model
from .losses import local_loss
from .samples import Sample, cropped, to_tensors
from .step import encode_once, step_prompts


@dataclass(frozen=True)
class CorrectionRecipe:
    """How brains are remembered.

    Attributes
    ----------
    patch : int
        Edge of the cube around a simulated brain, in voxels.
    blocks, block : int
        Parts of a brain that are remembered, and their edge in voxels.
    batch : int
        Blocks of a step.
    first, reuse : int
        Brains that are remembered before the first step, and steps for each new one.
    memory : int
        Brains that are remembered; the oldest are forgotten.
    """

    patch: int = 176
    blocks: int = 600
    block: int = 12
    batch: int = 24
    first: int = 12
    reuse: int = 20
    memory: int = 60


@dataclass(frozen=True)
class EncodedBrain:
    """Blocks of a brain as its decoder meets them.

    Attributes
    ----------
    features : Tensor of float16, shape (N, C, b, b, b)
        Before the prompts of the targets gate them.
    gates : Tensor, shape (T, C)
        Of the targets.
    text : Tensor, shape (T, text_dim)
        Embedded prompts of the targets, of default protocols.
    place : Tensor of float16, shape (N, 3, b, b, b)
    greys : Tensor, shape (len(PERCENTILES),)
    targets : Tensor of float16, shape (N, T, b, b, b)
    mask : Tensor of bool, shape (N, b, b, b)
    """

    features: torch.Tensor
    gates: torch.Tensor
    text: torch.Tensor
    place: torch.Tensor
    greys: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor

    def block(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Return one of the blocks, in single precision.

        Returns
        -------
        tuple of Tensor
            Gated features (T, C, b, b, b), text, places (T, 3, b, b, b), grey levels (T, P);
            targets (1, T, b, b, b) and mask (1, 1, b, b, b).
        """
        index, count = int(rng.integers(len(self.mask))), len(self.gates)
        return (
            self.features[index].float()[None] * self.gates[:, :, None, None, None],
            self.text,
            self.place[index].float().expand(count, -1, -1, -1, -1),
            self.greys.expand(count, -1),
            self.targets[index].float()[None],
            self.mask[index].float()[None, None],
        )


@torch.no_grad()
def encode_brain(
    model: Model, sample: Sample, config: SynthesisConfig, rng, recipe: CorrectionRecipe
) -> EncodedBrain:
    """Encode a brain whose targets are images of default protocols, and keep blocks of it.

    All of the brain at once, as in use: what a network that was trained on patches makes of a
    whole brain is not what it makes of its parts.
    """
    sample = cropped(sample)
    source, targets, mask = to_tensors(sample)
    prompts = step_prompts(sample.prompts, sample.source_prompt, sample.acquisitions, config)
    features, text = encode_once(model, source, prompts)
    (fusion,) = model.synthesis.fusion.block
    boxes = _boxes(rng, sample.mask, recipe)

    def parts(volume):
        return torch.stack([volume[(slice(None), *box)] for box in boxes])

    return EncodedBrain(
        features=parts(features[0]).half(),
        gates=torch.cat([fusion.scale(features, row[None]) for row in text[:-1]]),
        text=text[:-1],
        place=parts(torch.from_numpy(sample.place)).half(),
        greys=torch.from_numpy(sample.greys),
        targets=parts(targets[0]).half(),
        mask=parts(mask[0])[:, 0] > 0,
    )


def _boxes(rng, mask: np.ndarray, recipe: CorrectionRecipe) -> list[tuple[slice, ...]]:
    """Draw blocks around voxels of the brain."""
    edge, shape = recipe.block, np.array(mask.shape)
    middles = rng.choice(np.flatnonzero(mask), recipe.blocks)
    firsts = np.stack(np.unravel_index(middles, mask.shape), axis=1) - edge // 2
    firsts = np.clip(firsts, 0, shape - edge)
    return [tuple(slice(int(at), int(at) + edge) for at in first) for first in firsts]


class CorrectionStep(nn.Module):
    """The images of remembered blocks, each of shape (1, T, b, b, b)."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, blocks) -> list[torch.Tensor]:
        features, text, place, greys, *_ = zip(*blocks, strict=True)
        images = self.model.synthesis.imnet.on_grid(
            torch.cat(features), torch.cat(text), place=torch.cat(place), greys=torch.cat(greys)
        )
        return [part[None] for part in images.split([len(rows) for rows in text])]


def correction_loss(step, blocks) -> torch.Tensor:
    """Return how far the images of blocks are from their targets, on average.

    A block is too small to say what the brightest part of an image is: losses on that are left to
    the training of the whole network, and to the tails that are measured afterwards.
    """
    losses = [
        local_loss(image.float() * mask, targets, mask)
        for image, (*_, targets, mask) in zip(step(blocks), blocks, strict=True)
    ]
    return sum(losses) / len(losses)
