"""Stage 1: teach a text encoder what images of a prompt look like."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..acquisition import Acquisition
from ..errors import ModelError, UsageError
from ..networks.config import TextImageConfig
from ..networks.registry import get_text_image_config
from ..networks.vision import TextImageModel, contrastive_loss
from ..networks.weights import check_state
from ..prompt import render_prompt
from ..synthesis.conditioning import prompt_tensors
from .batches import Scans, list_labelmaps, load_people, pick_scans
from .engine import Engine, EngineSettings
from .limits import check_held_out, check_rate
from .manifest import keep_manifest
from .splits import is_excluded, split_people


@dataclass(frozen=True)
class TextImageSettings:
    """What a training of stage 1 is made of; the defaults are the paper's.

    Attributes
    ----------
    config : str
        Name of a size, see :func:`tumsyn_bids.networks.config.get_text_image_config`.
    epochs, steps_per_epoch : int
    warm_up : int
        Epochs over which the learning rate rises; it falls as half a cosine after them.
    batch : int
        Items of a batch, each of another class of parameters.
    held_out : float
        Part of the people that are kept for the evaluation.

    Raises
    ------
    UsageError
        If a number cannot be what it is for; its option is named.
    """

    config: str = 'paper'
    epochs: int = 100
    steps_per_epoch: int = 139
    warm_up: int = 20
    batch: int = 27
    learning_rate: float = 5e-5
    held_out: float = 0.1
    seed: int = 20409

    def __post_init__(self):
        if self.batch < 2:
            raise UsageError(
                'one image has nothing to be told from', field='--batch', remedy='Give 2 or more'
            )
        check_rate(self.learning_rate)
        check_held_out(self.held_out)


def only_contrast(name: str) -> Acquisition:
    """Return an acquisition of which nothing but the contrast and the voxel size is known."""
    return Acquisition(contrast=name, voxel_size=(1.0, 1.0, 1.0))


def _forget(rng: np.random.Generator, acquisition: Acquisition) -> Acquisition:
    if rng.random() < 0.2:
        return only_contrast(acquisition.contrast).replace(voxel_size=acquisition.voxel_size)
    return acquisition


def learning_rate(settings: TextImageSettings, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine to nothing."""
    epoch = step / settings.steps_per_epoch
    if epoch < settings.warm_up:
        rise = (step + 1) / (settings.warm_up * settings.steps_per_epoch)
        return settings.learning_rate * min(rise, 1.0)
    progress = (epoch - settings.warm_up) / max(settings.epochs - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def train_text_image(
    out_dir: str | Path,
    labelmaps: str | Path | None = None,
    *,
    pairs: Sequence[str | Path] = (),
    exclude: tuple[str, ...] = (),
    settings: TextImageSettings | None = None,
    engine_settings: EngineSettings | None = None,
    max_minutes: float | None = None,
) -> Path:
    """Train both encoders of stage 1, or go on training them.

    Parameters
    ----------
    out_dir : path-like
        Receives ``checkpoint.pt``, ``log.csv``, ``manifest.json`` and the folder ``model``.
    labelmaps : path-like, optional
        Folder of whole-head label maps (FreeSurfer numbers, 1 mm).
    pairs : sequence of path-like
        Derivative datasets of real people, as stage 2 takes them; one image of a person will do.
    exclude : tuple of str
        People (``sub-19``, with label maps named after them) and files of ``labelmaps`` that must
        not be seen.
    settings : TextImageSettings
    engine_settings : EngineSettings
    max_minutes : float, optional
        Stop, resumably, after this time.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    UsageError
        If there is nothing to train on, a batch cannot be filled, or the folder holds a run with
        other options.
    """
    settings = settings or TextImageSettings()
    out_dir = Path(out_dir)
    engine = Engine(out_dir, engine_settings or EngineSettings(accelerator='cpu'))
    people = load_people(pairs, exclude=exclude)
    names = [name for name in list_labelmaps(labelmaps) if not is_excluded(name, exclude)]
    names += [person.label for person in people]
    if not names:
        raise UsageError(
            'there is nothing to train on', path=labelmaps, remedy='Give --labelmaps or --pairs'
        )
    train, test = split_people(names, held_out=settings.held_out, seed=settings.seed)
    scans = pick_scans(train, labelmaps, people)
    _check_batch(settings.batch, scans)
    out_dir.mkdir(parents=True, exist_ok=True)
    manifest = {
        'settings': asdict(settings),
        'train': train,
        'held_out': test,
        'excluded': list(exclude),
    }
    keep_manifest(engine, manifest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TextImageModel(get_text_image_config(settings.config))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999))
    engine.setup(model, optimizer, model=model)
    engine.resume()
    text = model.config.text
    edge = model.config.vision.image

    def draw(rng):
        images, shown = scans.draw_batch(rng, edge, settings.batch)
        ids, _ = prompt_tensors([render_prompt(_forget(rng, item)) for item in shown], text)
        return images, ids

    engine.train(
        settings.epochs * settings.steps_per_epoch,
        draw,
        lambda module, images, ids: contrastive_loss(module(images, ids)),
        seed=settings.seed,
        learning_rate=lambda step: learning_rate(settings, step),
        max_minutes=max_minutes,
    )
    if engine.first:
        _save(model, out_dir / 'model', {'training': manifest, 'step': engine.step})
    return out_dir / 'model'


def _check_batch(batch: int, scans: Scans) -> None:
    known = len(scans.classes)
    if batch > known:
        raise UsageError(
            f'{batch} items cannot all be of another class: there are {known}',
            field='--batch',
            remedy=f'Give 2 to {known}' if known > 1 else 'Give images of several protocols',
        )


def _save(model: TextImageModel, folder: Path, card: dict) -> None:
    folder.mkdir(exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / 'model.safetensors')
    description = {'config': model.config.to_dict(), 'card': card}
    (folder / 'config.json').write_text(json.dumps(description, indent=2) + '\n')


def load_text_image(folder: str | Path) -> tuple[TextImageModel, dict]:
    """Load what :func:`train_text_image` wrote.

    Returns
    -------
    TextImageModel
        In evaluation mode.
    dict
        What is known of the training.

    Raises
    ------
    ModelError
        If the folder is not one of stage 1, or its weights do not fit or are not finite.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / 'config.json').read_text())
        model = TextImageModel(TextImageConfig.from_dict(description['config']))
        state, card = load_file(folder / 'model.safetensors'), description['card']
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise ModelError(
            f'is not a model of stage 1 ({reason})', path=folder, remedy=_REMEDY
        ) from error
    check_state(folder, model.state_dict(), state, remedy=_REMEDY)
    model.load_state_dict(state)
    return model.eval(), card


_REMEDY = 'Give the folder model that tumsyn train text-image wrote'
