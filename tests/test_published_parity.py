"""Faithful mode against numbers of the published modules: loading, training step, tiles."""

from __future__ import annotations

import dataclasses
import json

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.grids import Grid
from tumsyn_bids.networks.checkpoints import (
    published_model,
    read_text_state,
)
from tumsyn_bids.networks.decoder import make_coord
from tumsyn_bids.networks.model import LoadedModel, Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.synthesis.intensity import percentile_clip
from tumsyn_bids.synthesis.synthesizer import BRIGHT, Synthesizer
from tumsyn_bids.synthesis.tiling import tile_boxes

CLOSE = 1e-5


@pytest.fixture
def network(parity) -> Model:
    return published_model(
        parity / 'checkpoint_small.pt', parity / 'checkpoint_CLIP_small.pt', text_heads=2
    )


@pytest.fixture(scope='module')
def sliding(parity):
    with np.load(parity / 'sliding_small.npz') as stored:
        return dict(stored)


def test_sizes_are_read_from_the_weights(network):
    config = network.config
    assert (config.encoder.n_feats, config.encoder.n_resblocks, config.encoder.out_dim) == (
        16,
        2,
        64,
    )
    assert config.decoder.hidden == (96, 96, 48, 32)
    assert (config.text.width, config.text.layers, config.text.embed_dim) == (16, 2, 64)
    assert config.text.context_length == 90


def test_visual_tower_is_left_out(parity):
    state = read_text_state(parity / 'checkpoint_CLIP_small.pt')
    assert not [key for key in state if key.startswith('visual.')]
    assert 'logit_scale' not in state


def test_keys_of_the_published_files_load_strictly(parity):
    """Every key and shape of both full-size networks, without their memory."""
    listing = json.loads((parity / 'official_state_dict_keys.json').read_text())
    with torch.device('meta'):
        network = Model(get_config('official'))
        states = {
            name: {key: torch.empty(shape) for key, (shape, _) in listing[name].items()}
            for name in ('lccd', 'CLIP/model_config.yaml')
        }
    text = {
        key: value
        for key, value in states['CLIP/model_config.yaml'].items()
        if not key.startswith(('visual.', 'logit_scale'))
    }
    network.synthesis.load_state_dict(states['lccd'], strict=True, assign=True)
    network.prompt.text.load_state_dict(text, strict=True, assign=True)


@pytest.fixture(scope='module')
def step(parity):
    with np.load(parity / 'synthesis_small.npz') as stored:
        return {
            key.removeprefix('train.'): torch.from_numpy(np.asarray(stored[key]))
            for key in stored.files
            if key.startswith('train.')
        }


def test_training_step(step, network):
    """Losses and gradients of one step in both directions."""
    net = network.synthesis.train().requires_grad_(True)
    coord = make_coord((15, 15, 15))[step['sel'].long()].expand(2, -1, -1)
    features = [net.encoder(step[name]) for name in ('src', 'tgt')]
    made = [
        net.imnet(net.fusion(encoded, step[prompt]), coord, step[prompt])
        for encoded, prompt in zip(features, ('prompt_tgt', 'prompt_src'), strict=True)
    ]
    losses = [
        torch.nn.functional.l1_loss(image, step[truth][..., 0])
        for image, truth in zip(made, ('gt_tgt', 'gt_src'), strict=True)
    ]
    total = 0.5 * (losses[0] + losses[1])
    total.backward()
    for image, name in zip(made, ('pre_src_tgt', 'pre_tgt_src'), strict=True):
        torch.testing.assert_close(image.detach(), step[name][..., 0], atol=CLOSE, rtol=0)
    torch.testing.assert_close(torch.stack([*losses, total]).detach(), step['loss'].float())
    parameters = dict(net.named_parameters())
    for key, value in step.items():
        kind, _, name = key.partition('.')
        if kind == 'gradnorm':
            found = parameters[name].grad.norm().double()
            torch.testing.assert_close(found, value.double(), atol=CLOSE, rtol=0, msg=key)
        elif kind == 'grad':
            torch.testing.assert_close(parameters[name].grad, value, atol=CLOSE, rtol=0)


def test_batch_norm_statistics_follow_both_passes(step, network):
    """Momentum 0.1, first the source's batch and then the target's, unbiased variance.

    Calculated here: the statistics stored with the published numbers are those of the checkpoint
    itself, from before the step.
    """
    encoder = network.synthesis.encoder.train()
    norm = encoder.body[0].body[1]
    means, variances = norm.running_mean.clone(), norm.running_var.clone()
    stored = step['bn_after.encoder.body.0.body.1.running_mean']
    torch.testing.assert_close(means, stored, atol=CLOSE, rtol=0)
    with torch.no_grad():
        for name in ('src', 'tgt'):
            before = encoder.body[0].body[0](encoder.head(step[name])).transpose(0, 1).flatten(1)
            means = 0.9 * means + 0.1 * before.mean(1)
            variances = 0.9 * variances + 0.1 * before.var(1)
            encoder(step[name])
    torch.testing.assert_close(norm.running_mean, means, atol=CLOSE, rtol=0)
    torch.testing.assert_close(norm.running_var, variances, atol=CLOSE, rtol=0)
    assert norm.num_batches_tracked == 9


def test_percentile_clip(sliding):
    volume = sliding['vol']
    found = percentile_clip(volume, np.ones(volume.shape, bool), volume.size)
    np.testing.assert_allclose(found, sliding['clipped'], atol=CLOSE)


def test_tiles_begin_where_they_are_published(sliding):
    boxes = tile_boxes(sliding['vol'].shape, 20, 0.5, 'published')
    starts = {tuple(part.start for part in box) for box in boxes}
    assert starts == {tuple(start) for start in sliding['starts'].tolist()}


@pytest.mark.parametrize('case', ['s1', 's2'])
def test_sliding_window(network, sliding, case):
    """The published placement of tiles, whole steps included, filled by our network."""
    out_tile = sliding[f'{case}.coord_size']
    expected = sliding[f'{case}.pred']
    total, count = np.zeros(expected.shape), np.zeros(expected.shape)
    coord = make_coord(out_tile)[None]
    text = torch.from_numpy(sliding['text'])
    for box in tile_boxes(sliding['vol'].shape, 20, 0.5, 'published'):
        tile = torch.from_numpy(np.ascontiguousarray(sliding['clipped'][box]))[None, None].float()
        with torch.inference_mode():
            made = network.synthesis(tile, coord, text).reshape(*out_tile).numpy()
        place = tuple(
            slice(int(part.start * n / 20), int(part.start * n / 20) + n)
            for part, n in zip(box, out_tile.tolist(), strict=True)
        )
        total[place] += made
        count[place] += 1
    np.testing.assert_allclose(total / np.maximum(count, 1), expected, atol=CLOSE)


def test_the_app_gives_the_published_sliding_window(network, sliding, monkeypatch):
    """From a raw volume through scaling, tiles, coordinates and blending of the Synthesizer."""
    network.config = dataclasses.replace(network.config, tile=20)
    synthesizer = Synthesizer(LoadedModel(network, 'x', '1', ''), torch.device('cpu'), 'float32')
    text = torch.from_numpy(sliding['text'])
    monkeypatch.setattr(synthesizer, '_embed', lambda prompt: text)
    # Arrays of the published code have their axes the other way round than NIfTI.
    image = nb.Nifti1Image(sliding['vol'].transpose(2, 1, 0).astype('f4'), np.eye(4))
    mask = nb.Nifti1Image(np.ones(image.shape, 'u1'), np.eye(4))
    grid = Grid.of(mask)
    monkeypatch.setattr(synthesizer, '_input_grid', lambda mask: (grid, int(np.prod(grid.shape))))
    made = synthesizer.decode(synthesizer.encode(image, mask=mask), '', grid)
    expected = np.maximum(sliding['s1.pred'], 0).transpose(2, 1, 0)
    np.testing.assert_allclose(made / BRIGHT, expected, atol=CLOSE)
