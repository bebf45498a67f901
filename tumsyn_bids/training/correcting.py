"""Train what corrects images by place and grey levels, alone, on brains that are encoded once.

Encoding a brain and drawing it cost many times what decoding a part of it does. Real and simulated
brains are encoded once, a sample of their voxels is remembered with what the rest of the decoder
makes of them, and the correction learns many times from each. Nothing else of the network changes.

The loss is the squared error, voxel by voxel. That is why the correction finds so much to correct:
the network before it was trained with absolute differences, edges and structural similarity too,
which all reward the most usual value in the place of the mean of those that are possible, and on
the same voxels these hold the squared error up without a better similarity on other people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..networks.config import SynthesisConfig
from ..networks.correction import ScanKinds
from ..networks.model import Model
from .samples import Sample, cropped, to_tensors
from .step import encode_once, step_prompts, voxels_to_remember


@dataclass(frozen=True)
class CorrectionRecipe:
    """How brains are remembered.

    Attributes
    ----------
    patch : int
        Edge of the cube around a simulated brain, in voxels.
    voxels, voxels_of_step : int
        Remembered of a brain, and of these looked at in a step.
    batch : int
        Brains of a step.
    first, reuse : int
        Brains that are remembered before the first step, and steps for each new one.
    memory : int
        Brains that are remembered; the oldest are forgotten.
    kept : float
        Part of the correction that is kept in the end: what few people teach is true of others in
        part only.
    """

    patch: int = 176
    voxels: int = 40_000
    voxels_of_step: int = 1_000
    batch: int = 12
    first: int = 12
    reuse: int = 20
    memory: int = 240
    kept: float = 0.55


@dataclass(frozen=True)
class EncodedBrain:
    """Voxels of a brain as its decoder meets them, kept on the CPU.

    Attributes
    ----------
    features : Tensor of float16, shape (K, C)
        Before the prompts of the targets gate them.
    gates : Tensor, shape (T, C)
        Of the targets.
    text : Tensor, shape (T, text_dim)
        Embedded prompts of the targets, of default protocols and without the person.
    place : Tensor of float16, shape (K, 3)
    greys : Tensor, shape (len(PERCENTILES),)
    images, targets : Tensor of float16, shape (T, K)
        What is corrected, and what it should be.
    """

    features: torch.Tensor
    gates: torch.Tensor
    text: torch.Tensor
    place: torch.Tensor
    greys: torch.Tensor
    images: torch.Tensor
    targets: torch.Tensor

    def some(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        """Return a sample of the voxels, in single precision.

        Returns
        -------
        tuple of Tensor
            Gated features (T, K, C), text, places (T, K, 3), grey levels (T, P); images and
            targets (T, K).
        """
        index, targets = torch.from_numpy(rng.choice(len(self.place), count)), len(self.gates)
        return (
            self.features[index].float()[None] * self.gates[:, None],
            self.text,
            self.place[index].float().expand(targets, -1, -1),
            self.greys.expand(targets, -1),
            self.images[:, index].float(),
            self.targets[:, index].float(),
        )


@torch.no_grad()
def encode_brain(
    model: Model, sample: Sample, config: SynthesisConfig, rng, recipe: CorrectionRecipe
) -> EncodedBrain:
    """Encode a brain whose targets are images of default protocols, and keep voxels of it.

    All of the brain at once, as in use: what a network that was trained on patches makes of a
    whole brain is not what it makes of its parts.
    """
    sample = cropped(sample)
    source, targets, mask = to_tensors(sample)
    prompts = step_prompts(sample.prompts, sample.source_prompt, sample.acquisitions, config)
    features, text = encode_once(model, source, prompts)
    text, nobodys = text[:-1].chunk(2)
    chosen, points, gates = voxels_to_remember(model, features, text, mask, rng, recipe.voxels)
    images = [
        model.synthesis.imnet.uncorrected((points * gate)[None], row[None])
        for gate, row in zip(gates, text, strict=True)
    ]
    return EncodedBrain(
        features=points.half().cpu(),
        gates=gates.cpu(),
        text=nobodys.cpu(),
        place=torch.from_numpy(sample.place).flatten(1)[:, chosen].T.half(),
        greys=torch.from_numpy(sample.greys),
        images=torch.cat(images).half().cpu(),
        targets=targets[0].flatten(1)[:, chosen].half(),
    )


class CorrectionStep(nn.Module):
    """The images of remembered voxels, corrected, each of shape (T, K)."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, features, text, place, greys, images) -> torch.Tensor:
        kinds = ScanKinds(text, greys)
        return images + self.model.synthesis.imnet.correction(features, place, kinds)


@torch.no_grad()
def keep_part(model: Model, kept: float) -> None:
    """Scale the correction of a model."""
    output = model.synthesis.imnet.correction.output
    for values in (output.weight, output.bias):
        values.mul_(kept)


def correction_loss(step, *voxels) -> torch.Tensor:
    """Return how far the images of voxels are from their targets, on average.

    Squared, but for errors beyond half the range. What the brightest part of an image is single
    voxels cannot say: that is left to the tails that are measured afterwards.
    """
    *told, targets = voxels
    return F.huber_loss(step(*told), targets, delta=0.5)
