"""What every training has in common: devices, precision, averaging, checkpoints, a log.

The devices are Lightning Fabric's business. Everything random in a step derives from the seed and
the number of the step, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import UsageError
from ..files import staged
from ..networks.hardware import has_bfloat16
from ..networks.weights import misfit

LOGGER = logging.getLogger(__name__)
CHECKPOINT = 'checkpoint.pt'
#: The weights that did best on the people held out.
BEST = 'best.pt'


@dataclass(frozen=True)
class EngineSettings:
    """How a training runs, apart from what it learns.

    Attributes
    ----------
    accelerator : str
        ``auto``, ``cpu`` or ``cuda``.
    devices, nodes : int
        Processes per node and nodes. Under ``torchrun`` or SLURM as many as were started.
    precision : str
        ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` is ``bf16-mixed`` where the device
        computes in it, which others only emulate, and ``32-true`` elsewhere.
    accumulate : int
        Samples whose gradients are added up for one step of the optimiser.
    clip : float
        Largest norm of the gradient.
    save_every_s : float
        Seconds between checkpoints.
    log_every : int
        Steps between lines of ``log.csv``.
    validate_every : int
        Steps between looks at the people held out, if there are any.
    """

    accelerator: str = 'auto'
    devices: int = 1
    nodes: int = 1
    precision: str = 'auto'
    accumulate: int = 1
    clip: float = 1.0
    save_every_s: float = 180.0
    log_every: int = 50
    validate_every: int = 500


class Engine:
    """The state of a training run: weights, their average, the optimiser and the step.

    Parameters
    ----------
    out_dir : path-like
        Receives ``checkpoint.pt`` and ``log.csv``.
    settings : EngineSettings

    Raises
    ------
    UsageError
        If Lightning Fabric is not installed, or the devices asked for are not there.
    """

    def __init__(self, out_dir: str | Path, settings: EngineSettings):
        self.settings = settings
        self.out_dir = Path(out_dir)
        self.fabric = _fabric(settings)
        self.step = 0
        self._lost: list[float] = []

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.fabric.is_global_zero

    def setup(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        model: nn.Module,
        averaged: nn.Module | None = None,
        ema: float = 0.0,
    ) -> None:
        """Take over a training.

        Parameters
        ----------
        module : Module
            Called for each sample; holds ``model``.
        optimizer : Optimizer
        model : Module
            The weights that checkpoints keep.
        averaged : Module, optional
            Receives the exponential moving average of the weights of ``model``.
        ema : float
            Decay of the average.
        """
        self.model, self.averaged, self.ema = model, averaged, ema
        with _memory():
            self.module, self.optimizer = self.fabric.setup(module, optimizer)
            if averaged is not None:
                averaged.to(self.fabric.device)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises
        ------
        UsageError
            If the checkpoint is of another network or cannot be read.
        """
        path = self.out_dir / CHECKPOINT
        if not path.exists():
            return
        try:
            state = _read(path)
            self._check(state)
            self.model.load_state_dict(state['model'])
            if self.averaged is not None:
                self.averaged.load_state_dict(state['averaged'])
            self.optimizer.load_state_dict(state['optimizer'])
            self.fabric.strategy.precision.load_state_dict(state.get('scale', {}))
            self.step = state['step']
            self._lost = list(state.get('lost', ()))
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(
                f'the run cannot go on from here ({reason})',
                path=path,
                remedy='Give the options of the first start, or another folder',
            ) from error
        self._shorten_log()
        LOGGER.info('resumed at step %d', self.step)

    def _check(self, state) -> None:
        needed = ['model', 'optimizer', 'step'] + ['averaged'] * (self.averaged is not None)
        absent = [key for key in needed if key not in state]
        if absent:
            raise ValueError(f'no {" and no ".join(absent)} in it, as another version writes it')
        for key in ('model', 'averaged') if self.averaged is not None else ('model',):
            problem = misfit(self.model.state_dict(), state[key])
            if problem:
                raise ValueError(f'it is of another network: {problem}')

    def save(self) -> None:
        """Write the checkpoint; a reader finds the old one or the new one."""
        if self.first:
            state = {
                'model': self.model.state_dict(),
                'optimizer': self.optimizer.state_dict(),
                'step': self.step,
                'lost': self._lost,
                'scale': self.fabric.strategy.precision.state_dict(),
            }
            if self.averaged is not None:
                state['averaged'] = self.averaged.state_dict()
            _replace(self.out_dir / CHECKPOINT, state)
        self.fabric.barrier()

    def train(
        self,
        steps: int,
        draw: Callable[[np.random.Generator], tuple],
        loss: Callable[..., torch.Tensor],
        *,
        seed: int,
        learning_rate: Callable[[int], float],
        validate: Callable[[], float] | None = None,
        max_minutes: float | None = None,
    ) -> None:
        """Train until a step.

        Parameters
        ----------
        steps : int
            Length of the whole schedule.
        draw : callable
            ``draw(rng)`` gives a sample.
        loss : callable
            ``loss(module, *sample)`` gives a scalar tensor.
        seed : int
        learning_rate : callable
            Of the number of the step.
        validate : callable, optional
            Gives the loss on the people held out, of the averaged weights if there are any. It
            goes into ``validation.csv``, and the weights that have the lowest are kept.
        max_minutes : float, optional
            Stop, resumably, after this time.

        Raises
        ------
        UsageError
            If the loss is not finite or the device's memory does not suffice.
        """
        from tqdm import tqdm

        started = saved = time.monotonic()
        bar = tqdm(total=steps, initial=self.step, unit='step', disable=None)
        while self.step < steps:
            for group in self.optimizer.param_groups:
                group['lr'] = learning_rate(self.step)
            self._lost.append(self._one_step(draw, loss, seed))
            bar.update()
            now = time.monotonic()
            if self.step % self.settings.log_every == 0:
                self._log(steps, now - started)
            if validate and (self.step % self.settings.validate_every == 0 or self.step == steps):
                self._validate(validate)
            late = max_minutes is not None and now - started > 60 * max_minutes
            late = self._anyone(late)
            if late or self._anyone(now - saved > self.settings.save_every_s):
                self.save()
                saved = now
            if late:
                break
        bar.close()
        self.save()

    def best(self) -> dict | None:
        """Return the weights that did best on the people held out, if they were looked at."""
        path = self.out_dir / BEST
        return _read(path)['weights'] if path.exists() else None

    def _validate(self, validate: Callable[[], float]) -> None:
        if self.first:
            with torch.no_grad(), _memory():
                value = float(validate())
            _append(self.out_dir / 'validation.csv', 'step,loss', f'{self.step},{value:.5f}')
            path = self.out_dir / BEST
            lowest = float('inf')
            if path.exists():
                lowest = _read(path)['loss']
            if value < lowest:
                weights = (self.model if self.averaged is None else self.averaged).state_dict()
                state = {'loss': value, 'step': self.step, 'weights': weights}
                _replace(path, state)
        self.fabric.barrier()

    def _one_step(self, draw, loss, seed) -> float:
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for micro in range(self.settings.accumulate):
            place = self.fabric.global_rank * self.settings.accumulate + micro
            rng = np.random.default_rng([seed, self.step, place] if place else [seed, self.step])
            last = micro == self.settings.accumulate - 1
            with _memory(), self.fabric.no_backward_sync(self.module, enabled=not last):
                value = loss(self.module, *self.fabric.to_device(draw(rng)))
                self.fabric.backward(value / self.settings.accumulate)
            total += float(value.detach())
        mean = torch.tensor(total / self.settings.accumulate, device=self.fabric.device)
        mean = float(self.fabric.all_reduce(mean))
        self._check_finite('the loss', mean)
        with _memory():
            self._advance()
        self.step += 1
        return mean

    def _advance(self) -> None:
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=self.settings.clip, error_if_nonfinite=False
        )
        # float16 begins with a scale that may be too large; the optimiser leaves such steps out.
        if self.settings.precision != '16-mixed':
            self._check_finite('the gradient', float(norm))
        self.optimizer.step()
        self._average()

    def _check_finite(self, what: str, value: float) -> None:
        if not np.isfinite(value):
            raise UsageError(
                f'{what} is not finite at step {self.step}',
                path=self.out_dir,
                remedy='Look for images that are not finite, or lower the learning rate',
            )

    def _anyone(self, yes: bool) -> bool:
        if self.fabric.world_size == 1:
            return yes
        flag = torch.tensor(float(yes), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op='sum') > 0)

    def _log(self, steps: int, seconds: float) -> None:
        mean = np.mean(self._lost)
        self._lost.clear()
        if not self.first:
            return
        rate = self.optimizer.param_groups[0]['lr']
        line = f'{self.step},{mean:.5f},{rate:.2e},{seconds:.0f}'
        _append(self.out_dir / 'log.csv', 'step,loss,learning_rate,seconds', line)
        LOGGER.info('step %d of %d: loss %.4f', self.step, steps, mean)

    def _shorten_log(self) -> None:
        """Drop the lines after the checkpoint: those steps will be done again."""
        for path in (self.out_dir / 'log.csv', self.out_dir / 'validation.csv'):
            if not self.first or not path.exists():
                continue
            header, *lines = path.read_text().splitlines()
            kept = [line for line in lines if int(line.partition(',')[0]) <= self.step]
            path.write_text('\n'.join([header, *kept]) + '\n')

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        # A young average would be dominated by the random start, so the decay grows with age.
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for mean, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mean.copy_(value)


@contextmanager
def _memory() -> Iterator[None]:
    """Say which settings to lower where the memory of the device does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(
            'the memory of the device does not suffice',
            remedy='Lower --batch or --points and raise --accumulate to make up for it, choose a '
            'smaller --config, or use --precision bf16-mixed',
        ) from error


def _read(path: Path) -> dict:
    # What a GPU wrote is read where there is none, too.
    return torch.load(path, weights_only=True, map_location='cpu')


def _replace(path: Path, state: dict) -> None:
    with staged(path) as temporary:
        torch.save(state, temporary)


def _append(path: Path, header: str, line: str) -> None:
    new = not path.exists()
    with path.open('a') as stream:
        stream.write(f'{header}\n{line}\n' if new else f'{line}\n')


def _precision(settings: EngineSettings) -> str:
    if settings.precision != 'auto':
        return settings.precision
    gpu = settings.accelerator != 'cpu' and torch.cuda.is_available()
    return 'bf16-mixed' if has_bfloat16(torch.device('cuda' if gpu else 'cpu')) else '32-true'


def _fabric(settings: EngineSettings):
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise UsageError(
            'training needs Lightning Fabric, which is not installed',
            remedy="Install it: pip install 'tumsyn-bids[train]'",
        ) from error
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=_precision(settings),
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f'these devices are not here ({error})',
            field='--accelerator, --devices, --nodes, --precision',
            remedy='Give --accelerator cpu, or start it where the GPUs are',
        ) from error
    fabric.launch()
    return fabric
