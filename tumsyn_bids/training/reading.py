"""Train what reads tissues, alone, on features that the encoder made once.

Encoding a brain costs many times what reading its tissues does. Brains of simulated people are
encoded once, whole as in use, a sample of their voxels is remembered, and the reader learns from
many steps on each. Nothing else of the network changes, and so no image under the default protocol
of its contrast; what changes is what a prompt's parameters do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..acquisition import CONTRASTS, Acquisition
from ..networks.config import SynthesisConfig
from ..networks.model import Model
from ..prompt import render_prompt
from ..protocols import usual_protocol
from ..simulation.generator import TissueVolume
from ..synthesis.conditioning import prompt_tensors
from .samples import PLACE_ERROR, Sample, cropped, simulated_sample, to_tensors
from .step import encode_once, tissue_loss, voxels_to_remember


@dataclass(frozen=True)
class TissueRecipe:
    """How brains are remembered.

    Attributes
    ----------
    patch : int
        Edge of the cube around a brain, in voxels.
    rotation_deg : float
        By which a brain is turned at most about each axis, on top of how its person lay: the more,
        the less a place tells.
    lesions : float
        Part of the brains that get lesions which their label maps do not have. More of them teach
        what lesions look like, and that healthy white matter may well be one: shares are how
        probable tissues are, and what a tissue's brightness is compared with is white matter.
    voxels, voxels_of_step : int
        Remembered of a brain, and of these looked at in a step.
    first, reuse : int
        Brains that are remembered before the first step, and steps for each new one.
    memory : int
        Brains that are remembered; the oldest are forgotten.
    batch : int
        Brains of a step.
    noise : float
        Standard deviation of what is added to features at each look at them, in their own: the
        few anatomies that there are must not be learned by heart.
    """

    patch: int = 184
    rotation_deg: float = 7.0
    lesions: float = 0.1
    voxels: int = 60_000
    voxels_of_step: int = 2_000
    first: int = 80
    reuse: int = 100
    memory: int = 240
    batch: int = 8
    noise: float = 0.35


@dataclass(frozen=True)
class EncodedTissues:
    """Voxels of a brain, as the reader meets them, kept on the CPU.

    Attributes
    ----------
    features : Tensor of float16, shape (K, C)
        Before the prompt of a target gates them.
    gates : Tensor, shape (T, C)
        Of a target of each contrast.
    place : Tensor of float16, shape (K, 3)
        In the brain.
    tissue : Tensor of int64, shape (K,)
        Place in :data:`~tumsyn_bids.physics.expected.BRAIN_SHARES`.
    noise : float
        See :class:`TissueRecipe`.
    """

    features: torch.Tensor
    gates: torch.Tensor
    place: torch.Tensor
    tissue: torch.Tensor
    noise: float

    def some(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
        """Return a sample of the voxels for one of the targets, in single precision.

        Each time as if the brain had been cut out a bit differently, and with other noise.
        """
        index = torch.from_numpy(rng.choice(len(self.place), count))
        gate = self.gates[rng.integers(len(self.gates))]
        features = self.features[index].float() * gate
        noise = rng.standard_normal(features.shape, dtype=np.float32)
        features += self.noise * features.std(dim=0) * torch.from_numpy(noise)
        offset, larger = PLACE_ERROR * rng.standard_normal((2, 3)).astype(np.float32)
        # Where the middle plane lies is known best.
        offset[0] = 0
        larger, offset = map(torch.from_numpy, (np.exp(larger), offset))
        place = self.place[index].float() * larger + offset
        return features, place, self.tissue[index]


def draw_sample(
    rng: np.random.Generator, volumes: list[TissueVolume], recipe: TissueRecipe
) -> Sample:
    """Draw a whole brain of one of some anatomies, as the recipe wants it."""
    return simulated_sample(
        rng,
        volumes,
        patch=recipe.patch,
        n_targets=1,
        whole=True,
        rotation_deg=recipe.rotation_deg,
        lesions=recipe.lesions,
    )


@torch.no_grad()
def encode_tissues(
    model: Model, sample: Sample, config: SynthesisConfig, rng, recipe: TissueRecipe
) -> EncodedTissues:
    """Encode a simulated brain and keep a sample of its voxels."""
    sample = cropped(sample)
    source, _, mask = to_tensors(sample)
    wanted = [Acquisition(contrast=name, voxel_size=(1.0, 1.0, 1.0)) for name in CONTRASTS]
    targets = [render_prompt(usual_protocol(acquisition)) for acquisition in wanted]
    prompts = prompt_tensors([*targets, sample.source_prompt], config.text)
    features, text = encode_once(model, source, prompts)
    chosen, points, gates = voxels_to_remember(
        model, features, text[:-1], mask, rng, recipe.voxels
    )
    return EncodedTissues(
        features=points.half().cpu(),
        gates=gates.cpu(),
        place=torch.from_numpy(sample.place).flatten(1)[:, chosen].T.half(),
        tissue=torch.from_numpy(sample.tissue).flatten()[chosen],
        noise=recipe.noise,
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
