"""A decoder that corrects its images by place and by the grey levels of the source."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.greys import PERCENTILES, grey_levels
from tumsyn_bids.grids import Grid
from tumsyn_bids.networks.config import N_SIGNALS
from tumsyn_bids.networks.correction import ScanKinds
from tumsyn_bids.networks.decoder import make_coord
from tumsyn_bids.networks.model import LoadedModel, Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.training.initialisation import initialise


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    model = initialise(Model(replace(get_config('tiny'), physics_gain=1.0))).eval()
    # It begins with nothing to correct.
    torch.nn.init.normal_(model.synthesis.imnet.correction.output.weight)
    return model


def _inputs(network, shape):
    features = torch.rand(1, network.config.encoder.out_dim, *shape)
    text = torch.randn(1, network.config.prompt_dim)
    kinds = ScanKinds(text, torch.rand(1, len(PERCENTILES)))
    return features, text, torch.randn(1, 3, *shape), kinds


def test_grey_levels_are_those_of_the_brain_alone():
    image = np.linspace(0, 1, 1001).reshape(7, 11, 13)
    image[0] = 50
    levels = grey_levels(image, image < 2)
    np.testing.assert_allclose(levels[[4]], np.median(image[1:]), atol=1e-3)
    assert levels.max() < 1
    assert (np.diff(levels) > 0).all()


@torch.inference_mode()
def test_a_network_begins_with_nothing_to_correct():
    torch.manual_seed(0)
    model = initialise(Model(get_config('tiny'))).eval()
    features, text, place, kinds = _inputs(model, (6, 5, 4))
    decoder = model.synthesis.imnet
    told = decoder.on_grid(features, text, place=place, kinds=kinds)
    decoder.correction = None
    torch.testing.assert_close(told, decoder.on_grid(features, text))


@torch.inference_mode()
def test_place_and_grey_levels_say_something(network):
    features, text, place, kinds = _inputs(network, (6, 5, 4))
    decode = network.synthesis.imnet.on_grid
    image = decode(features, text, place=place, kinds=kinds)
    assert not torch.allclose(image, decode(features, text, place=place + 1, kinds=kinds))
    assert not torch.allclose(
        image, decode(features, text, place=place, kinds=kinds._replace(source=kinds.source + 0.5))
    )


@torch.inference_mode()
def test_what_a_prompt_changes_is_not_corrected(network):
    """Parameters act through the tissues alone, however large the correction is."""
    features, text, place, kinds = _inputs(network, (6, 5, 4))
    decoder = network.synthesis.imnet
    signals = text[:, -N_SIGNALS:] + 0.3
    told = {'place': place, 'kinds': kinds}
    with_it = decoder.on_grid(features, text, signals=signals, **told)
    with_it -= decoder.on_grid(features, text, **told)
    correction, decoder.correction = decoder.correction, None
    without = decoder.on_grid(features, text, signals=signals, **told)
    without -= decoder.on_grid(features, text, **told)
    decoder.correction = correction
    torch.testing.assert_close(with_it, without, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_what_a_prompt_changes_is_not_restored(network):
    """The brightest part of an image is restored before its protocol changes, not after."""
    features, text, *_ = _inputs(network, (6, 5, 4))
    decoder, points = network.synthesis.imnet, make_coord((6, 5, 4))[None]
    signals = text[:, -N_SIGNALS:] + 0.3

    def changed(**told):
        with_it = decoder(features, points, text, signals=signals, **told)
        return with_it - decoder(features, points, text, **told)

    steep = {'restore': lambda image: 3 * image}
    assert not torch.allclose(
        decoder(features, points, text, **steep), decoder(features, points, text)
    )
    torch.testing.assert_close(changed(**steep), changed(), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_points_and_grid_are_corrected_alike(network):
    features, text, place, kinds = _inputs(network, (6, 7, 5))
    decoder = network.synthesis.imnet
    on_grid = decoder.on_grid(features, text, place=place, kinds=kinds)
    points = make_coord((6, 7, 5))[None]
    places = place.flatten(2).transpose(1, 2)
    at_points = decoder(features, points, text, place=places, kinds=kinds)
    np.testing.assert_allclose(on_grid.reshape(1, -1), at_points, atol=1e-5)


def test_a_scan_is_told_by_the_grey_levels_of_all_of_its_brain(network, ellipsoid_scan):
    """Whatever tiles it is cut into, and whatever its units are."""
    scan, mask = ellipsoid_scan
    # Bright on one side only, so that tiles differ.
    image = scan.get_fdata() * (1 + (np.arange(scan.shape[0]) > 17))[:, None, None]
    images, greys = [], []
    for tile, units in ((24, 1), (64, 1), (64, 700)):
        model = Model(replace(network.config, tile=tile))
        model.load_state_dict(network.state_dict())
        synthesizer = Synthesizer(LoadedModel(model.eval(), 'tiny', '0', '0'), torch.device('cpu'))
        scan = nb.Nifti1Image((image * units).astype(np.float32), mask.affine)
        encoded = synthesizer.encode(scan, mask=mask)
        assert (len(encoded.tiles) > 1) == (tile == 24)
        greys.append(encoded.greys)
        images.append(synthesizer.decode(encoded, 'Modality: T2w', Grid.of(scan)))
    np.testing.assert_array_equal(greys[0], greys[1])
    np.testing.assert_allclose(greys[0], greys[2], rtol=1e-4)
    np.testing.assert_allclose(images[1], images[2], rtol=1e-3, atol=0.5)
    other = synthesizer.decode(
        replace(encoded, greys=encoded.greys + 0.3), 'Modality: T2w', Grid.of(scan)
    )
    assert not np.allclose(other, images[2], rtol=0.01, atol=5)


@pytest.mark.parametrize(('contrast', 'corrected'), [('T1w', True), ('PDw', False), (None, True)])
def test_what_few_people_taught_is_kept_from_other_contrasts(
    network, ellipsoid_scan, contrast, corrected
):
    """A correction learned from acquired T1w and T2w scans spoils images made from a PDw."""
    scan, mask = ellipsoid_scan
    card = {'training': {'people': {'sub-1': ['T1w', 'T2w'], 'sub-2': ['T1w', 'FLAIR']}}}
    images = []
    later = {'training': {'people': {}, 'start': card}}
    for of_model in ({'training': 'published weights'}, card, later):
        loaded = LoadedModel(network, 'tiny', '0', '0', card=of_model)
        synthesizer = Synthesizer(loaded, torch.device('cpu'), 'float32')
        encoded = synthesizer.encode(scan, mask=mask, acquisition=Acquisition(contrast=contrast))
        images.append(synthesizer.decode(encoded, 'Modality: T2w', Grid.of(scan)))
    # A model that does not say what it has seen corrects always.
    assert np.array_equal(*images[:2]) == corrected
    # What part of it was trained last, and on whom, makes no difference.
    assert np.array_equal(*images[1:])
    plain = replace(encoded, greys=None)
    uncorrected = synthesizer.decode(plain, 'Modality: T2w', Grid.of(scan))
    assert np.array_equal(uncorrected, images[1]) != corrected


def test_the_correction_is_not_told_who_is_scanned(network, ellipsoid_scan, monkeypatch):
    """Few people's scans would be learned as those of their ages."""
    scan, mask = ellipsoid_scan
    synthesizer = Synthesizer(
        LoadedModel(network, 'tiny', '0', '0'), torch.device('cpu'), 'float32'
    )
    encoded = synthesizer.encode(scan, mask=mask)
    correction, told = network.synthesis.imnet.correction, []
    forward = correction.forward

    def spy(points, place, kinds):
        told.append(kinds.target)
        return forward(points, place, kinds)

    monkeypatch.setattr(correction, 'forward', spy)
    for said in ('Modality: T2w', 'Age: 80; Gender: M; Modality: T2w', 'Modality: T1w'):
        synthesizer.decode(encoded, said, Grid.of(scan))
    assert torch.equal(told[0], told[1])
    assert not torch.allclose(told[0], told[2])
