"""One training step of the embedded recipe: a source encoded once, several targets decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..acquisition import Acquisition
from ..networks.config import SynthesisConfig
from ..networks.correction import ScanKinds
from ..networks.model import Model
from ..physics.expected import expected_signals
from ..prompt import parse_prompt, render_prompt, without_person
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
        Of the targets' prompts, of the same without the person, and of the source's;
        see :func:`~tumsyn_bids.synthesis.conditioning.prompt_tensors`.
    signals : Tensor, shape (T, N_SIGNALS), or None
        What the decoder mixes for each target, where its prompt does not say it.
    """
    signals = None
    if config.physics_gain:
        targets = [render_prompt(usual_protocol(parse_prompt(prompt))) for prompt in targets]
        signals = torch.from_numpy(np.stack([expected_signals(acq) for acq in acquisitions]))
    nobodys = [without_person(prompt) for prompt in targets]
    return *prompt_tensors([*targets, *nobodys, source], config.text), signals


@torch.no_grad()
def encode_once(
    model: Model, source: torch.Tensor, prompts: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of a source, and all of its prompts embedded, the source's own last.

    Parameters
    ----------
    model : Model
    source : Tensor, shape (1, 1, X, Y, Z)
        On any device.
    prompts : tuple of Tensor
        Of :func:`step_prompts`; on any device.

    Returns
    -------
    features : Tensor, shape (1, C, X, Y, Z)
        As the next, on the device of the model.
    text : Tensor, shape (T, text_dim)
    """
    device = next(model.parameters()).device
    text = model.prompt(*(part.to(device) for part in prompts[:2]))
    source = source.to(device).contiguous(memory_format=torch.channels_last_3d)
    return model.synthesis.encoder(source, text[-1:]), text


def voxels_to_remember(
    model: Model, features: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, rng, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose voxels of an encoded brain, whose targets' prompts gate all of them alike.

    Parameters
    ----------
    model : Model
    features : Tensor, shape (1, C, X, Y, Z)
        As the next, on the device of the model.
    text : Tensor, shape (T, text_dim)
        Embedded prompts of the targets.
    mask : Tensor, shape (1, 1, X, Y, Z)
        On the CPU.
    rng : numpy.random.Generator
    count : int
        Of voxels at most.

    Returns
    -------
    chosen : Tensor of int64, shape (K,)
        Places in the flattened volume; on the CPU.
    points : Tensor, shape (K, C)
        Their features before a gate; as the next, on the device of the model.
    gates : Tensor, shape (T, C)
    """
    (fusion,) = model.synthesis.fusion.block
    gates = torch.cat([fusion.scale(features, row[None]) for row in text])
    inside = mask.flatten().nonzero()[:, 0].numpy()
    chosen = torch.from_numpy(rng.choice(inside, min(count, len(inside)), replace=False))
    return chosen, features[0].flatten(1)[:, chosen.to(features.device)].T, gates


def without_margin(volume, margin: int):
    """Leave out voxels along both ends of the last three axes of an array or a tensor."""
    kept = slice(margin, -margin or None)
    return volume[..., kept, kept, kept]


class Step(nn.Module):
    """Source patches, encoded at once, and the targets decoded from each.

    Parameters
    ----------
    model : Model
    margin : int
        Voxels along the border of a patch that are encoded but not decoded: half of what they
        would be told from lies outside.
    """

    def __init__(self, model: Model, margin: int = 0):
        super().__init__()
        self.model, self.margin = model, margin

    def forward(
        self, sources, places, greys, told
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the targets of each source, and what each of its voxels is taken for.

        Parameters
        ----------
        sources : Tensor, shape (B, 1, X, Y, Z)
        places : Tensor, shape (B, 3, X, Y, Z)
            Of their voxels in the brain.
        greys : Tensor, shape (B, len(PERCENTILES))
            Of the sources.
        told : sequence of (ids, numbers, signals, coord), length B
            Of :func:`step_prompts`; ``coord``, shape (1, X, Y, Z, 3) without the margin, is where
            to answer, at the voxels if ``None``.

        Returns
        -------
        list of (images, shares), length B
            Images of shape (1, T, X, Y, Z) without the margin; logits of the shares that the
            decoder mixes for the first target, shape (X * Y * Z, N_SIGNALS + 1), or ``None``
            where it mixes none.
        """
        network = self.model.synthesis
        texts = [self.model.prompt(ids, numbers) for ids, numbers, *_ in told]
        shown = torch.cat([text[-1:] for text in texts])
        features = network.encoder(sources, shown)
        return [
            self._decoded(
                *(part[index][None] for part in (features, places, greys)),
                *text[:-1].chunk(2),
                signals,
                coord,
            )
            for index, (text, (*_, signals, coord)) in enumerate(zip(texts, told, strict=True))
        ]

    def _decoded(self, features, places, greys, texts, nobodys, signals, coord):
        network = self.model.synthesis
        inner_places = without_margin(places, self.margin)
        images, shares = [], None
        for index, row in enumerate(texts):
            text, mixed = row[None], None if signals is None else signals[index][None]
            kinds = ScanKinds(nobodys[index][None], greys)
            fused = network.fusion(features, text)
            inner = without_margin(fused, self.margin)
            if index == 0 and network.imnet.shares is not None:
                flat = (volume.flatten(2).transpose(1, 2) for volume in (inner, inner_places))
                shares = network.imnet.tissue_logits(*flat)[0]
            if coord is None:
                told = {'signals': mixed, 'place': inner_places, 'kinds': kinds}
                images.append(network.imnet.on_grid(inner, text, **told))
            else:
                points = coord.flatten(1, 3)
                place = sample_places(places, points)
                told = {'signals': mixed, 'place': place, 'kinds': kinds}
                answer = network.imnet(fused, points, text, **told)
                images.append(answer.reshape(coord.shape[:-1]))
        return torch.stack(images, dim=1), shares


def sample_places(places: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate places, shape (1, 3, X, Y, Z), at points, (1, K, 3) in [-1, 1]: (1, K, 3)."""
    grid = points.flip(-1)[:, :, None, None]
    found = F.grid_sample(places, grid, padding_mode='border', align_corners=False)
    return found[:, :, :, 0, 0].transpose(1, 2)


def tissue_loss(shares: torch.Tensor, tissue: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of the shares with the tissues that voxels are of.

    Every voxel weighs the same, so that shares are how probable tissues are: a mixture of their
    signals is then right on average. Were rare tissues to weigh more, as they do where labels are
    wanted, a little lesion would be seen in all that looks like it, and grow with the echo time.

    Parameters
    ----------
    shares : Tensor, shape (X * Y * Z, N_SIGNALS + 1)
        Logits.
    tissue : Tensor of int64, shape (1, X, Y, Z)
        :data:`UNKNOWN_TISSUE` where it is not known, in one voxel or more it is.
    """
    return F.cross_entropy(shares.float(), tissue.flatten(), ignore_index=UNKNOWN_TISSUE)
