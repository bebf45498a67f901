"""Stage 2: train the synthesis network and its prompt encoder.

One step encodes one source patch and decodes several targets from it. Everything random in a step
derives from the seed and the number of the step, so a run that was interrupted goes on as if it
had not been.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..acquisition import CONTRASTS, Acquisition
from ..errors import UsageError
from ..networks.config import SynthesisConfig, TextConfig, get_config
from ..networks.decoder import make_coord
from ..networks.model import Model, save_model
from ..networks.tokenizer import get_tokenizer
from ..prompt import render_prompt
from ..simulation.draw import draw_acquisition, training_ranges
from ..simulation.generator import TissueVolume, load_tissue_volume
from ..synthesis.conditioning import prompt_tensors
from .data import (
    PairedSubject,
    forget_fields,
    load_paired_subjects,
    off_grid,
    real_sample,
    simulated_sample,
    to_tensors,
)
from .initialisation import initialise
from .losses import synthesis_loss

LOGGER = logging.getLogger(__name__)
CHECKPOINT = 'checkpoint.pt'


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run is made of.

    Attributes
    ----------
    steps : int
        Length of the whole schedule.
    patch : int
        Edge of a patch in voxels of 1 mm.
    large_patch, large_share : int, float
        Edge of the larger patches, which bring context, and the part of the steps they take.
    n_targets : int
        Targets decoded from each encoded source.
    real_share : float
        Part of the steps that take a real person, if there are any.
    off_grid_share : float
        Part of the steps whose targets lie between the voxels of the source.
    learning_rate : float
        Peak of the cosine schedule.
    ema : float
        Decay of the averaged weights, which are the ones that are saved as the model.
    """

    config: str = 'embedded'
    steps: int = 4000
    patch: int = 32
    large_patch: int = 48
    large_share: float = 0.15
    n_targets: int = 2
    real_share: float = 0.65
    off_grid_share: float = 0.15
    learning_rate: float = 5e-4
    warm_up: int = 200
    ema: float = 0.998
    seed: int = 20409
    save_every_s: float = 180.0


def prompt_vocabulary(n_draws: int = 3000) -> tuple[int, ...]:
    """Return the token ids that prompts of this package are made of."""
    rng = np.random.default_rng(0)
    tokenizer = get_tokenizer()
    ids: set[int] = set(tokenizer.encode('0 1 2 3 4 5 6 7 8 9 . , ; : ( ) None Unknown UIH'))
    for _ in range(n_draws):
        contrast = str(rng.choice(list(CONTRASTS)))
        acquisition = forget_fields(rng, draw_acquisition(rng, contrast), 0.2).replace(
            age=float(rng.integers(0, 100)),
            sex=str(rng.choice(['M', 'F'])),
            voxel_size=tuple(float(v) for v in rng.uniform(0.4, 6, 3)),
        )
        ids.update(tokenizer.encode(render_prompt(acquisition)))
    ids.update(tokenizer.encode(render_prompt(Acquisition())))
    return tuple(sorted(ids))


def training_config(name: str) -> SynthesisConfig:
    """Return a configuration; a small one gets the vocabulary of our prompts."""
    config = get_config(name)
    if name == 'official':
        return config
    values = config.to_dict()
    values['text'] = asdict(TextConfig(**{**values['text'], 'vocabulary': prompt_vocabulary()}))
    return SynthesisConfig.from_dict(values)


def train_synthesis(
    out_dir: str | Path,
    *,
    labelmaps: str | Path | None = None,
    pairs: Sequence[str | Path] = (),
    exclude: tuple[str, ...] = (),
    settings: TrainingSettings | None = None,
    max_minutes: float | None = None,
) -> Path:
    """Train, or go on training, and write the model.

    Parameters
    ----------
    out_dir : path-like
        Receives ``checkpoint.pt``, ``log.csv``, ``manifest.json`` and the folder ``model``.
    labelmaps : path-like, optional
        Folder of whole-head label maps (FreeSurfer numbers, 1 mm).
    pairs : sequence of path-like
        Datasets of real people with several contrasts on one grid.
    exclude : tuple of str
        People of ``pairs`` and files of ``labelmaps`` that must not be seen.
    settings : TrainingSettings
    max_minutes : float, optional
        Stop, resumably, after this time.

    Returns
    -------
    Path
        The model folder; written when the schedule is through or the time is up.

    Raises
    ------
    UsageError
        If there is nothing to train on.
    """
    settings = settings or TrainingSettings()
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    volumes = _load_volumes(labelmaps, exclude)
    people = [person for path in pairs for person in load_paired_subjects(path, exclude=exclude)]
    if not volumes and not people:
        raise UsageError('there is nothing to train on', remedy='Give --labelmaps or --pairs')
    manifest = _write_manifest(out_dir, settings, volumes, people, exclude)
    run = _Run(settings, out_dir)
    run.resume()
    run.train(volumes, people, max_minutes)
    return save_model(
        run.averaged,
        out_dir / 'model',
        version=f'step {run.step} of {settings.steps}',
        card={'training': manifest, 'ranges': training_ranges()},
        half=True,
    )


def _load_volumes(labelmaps, exclude) -> list[TissueVolume]:
    if labelmaps is None:
        return []
    paths = [path for path in sorted(Path(labelmaps).glob('*.nii*')) if path.name not in exclude]
    return [load_tissue_volume(path) for path in paths]


def _write_manifest(
    out_dir: Path,
    settings: TrainingSettings,
    volumes: list[TissueVolume],
    people: list[PairedSubject],
    exclude: tuple[str, ...],
) -> dict:
    manifest = {
        'settings': asdict(settings),
        'labelmaps': [volume.name for volume in volumes],
        'people': {person.label: sorted(person.images) for person in people},
        'excluded': list(exclude),
    }
    (out_dir / 'manifest.json').write_text(json.dumps(manifest, indent=2) + '\n')
    return manifest


class _Run:
    """The state of a training run: weights, their average, the optimiser and the step."""

    def __init__(self, settings: TrainingSettings, out_dir: Path):
        self.settings = settings
        self.out_dir = out_dir
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = initialise(Model(training_config(settings.config)))
        self.model.to(memory_format=torch.channels_last_3d)
        self.averaged = Model(self.model.config)
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
        )
        self.step = 0

    def resume(self) -> None:
        path = self.out_dir / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location='cpu')
        self.model.load_state_dict(state['model'])
        self.averaged.load_state_dict(state['averaged'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step = state['step']
        LOGGER.info('resumed at step %d', self.step)

    def save(self) -> None:
        temporary = self.out_dir / (CHECKPOINT + '.tmp')
        torch.save(
            {
                'model': self.model.state_dict(),
                'averaged': self.averaged.state_dict(),
                'optimizer': self.optimizer.state_dict(),
                'step': self.step,
            },
            temporary,
        )
        os.replace(temporary, self.out_dir / CHECKPOINT)

    def train(self, volumes, people, max_minutes) -> None:
        started = saved = time.monotonic()
        losses: list[float] = []
        while self.step < self.settings.steps:
            losses.append(self._one_step(volumes, people))
            now = time.monotonic()
            if self.step % 50 == 0:
                self._log(losses, now - started)
                losses.clear()
            out_of_time = max_minutes is not None and now - started > 60 * max_minutes
            if now - saved > self.settings.save_every_s or out_of_time:
                self.save()
                saved = now
            if out_of_time:
                break
        self.save()

    def _log(self, losses, seconds) -> None:
        path = self.out_dir / 'log.csv'
        new = not path.exists()
        with path.open('a') as stream:
            if new:
                stream.write('step,loss,learning_rate,seconds\n')
            rate = self.optimizer.param_groups[0]['lr']
            stream.write(f'{self.step},{np.mean(losses):.5f},{rate:.2e},{seconds:.0f}\n')
        LOGGER.info('step %d of %d: loss %.4f', self.step, self.settings.steps, np.mean(losses))

    def _one_step(self, volumes, people) -> float:
        rng = np.random.default_rng([self.settings.seed, self.step])
        sample = self._draw(rng, volumes, people)
        offset = None
        if rng.random() < self.settings.off_grid_share:
            sample, offset = off_grid(rng, sample)
        source, targets, mask = to_tensors(sample)
        source = source.contiguous(memory_format=torch.channels_last_3d)
        for group in self.optimizer.param_groups:
            group['lr'] = self._learning_rate()
        with torch.autocast('cpu', torch.bfloat16):
            text = self.model.prompt(*prompt_tensors([*sample.prompts, sample.source_prompt]))
            predicted = self._predict(source, text[:-1], text[-1:], offset)
        loss = synthesis_loss(predicted.float(), targets, mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        self.step += 1
        return float(loss.detach())

    def _draw(self, rng, volumes, people):
        real = bool(people) and (not volumes or rng.random() < self.settings.real_share)
        draw, anatomies = (real_sample, people) if real else (simulated_sample, volumes)
        large = rng.random() < self.settings.large_share
        patch = self.settings.large_patch if large else self.settings.patch
        return draw(rng, anatomies, patch=patch, n_targets=self.settings.n_targets)

    def _predict(self, source, text, source_text, offset):
        network = self.model.synthesis
        features = network.encoder(source, source_text)
        fused = [network.fusion(features, row[None]) for row in text]
        if offset is None:
            images = [
                network.imnet.on_grid(image, row[None])
                for image, row in zip(fused, text, strict=True)
            ]
        else:
            shape = source.shape[2:]
            step = torch.tensor([2 * d / n for d, n in zip(offset, shape, strict=True)])
            coord = (make_coord(shape) + step.float())[None]
            images = [
                network.imnet(image, coord, row[None]).reshape(1, *shape)
                for image, row in zip(fused, text, strict=True)
            ]
        return torch.stack(images, dim=1)

    def _learning_rate(self) -> float:
        warm_up = min(1.0, (self.step + 1) / self.settings.warm_up)
        progress = self.step / self.settings.steps
        floor = 0.02
        cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.settings.learning_rate * warm_up * cosine

    @torch.no_grad()
    def _average(self) -> None:
        # A young average would be dominated by the random start, so the decay grows with age.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
