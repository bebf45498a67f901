"""The networks against the published modules, and the properties the app relies on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.errors import ModelError
from tumsyn_bids.networks.config import (
    N_SIGNALS,
    DecoderConfig,
    EncoderConfig,
    FusionConfig,
    SynthesisConfig,
    TextConfig,
)
from tumsyn_bids.networks.decoder import ImplicitDecoder, make_coord
from tumsyn_bids.networks.model import Model, load_model, save_model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.networks.synthesis import SynthesisNet
from tumsyn_bids.networks.text import NUMERIC_FEATURES, TextEncoder, numeric_features

PUBLISHED_SMALL = SynthesisConfig(
    'published-small',
    text=TextConfig(embed_dim=64),
    encoder=EncoderConfig(n_feats=16, n_resblocks=2, out_dim=64),
    fusion=FusionConfig(heads=8),
    decoder=DecoderConfig(hidden=(96, 96, 48, 32)),
)


@pytest.mark.parametrize('case', ['same12', 'aniso', 'batch2', 'p20', 'batch2_y3d'])
def test_matches_published_network(parity, case):
    checkpoint = torch.load(parity / 'checkpoint_small.pt', weights_only=True)
    network = SynthesisNet(PUBLISHED_SMALL).eval()
    network.load_state_dict(checkpoint['model_G']['sd_G'])
    with np.load(parity / 'synthesis_small.npz') as stored:
        source = torch.from_numpy(stored[f'{case}.src'])
        text = torch.from_numpy(stored[f'{case}.text']).reshape(len(source), -1)
        coord = torch.from_numpy(stored[f'{case}.coord']).expand(len(source), -1, -1)
        expected = stored[f'{case}.out']
    with torch.inference_mode():
        result = network(source, coord, text).reshape(expected.shape)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_matches_published_text_encoder(parity):
    state = torch.load(parity / 'checkpoint_CLIP_small.pt', weights_only=True)['model_state_dict']
    encoder = TextEncoder(TextConfig(width=16, layers=2, heads=2, embed_dim=64))
    encoder.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith(('visual.', 'logit_scale'))}
    )
    with np.load(parity / 'text_encoder_small.npz') as stored, torch.inference_mode():
        ids = torch.from_numpy(stored['ids']).long()
        np.testing.assert_allclose(encoder(ids), stored['pooled_projected'], atol=1e-5)
        np.testing.assert_allclose(encoder.hidden(ids), stored['last_hidden'], atol=1e-5)


def test_official_configuration_has_the_published_keys(parity):
    listing = json.loads((parity / 'official_state_dict_keys.json').read_text())['lccd']
    published = {key: tuple(shape) for key, (shape, _) in listing.items()}
    with torch.device('meta'):
        ours = SynthesisNet(get_config('official')).state_dict()
    assert {key: tuple(value.shape) for key, value in ours.items()} == published


def test_official_configuration_has_the_published_size():
    with torch.device('meta'):
        network = SynthesisNet(get_config('official'))
    assert sum(p.numel() for p in network.parameters()) == 113_595_137


@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return Model(get_config('tiny')).eval()


def test_decoding_on_the_grid_equals_decoding_at_its_coordinates(tiny):
    network = tiny.synthesis
    features = torch.randn(1, 16, 5, 6, 7)
    text = torch.randn(1, tiny.config.prompt_dim)
    with torch.inference_mode():
        on_grid = network.imnet.on_grid(features, text)
        at_points = network.imnet(features, make_coord((5, 6, 7))[None], text)
    np.testing.assert_allclose(on_grid.reshape(1, -1), at_points, atol=1e-5)


def test_encoder_keeps_odd_sizes(tiny):
    text = torch.randn(1, tiny.config.prompt_dim)
    with torch.inference_mode():
        features = tiny.synthesis.encoder(torch.randn(1, 1, 13, 9, 11), text)
    assert features.shape == (1, 16, 13, 9, 11)


def test_make_coord_gives_cell_centres():
    coord = make_coord((2, 1, 4))
    assert coord[0].tolist() == [-0.5, 0.0, -0.75]
    assert coord[-1].tolist() == [0.5, 0.0, 0.75]


def test_prompt_text_and_numbers_both_matter(tiny):
    ids = torch.zeros(1, 90, dtype=torch.long)
    ids[0, :3] = torch.tensor([49406, 320, 49407])
    other = ids.clone()
    other[0, 1] = 500
    numbers = torch.zeros(1, NUMERIC_FEATURES + N_SIGNALS)
    with torch.inference_mode():
        base = tiny.prompt(ids, numbers)
        assert not torch.allclose(base, tiny.prompt(other, numbers))
        assert not torch.allclose(base, tiny.prompt(ids, numbers + 1))


def test_prompt_carries_the_tissue_signals_to_the_decoder(tiny):
    ids = torch.zeros(1, 90, dtype=torch.long)
    ids[0, :3] = torch.tensor([49406, 320, 49407])
    signals = torch.linspace(0.1, 1.2, N_SIGNALS)[None]
    with torch.inference_mode():
        text = tiny.prompt(ids, torch.cat([torch.zeros(1, NUMERIC_FEATURES), signals], dim=1))
        brighter = text.clone()
        brighter[:, -N_SIGNALS:] += 0.5
        features = torch.randn(1, 16, 4, 4, 4)
        decoder = tiny.synthesis.imnet
        points = features.permute(0, 2, 3, 4, 1).reshape(1, -1, 16)
        shares = decoder.shares(points).softmax(dim=-1)[..., :N_SIGNALS].sum(dim=-1)
        # FiLM and the correction read them too; without these they act through the mixture alone.
        others = decoder.film, decoder.correction
        decoder.film = decoder.correction = None
        gain = decoder.on_grid(features, brighter) - decoder.on_grid(features, text)
        decoder.film, decoder.correction = others
    np.testing.assert_array_equal(text[:, -N_SIGNALS:], signals)
    np.testing.assert_allclose(gain.reshape(1, -1), 0.5 * shares, atol=1e-6)


def test_small_vocabulary_shares_one_row_for_unknown_tokens():
    encoder = TextEncoder(TextConfig(width=8, layers=1, heads=1, embed_dim=4, vocabulary=(5, 9)))
    assert encoder.token_embedding.num_embeddings == 3
    assert encoder.row_of_token[[5, 9, 7, 49407]].tolist() == [0, 1, 2, 2]


def test_numeric_features_separate_unknown_from_any_value():
    unknown = numeric_features(Acquisition(contrast='T2w'))
    known = numeric_features(Acquisition(contrast='T2w', repetition_time=1.0))
    assert unknown.shape == (NUMERIC_FEATURES,)
    assert unknown[0] == 0
    assert known[0] == 1
    assert unknown[-len(CONTRASTS) :].tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_config_round_trip():
    config = get_config('embedded')
    assert SynthesisConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_config_lists_the_known_ones():
    with pytest.raises(KeyError, match='embedded'):
        get_config('huge')


def test_model_round_trip(tmp_path, tiny):
    save_model(tiny, tmp_path / 'm', version='1', card={'note': 'x'})
    loaded = load_model(tmp_path / 'm')
    assert loaded.version == '1'
    assert loaded.card == {'note': 'x'}
    assert len(loaded.sha256) == 64
    for key, value in tiny.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[key], value)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda folder: (folder / 'config.json').unlink(), 'not a model folder'),
        (lambda folder: (folder / 'config.json').write_text('{'), 'cannot be read'),
        (lambda folder: (folder / 'config.json').write_text('[]'), 'not a model description'),
        (lambda folder: (folder / 'model.safetensors').write_bytes(b'no'), 'cannot be read'),
        (lambda folder: _cut_off(folder / 'model.safetensors'), 'cannot be read'),
    ],
)
def test_broken_model_folders_are_named(tmp_path, tiny, spoil, message):
    folder = save_model(tiny, tmp_path / 'm', version='1', card={})
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def _cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def test_weights_of_another_network_are_refused_and_their_keys_are_listed(tmp_path, tiny):
    from safetensors.torch import load_file, save_file

    folder = save_model(tiny, tmp_path / 'm', version='1', card={})
    path = folder / 'model.safetensors'
    state = load_file(path)
    bias = state.pop('synthesis.encoder.head.0.bias')
    save_file({**state, 'other': bias}, path)
    listed = '1 missing: synthesis.encoder.head.0.bias; 1 unexpected: other'
    with pytest.raises(ModelError, match=f'another network: {listed}'):
        load_model(folder)
    save_file({**state, 'synthesis.encoder.head.0.bias': bias[:3].clone()}, path)
    with pytest.raises(ModelError, match=r'head\.0\.bias is \(3,\) and not \(8,\)'):
        load_model(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = Model(get_config('tiny'))
    with torch.no_grad():
        network.synthesis.encoder.head[0].bias[0] = float('nan')
    folder = save_model(network, tmp_path / 'm', version='1', card={})
    with pytest.raises(ModelError, match='not finite'):
        load_model(folder)


PAPER_SMALL = DecoderConfig(
    hidden=(16,), coordinates='relative', film=True, cell=True, local_ensemble=True
)


@pytest.fixture
def liif():
    torch.manual_seed(3)
    return ImplicitDecoder(6, 8, PAPER_SMALL).eval()


def test_local_ensemble_has_no_jump_between_voxels(liif):
    features, text = torch.randn(1, 6, 4, 4, 4), torch.randn(1, 8)
    # Half-way between voxels 1 and 2, and on voxel 1: where a nearest voxel or a corner changes.
    for place in (0.0, -0.25):
        coord = torch.tensor([[[place + d, 0.1, -0.3] for d in (-1e-5, 1e-5)]])
        with torch.inference_mode():
            left, right = liif(features, coord, text)[0]
            assert float((left - right).abs()) < 1e-3
    alone = ImplicitDecoder(6, 8, replace(PAPER_SMALL, local_ensemble=False)).eval()
    alone.load_state_dict(liif.state_dict())
    coord = torch.tensor([[[d, 0.1, -0.3] for d in (-1e-5, 1e-5)]])
    with torch.inference_mode():
        left, right = alone(features, coord, text)[0]
    assert float((left - right).abs()) > 1e-3


def test_local_ensemble_answers_on_its_grid_as_on_grid_does(liif):
    features, text = torch.randn(2, 6, 3, 4, 5), torch.randn(2, 8)
    with torch.inference_mode():
        on_grid = liif.on_grid(features, text).reshape(2, -1)
        at_points = liif(features, make_coord((3, 4, 5)).expand(2, -1, -1), text)
    np.testing.assert_allclose(on_grid, at_points, atol=1e-5)


def test_the_decoder_is_told_the_size_of_a_voxel(liif):
    features, text = torch.randn(1, 6, 4, 4, 4), torch.randn(1, 8)
    coord = make_coord((4, 4, 4))[None]
    with torch.inference_mode():
        same, default, small = (
            liif(features, coord, text, cell)
            for cell in (torch.ones(3), None, torch.full((3,), 0.5))
        )
    torch.testing.assert_close(same, default)
    assert not torch.allclose(same, small)


def test_paper_configuration_is_an_option_of_the_same_network():
    config = get_config('paper')
    assert config.numeric
    assert (config.fusion.attention, config.decoder.coordinates) == ('multihead', 'relative')
    with torch.device('meta'):
        ours = set(SynthesisNet(config).state_dict())
        official = set(SynthesisNet(get_config('official')).state_dict())
    assert {key for key in ours if key.startswith(('encoder', 'fusion'))} == {
        key for key in official if key.startswith(('encoder', 'fusion'))
    }


def test_configuration_written_before_an_option_existed_is_read():
    values = get_config('embedded').to_dict()
    del values['decoder']['cell'], values['decoder']['local_ensemble']
    assert SynthesisConfig.from_dict(values) == get_config('embedded')
