"""Stage 2 as the paper describes it: both directions, any up-sampling, points, a frozen text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from ..errors import UsageError
from ..networks.config import TextConfig
from ..networks.decoder import make_coord
from ..networks.model import Model
from ..prompt import render_prompt
from ..simulation.generator import draw_grid, draw_matrix, sample_image
from ..synthesis.conditioning import prompt_tensors
from .limits import check_rate
from .people import PairedSubject
from .samples import simulated_sample

#: Parts of the schedule after which the rate is halved (epochs 100, 150, 200, 250 of 300).
MILESTONES = (1 / 3, 1 / 2, 2 / 3, 5 / 6)


@dataclass(frozen=True)
class PaperRecipe:
    """What one batch of stage 2 is made of.

    Attributes
    ----------
    low : int
        Edge of a source patch in its own voxels.
    largest_factor : float
        Up-sampling factors are drawn from 1 to this.
    points : int
        Places of each target that are decoded.
    batch : int
    learning_rate : float

    Raises
    ------
    UsageError
        If the learning rate is none.
    """

    low: int = 20
    largest_factor: float = 3.0
    points: int = 8000
    batch: int = 16
    learning_rate: float = 1e-4

    def __post_init__(self):
        check_rate(self.learning_rate)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, halved at each milestone."""
        passed = sum(step >= round(part * steps) for part in MILESTONES)
        return self.learning_rate * 0.5**passed

    def draw(
        self, rng: np.random.Generator, volumes, people, text: TextConfig | None = None
    ) -> tuple:
        """Draw a batch of pairs at one up-sampling factor.

        Parameters
        ----------
        rng : numpy.random.Generator
        volumes : list of TissueVolume
        people : list of PairedSubject
        text : TextConfig, optional
            Of the network that reads the prompts.

        Returns
        -------
        sources : Tensor, shape (2, B, 1, low, low, low)
            The first and the second image of each pair, coarse.
        ids, numbers : Tensor
            The prompts of the first images, then those of the second, ``2 B`` rows.
        coord : Tensor, shape (B, K, 3)
        values : Tensor, shape (2, B, K)
            The fine images at ``coord``.
        cell : Tensor, shape (3,)
            Size of a fine voxel in coarse voxels.
        """
        fine = round(self.low * rng.uniform(1, self.largest_factor))
        every = make_coord((fine,) * 3)
        pairs, coords = [], []
        for _ in range(self.batch):
            pairs.append(_pair(rng, volumes, people, fine))
            chosen = rng.choice(len(every), min(self.points, len(every)), replace=False)
            coords.append(torch.from_numpy(np.sort(chosen)))
        images = torch.stack([torch.from_numpy(images) for images, _ in pairs], dim=1)
        index = torch.stack(coords)
        values = images.flatten(2).gather(2, index.expand(2, -1, -1))
        prompts = [prompts[side] for side in (0, 1) for _, prompts in pairs]
        cell = torch.full((3,), self.low / fine)
        return coarse(images, self.low), *prompt_tensors(prompts, text), every[index], values, cell


def coarse(images: torch.Tensor, edge: int) -> torch.Tensor:
    """Reduce cubes to an edge, the voxels being means of what they hold.

    Parameters
    ----------
    images : Tensor, shape (2, B, N, N, N)
    edge : int

    Returns
    -------
    Tensor, shape (2, B, 1, edge, edge, edge)
    """
    factor = images.shape[-1] / edge
    spread = 0.42 * np.sqrt(max(factor**2 - 1, 0))
    blurred = ndimage.gaussian_filter(images.numpy(), (0, 0, spread, spread, spread))
    reduced = F.interpolate(
        torch.from_numpy(blurred), size=(edge,) * 3, mode='trilinear', align_corners=False
    )
    return reduced[:, :, None]


def _pair(rng, volumes, people: list[PairedSubject], fine: int):
    if people and (not volumes or rng.random() < 0.5):
        return _real_pair(rng, people, fine)
    sample = simulated_sample(rng, volumes, patch=fine, n_targets=2)
    return sample.targets, sample.prompts


def _real_pair(rng, people: list[PairedSubject], fine: int):
    subject = people[rng.integers(len(people))]
    inside = np.argwhere(subject.mask)
    centre = inside[rng.integers(len(inside))]
    grid = draw_grid(rng, subject.mask.shape, fine, centre=centre, matrix=draw_matrix(rng))
    names = [str(name) for name in rng.choice(sorted(subject.images), 2, replace=False)]
    images = np.stack([sample_image(subject.images[name], grid) for name in names])
    return images.astype(np.float32), [render_prompt(subject.acquisition(name)) for name in names]


class BothWays(nn.Module):
    """Each image of a pair from the other."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, sources, ids, numbers, coord, cell) -> torch.Tensor:
        """Return the values at ``coord``, shape (2, B, K); shapes as in :class:`PaperRecipe`."""
        text = self.model.prompt(ids, numbers).reshape(2, sources.shape[1], -1)
        made = [
            self.model.synthesis(sources[1 - side], coord, text[side], text[1 - side], cell)
            for side in (0, 1)
        ]
        return torch.stack(made)


def mean_absolute_error(module, sources, ids, numbers, coord, values, cell) -> torch.Tensor:
    """Return the error over both directions, each with half the weight."""
    return (module(sources, ids, numbers, coord, cell).float() - values).abs().mean()


def freeze_text(model: Model, weights: dict) -> None:
    """Put the weights of a given text encoder into a network and leave them as they are."""
    try:
        model.prompt.text.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError('the text encoder is of another size') from error
    model.prompt.text.requires_grad_(False)
