"""What trainings of a part of the decoder have in common: who is remembered, who is held out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch
from elsewhere import is_elsewhere, on_another_device

from tumsyn_bids.networks.model import Model, load_model, save_model
from tumsyn_bids.simulation.generator import load_tissue_volume
from tumsyn_bids.training.beginning import Beginning, training_config
from tumsyn_bids.training.correcting import CorrectionRecipe, encode_brain
from tumsyn_bids.training.engine import Engine, EngineSettings
from tumsyn_bids.training.initialisation import initialise
from tumsyn_bids.training.reading import TissueRecipe, encode_tissues
from tumsyn_bids.training.samples import simulated_sample
from tumsyn_bids.training.synthesis import TrainingSettings, _CorrectionRun, _TissueRun

MEMORY = {'voxels_of_step': 200, 'batch': 2, 'first': 2, 'reuse': 2, 'memory': 3}
RECIPES = {
    _TissueRun: TissueRecipe(patch=40, voxels=600, **MEMORY),
    _CorrectionRun: CorrectionRecipe(patch=40, voxels=600, **MEMORY),
}
CARD = {'ranges': {'T1w': {'echo_time': [0.003, 0.004]}}}


class _Brain:
    """Stands in for a brain that was encoded: what it tells begins with whose it is."""

    def __init__(self, owner: str, rng):
        self.owner, self.number = owner, rng.random()

    def some(self, rng, count):
        return (torch.tensor([[float(self.owner), self.number, rng.random()]]),)


def _run(kind, folder, monkeypatch, encoded):
    """Return a run on person 1 whose brains are stand-ins; ``encoded`` receives their owners."""

    def encode(self, rng):
        encoded.append(self.volumes[rng.integers(len(self.volumes))])
        return _Brain(encoded[-1], rng)

    monkeypatch.setattr(kind, 'encode', encode)
    config = replace(training_config('tiny'), physics_gain=1.0)
    settings = TrainingSettings(validation_samples=3)
    engine = Engine(folder, EngineSettings('cpu'))
    run = kind(settings, engine, ['1'], [], Beginning(config), RECIPES[kind])
    run.setup()
    run.loss = lambda module, brains: brains.sum()
    return run


def _drawn(run, step: int) -> np.ndarray:
    run.engine.step = step
    (brains,) = run.draw(np.random.default_rng(step))
    return brains.numpy()


@pytest.mark.parametrize('kind', RECIPES)
def test_validation_looks_at_people_held_out_alone_and_leaves_training_alone(
    kind, tmp_path, monkeypatch
):
    encoded = []
    looked_at, undisturbed = (_run(kind, tmp_path / x, monkeypatch, encoded) for x in 'ab')
    losses = []
    for step in range(12):
        drawn = _drawn(looked_at, step)
        assert (drawn[:, 0] == 1).all()
        np.testing.assert_array_equal(drawn, _drawn(undisturbed, step))
        losses.append(looked_at.validation_loss(['2'], []))
    # Each brain held out adds 2 and two numbers below 1 to the loss of its sample.
    assert 2 < losses[0] < 4
    assert len(set(losses)) == 1
    assert encoded.count('2') == 3


@pytest.mark.parametrize('kind', RECIPES)
def test_a_run_that_goes_on_looks_at_the_same_samples_of_people_held_out(
    kind, tmp_path, monkeypatch
):
    first = _run(kind, tmp_path, monkeypatch, [])
    _drawn(first, 0)
    second = _run(kind, tmp_path, monkeypatch, [])
    _drawn(second, 9)
    assert first.validation_loss(['2'], []) == second.validation_loss(['2'], [])


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """A model whose parts were not trained."""
    torch.manual_seed(0)
    model = initialise(Model(replace(training_config('tiny'), physics_gain=1.0)))
    return save_model(model, tmp_path_factory.mktemp('models') / 'start', version='0', card=CARD)


@pytest.fixture(scope='module')
def two_maps(sphere_labelmaps, tmp_path_factory):
    """The nested spheres as two people."""
    folder = tmp_path_factory.mktemp('two')
    for number in (1, 2):
        name = folder / f'sub-{number}_dseg.nii.gz'
        shutil.copy(sphere_labelmaps / 'spheres.nii.gz', name)
    return folder


@pytest.mark.parametrize('recipe', RECIPES.values(), ids=lambda recipe: type(recipe).__name__)
def test_a_run_with_people_held_out_that_was_stopped_goes_on_as_if_it_had_not_been(
    recipe, train_part, start, two_maps, tmp_path
):
    options = {'steps': 7, 'maps': two_maps, 'held_out': 0.5, 'validation_samples': 2}
    whole = train_part(tmp_path / 'whole', start, recipe, **options)
    for _ in range(7):
        # Every call is stopped after its first step.
        parts = train_part(tmp_path / 'parts', start, recipe, minutes=0.0, **options)
    looks = [(tmp_path / name / 'validation.csv').read_text() for name in ('whole', 'parts')]
    assert looks[0] == looks[1]
    assert [line.split(',')[0] for line in looks[0].splitlines()[1:]] == ['3', '6', '7']
    expected, found = (load_model(folder).network.state_dict() for folder in (whole, parts))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-3, rtol=1e-3)


def test_real_people_who_are_held_out_do_not_stop_a_training_that_learns_from_label_maps_alone(
    train_part, start, tmp_path
):
    rng = np.random.default_rng(0)
    for subject in ('sub-01', 'sub-02'):
        folder = tmp_path / 'pairs' / subject / 'anat'
        folder.mkdir(parents=True)
        for suffix in ('T1w', 'T2w'):
            image = np.pad(rng.uniform(50, 100, (20, 20, 20)).astype('f4'), 4)
            name = folder / f'{subject}_desc-brain_{suffix}.nii.gz'
            nb.save(nb.Nifti1Image(image, np.eye(4)), name)
    options = {'steps': 3, 'pairs': [tmp_path / 'pairs'], 'held_out': 0.5}
    folder = train_part(tmp_path / 'run', start, RECIPES[_TissueRun], **options)
    assert load_model(folder).version == 'step 3 of 3'
    assert json.loads((tmp_path / 'run' / 'manifest.json').read_text())['held_out']


@pytest.mark.parametrize(('kind', 'contrasts'), [(_TissueRun, 1), (_CorrectionRun, 7)])
def test_reading_tissues_in_images_of_all_contrasts_is_not_learning_to_make_them(
    kind, contrasts, train_part, start, tmp_path
):
    folder = train_part(tmp_path, start, RECIPES[kind], steps=1)
    ranges = load_model(folder).card['ranges']
    assert len(ranges) == contrasts
    assert ranges['T1w']['echo_time'][0] <= 0.003


@pytest.fixture(scope='module')
def sample(sphere_labelmaps):
    volumes = [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]
    rng = np.random.default_rng(3)
    return simulated_sample(rng, volumes, patch=60, n_targets=2, whole=True)


@pytest.mark.parametrize('encode', [encode_tissues, encode_brain])
def test_brains_are_encoded_where_the_network_is_and_remembered_on_the_cpu(encode, start, sample):
    model = load_model(start).network
    recipe = RECIPES[_TissueRun if encode is encode_tissues else _CorrectionRun]

    def tensors():
        brain = encode(model, sample, model.config, np.random.default_rng(0), recipe)
        values = ((name, getattr(brain, name)) for name in brain.__dataclass_fields__)
        return {name: value for name, value in values if isinstance(value, torch.Tensor)}

    with on_another_device(model):
        assert is_elsewhere(next(model.parameters()) + 1)
        found = tensors()
        assert not any(map(is_elsewhere, found.values()))
    torch.testing.assert_close(found, tensors())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='NOT TESTED: there is no CUDA device')
@pytest.mark.parametrize('kind', RECIPES)
def test_a_part_is_trained_on_a_gpu(kind, train_part, start, two_maps, tmp_path):
    options = {'steps': 4, 'maps': two_maps, 'held_out': 0.5, 'validation_samples': 2}
    folder = train_part(tmp_path, start, RECIPES[kind], accelerator='cuda', **options)
    assert load_model(folder).version == 'step 4 of 4'
