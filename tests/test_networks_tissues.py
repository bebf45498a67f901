"""A decoder that reads tissues from features and from where in the brain a voxel lies."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tumsyn_bids.grids import Grid
from tumsyn_bids.networks.config import FLUID, N_SIGNALS, DecoderConfig
from tumsyn_bids.networks.decoder import make_coord
from tumsyn_bids.networks.model import LoadedModel, Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.place import BrainFrame
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.training.initialisation import initialise


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    config = replace(get_config('tiny'), physics_gain=1.0)
    config = replace(config, decoder=replace(config.decoder, correction=()))
    return initialise(Model(config)).eval()


def _inputs(network, shape):
    frame = BrainFrame(np.array(shape) / 2, np.diag(np.square(np.array(shape) / 4)))
    place = torch.from_numpy(frame.places((0, 0, 0), shape))[None]
    features = torch.rand(1, network.config.encoder.out_dim, *shape)
    return features, torch.randn(1, network.config.prompt_dim), place


@torch.inference_mode()
def test_place_acts_on_what_a_prompt_changes_and_on_nothing_else(network):
    features, text, place = _inputs(network, (12, 14, 10))
    decode = network.synthesis.imnet.on_grid
    usual = text[:, -N_SIGNALS:]
    at_default = [
        decode(features, text, signals=usual.clone(), place=p) for p in (place, place + 1)
    ]
    torch.testing.assert_close(*at_default)
    torch.testing.assert_close(at_default[0], decode(features, text))
    changed = [decode(features, text, signals=usual + 0.5, place=p) for p in (place, place + 1)]
    assert not torch.allclose(*changed, atol=1e-3)


@torch.inference_mode()
def test_a_change_of_the_signals_is_mixed_with_the_shares_of_the_tissues(network):
    features, text, place = _inputs(network, (5, 4, 6))
    decoder, change = network.synthesis.imnet, torch.linspace(-0.3, 0.4, N_SIGNALS)[None]
    before = decoder.on_grid(features, text)
    after = decoder.on_grid(features, text, signals=text[:, -N_SIGNALS:] + change, place=place)
    flat = (volume.flatten(2).transpose(1, 2) for volume in (features, place))
    shares = decoder.tissue_logits(*flat).softmax(dim=-1)[..., :N_SIGNALS]
    expected = (shares @ change.T)[..., 0].reshape(after.shape)
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_echo_time_acts_as_a_factor(network):
    """Added, it would leave what an image draws too bright as bright as it is."""
    network = deepcopy(network)
    features, text, place = _inputs(network, (5, 4, 6))
    decoder = network.synthesis.imnet
    text[:, -N_SIGNALS:] = 1.0
    decoder.layers[-1].bias.fill_(0.3)
    decoder.tissues.layers[-1].bias[FLUID] = -40.0
    points = make_coord((5, 4, 6))[None]
    told = {'place': place.flatten(2).transpose(1, 2)}
    before = decoder(features, points, text, **told)
    usual = text[:, -N_SIGNALS:]
    faded = {'signals': 0.4 * usual, 'echo': -0.6 * usual}
    after = decoder(features, points, text, **told, **faded)
    logits = decoder.tissue_logits(*(v.flatten(2).transpose(1, 2) for v in (features, place)))
    mixture = logits.softmax(dim=-1)[..., :N_SIGNALS].sum(dim=-1)
    believed = (before / mixture > 0.7) & (before / mixture < 1.45)
    assert believed.float().mean() > 0.5
    torch.testing.assert_close(after[believed], 0.4 * before[believed])
    added = decoder(features, points, text, **told, signals=faded['signals'])
    assert (added - after)[believed].abs().max() > 0.05
    # Fluid keeps what the equations do not have.
    decoder.tissues.layers[-1].bias[FLUID] = 40.0
    fluid = [
        decoder(features, points, text, **told, **change)
        for change in (faded, {'signals': faded['signals']})
    ]
    torch.testing.assert_close(*fluid)


@pytest.mark.parametrize(('field', 'part'), [('echo_time', 1.0), ('repetition_time', 0.0)])
def test_of_a_prompt_the_echo_time_alone_is_told_apart(network, ellipsoid_scan, field, part):
    scan, mask = ellipsoid_scan
    loaded = LoadedModel(network, 'tiny', '0', '')
    synthesizer = Synthesizer(loaded, torch.device('cpu'), 'float32')
    encoded = synthesizer.encode(scan, mask=mask)
    told = {}

    def remember(_, given):
        _, _, text, _, signals, *_, echo = given
        told.update(change=signals - text[:, -N_SIGNALS:], echo=echo)

    usual = default_protocol('T2w', 3.0)
    prompt = render_prompt(usual.replace(**{field: 0.7 * getattr(usual, field)}))
    hook = network.synthesis.imnet.register_forward_pre_hook(remember)
    try:
        synthesizer.decode(encoded, prompt, Grid.of(scan))
    finally:
        hook.remove()
    assert told['change'].abs().max() > 0.02
    torch.testing.assert_close(told['echo'], part * told['change'], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_points_and_grid_are_told_the_same_place(network):
    features, text, place = _inputs(network, (6, 7, 5))
    decoder, signals = network.synthesis.imnet, torch.rand(1, N_SIGNALS)
    on_grid = decoder.on_grid(features, text, signals=signals, place=place)
    places = place.flatten(2).transpose(1, 2)
    points = make_coord((6, 7, 5))[None]
    at_points = decoder(features, points, text, signals=signals, place=places)
    np.testing.assert_allclose(on_grid.reshape(1, -1), at_points, atol=1e-5)


def test_tissues_are_nothing_without_a_mixture():
    with pytest.raises(ValueError, match='mixing'):
        DecoderConfig(tissues=True)


def test_tiles_are_told_their_place_in_the_brain(network, ellipsoid_scan, monkeypatch):
    """The places of points in a small tile are those of the whole brain, not of the tile."""
    image, mask = ellipsoid_scan
    told = {}
    for tile in (24, 64):
        model = Model(replace(network.config, tile=tile))
        synthesizer = Synthesizer(LoadedModel(model.eval(), 'tiny', '0', '0'), torch.device('cpu'))
        encoded = synthesizer.encode(image, mask=mask)
        assert (len(encoded.tiles) > 1) == (tile == 24)
        decode, seen = synthesizer._decode_points, told.setdefault(tile, {})

        def spy(features, points, box, *told, seen=seen, decode=decode):
            _, _, place, *_ = told
            seen.update({tuple(p): tuple(q) for p, q in zip(points, place, strict=True)})
            return decode(features, points, box, *told)

        monkeypatch.setattr(synthesizer, '_decode_points', spy)
        synthesizer.decode(encoded, 'Modality: T2w', Grid.of(image))
    assert told[24] == told[64]
    places = np.array(list(told[64].values()))
    np.testing.assert_allclose(places.mean(axis=0)[1:], 0, atol=0.05)
    np.testing.assert_allclose(places.std(axis=0)[1:], 1, atol=0.05)
    assert (places[:, 0] >= 0).all()
