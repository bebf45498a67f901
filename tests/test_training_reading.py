"""Training what reads tissues alone, on patches that are encoded once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tumsyn_bids.acquisition import CONTRASTS
from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import UsageError
from tumsyn_bids.networks.model import Model, load_model, save_model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.physics.expected import BRAIN_SHARES
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.generator import load_tissue_volume
from tumsyn_bids.training.beginning import training_config, with_part
from tumsyn_bids.training.initialisation import initialise
from tumsyn_bids.training.reading import (
    EncodedTissues,
    ReadingStep,
    TissueRecipe,
    encode_tissues,
)
from tumsyn_bids.training.samples import PLACE_ERROR, cropped, simulated_sample
from tumsyn_bids.training.step import Step, step_prompts

RECIPE = TissueRecipe(
    patch=40, voxels=1500, voxels_of_step=500, first=2, reuse=4, memory=3, batch=3
)


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """A model that does not read tissues."""
    config = replace(training_config('tiny'), physics_gain=1.4)
    config = replace(config, decoder=replace(config.decoder, tissues=False))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('models') / 'start'
    return save_model(initialise(Model(config)), folder, version='0', card={})


@torch.inference_mode()
def test_a_model_that_newly_reads_tissues_makes_the_same_default_images(start):
    old = load_model(start).network
    new = with_part(old, 'tissues')
    assert new.config.decoder.tissues
    assert new.config.physics_gain == 1.0
    assert with_part(new, 'tissues') is new
    source, place = torch.rand(1, 1, 9, 8, 10), torch.randn(1, 3, 9, 8, 10)
    text = torch.randn(1, old.config.prompt_dim)
    images = [
        net.imnet.on_grid(net.fusion(net.encoder(source, text), text), text, place=place)
        for net in (old.synthesis, new.synthesis)
    ]
    torch.testing.assert_close(images[0], images[1], atol=1e-5, rtol=1e-5)


def test_remembered_voxels_are_those_of_the_brain(sphere_labelmaps):
    """Features, place and tissue of a voxel belong together."""
    config = replace(get_config('tiny'), physics_gain=1.0)
    torch.manual_seed(0)
    model = initialise(Model(config)).eval()
    rng = np.random.default_rng(3)
    volumes = [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]
    sample = simulated_sample(rng, volumes, patch=60, n_targets=1, whole=True)
    voxels = encode_tissues(model, sample, config, rng, RECIPE)
    whole = cropped(sample)
    prompt = render_prompt(default_protocol('T1w', 3.0).replace(voxel_size=(1.0, 1.0, 1.0)))
    told = step_prompts([prompt], whole.source_prompt, whole.acquisitions[:1], config)
    source = torch.from_numpy(np.ascontiguousarray(whole.source))[None, None]
    place, greys = (torch.from_numpy(part)[None] for part in (whole.place, whole.greys))
    t1w = voxels.features.float() * voxels.gates[list(CONTRASTS).index('T1w')]
    with torch.inference_mode():
        ((_, logits),) = Step(model)(source, place, greys, [(*told, None)])
        found = ReadingStep(model)(t1w, voxels.place.float())
    brain = np.concatenate([logits.numpy(), whole.tissue.reshape(-1, 1)], axis=1)
    for row in torch.cat([found, voxels.tissue[:, None]], dim=1)[:40].numpy():
        assert np.abs(brain - row).max(axis=1).min() < 2e-2
    assert (voxels.tissue >= 0).all()


def test_lesions_are_as_rare_as_asked(sphere_labelmaps):
    volumes = [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]
    lesion = list(BRAIN_SHARES).index('white_matter_lesion')
    rng = np.random.default_rng(2)
    for probability, expected in ((0.0, False), (1.0, True)):
        sample = simulated_sample(
            rng, volumes, patch=60, n_targets=1, whole=True, lesions=probability
        )
        assert (sample.tissue == lesion).any() == expected


def test_no_two_looks_at_a_brain_are_the_same():
    """Sixteen anatomies would be learned by heart."""
    rng = np.random.default_rng(0)
    place = torch.randn(50, 3).half()
    place[:, 0] = place[:, 0].abs()
    place[:10, 0] = 0
    features, tissue = torch.randn(50, 4).half(), torch.arange(50)
    seen = EncodedTissues(features, torch.ones(2, 4), place, tissue, noise=0.1)
    offsets = []
    for _ in range(200):
        told, where, what = seen.some(rng, 400)
        off = (told - features[what].float()) / features.float().std(dim=0)
        assert 0.08 < float(off.std()) < 0.12
        middle = what < 10
        assert (where[middle, 0] == 0).all()
        # One place for all of a brain, not one for each voxel.
        assert len(set(where[what == 20, 1].tolist())) == 1
        offsets.append((where - place[what].float())[~middle].mean(dim=0).numpy())
    spread = np.std(offsets, axis=0)
    assert (spread[1:] > 0.8 * PLACE_ERROR).all()
    assert (spread < 1.5 * PLACE_ERROR).all()


def test_brains_are_turned_no_further_than_asked(sphere_labelmaps):
    volumes = [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]

    def turned(**asked):
        rng = np.random.default_rng(5)
        return simulated_sample(rng, volumes, patch=60, n_targets=1, whole=True, **asked).source

    assert np.array_equal(turned(), turned(rotation_deg=15.0))
    assert not np.array_equal(turned(), turned(rotation_deg=0.0))


def test_the_reader_learns_and_nothing_else_does(train_part, start, tmp_path):
    folder = train_part(tmp_path / 'run', start, RECIPE)
    before = with_part(load_model(start).network, 'tissues').state_dict()
    after = load_model(folder).network.state_dict()
    changed = {key for key in after if not torch.allclose(after[key], before[key], atol=2e-3)}
    assert changed
    assert all(key.startswith('synthesis.imnet.tissues.') for key in changed)
    lines = (tmp_path / 'run' / 'log.csv').read_text().splitlines()[1:]
    losses = [float(line.split(',')[1]) for line in lines]
    assert np.mean(losses[-2:]) < 0.5 * losses[0]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(train_part, start, tmp_path):
    whole = load_model(train_part(tmp_path / 'whole', start, RECIPE, steps=14)).network
    out = tmp_path / 'parts'
    for _ in range(20):
        # Every call is stopped after its first step.
        folder = train_part(out, start, RECIPE, steps=14, minutes=0.0)
    parts = load_model(folder).network
    assert load_model(folder).version == 'step 14 of 14'
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_reading_tissues_needs_a_trained_encoder(sphere_labelmaps, tmp_path, capsys):
    command = ['train', 'synthesis', str(tmp_path / 'run'), '--labelmaps', str(sphere_labelmaps)]
    assert main([*command, '--recipe', 'tissues']) == 2
    assert '--from' in capsys.readouterr().err


def test_tissues_are_refused_where_prompts_do_not_act_through_the_equations(train_part, tmp_path):
    start = save_model(Model(training_config('tiny')), tmp_path / 'model', version='0', card={})
    with pytest.raises(UsageError, match='act through the equations'):
        train_part(tmp_path / 'run', start, RECIPE)
