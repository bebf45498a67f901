"""The engine: killed runs, several processes, accumulation, unusable numbers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tumsyn_bids.errors import UsageError
from tumsyn_bids.training.engine import BEST, CHECKPOINT, Engine, EngineSettings
from tumsyn_bids.training.text_image import train_text_image

# Learn y = 2 x; `argv`: folder, steps, processes, accumulation, seconds per step.
SCRIPT = """
import sys, time
import torch
from torch import nn
from tumsyn_bids.training.engine import Engine, EngineSettings

out, steps, devices, accumulate, pause = sys.argv[1], *map(float, sys.argv[2:])
torch.manual_seed(0)
model, averaged = nn.Linear(4, 1), nn.Linear(4, 1)
averaged.load_state_dict(model.state_dict())
engine = Engine(out, EngineSettings('cpu', int(devices), precision='32-true',
    accumulate=int(accumulate), save_every_s=0, log_every=3))
engine.setup(model, torch.optim.Adam(model.parameters()), model=model, averaged=averaged, ema=0.9)
engine.resume()

def draw(rng):
    x = torch.from_numpy(rng.standard_normal((8, 4), dtype='f4'))
    time.sleep(pause)
    return x, 2 * x.sum(1, keepdim=True)

engine.train(int(steps), draw, lambda m, x, y: (m(x) - y).abs().mean(), seed=1,
    learning_rate=lambda step: 0.05)
"""


@pytest.fixture(scope='module')
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp('engine') / 'learn.py'
    path.write_text(SCRIPT)
    return path


def _command(script, out, steps=20, devices=1, accumulate=1, pause=0.0):
    out.mkdir(exist_ok=True)
    return [sys.executable, script, *map(str, (out, steps, devices, accumulate, pause))]


def _environment():
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(sys.path)}


def _run(*args, **kwargs):
    subprocess.run(
        _command(*args, **kwargs), env=_environment(), check=True, capture_output=True, timeout=120
    )


def _curve(out):
    return [line.rsplit(',', 1)[0] for line in (out / 'log.csv').read_text().splitlines()]


def test_run_that_was_killed_has_the_loss_curve_of_an_undisturbed_one(script, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    _run(script, whole)
    running = subprocess.Popen(
        _command(script, parts, pause=0.2),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    log = parts / 'log.csv'
    while not (log.exists() and len(log.read_text().splitlines()) > 2):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert torch.load(parts / CHECKPOINT, weights_only=True)['step'] < 20
    _run(script, parts)
    assert _curve(parts) == _curve(whole)
    first, second = (torch.load(p / CHECKPOINT, weights_only=True) for p in (whole, parts))
    torch.testing.assert_close(first['averaged'], second['averaged'], rtol=0, atol=0)


def test_two_processes_do_what_one_does_that_accumulates_twice(script, tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    _run(script, one, accumulate=2)
    _run(script, two, devices=2)
    first, second = (torch.load(p / CHECKPOINT, weights_only=True) for p in (one, two))
    torch.testing.assert_close(first['model'], second['model'], rtol=1e-5, atol=1e-6)
    assert len(_curve(two)) == 1 + 20 // 3


def _engine(tmp_path):
    model = nn.Linear(2, 1)
    engine = Engine(tmp_path, EngineSettings('cpu', precision='32-true', log_every=1))
    engine.setup(model, torch.optim.Adam(model.parameters()), model=model)
    return engine


def _train(engine, value):
    engine.train(
        2,
        lambda rng: (torch.full((1, 2), value),),
        lambda module, x: module(x).sum(),
        seed=0,
        learning_rate=lambda step: 1e-3,
    )


def test_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    engine = _engine(tmp_path)
    with pytest.raises(UsageError, match='not finite at step 0'):
        _train(engine, float('nan'))
    assert all(torch.isfinite(p).all() for p in engine.model.parameters())


def test_gradient_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    engine = _engine(tmp_path)
    with pytest.raises(UsageError, match='the gradient is not finite at step 0'):
        # The root has no slope at 0, where its value is fine.
        engine.train(
            1,
            lambda rng: (torch.zeros(1, 2),),
            lambda module, x: (module(x) * 0).sqrt().sum(),
            seed=0,
            learning_rate=lambda step: 1e-3,
        )
    assert all(torch.isfinite(p).all() for p in engine.model.parameters())


def _float16_engine(folder):
    """As on a GPU with --precision 16-mixed, for which a CPU has no setting."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    torch.manual_seed(0)
    engine = Engine(folder, EngineSettings('cpu', precision='16-mixed', save_every_s=1e9))
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**20)
    engine.fabric = Fabric(accelerator='cpu', plugins=MixedPrecision('16-mixed', 'cpu', scaler))
    model = nn.Linear(2, 1)
    engine.setup(model, torch.optim.Adam(model.parameters()), model=model)
    engine.resume()
    return engine


def _descend(engine, steps):
    engine.train(
        steps,
        lambda rng: (torch.from_numpy(rng.standard_normal((4, 2), dtype='f4')),),
        lambda module, x: module(x).sum(),
        seed=0,
        learning_rate=lambda step: 0.1,
    )
    return engine.model.weight.detach().clone()


def test_float16_finds_its_scale_and_keeps_it_over_an_interruption(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    engine = _float16_engine(tmp_path / 'a')
    before = engine.model.weight.detach().clone()
    undisturbed = _descend(engine, 8)
    assert torch.isfinite(undisturbed).all()
    assert not torch.equal(undisturbed, before)
    _descend(_float16_engine(tmp_path / 'b'), 5)
    assert torch.equal(_descend(_float16_engine(tmp_path / 'b'), 8), undisturbed)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_gpu_that_is_not_there_is_refused_before_data_are_read(tmp_path):
    with pytest.raises(UsageError, match=r'--accelerator.*devices are not here'):
        train_text_image(tmp_path, tmp_path, engine_settings=EngineSettings('cuda'))


def test_lack_of_memory_tells_what_to_lower(tmp_path):
    engine = _engine(tmp_path)

    def loss(module, x):
        raise torch.OutOfMemoryError('CUDA out of memory')

    with pytest.raises(UsageError, match='Lower --batch'):
        engine.train(1, lambda rng: (torch.zeros(1),), loss, seed=0, learning_rate=float)


def test_optimiser_that_does_not_fit_into_memory_tells_what_to_lower(tmp_path, monkeypatch):
    engine = _engine(tmp_path)

    def step():
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(engine.optimizer, 'step', step)
    with pytest.raises(UsageError, match='Lower --batch'):
        _train(engine, 1.0)


def test_network_that_does_not_fit_into_memory_tells_what_to_lower(tmp_path, monkeypatch):
    def setup(*args):
        raise torch.OutOfMemoryError('CUDA out of memory')

    engine = Engine(tmp_path, EngineSettings('cpu', precision='32-true'))
    monkeypatch.setattr(engine.fabric, 'setup', setup)
    model = nn.Linear(2, 1)
    with pytest.raises(UsageError, match=r'Lower --batch .* smaller --config'):
        engine.setup(model, torch.optim.Adam(model.parameters()), model=model)


@pytest.mark.parametrize('content', [b'', b'not a checkpoint'])
def test_broken_checkpoint_is_refused(tmp_path, content):
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(UsageError, match='cannot go on'):
        _engine(tmp_path).resume()


def test_checkpoint_of_another_network_is_refused_and_its_keys_are_listed(tmp_path):
    other = {'model': {'x': torch.zeros(1)}, 'optimizer': {}, 'step': 3}
    torch.save(other, tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match='2 missing: bias, weight; 1 unexpected: x'):
        _engine(tmp_path).resume()
    other['model'] = {'bias': torch.zeros(1), 'weight': torch.zeros(3, 2)}
    torch.save(other, tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match=r'weight is \(3, 2\) and not \(1, 2\)'):
        _engine(tmp_path).resume()


def test_checkpoint_of_an_older_version_is_refused_by_what_it_lacks(tmp_path):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match='no model and no optimizer and no step in it'):
        _engine(tmp_path).resume()


def test_checkpoint_without_the_mean_of_the_log_goes_on(tmp_path):
    engine = _engine(tmp_path)
    _train(engine, 1.0)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state['lost']
    torch.save(state, tmp_path / CHECKPOINT)
    engine = _engine(tmp_path)
    engine.resume()
    assert engine.step == 2


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({'model': _Bomb(tmp_path / 'ran')}, tmp_path / CHECKPOINT)
    with pytest.raises(UsageError, match='cannot go on'):
        _engine(tmp_path).resume()
    assert not (tmp_path / 'ran').exists()


class _Bomb:
    """Makes a file when something runs what a pickle asks for."""

    def __init__(self, target):
        self._target = target

    def __reduce__(self):
        return open, (str(self._target), 'w')


def test_a_run_that_was_begun_on_a_gpu_goes_on_where_there_is_none(tmp_path, monkeypatch):
    def goes_on(loss):
        engine = _engine(tmp_path)
        engine.settings = replace(engine.settings, validate_every=1)
        engine.resume()
        engine.train(
            engine.step + 1,
            lambda rng: (torch.ones(1, 2),),
            lambda module, x: module(x).sum(),
            seed=0,
            learning_rate=lambda step: 1e-3,
            validate=lambda: loss,
        )
        return engine

    # The files say that their tensors were on a GPU.
    with monkeypatch.context() as patched:
        patched.setattr('torch.serialization.location_tag', lambda storage: 'cuda:0')
        first = goes_on(1.0)
    assert 'cuda:0' in _strings_of(tmp_path / BEST)
    weights = first.best()
    second = goes_on(2.0)
    assert second.step == 2
    for key, value in second.best().items():
        assert value.device.type == 'cpu'
        torch.testing.assert_close(value, weights[key])


def _strings_of(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith('data.pkl')]
        return archive.read(name).decode('latin-1')


def test_each_process_and_sample_draws_its_own_numbers(tmp_path):
    model = nn.Linear(1, 1)
    engine = Engine(tmp_path, EngineSettings('cpu', precision='32-true', accumulate=3))
    engine.setup(model, torch.optim.SGD(model.parameters()), model=model)
    drawn = []

    def draw(rng):
        drawn.append(rng.random())
        return (torch.ones(1, 1),)

    engine.train(2, draw, lambda m, x: m(x).sum(), seed=0, learning_rate=lambda step: 0.1)
    assert len(np.unique(drawn)) == 6


@pytest.mark.parametrize(('has', 'precision'), [(True, 'bf16-mixed'), (False, '32-true')])
def test_precision_is_what_the_device_computes_in(tmp_path, monkeypatch, has, precision):
    monkeypatch.setattr('tumsyn_bids.training.engine.has_bfloat16', lambda device: has)
    engine = Engine(tmp_path, EngineSettings('cpu'))
    assert engine.fabric.strategy.precision.precision == precision
