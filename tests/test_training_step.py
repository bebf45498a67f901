"""A training step whose prompts act through the equations, and whose shares are tissues."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.networks.decoder import make_coord
from tumsyn_bids.networks.model import Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.physics.expected import BRAIN_SHARES, expected_signals, share_of
from tumsyn_bids.prompt import parse_prompt, render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.generator import load_tissue_volume
from tumsyn_bids.training import samples
from tumsyn_bids.training.samples import simulated_sample
from tumsyn_bids.training.step import (
    UNKNOWN_TISSUE,
    Step,
    step_prompts,
    tissue_loss,
    without_margin,
)


@pytest.fixture(scope='module')
def sample(sphere_labelmaps):
    volumes = [load_tissue_volume(sphere_labelmaps / 'spheres.nii.gz')]
    return simulated_sample(np.random.default_rng(3), volumes, patch=24, n_targets=2)


def _step(sample, config, acquisitions=None):
    acquisitions = sample.acquisitions if acquisitions is None else acquisitions
    return step_prompts(sample.prompts, sample.source_prompt, acquisitions, config)


def test_simulated_samples_know_their_tissues(sample):
    names = list(BRAIN_SHARES)
    inside = sample.tissue[sample.mask]
    assert (sample.tissue[~sample.mask] == UNKNOWN_TISSUE).all()
    # Lesions are added at random; the rest is what the spheres are.
    found = {names[index] for index in np.unique(inside)} - {'white_matter_lesion'}
    assert found <= {'white_matter', 'cortex', 'csf'}
    assert len(found) > 1
    assert names[share_of('cerebellar_cortex')] == 'cortex'
    assert share_of('fat') == len(names)


def test_with_a_gain_the_network_reads_default_protocols_and_mixes_the_real_ones(sample):
    plain = get_config('tiny')
    config = replace(plain, physics_gain=1.0)
    _, numbers, signals = _step(sample, config)
    for row, acquisition in enumerate(sample.acquisitions):
        np.testing.assert_array_equal(signals[row], expected_signals(acquisition))
    # Another echo time: nothing that is read changes, what is mixed does.
    others = [item.replace(echo_time=3 * item.echo_time) for item in sample.acquisitions]
    changed = replace(sample, prompts=tuple(render_prompt(item) for item in others))
    ids2, numbers2, signals2 = _step(changed, config, others)
    known = replace(sample, prompts=tuple(render_prompt(item) for item in sample.acquisitions))
    ids1, numbers1, _ = _step(known, config)
    assert torch.equal(ids1, ids2)
    assert torch.equal(numbers1, numbers2)
    assert not torch.allclose(signals, signals2)
    # Without a gain the prompt itself is read.
    assert _step(sample, plain)[2] is None
    assert not torch.equal(_step(known, plain)[1], _step(changed, plain)[1])
    contrast = parse_prompt(sample.prompts[0]).contrast
    usual = expected_signals(default_protocol(contrast, 3.0))
    np.testing.assert_allclose(numbers[0, -len(usual) :], usual, atol=1e-6)


def test_shares_learn_the_tissues(sample):
    torch.manual_seed(0)
    config = replace(get_config('tiny'), physics_gain=1.0)
    model = Model(config)
    step, told = Step(model), _step(sample, config)
    source = torch.from_numpy(np.ascontiguousarray(sample.source))[None, None]
    place, greys = (torch.from_numpy(part)[None] for part in (sample.place, sample.greys))
    tissue = torch.from_numpy(sample.tissue)[None]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        ((images, shares),) = step(source, place, greys, [(*told, None)])
        loss = tissue_loss(shares, tissue)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert images.shape == (1, 2, 24, 24, 24)
    assert losses[-1] < 0.6 * losses[0]
    # What lies outside of the brain says nothing.
    known = shares.detach().clone()
    known[tissue.flatten() == UNKNOWN_TISSUE] = 99.0
    assert float(tissue_loss(known, tissue)) == pytest.approx(
        float(tissue_loss(shares.detach(), tissue))
    )


def test_shares_are_how_probable_tissues_are():
    """What looks like cortex and is a lesion one time in ten is one tenth of a lesion."""
    names = list(BRAIN_SHARES)
    tissue = torch.full((1, 100, 1, 1), names.index('cortex'))
    tissue[0, :10] = names.index('white_matter_lesion')
    logits = torch.zeros(1, len(names) + 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(300):
        loss = tissue_loss(logits.expand(100, -1), tissue)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = logits.detach().softmax(dim=-1)[0]
    assert float(shares[names.index('white_matter_lesion')]) == pytest.approx(0.1, abs=0.01)
    assert float(shares[names.index('cortex')]) == pytest.approx(0.9, abs=0.01)


def test_sources_of_a_batch_do_not_mix(sample):
    torch.manual_seed(0)
    config = replace(get_config('tiny'), physics_gain=1.0)
    step, told = Step(Model(config)), _step(sample, config)
    source = torch.from_numpy(np.ascontiguousarray(sample.source))[None, None]
    place, greys = (torch.from_numpy(part)[None] for part in (sample.place, sample.greys))
    with torch.inference_mode():
        alone = step(source, place, greys, [(*told, None)])
        pair = step(
            torch.cat([source.flip(2), source]),
            torch.cat([place, place]),
            torch.cat([greys + 1, greys]),
            [(*told, None)] * 2,
        )
    torch.testing.assert_close(pair[1], alone[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(pair[0][0], alone[0][0])


def test_the_margin_is_encoded_but_not_decoded(sample):
    torch.manual_seed(0)
    config = replace(get_config('tiny'), physics_gain=1.0)
    model, told = Model(config), _step(sample, config)
    source = torch.from_numpy(np.ascontiguousarray(sample.source))[None, None]
    place, greys = (torch.from_numpy(part)[None] for part in (sample.place, sample.greys))
    coord = make_coord(source.shape[2:]).reshape(1, 24, 24, 24, 3)
    inner = without_margin(coord.movedim(-1, 1), 5).movedim(1, -1)
    with torch.inference_mode():
        ((whole, _),) = Step(model)(source, place, greys, [(*told, None)])
        ((part, shares),) = Step(model, 5)(source, place, greys, [(*told, None)])
        ((at_points, _),) = Step(model, 5)(source, place, greys, [(*told, inner)])
    assert part.shape == (1, 2, 14, 14, 14)
    assert shares.shape[0] == 14**3
    torch.testing.assert_close(part, whole[..., 5:-5, 5:-5, 5:-5], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(at_points, part, atol=1e-3, rtol=1e-3)


def test_a_patch_knows_where_in_the_brain_it_is(tmp_path, monkeypatch):
    """Of a ball inside a shell, a voxel's place tells its tissue, however the patch is turned."""
    monkeypatch.setattr(samples, 'PLACE_ERROR', 0.0)
    index = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing='ij'), -1) - 29.5
    radius = np.linalg.norm(index, axis=-1)
    labels = np.zeros((60, 60, 60), dtype=np.int16)
    labels[radius < 24], labels[radius < 12] = 3, 4
    nb.save(nb.Nifti1Image(labels, np.eye(4)), tmp_path / 'ball.nii.gz')
    volumes = [load_tissue_volume(tmp_path / 'ball.nii.gz')]
    fluid = list(BRAIN_SHARES).index('csf')
    for seed in range(5):
        found = simulated_sample(np.random.default_rng(seed), volumes, patch=32, n_targets=1)
        distance = np.linalg.norm(found.place, axis=0)
        # The mask reaches 3 mm beyond the shell: a radius of 27 is the root of five.
        solid = found.tissue == list(BRAIN_SHARES).index('cortex')
        inside = (found.tissue == fluid) & (distance < 1.5)
        assert abs(distance[solid].min() - 12 / 27 * 5**0.5) < 0.35
        assert not inside.any() or distance[inside].max() < 12 / 27 * 5**0.5 + 0.35
