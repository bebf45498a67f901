"""Training what corrects images, alone, on voxels of brains that are encoded once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tumsyn_bids.cli.tools import main
from tumsyn_bids.greys import PERCENTILES, grey_levels
from tumsyn_bids.networks.correction import ScanKinds
from tumsyn_bids.networks.model import Model, load_model, save_model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.prompt import parse_prompt
from tumsyn_bids.protocols import usual_protocol
from tumsyn_bids.simulation.generator import load_tissue_volume
from tumsyn_bids.training import samples
from tumsyn_bids.training.beginning import training_config, with_part
from tumsyn_bids.training.correcting import CorrectionRecipe, CorrectionStep, encode_brain
from tumsyn_bids.training.initialisation import initialise
from tumsyn_bids.training.people import PairedSubject
from tumsyn_bids.training.samples import cropped, real_sample, simulated_sample
from tumsyn_bids.training.step import Step, step_prompts
from tumsyn_bids.training.synthesis import TrainingSettings

RECIPE = CorrectionRecipe(
    patch=60, voxels=4000, voxels_of_step=800, batch=4, first=2, reuse=6, memory=3
)


@pytest.fixture(scope='module')
def volumes(sphere_labelmaps):
    return [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """A model that corrects nothing."""
    config = replace(training_config('tiny'), physics_gain=1.0)
    config = replace(config, decoder=replace(config.decoder, correction=()))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('models') / 'start'
    return save_model(initialise(Model(config)), folder, version='0', card={})


def test_targets_are_of_default_protocols(volumes):
    """What the network is not told of, the correction must not be asked for."""
    rng = np.random.default_rng(3)
    sample = simulated_sample(rng, volumes, patch=20, n_targets=3, whole=True)
    for acquisition, prompt in zip(sample.acquisitions, sample.prompts, strict=True):
        usual = usual_protocol(acquisition)
        assert acquisition == usual
        assert parse_prompt(prompt).contrast == usual.contrast


def test_real_images_stay_as_they_were_acquired(monkeypatch):
    monkeypatch.setattr(samples, 'RECONTRASTED_SHARE', 1.0)
    monkeypatch.setattr(samples, '_recontrasted', None)
    monkeypatch.setattr(samples, 'PLACE_ERROR', 0.0)
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[8:-8, 6:-6, 7:-7] = True
    images = {name: rng.random(mask.shape).astype('f4') * mask for name in ('T1w', 'T2w')}
    shares = np.stack([0.25 * mask] * 4).astype(np.float16)
    person = PairedSubject('sub-1', samples.Acquisition(), images, mask, shares=shares)
    # All of the brain, voxel for voxel, as it is or mirrored.
    seen = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sample = real_sample(rng, [person], patch=20, n_targets=1, whole=True)
        target = images[parse_prompt(sample.prompts[0]).contrast]
        seen.append(next(s for s in (1, -1) if np.array_equal(sample.targets[0], target[::s])))
        np.testing.assert_array_equal(sample.mask, mask[:: seen[-1]])
        place = person.frame.places([0, 0, 0], mask.shape)[:, :: seen[-1]]
        np.testing.assert_allclose(sample.place, place, atol=1e-4)
    assert set(seen) == {1, -1}
    with pytest.raises(TypeError):
        real_sample(rng, [person], patch=20, n_targets=1)


def test_the_voxel_size_of_a_prompt_does_not_name_the_scanner():
    """Whose slices are thick would be asked for at 1 mm with the contrast of other scanners."""
    mask = np.ones((20, 20, 20), dtype=bool)
    levels = {0.5: (1.0, 1.0, 1.0), 1.0: (0.5, 0.5, 4.0)}
    people = {
        size: PairedSubject(
            f'sub-{size[2]:g}',
            samples.Acquisition(),
            {name: np.full(mask.shape, level, 'f4') for name in ('T1w', 'T2w')},
            mask,
            voxel_size=size,
        )
        for level, size in levels.items()
    }
    stated = {size: [] for size in people}
    for seed in range(80):
        rng = np.random.default_rng(seed)
        sample = real_sample(rng, list(people.values()), patch=8, n_targets=1, whole=True)
        stated[levels[float(sample.targets.max())]].append(
            parse_prompt(sample.prompts[0]).voxel_size
        )
    for size, others in stated.items():
        share = np.mean([other == size for other in others])
        assert 0.6 < share < 0.9
        assert set(others) == set(people)
    # A patch, of which sharpness is learned, states what it is.
    rng = np.random.default_rng(0)
    for _ in range(20):
        sample = real_sample(rng, [people[0.5, 0.5, 4.0]], patch=8, n_targets=1)
        assert parse_prompt(sample.prompts[0]).voxel_size == (0.5, 0.5, 4.0)


@pytest.mark.parametrize('edge', [15, 16])
def test_a_patch_that_is_not_turned_has_the_very_voxels_of_the_scan(monkeypatch, edge):
    """Interpolated between voxels, an image loses what is finest in it."""
    monkeypatch.setattr(samples, 'STILL_SHARE', 1.0)
    monkeypatch.setattr(samples, 'CORRUPTED_SHARE', 0.0)
    rng = np.random.default_rng(0)
    mask = np.ones((40, 40, 40), dtype=bool)
    images = {name: rng.integers(0, 200, mask.shape).astype('f4') for name in ('PDw', 'T2w')}
    person = PairedSubject('sub-1', samples.Acquisition(), images, mask)
    seen = set()
    for seed in range(12):
        sample = real_sample(np.random.default_rng(seed), [person], patch=edge, n_targets=1)
        values = sample.targets[0][sample.mask]
        assert (np.abs(values - np.round(values)) < 0.01).mean() > 0.99
        seen.update(tuple(np.round(values[:8])))
    assert len(seen) > 20


def test_samples_tell_the_grey_levels_of_all_of_the_source(volumes, monkeypatch):
    monkeypatch.setattr(samples, 'GREY_ERROR', 0.0)
    monkeypatch.setattr(samples, 'CORRUPTED_SHARE', 0.0)
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[5:-5, 5:-5, 5:-5] = True
    images = {name: rng.random(mask.shape).astype('f4') * mask for name in ('PDw', 'T2w')}
    images['T2w'] **= 3
    person = PairedSubject('sub-1', samples.Acquisition(), images, mask)
    for seed in range(6):
        sample = real_sample(np.random.default_rng(seed), [person], patch=16, n_targets=1)
        source = ({'PDw', 'T2w'} - {parse_prompt(sample.prompts[0]).contrast}).pop()
        np.testing.assert_allclose(sample.greys, grey_levels(images[source], mask))
    # A simulated head of three tissues has no others' grey values; noise and blur aside.
    for seed in range(6):
        sample = simulated_sample(np.random.default_rng(seed), volumes, patch=56, n_targets=1)
        patch = grey_levels(sample.source, sample.mask)
        assert np.abs(sample.greys - patch)[3:6].mean() < 0.25


def test_what_is_remembered_is_what_the_whole_brain_is_decoded_to(volumes):
    config = replace(get_config('tiny'), physics_gain=1.0)
    torch.manual_seed(0)
    model = initialise(Model(config)).eval()
    torch.nn.init.normal_(model.synthesis.imnet.correction.output.weight)
    rng = np.random.default_rng(3)
    sample = cropped(simulated_sample(rng, volumes, patch=60, n_targets=2, whole=True), margin=2)
    brain = encode_brain(model, sample, config, rng, replace(RECIPE, voxels=10**6))
    *told, targets = brain.some(rng, 500)
    made = CorrectionStep(model)(*told).detach()
    assert made.shape == targets.shape == (2, 500)
    prompts = step_prompts(sample.prompts, sample.source_prompt, sample.acquisitions, config)
    source = torch.from_numpy(np.ascontiguousarray(sample.source))[None, None]
    place, greys = (torch.from_numpy(part)[None] for part in (sample.place, sample.greys))
    with torch.inference_mode():
        ((whole, _),) = Step(model)(source, place, greys, [(*prompts, None)])
    # Which voxels were drawn is told by their places, which are all different but for the side.
    inside = torch.from_numpy(sample.mask)
    places, images = torch.from_numpy(sample.place)[:, inside].T, whole[0][:, inside]
    right = torch.from_numpy(sample.targets)[:, inside]
    nearest = torch.cdist(told[2][0], places).topk(2, largest=False).indices
    for all_values, values in ((images, made), (right, targets)):
        off = (all_values[:, nearest] - values[..., None]).abs().amin(dim=-1)
        assert off.median() < 2e-3
        assert off.quantile(0.95) < 0.05


def test_the_correction_learns_and_nothing_else_does(train_part, start, tmp_path):
    folder = train_part(tmp_path / 'run', start, RECIPE)
    before = with_part(load_model(start).network, 'correction').state_dict()
    after = load_model(folder).network.state_dict()
    changed = {key for key in after if not torch.allclose(after[key], before[key], atol=2e-3)}
    assert changed
    assert all(key.startswith('synthesis.imnet.correction.') for key in changed)
    lines = (tmp_path / 'run' / 'log.csv').read_text().splitlines()[1:]
    losses = [float(line.split(',')[1]) for line in lines]
    assert np.mean(losses[-2:]) < 0.7 * losses[0]


def test_a_part_of_the_correction_is_kept(train_part, start, tmp_path):
    """The same run with a quarter kept corrects a quarter."""
    parts = {}
    for kept in (1.0, 0.25):
        folder = train_part(tmp_path / str(kept), start, replace(RECIPE, kept=kept), steps=4)
        parts[kept] = load_model(folder).network.synthesis.imnet.correction
    n_text = parts[1.0].told.in_features - len(PERCENTILES)
    kinds = ScanKinds(torch.randn(1, n_text), torch.rand(1, len(PERCENTILES)))
    told = (torch.rand(1, 9, 16), None, kinds)
    whole, quarter = (parts[kept](*told).detach() for kept in (1.0, 0.25))
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(quarter, 0.25 * whole, atol=1e-4, rtol=0.02)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(train_part, start, tmp_path):
    whole = load_model(train_part(tmp_path / 'whole', start, RECIPE, steps=6)).network
    for _ in range(8):
        # Every call is stopped after its first step.
        folder = train_part(tmp_path / 'parts', start, RECIPE, steps=6, minutes=0.0)
    assert load_model(folder).version == 'step 6 of 6'
    parts = load_model(folder).network.state_dict()
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts[key], value, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_a_model_that_newly_corrects_makes_the_same_images(start):
    old = load_model(start).network
    new = with_part(old, 'correction')
    assert new.config.decoder.correction
    assert with_part(new, 'correction') is new
    features, text = torch.rand(1, 16, 5, 6, 4), torch.randn(1, old.config.prompt_dim)
    images = [net.synthesis.imnet.on_grid(features, text) for net in (old, new)]
    torch.testing.assert_close(*images)


def test_a_correction_needs_a_trained_encoder(sphere_labelmaps, tmp_path, capsys):
    command = ['train', 'synthesis', str(tmp_path / 'run'), '--labelmaps', str(sphere_labelmaps)]
    assert main([*command, '--recipe', 'correction']) == 2
    assert '--from' in capsys.readouterr().err


@pytest.mark.parametrize(('steps', 'reach'), [(32_000, 1000), (700, 140), (4, 1)])
def test_averaged_weights_forget_the_beginning_of_a_short_run(steps, reach):
    """Decay d reaches over 1 / (1 - d) steps: a thousand, or a fifth of the run."""
    assert 1 / (1 - TrainingSettings(steps=steps).decay) == pytest.approx(reach, rel=1e-6)
