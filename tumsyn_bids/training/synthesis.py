"""Stage 2: train the synthesis network and its prompt encoder.

One step encodes one source patch and decodes several targets from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from ..networks.decoder import make_coord
from ..networks.model import Model, save_model
from ..simulation.draw import training_ranges
from ..simulation.generator import TissueVolume, load_tissue_volume
from .beginning import Beginning, begin
from .correcting import (
    CorrectionRecipe,
    CorrectionStep,
    EncodedBrain,
    correction_loss,
    encode_brain,
    keep_part,
)
from .engine import Engine, EngineSettings
from .initialisation import initialise
from .limits import check_count, check_held_out, check_rate, check_share
from .losses import synthesis_loss
from .manifest import keep_manifest
from .paper import (
    BothWays,
    PaperRecipe,
    freeze_text,
    mean_absolute_error,
)
from .people import PairedSubject, load_paired_subjects
from .ranges import Ranges, merged, ranges_of
from .reading import (
    EncodedTissues,
    ReadingStep,
    TissueRecipe,
    draw_sample,
    encode_tissues,
    reading_loss,
)
from .samples import (
    off_grid,
    real_sample,
    simulated_sample,
    to_tensors,
)
from .splits import is_excluded, keep_apart
from .step import Step, step_prompts, tissue_loss, without_margin

Recipe = PaperRecipe | TissueRecipe | CorrectionRecipe


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
    batch : int
        Patches per step and process. One alone is slow: on CPUs, PyTorch hands convolutions
        of a small single sample to its slowest implementation.
    margin : int
        Voxels along the border of a patch that are not decoded.
    n_targets : int
        Most targets decoded from each encoded source.
    real_share : float
        Part of the steps that take a real person, if there are any.
    tissue_weight : float
        Of the decoder's shares being those of the tissues, in simulated samples.
    off_grid_share : float
        Part of the steps whose targets lie between the voxels of the source.
    learning_rate : float
        Peak of the cosine schedule.
    held_out : float
        Part of the people, real and simulated, that are kept to choose the best weights with.
    validation_samples : int
        How many samples of theirs are looked at: as many brains, where brains are encoded once.
    warm_up : int
        Steps until the peak, a tenth of the schedule at most.
    ema : float
        Largest decay of the averaged weights, which are the ones that are saved as the model; in
        a short run it is less, so that the beginning is forgotten.

    Raises
    ------
    UsageError
        If a number cannot be what it is for; its option is named.
    """

    config: str = 'embedded'
    steps: int = 4000
    patch: int = 48
    large_patch: int = 64
    large_share: float = 0.2
    batch: int = 2
    margin: int = 4
    n_targets: int = 3
    real_share: float = 0.8
    tissue_weight: float = 0.5
    off_grid_share: float = 0.08
    learning_rate: float = 5e-4
    warm_up: int = 200
    ema: float = 0.999
    held_out: float = 0.0
    validation_samples: int = 16
    seed: int = 20409

    def __post_init__(self):
        check_count(self.steps, '--steps')
        check_count(self.validation_samples, 'validation_samples')
        check_rate(self.learning_rate)
        check_held_out(self.held_out)
        check_share(self.real_share, '--real-share')
        for name in ('large_share', 'off_grid_share'):
            check_share(getattr(self, name), name)

    @property
    def decay(self) -> float:
        """Decay of the averaged weights of this run: they reach over a fifth of its steps."""
        return min(self.ema, max(1 - 5 / self.steps, 0.0))


def train_synthesis(
    out_dir: str | Path,
    *,
    labelmaps: str | Path | None = None,
    pairs: Sequence[str | Path] = (),
    exclude: tuple[str, ...] = (),
    settings: TrainingSettings | None = None,
    engine_settings: EngineSettings | None = None,
    recipe: Recipe | None = None,
    text_encoder: str | Path | None = None,
    start: str | Path | None = None,
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
        People (``sub-19``, with label maps named after them) and files of ``labelmaps`` that must
        not be seen.
    settings : TrainingSettings
    engine_settings : EngineSettings, optional
        Devices, precision, accumulation; one CPU process if not given.
    recipe : PaperRecipe, TissueRecipe or CorrectionRecipe, optional
        Train as the paper does, or a part of the decoder alone, in the place of the recipe of the
        embedded model.
    text_encoder : str or path-like, optional
        What is used as it is to read prompts; see
        :func:`~tumsyn_bids.training.conditions.make_condition`.
    start : str or path-like, optional
        Model whose weights are the first ones, as :func:`~tumsyn_bids.networks.store.find_model`
        takes it; its configuration replaces that of the settings.
    max_minutes : float, optional
        Stop, resumably, after this time.

    Returns
    -------
    Path
        The model folder; written when the schedule is through or the time is up.

    Raises
    ------
    UsageError
        If there is nothing to train on, or the folder holds a run with other options.
    """
    settings = settings or TrainingSettings()
    out_dir = Path(out_dir)
    engine = Engine(out_dir, engine_settings or EngineSettings(accelerator='cpu'))
    out_dir.mkdir(parents=True, exist_ok=True)
    volumes = _load_volumes(labelmaps, exclude)
    people = [person for path in pairs for person in load_paired_subjects(path, exclude=exclude)]
    if not volumes and not people:
        raise UsageError(
            'there is nothing to train on', path=labelmaps, remedy='Give --labelmaps or --pairs'
        )
    of_paper = isinstance(recipe, PaperRecipe)
    kind = _RUNS[type(recipe)]
    begun = begin(
        settings.config,
        people,
        text_encoder=text_encoder,
        start=start,
        frozen=of_paper,
        part=kind.part,
    )
    _check_part(kind.part, begun.config, volumes, labelmaps, start)
    if begun.config.text.reader == 'table' and (not of_paper or volumes):
        raise UsageError(
            'simulation and the recipe of the embedded model draw new prompts at each step',
            path=text_encoder or start,
            field='--text-encoder' if text_encoder else '--from',
            remedy='A table of embeddings goes with --recipe paper and --pairs alone',
        )
    kinds = [volume.name for volume in volumes], [person.label for person in people]
    kept = keep_apart(kinds, held_out=settings.held_out, seed=settings.seed)
    volumes, kept_volumes = _divide(volumes, lambda volume: volume.name in kept)
    people, kept_people = _divide(people, lambda person: person.label in kept)
    manifest = {
        **_manifest(settings, volumes, people, exclude, recipe, kind.name),
        'text_encoder': None if text_encoder is None else str(text_encoder),
        'start': begun.origin,
        'held_out': [item.name for item in kept_volumes] + [item.label for item in kept_people],
    }
    keep_manifest(engine, manifest)
    run = kind(settings, engine, volumes, people, begun, recipe)
    run.setup()
    engine.resume()
    validate = None
    if kept_volumes or (kept_people and kind.learns_from_people):
        validate = partial(run.validation_loss, kept_volumes, kept_people)
    engine.train(
        settings.steps,
        run.draw,
        run.loss,
        seed=settings.seed,
        learning_rate=run.learning_rate,
        validate=validate,
        max_minutes=max_minutes,
    )
    if engine.first:
        best = engine.best()
        if best is not None:
            run.averaged.load_state_dict(best)
        run.finish(run.averaged)
        save_model(
            run.averaged,
            out_dir / 'model',
            version=f'step {engine.step} of {settings.steps}',
            card={'training': manifest, **_ranges(begun, run)},
            half=True,
        )
    return out_dir / 'model'


def _ranges(begun: Beginning, run: _Run) -> dict:
    # Of a model that does not tell what it has seen, nobody can say what it has not.
    return {} if begun.ranges is None else {'ranges': merged(begun.ranges, run.ranges())}


def _check_part(part: str | None, config, volumes, labelmaps, start) -> None:
    if part is not None and not config.physics_gain:
        raise UsageError(
            'only of a model whose prompts act through the equations',
            path=start,
            field=f'--recipe {part}',
            remedy='Give a model with a physics_gain in its config.json',
        )
    if part == 'tissues' and not volumes:
        raise UsageError(
            'tissues are learned from label maps',
            path=labelmaps,
            field='--recipe tissues',
            remedy='Give --labelmaps',
        )


def _load_volumes(labelmaps, exclude) -> list[TissueVolume]:
    if labelmaps is None:
        return []
    paths = sorted(Path(labelmaps).glob('*.nii*'))
    return [load_tissue_volume(path) for path in paths if not is_excluded(path.name, exclude)]


def _divide(items: list, is_kept: Callable) -> tuple[list, list]:
    return [item for item in items if not is_kept(item)], [i for i in items if is_kept(i)]


def _manifest(
    settings: TrainingSettings,
    volumes: list[TissueVolume],
    people: list[PairedSubject],
    exclude: tuple[str, ...],
    recipe: Recipe | None,
    name: str,
) -> dict:
    return {
        'settings': asdict(settings),
        'recipe': name if recipe is None else {'name': name, **asdict(recipe)},
        'labelmaps': [volume.name for volume in volumes],
        'people': {person.label: sorted(person.images) for person in people},
        'excluded': list(exclude),
    }


class _Run:
    """A training run: what is drawn, and how well it was predicted."""

    #: Of the recipe.
    name = 'embedded'
    #: Of the decoder, that alone is trained; ``None`` for all of the network.
    part: str | None = None
    #: Whether real people are learned from.
    learns_from_people = True

    def __init__(self, settings, engine: Engine, volumes, people, begun: Beginning, recipe):
        self.settings, self.engine, self.recipe = settings, engine, recipe
        self.volumes, self.people, self.config = volumes, people, begun.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = initialise(Model(begun.config))
            self.averaged = Model(begun.config)

        if begun.weights is not None:
            self.model.load_state_dict(begun.weights)
        if begun.text is not None:
            freeze_text(self.model, begun.text)

    def setup(self) -> None:
        """Hand the networks to the engine."""
        self.model.to(memory_format=torch.channels_last_3d)
        self.averaged.load_state_dict(self.model.state_dict())
        self.engine.setup(
            self.module(self.model),
            self.optimizer([p for p in self.model.parameters() if p.requires_grad]),
            model=self.model,
            averaged=self.averaged,
            ema=self.settings.decay,
        )

    def module(self, model: Model) -> nn.Module:
        """Return what is called with a sample."""
        return Step(model, self.settings.margin)

    def validation_loss(self, volumes, people) -> float:
        """Return the loss of the averaged weights on always the same samples of other people."""
        module = self.module(self.averaged)
        to_device = self.engine.fabric.to_device
        samples = self._validation_samples(volumes, people)
        return float(np.mean([float(self.loss(module, *to_device(item))) for item in samples]))

    def _validation_samples(self, volumes, people) -> Iterable[tuple]:
        other = self._of(volumes, people)
        return map(other.draw, self._validation_generators())

    def _of(self, volumes, people) -> _Run:
        """Return the same run on other people."""
        other = copy(self)
        other.volumes, other.people = volumes, people
        return other

    def _validation_generators(self) -> Iterator[np.random.Generator]:
        seeds = range(self.settings.validation_samples)
        return (np.random.default_rng([self.settings.seed, 7, i]) for i in seeds)

    def finish(self, model: Model) -> None:
        """Change the weights that are saved as the model."""

    def ranges(self) -> Ranges:
        """Return what is told of the images that are learned."""
        return merged(training_ranges() if self.volumes else {}, ranges_of(self.people))

    def optimizer(self, weights) -> torch.optim.Optimizer:
        """Return the optimiser."""
        rate = self.settings.learning_rate
        return torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)

    def draw(self, rng: np.random.Generator) -> tuple:
        """Return sources, places, grey levels, what the network is told, and what is right."""
        large = rng.random() < self.settings.large_share
        patch = self.settings.large_patch if large else self.settings.patch
        items = [self._item(rng, patch) for _ in range(self.settings.batch)]
        sources, places, greys, told, truth = zip(*items, strict=True)
        sources = torch.cat(sources).contiguous(memory_format=torch.channels_last_3d)
        return sources, torch.cat(places), torch.cat(greys), list(told), list(truth)

    def _item(self, rng, patch: int):
        sample = self._sample(rng, patch)
        coord, margin = None, self.settings.margin
        if rng.random() < self.settings.off_grid_share:
            sample, offset = off_grid(rng, sample)
            shape = sample.source.shape
            step = torch.tensor([2 * d / n for d, n in zip(offset, shape, strict=True)])
            coord = (make_coord(shape) + step.float()).reshape(1, *shape, 3)
            coord = without_margin(coord.movedim(-1, 1), margin).movedim(1, -1)
        source, *truth = to_tensors(sample)
        prompts = step_prompts(
            sample.prompts, sample.source_prompt, sample.acquisitions, self.config
        )
        truth.append(None if sample.tissue is None else torch.from_numpy(sample.tissue)[None])
        truth = [None if item is None else without_margin(item, margin) for item in truth]
        place, greys = (torch.from_numpy(part)[None] for part in (sample.place, sample.greys))
        return source, place, greys, (*prompts, coord), truth

    def loss(self, step, sources, places, greys, told, truth) -> torch.Tensor:
        """Return how far the predictions are from the targets, on average."""
        made = step(sources, places, greys, told)
        return sum(map(self._sample_loss, made, truth)) / len(truth)

    def _sample_loss(self, made, truth) -> torch.Tensor:
        (images, shares), (targets, mask, tissue) = made, truth
        loss = synthesis_loss(images.float(), targets, mask)
        if tissue is None or shares is None:
            return loss
        return loss + self.settings.tissue_weight * tissue_loss(shares, tissue)

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step: a warm-up, then half a cosine."""
        warm_up = min(1.0, (step + 1) / min(self.settings.warm_up, self.settings.steps // 10 + 1))
        progress = step / self.settings.steps
        floor = 0.02
        cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.settings.learning_rate * warm_up * cosine

    def _sample(self, rng, patch: int, **asked):
        people, volumes = self.people, self.volumes
        real = bool(people) and (not volumes or rng.random() < self.settings.real_share)
        draw, anatomies = (real_sample, people) if real else (simulated_sample, volumes)
        return draw(rng, anatomies, patch=patch, n_targets=self.settings.n_targets, **asked)


class _PartRun(_Run):
    """A training run of a part of the decoder alone, on brains that are encoded once."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._remembered: dict[int, EncodedTissues | EncodedBrain] = {}
        self._held_out: list[tuple] = []
        self.model.requires_grad_(False)
        getattr(self.model.synthesis.imnet, self.part).requires_grad_(True)

    def draw(self, rng: np.random.Generator) -> tuple:
        count = self.recipe.voxels_of_step
        parts = [brain.some(rng, count) for brain in self._brains(rng)]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def _brains(self, rng: np.random.Generator) -> list:
        """Return brains of those that a step may see."""
        # Which these are follows from the step's number, so that a run can be resumed.
        newest = self.recipe.first - 1 + self.engine.step // self.recipe.reuse
        oldest = max(newest - self.recipe.memory + 1, 0)
        for index in [index for index in self._remembered if index < oldest]:
            del self._remembered[index]
        return [self._brain(int(i)) for i in rng.integers(oldest, newest + 1, self.recipe.batch)]

    def _brain(self, index: int):
        if index not in self._remembered:
            rng = np.random.default_rng([self.settings.seed, 11, index])
            self._remembered[index] = self.encode(rng)
        return self._remembered[index]

    def _validation_samples(self, volumes, people) -> list[tuple]:
        """Return some voxels of each of a few brains, which have no place in the memory."""
        # What encodes does not learn: once is enough for all looks.
        if not self._held_out:
            other, count = self._of(volumes, people), self.recipe.voxels_of_step
            self._held_out = [
                other.encode(rng).some(rng, count) for rng in self._validation_generators()
            ]
        return self._held_out

    def encode(self, rng: np.random.Generator):
        """Draw a brain and encode it."""
        raise NotImplementedError


class _TissueRun(_PartRun):
    name = part = 'tissues'
    learns_from_people = False
    loss = staticmethod(reading_loss)

    def module(self, model: Model) -> nn.Module:
        return ReadingStep(model)

    def encode(self, rng: np.random.Generator) -> EncodedTissues:
        sample = draw_sample(rng, self.volumes, self.recipe)
        return encode_tissues(self.model, sample, self.config, rng, self.recipe)

    def ranges(self) -> Ranges:
        # Tissues are learned, and no image.
        return {}


class _CorrectionRun(_PartRun):
    name = part = 'correction'
    loss = staticmethod(correction_loss)

    def module(self, model: Model) -> nn.Module:
        return CorrectionStep(model)

    def encode(self, rng: np.random.Generator) -> EncodedBrain:
        sample = self._sample(rng, self.recipe.patch, whole=True)
        return encode_brain(self.model, sample, self.config, rng, self.recipe)

    def finish(self, model: Model) -> None:
        keep_part(model, self.recipe.kept)


class _PaperRun(_Run):
    """A training run by the recipe of the paper."""

    name = 'paper'

    def module(self, model: Model) -> nn.Module:
        return BothWays(model)

    def optimizer(self, weights) -> torch.optim.Optimizer:
        return torch.optim.Adam(weights, lr=self.recipe.learning_rate, betas=(0.5, 0.999))

    def draw(self, rng: np.random.Generator) -> tuple:
        return self.recipe.draw(rng, self.volumes, self.people, self.config.text)

    def loss(self, module, *sample) -> torch.Tensor:
        return mean_absolute_error(module, *sample)

    def learning_rate(self, step: int) -> float:
        return self.recipe.rate(step, self.settings.steps)


_RUNS = {
    type(None): _Run,
    TissueRecipe: _TissueRun,
    CorrectionRecipe: _CorrectionRun,
    PaperRecipe: _PaperRun,
}
