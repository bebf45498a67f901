"""Train what corrects images by place and grey levels, alone, on patches that are encoded once.

Encoding a patch and drawing it cost many times what decoding a part of it does. Patches of real
and of simulated people are encoded once and remembered, and the correction learns from many blocks
of each: a hundred times as many voxels in the same time. Nothing else of the network changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..networks.config import SynthesisConfig
from ..networks.model import Model
from .losses import local_loss
from .samples import Sample, to_tensors
from .step import step_prompts, without_margin


@dataclass(frozen=True)
class CorrectionRecipe:
    """How patches are remembered.

    Attributes
    ----------
    patch, margin : int
        Edge of a patch in voxels; voxels along its border that are encoded but not remembered.
    block : int
        Edge of the part of a patch that a step decodes.
    batch : int
        Patches of a step.
    reuse : int
        Steps for each new patch.
    memory : int
        Patches that are remembered; the oldest are forgotten.
    """

    patch: int = 96
    margin: int = 8
    block: int = 12
    batch: int = 24
    reuse: int = 6
    memory: int = 100


@dataclass(frozen=True)
class EncodedPatch:
    """A patch as its decoder meets it.

    Attributes
    ----------
    features : Tensor of float16, shape (C, X, Y, Z)
        Before the prompts of the targets gate them.
    gates : Tensor, shape (T, C)
        Of the targets.
    text : Tensor, shape (T, text_dim)
        Embedded prompts of the targets, of default protocols.
    place : Tensor of float16, shape (3, X, Y, Z)
    greys : Tensor, shape (len(PERCENTILES),)
    targets : Tensor of float16, shape (T, X, Y, Z)
    mask : Tensor of bool, shape (X, Y, Z)
    """

    features: torch.Tensor
    gates: torch.Tensor
    text: torch.Tensor
    place: torch.Tensor
    greys: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor

    def block(self, rng: np.random.Generator, edge: int) -> tuple[torch.Tensor, ...]:
        """Return a part, around a voxel of the brain if there is one, in single precision.

        Returns
        -------
        tuple of Tensor
            Gated features (T, C, b, b, b), text, places (T, 3, b, b, b), grey levels (T, P);
            targets (1, T, b, b, b) and mask (1, 1, b, b, b).
        """
        shape = np.array(self.mask.shape)
        inside = self.mask.flatten().nonzero()[:, 0].numpy()
        at = int(rng.choice(inside)) if len(inside) else int(rng.integers(self.mask.numel()))
        first = np.clip(np.array(np.unravel_index(at, shape)) - edge // 2, 0, shape - edge)
        box = tuple(slice(int(start), int(start) + edge) for start in first)
        count = len(self.gates)
        features = self.features[(slice(None), *box)].float()
        return (
            features[None] * self.gates[:, :, None, None, None],
            self.text,
            self.place[(slice(None), *box)].float().expand(count, -1, -1, -1, -1),
            self.greys.expand(count, -1),
            self.targets[(slice(None), *box)].float()[None],
            self.mask[box].float()[None, None],
        )


@torch.no_grad()
def encode_patch(
    model: Model, sample: Sample, config: SynthesisConfig, margin: int
) -> EncodedPatch:
    """Encode a patch whose targets are images of default protocols."""
    source, targets, mask = to_tensors(sample)
    ids, numbers, _ = step_prompts(
        sample.prompts, sample.source_prompt, sample.acquisitions, config
    )
    text = model.prompt(ids, numbers)
    network = model.synthesis
    features = network.encoder(source.contiguous(memory_format=torch.channels_last_3d), text[-1:])
    (block,) = network.fusion.block
    gates = [block.scale(features, row[None]) for row in text[:-1]]
    return EncodedPatch(
        features=without_margin(features, margin)[0].half(),
        gates=torch.cat(gates),
        text=text[:-1],
        place=without_margin(torch.from_numpy(sample.place), margin).half(),
        greys=torch.from_numpy(sample.greys),
        targets=without_margin(targets, margin)[0].half(),
        mask=without_margin(mask, margin)[0, 0] > 0,
    )


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
