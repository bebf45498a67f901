"""Published checkpoints: what is read, what is refused, and that nothing in them is run."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from tumsyn_bids.errors import ModelError
from tumsyn_bids.networks.checkpoints import published_model
from tumsyn_bids.networks.config import DecoderConfig, EncoderConfig, TextConfig
from tumsyn_bids.networks.model import Model
from tumsyn_bids.networks.registry import get_config

CONFIG = dataclasses.replace(
    get_config('official'),
    text=TextConfig(width=64, layers=3, heads=1, embed_dim=24, context_length=88),
    encoder=EncoderConfig(n_feats=8, n_resblocks=3, out_dim=16),
    decoder=DecoderConfig(hidden=(20, 12)),
)


@pytest.fixture(scope='module')
def truth() -> Model:
    torch.manual_seed(0)
    return Model(CONFIG).eval()


@pytest.fixture
def contents(truth):
    """What the two files hold, to be spoilt before they are written."""
    text = {key: value.clone() for key, value in truth.prompt.text.state_dict().items()}
    text |= {'visual.conv1.weight': torch.ones(3), 'logit_scale': torch.tensor(2.0)}
    image = {key: value.clone() for key, value in truth.synthesis.state_dict().items()}
    return {
        'checkpoint.pt': {'model_G': {'name': 'lccd', 'args': {}, 'sd_G': image}, 'epoch': 3},
        'checkpoint_CLIP.pt': {'epoch': 3, 'model_state_dict': text, 'optimizer_state_dict': {}},
    }


def read(folder, contents) -> Model:
    for name, content in contents.items():
        torch.save(content, folder / name)
    return published_model(folder / 'checkpoint.pt', folder / 'checkpoint_CLIP.pt')


def weights(contents) -> dict:
    return contents['checkpoint.pt']['model_G']['sd_G']


def test_the_network_is_rebuilt_from_its_weights(tmp_path, contents, truth):
    network = read(tmp_path, contents)
    assert network.config == CONFIG
    expected = truth.state_dict()
    assert network.state_dict().keys() == expected.keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def _drop(contents):
    del weights(contents)['encoder.body.1.body.3.weight']


def _add(contents):
    weights(contents)['encoder.extra.weight'] = torch.zeros(2)


def _nan(contents):
    weights(contents)['fusion.block.0.c_attn.q.bias'][1] = float('nan')


def _resize(contents):
    weights(contents)['imnet.layers.2.weight'] = torch.zeros(12, 21)


def _whole_numbers(contents):
    weights(contents)['imnet.layers.2.weight'] = torch.zeros(12, 20, dtype=torch.int64)


def _drop_text(contents):
    del contents['checkpoint_CLIP.pt']['model_state_dict']['transformer.resblocks.1.ln_1.bias']


def _other_network(contents):
    contents['checkpoint.pt']['model_G']['sd_G'] = {'conv.weight': torch.zeros(1)}


def _other_layout(contents):
    contents['checkpoint.pt'] = {'state_dict': {'conv.weight': torch.zeros(1)}}


def _not_a_mapping(contents):
    contents['checkpoint.pt'] = [1, 2]


def _not_tensors(contents):
    weights(contents)['encoder.head.0.bias'] = 'text'


def _exchanged(contents):
    contents['checkpoint.pt'] = contents['checkpoint_CLIP.pt']


@pytest.mark.parametrize(
    ('spoil', 'file', 'words'),
    [
        (_drop, 'checkpoint.pt', ['1 missing: encoder.body.1.body.3.weight', 'none unexpected']),
        (_add, 'checkpoint.pt', ['1 unexpected: encoder.extra.weight', 'none missing']),
        (_nan, 'checkpoint.pt', ['not finite', 'fusion.block.0.c_attn.q.bias', 'Download']),
        (_resize, 'checkpoint.pt', ['(12, 21)', '(12, 20)']),
        (_whole_numbers, 'checkpoint.pt', ['imnet.layers.2.weight is torch.int64']),
        (_drop_text, 'checkpoint_CLIP.pt', ['transformer.resblocks.1.ln_1.bias']),
        (_other_network, 'checkpoint.pt', ['encoder.head.0.weight is missing', 'conv.weight']),
        (_other_layout, 'checkpoint.pt', ['model_G.sd_G is missing', 'state_dict']),
        (_not_a_mapping, 'checkpoint.pt', ['list']),
        (_not_tensors, 'checkpoint.pt', ['not a table of tensors']),
        (_exchanged, 'checkpoint.pt', ['exchanged', '--text-encoder takes']),
    ],
)
def test_unfit_checkpoints_are_named_with_what_is_wrong(tmp_path, contents, spoil, file, words):
    spoil(contents)
    with pytest.raises(ModelError) as caught:
        read(tmp_path, contents)
    assert caught.value.path == tmp_path / file
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


class _Bomb:
    """Makes a file when it is unpickled by something that runs what a pickle asks for."""

    def __init__(self, target):
        self._target = target

    def __reduce__(self):
        return open, (str(self._target), 'w')


@pytest.mark.parametrize('archive', [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, contents, archive):
    struck = tmp_path / 'struck'
    read(tmp_path, contents)
    path = tmp_path / 'checkpoint.pt'
    contents['checkpoint.pt']['bomb'] = _Bomb(struck)
    torch.save(contents['checkpoint.pt'], path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ModelError, match=r'io\.open.*was not read'):
        published_model(path, tmp_path / 'checkpoint_CLIP.pt')
    assert not struck.exists()
    # The bomb is live: a loader that trusts the file sets it off.
    torch.load(path, weights_only=False)
    assert struck.exists()


@pytest.mark.parametrize(
    'spoil',
    [
        lambda data: data[: len(data) // 2],
        lambda data: b'',
        lambda data: b'<html>not found</html>',
        lambda data: pickle.dumps({'a': 1})[:-3],
    ],
)
def test_files_that_are_cut_off_or_none_are_refused(tmp_path, contents, spoil):
    read(tmp_path, contents)
    path = tmp_path / 'checkpoint.pt'
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelError, match='is cut off'):
        published_model(path, tmp_path / 'checkpoint_CLIP.pt')


def test_a_weight_that_changed_on_the_way_is_seen(tmp_path, contents):
    weights(contents)['encoder.head.0.bias'] = torch.full((8,), 1.25)
    read(tmp_path, contents)
    path = tmp_path / 'checkpoint.pt'
    data = path.read_bytes()
    found = torch.full((8,), 1.25).numpy().tobytes()
    assert data.count(found) == 1
    path.write_bytes(data.replace(found, torch.full((8,), 1.5).numpy().tobytes()))
    with pytest.raises(ModelError, match='is damaged'):
        published_model(path, tmp_path / 'checkpoint_CLIP.pt')


def test_names_of_a_network_on_several_gpus_are_understood(tmp_path, contents, truth):
    for inner, key in (
        (contents['checkpoint.pt']['model_G'], 'sd_G'),
        (contents['checkpoint_CLIP.pt'], 'model_state_dict'),
    ):
        inner[key] = {f'module.{name}': value for name, value in inner[key].items()}
    network = read(tmp_path, contents)
    for name, value in truth.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r'none\.pt: cannot be read'):
        published_model(tmp_path / 'none.pt', tmp_path / 'none.pt')


def test_files_from_before_archives_are_read(tmp_path, contents):
    read(tmp_path, contents)
    path = tmp_path / 'checkpoint.pt'
    torch.save(contents['checkpoint.pt'], path, _use_new_zipfile_serialization=False)
    assert published_model(path, tmp_path / 'checkpoint_CLIP.pt').config == CONFIG


def test_heads_must_divide_the_width(tmp_path, contents):
    read(tmp_path, contents)
    with pytest.raises(ModelError, match='--text-heads'):
        published_model(tmp_path / 'checkpoint.pt', tmp_path / 'checkpoint_CLIP.pt', text_heads=7)


def test_a_forward_pass_without_gradients_is_the_same(truth):
    """Groups of hidden channels add up to what training computes at once."""
    source = torch.randn(1, 1, 6, 7, 8)
    text = torch.randn(1, 24)
    block = truth.synthesis.fusion.block[0].mlp
    features = truth.synthesis.encoder(source, text)
    at_once = block(features)
    with torch.no_grad():
        torch.testing.assert_close(block(features), at_once, atol=1e-5, rtol=0)
