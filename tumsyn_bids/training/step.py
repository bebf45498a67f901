"""One training step of the embedded recipe: a source encoded once, several targets decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..acquisition import Acquisition
from ..networks.config import SynthesisConfig
from ..networks.model import Model
from ..physics.expected import BRAIN_SHARES, expected_signals
from ..prompt import parse_prompt, render_prompt
from ..protocols import usual_protocol
from ..synthesis.conditioning import prompt_tensors

#: Marks voxels whose tissue nobody knows.
UNKNOWN_TISSUE = -100


def step_prompts(
    targets: Sequence[str],
    source: str,
    acquisitions: Sequence[Acquisition],
    config: SynthesisConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return what the network is told in a step.

    Parameters
    ----------
    targets : sequence of str
        Prompts, of known contrast.
    source : str
    acquisitions : sequence of Acquisition
        Of the targets, where prompts leave something open.
    config : SynthesisConfig
        With a ``physics_gain`` the targets' prompts are those of the default protocols.

    Returns
    -------
    ids, numbers : Tensor
        Of the targets' prompts and, last, of the source's;
        see :func:`~tumsyn_bids.synthesis.conditioning.prompt_tensors`.
    signals : Tensor, shape (T, N_SIGNALS), or None
        What the decoder mixes for each target, where its prompt does not say it.
    """
    if not config.physics_gain:
        return *prompt_tensors([*targets, source], config.text), None
    usual = [render_prompt(usual_protocol(parse_prompt(prompt))) for prompt in targets]
    signals = np.stack([expected_signals(acquisition) for acquisition in acquisitions])
    return *prompt_tensors([*usual, source], config.text), torch.from_numpy(signals)


class Step(nn.Module):
    """One source patch, encoded once, and its targets decoded from it."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, source, ids, numbers, signals, coord) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the targets, and what each voxel of the source is taken for.

        Parameters
        ----------
        source : Tensor, shape (1, 1, X, Y, Z)
        ids, numbers, signals : Tensor
            Of :func:`step_prompts`.
        coord : Tensor, shape (1, X * Y * Z, 3), or None
            Where to answer; at the voxels if not given.

        Returns
        -------
        images : Tensor, shape (1, T, X, Y, Z)
        shares : Tensor, shape (X * Y * Z, N_SIGNALS + 1), or None
            Logits of the shares that the decoder mixes for the first target.
        """
        text = self.model.prompt(ids, numbers)
        network = self.model.synthesis
        features = network.encoder(source, text[-1:])
        images, shares = [], None
        for place, row in enumerate(text[:-1]):
            mixed = None if signals is None else signals[place][None]
            fused = network.fusion(features, row[None])
            if place == 0 and network.imnet.shares is not None:
                shares = network.imnet.shares(fused[0].flatten(1).T)
            if coord is None:
                images.append(network.imnet.on_grid(fused, row[None], signals=mixed))
            else:
                answer = network.imnet(fused, coord, row[None], signals=mixed)
                images.append(answer.reshape(1, *source.shape[2:]))
        return torch.stack(images, dim=1), shares


def tissue_loss(shares: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of the shares with the tissues that voxels are of.

    A tissue weighs as the square root of how rare it is: the deep nuclei, a voxel or two of a
    hundred, would otherwise be taken for the cortex, which looks much like them.

    Parameters
    ----------
    shares : Tensor, shape (X * Y * Z, N_SIGNALS + 1)
        Logits.
    tissue : Tensor of int64, shape (1, X, Y, Z)
        :data:`UNKNOWN_TISSUE` where it is not known, in one voxel or more it is.
    """
    part = torch.tensor(list(BRAIN_SHARES.values()), device=shares.device)
    # Of the last share, what is no tissue of the brain, no part is known.
    weight = torch.cat([part.rsqrt() / part.sqrt().sum(), part.new_ones(1)])
    return F.cross_entropy(
        shares.float(), tissue.flatten(), weight=weight, ignore_index=UNKNOWN_TISSUE
    )
