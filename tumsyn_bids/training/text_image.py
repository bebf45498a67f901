"""Stage 1: teach a text encoder what images of a prompt look like."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..acquisition import Acquisition
from ..errors import ModelError, UsageError
from ..networks.config import TextConfig
from ..networks.vision import (
    TextImageConfig,
    TextImageModel,
    VisionConfig,
    contrastive_loss,
    halve_and_crop,
)
from ..prompt import render_prompt
from ..simulation.draw import FAMILIES, draw_acquisition
from ..simulation.generator import (
    TissueVolume,
    draw_grid,
    draw_subject,
    load_tissue_volume,
    render,
)
from ..synthesis.conditioning import prompt_tensors
from .engine import Engine, EngineSettings
from .manifest import keep_manifest
from .splits import split_people

#: Classes of parameters: a family of sequences at a field strength. A batch has each at most once.
CLASSES = tuple((index, field) for index in range(len(FAMILIES)) for field in (1.5, 3.0))


@dataclass(frozen=True)
class TextImageSettings:
    """What a training of stage 1 is made of; the defaults are the paper's.

    Attributes
    ----------
    config : {'paper', 'tiny'}
    epochs, steps_per_epoch : int
    warm_up : int
        Epochs over which the learning rate rises; it falls as half a cosine after them.
    batch : int
        Items of a batch, each of another class of parameters.
    held_out : float
        Part of the people that are kept for the evaluation.
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
        if not 2 <= self.batch <= len(CLASSES):
            raise UsageError(
                f'{self.batch} items cannot all be of another class',
                field='--batch',
                remedy=f'Give 2 to {len(CLASSES)}',
            )


def text_image_config(name: str) -> TextImageConfig:
    """Return ``paper`` (ViT-B/16 on 96³) or ``tiny`` (16³, for tests and trials).

    Raises
    ------
    KeyError
        If there is no such configuration.
    """
    if name == 'paper':
        return TextImageConfig()
    if name == 'tiny':
        return TextImageConfig(
            TextConfig(width=64, layers=2, heads=4, embed_dim=64),
            VisionConfig(image=16, patch=4, width=96, layers=2, heads=4),
        )
    raise KeyError(f'no configuration {name!r}; known: paper, tiny')


def draw_item(
    rng: np.random.Generator, volumes: list[TissueVolume], edge: int, family: int, field: float
) -> tuple[torch.Tensor, Acquisition]:
    """Draw an image of a simulated person with the acquisition that it was made with.

    Returns
    -------
    Tensor, shape (1, edge, edge, edge)
    Acquisition
    """
    volume = volumes[rng.integers(len(volumes))]
    shape = volume.tissue.shape
    centre = np.array([(n - 1) / 2 for n in shape])
    grid = draw_grid(rng, shape, 2 * edge, centre=centre)
    wanted = draw_acquisition(rng, FAMILIES[family].contrast, family=FAMILIES[family]).replace(
        field_strength=field
    )
    image = render(draw_subject(rng, volume, grid), wanted).clip(0, 2)
    shown = wanted.replace(
        age=float(round(rng.uniform(4, 90))),
        sex=str(rng.choice(['M', 'F'])),
        voxel_size=(1.0, 1.0, 1.0),
    )
    return halve_and_crop(torch.from_numpy(image), edge), shown


def draw_batch(
    rng: np.random.Generator, volumes: list[TissueVolume], edge: int, batch: int
) -> tuple[torch.Tensor, list[Acquisition]]:
    """Draw images of pairwise different classes of parameters.

    Returns
    -------
    Tensor, shape (batch, 1, edge, edge, edge)
    list of Acquisition
    """
    chosen = rng.choice(len(CLASSES), batch, replace=False)
    items = [draw_item(rng, volumes, edge, *CLASSES[index]) for index in chosen]
    return torch.stack([image for image, _ in items]), [shown for _, shown in items]


def only_contrast(name: str) -> Acquisition:
    """Return an acquisition of which nothing but the contrast and the voxel size is known."""
    return Acquisition(contrast=name, voxel_size=(1.0, 1.0, 1.0))


def _forget(rng: np.random.Generator, acquisition: Acquisition) -> Acquisition:
    return only_contrast(acquisition.contrast) if rng.random() < 0.2 else acquisition


def learning_rate(settings: TextImageSettings, step: int) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine to nothing."""
    epoch = step / settings.steps_per_epoch
    if epoch < settings.warm_up:
        rise = (step + 1) / (settings.warm_up * settings.steps_per_epoch)
        return settings.learning_rate * min(rise, 1.0)
    progress = (epoch - settings.warm_up) / max(settings.epochs - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def load_heads(labelmaps: str | Path, names: list[str]) -> list[TissueVolume]:
    """Read label maps of a folder by name.

    Raises
    ------
    UsageError
        If one is missing.
    """
    paths = [Path(labelmaps) / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise UsageError(f'{", ".join(missing)} not found', path=labelmaps)
    return [load_tissue_volume(path) for path in paths]


def train_text_image(
    out_dir: str | Path,
    labelmaps: str | Path,
    *,
    settings: TextImageSettings | None = None,
    engine_settings: EngineSettings | None = None,
    max_minutes: float | None = None,
) -> Path:
    """Train both encoders of stage 1, or go on training them.

    Parameters
    ----------
    out_dir : path-like
        Receives ``checkpoint.pt``, ``log.csv``, ``manifest.json`` and the folder ``model``.
    labelmaps : path-like
        Folder of whole-head label maps (FreeSurfer numbers, 1 mm).
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
        If there is nothing to train on.
    """
    settings = settings or TextImageSettings()
    out_dir = Path(out_dir)
    names = sorted(path.name for path in Path(labelmaps).glob('*.nii*'))
    if not names:
        raise UsageError(
            'there is nothing to train on', path=labelmaps, remedy='Give a folder of label maps'
        )
    train, test = split_people(names, held_out=settings.held_out, seed=settings.seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    volumes = load_heads(labelmaps, train)
    engine = Engine(out_dir, engine_settings or EngineSettings(accelerator='cpu'))
    manifest = {'settings': asdict(settings), 'train': train, 'held_out': test}
    keep_manifest(engine, manifest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TextImageModel(text_image_config(settings.config))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999))
    engine.setup(model, optimizer, model=model)
    engine.resume()
    text = model.config.text
    edge = model.config.vision.image

    def draw(rng):
        images, shown = draw_batch(rng, volumes, edge, settings.batch)
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
        If the folder is not one of stage 1, or its weights are not finite.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / 'config.json').read_text())
        model = TextImageModel(TextImageConfig.from_dict(description['config']))
        state = load_file(folder / 'model.safetensors')
        model.load_state_dict(state)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f'is not a model of stage 1 ({str(error).splitlines()[0]})',
            path=folder,
            remedy='Give the folder model that tumsyn train text-image wrote',
        ) from error
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f'weights are not finite: {broken[:5]}', path=folder)
    return model.eval(), description['card']
