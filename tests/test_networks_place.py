"""Networks that are told where in the brain a voxel lies."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy import ndimage

from tumsyn_bids.networks.config import EncoderConfig
from tumsyn_bids.networks.decoder import make_coord
from tumsyn_bids.networks.model import LoadedModel, Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.place import BrainFrame
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.training.initialisation import initialise


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return initialise(Model(get_config('tiny'))).eval()


def _inputs(network, shape):
    frame = BrainFrame(np.array(shape) / 2, np.diag(np.square(np.array(shape) / 4)))
    place = torch.from_numpy(frame.places((0, 0, 0), shape))[None]
    return torch.rand(1, 1, *shape), torch.randn(1, network.config.prompt_dim), place


@torch.inference_mode()
def test_place_reaches_features_shares_and_image(network):
    source, text, place = _inputs(network, (12, 14, 10))
    net = network.synthesis
    here, there = (net.encoder(source, text, p) for p in (place, place + 1))
    assert not torch.allclose(here, there)
    images = [net.imnet.on_grid(here, text, place=p) for p in (place, place + 1)]
    assert not torch.allclose(*images)
    points = here.flatten(2).transpose(1, 2)
    shares = [
        net.imnet.share_logits(points, p.flatten(2).transpose(1, 2)) for p in (place, place + 1)
    ]
    assert not torch.allclose(*shares)


@torch.inference_mode()
def test_points_and_grid_are_told_the_same_place(network):
    source, text, place = _inputs(network, (6, 7, 5))
    net = network.synthesis
    features = net.encoder(source, text, place)
    on_grid = net.imnet.on_grid(features, text, place=place)
    points = make_coord((6, 7, 5))[None]
    at_points = net.imnet(features, points, text, place=place.flatten(2).transpose(1, 2))
    np.testing.assert_allclose(on_grid.reshape(1, -1), at_points, atol=1e-5)


def test_an_encoder_without_a_side_branch_cannot_be_told():
    with pytest.raises(ValueError, match='context_widths'):
        EncoderConfig(place=True)


@pytest.fixture(scope='module')
def scan():
    rng = np.random.default_rng(0)
    index = np.argwhere(np.ones((36, 40, 34))).reshape(36, 40, 34, 3) - (17.5, 19.5, 16.5)
    mask = np.square(index / (14, 16, 13)).sum(-1) < 1
    image = ndimage.gaussian_filter(rng.random(mask.shape), 1).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    return nb.Nifti1Image(image, affine), nb.Nifti1Image(mask.astype(np.uint8), affine)


def test_tiles_are_told_their_place_in_the_brain(network, scan, monkeypatch):
    """The places of a small tile are those of the whole brain, not of the tile."""
    image, mask = scan
    told = {}
    for tile in (24, 64):
        model = Model(replace(network.config, tile=tile))
        synthesizer = Synthesizer(LoadedModel(model.eval(), 'tiny', '0', '0'), torch.device('cpu'))
        seen = told[tile] = []
        encode = synthesizer._encode
        monkeypatch.setattr(
            synthesizer,
            '_encode',
            lambda source, text, place, seen=seen, encode=encode: (
                seen.append(place.numpy()) or encode(source, text, place)
            ),
        )
        encoded = synthesizer.encode(image, mask=mask)
        if tile == 24:
            boxes = [box for box, _ in encoded.tiles]
            points = encoded.frame.places_of(np.argwhere(np.asarray(encoded.source) > -1))
    (whole,) = told[64]
    assert len(boxes) > 1
    for box, part in zip(boxes, told[24], strict=True):
        np.testing.assert_array_equal(part[0], whole[0][(slice(None), *box)])
    np.testing.assert_allclose(points.T.reshape(whole[0].shape), whole[0], atol=1e-5)
    # Somewhere near the middle of the brain lies the middle.
    assert np.abs(whole[0]).max(axis=0).min() < 0.3
