"""The synthesiser: grids, tiles, targets; on a network whose output is known."""

from __future__ import annotations

import dataclasses
import itertools

import nibabel as nb
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.errors import ScanError, UsageError
from tumsyn_bids.grids import Grid, covers, resample
from tumsyn_bids.networks.model import load_model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.draw import training_ranges
from tumsyn_bids.synthesis import synthesizer
from tumsyn_bids.synthesis.conditioning import prompt_tensors
from tumsyn_bids.synthesis.intensity import percentile_clip, scale_source
from tumsyn_bids.synthesis.synthesizer import Synthesizer, find_device
from tumsyn_bids.synthesis.tiling import blend_weight, inside, tile_boxes, tile_starts

PROMPT = render_prompt(Acquisition('T2w', repetition_time=5.0, echo_time=0.09))


class _Copy(torch.nn.Module):
    """Stands for a trained network: the features are the source, the answer is the feature."""

    def __init__(self, network):
        super().__init__()
        self.imnet = _CopyDecoder()
        self.config = network.config

    def encoder(self, source, text):
        return source

    def fusion(self, features, text):
        return features


class _CopyDecoder(torch.nn.Module):
    def forward(self, features, coord, text, *others, **named):
        grid = coord.flip(-1)[:, :, None, None]
        return torch.nn.functional.grid_sample(
            features, grid, align_corners=False, padding_mode='border'
        )[:, 0, :, 0, 0]


@pytest.fixture
def copying(tiny_model):
    """A synthesiser that gives back its source at 1 mm."""
    loaded = load_model(tiny_model)
    loaded.network.synthesis = _Copy(loaded.network.synthesis)
    synthesizer = Synthesizer(loaded, torch.device('cpu'), 'float32')
    synthesizer.config = dataclasses.replace(
        synthesizer.config, input_voxel_size=1.0, tile=24, overlap=0.25
    )
    return synthesizer


def _ball(grid: Grid, centre, radius: float) -> nb.Nifti1Image:
    """A ball with a soft edge: smooth enough to be sampled on any grid."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing='ij'), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    distance = np.linalg.norm(world - centre, axis=-1)
    return nb.Nifti1Image(np.clip(radius - distance + 0.5, 0, 1).astype('f4'), grid.affine)


def _tilted(zooms, shape, tilt_deg=12.0, origin=(-35.0, -41.0, -30.0)) -> Grid:
    angle = np.deg2rad(tilt_deg)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.asarray(zooms)
    affine[:3, 3] = origin
    return Grid(shape, affine)


def _centroid(data: np.ndarray, grid: Grid) -> np.ndarray:
    index = np.argwhere(data > 0)
    weight = data[data > 0].astype(float)
    centre = (index * weight[:, None]).sum(0) / weight.sum()
    return (grid.affine @ np.append(centre, 1))[:3]


def test_target_of_a_tilted_thick_slice_source_lands_on_the_anatomy(copying):
    """The copy of a ball is where the ball is, in world space, to a fraction of a voxel."""
    thick = _tilted((0.9, 0.9, 4.0), (80, 80, 18))
    centre = np.array([2.0, -4.0, 3.0])
    brain, source = _ball(thick, centre, 28.0), _ball(thick, centre, 12.0)
    mask = nb.Nifti1Image((np.asarray(brain.dataobj) > 0.5).astype('u1'), thick.affine)
    encoded = copying.encode(source, mask=mask)
    grid = thick.with_zooms((0.8, 0.8, 1.2))
    image = copying.decode(encoded, PROMPT, grid)
    np.testing.assert_allclose(_centroid(image, grid), centre, atol=0.25)
    volume = (image > 500).sum() * np.prod(grid.zooms)
    assert volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.06)


def test_transform_of_the_source_is_applied(copying):
    grid = _tilted((1.0, 1.0, 1.0), (64, 64, 64), tilt_deg=0)
    shift = np.eye(4)
    shift[:3, 3] = (5.0, -3.0, 2.0)
    mask = nb.Nifti1Image(np.ones(grid.shape, 'u1'), grid.affine)
    source = _ball(grid, np.array([5.0, -3.0, 2.0]), 10.0)
    image = copying.decode(copying.encode(source, mask=mask, world=shift), PROMPT, grid)
    np.testing.assert_allclose(_centroid(image, grid), 0, atol=0.1)


def test_tiles_leave_no_seams(copying):
    grid = _tilted((1.0, 1.0, 1.0), (50, 44, 40), tilt_deg=0)
    smooth = np.fromfunction(lambda x, y, z: 1 + x / 50 + y / 44 + z / 40, grid.shape)
    source = nb.Nifti1Image(smooth.astype('f4'), grid.affine)
    mask = nb.Nifti1Image(np.ones(grid.shape, 'u1'), grid.affine)
    encoded = copying.encode(source, mask=mask)
    assert len(encoded.tiles) > 8
    image = copying.decode(encoded, PROMPT, grid)
    scaled = scale_source(smooth.astype('f4'), np.ones(grid.shape, bool)) * 1000
    np.testing.assert_allclose(image, scaled, rtol=1e-3)


def test_larger_voxels_are_means_over_their_volume(copying):
    fine = _tilted((1.0, 1.0, 1.0), (48, 48, 48), tilt_deg=0)
    rng = np.random.default_rng(0)
    data = rng.uniform(0.5, 1.0, fine.shape).astype('f4')
    mask = nb.Nifti1Image(np.ones(fine.shape, 'u1'), fine.affine)
    encoded = copying.encode(nb.Nifti1Image(data, fine.affine), mask=mask)
    coarse = fine.with_zooms((4.0, 4.0, 4.0))
    image = copying.decode(encoded, PROMPT, coarse)
    scaled = scale_source(data, np.ones(fine.shape, bool)) * 1000
    means = scaled.reshape(12, 4, 12, 4, 12, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(image, means, rtol=1e-3)


def test_same_anatomy_in_any_storage_order_gives_the_same_world_image(tiny_model):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    grid = _tilted((3.0, 3.0, 3.0), (24, 26, 22), tilt_deg=5)
    source = _ball(grid, np.zeros(3), 20.0)
    mask = nb.Nifti1Image((np.asarray(source.dataobj) > 0.5).astype('u1'), grid.affine)
    expected = synthesizer.decode(synthesizer.encode(source, mask=mask), PROMPT, grid)
    turned = nb.orientations.axcodes2ornt('PSR'), nb.io_orientation(grid.affine)
    ornt = nb.orientations.ornt_transform(turned[1], turned[0])
    source_t, mask_t = source.as_reoriented(ornt), mask.as_reoriented(ornt)
    result = synthesizer.decode(synthesizer.encode(source_t, mask=mask_t), PROMPT, grid)
    np.testing.assert_allclose(result, expected, atol=0.5)


def test_decoding_is_deterministic_and_zero_outside_the_brain(tiny_model):
    synthesizer = Synthesizer.load(tiny_model, 'cpu')
    grid = _tilted((3.0, 3.0, 3.0), (24, 26, 22))
    source = _ball(grid, np.zeros(3), 20.0)
    mask = nb.Nifti1Image((np.asarray(source.dataobj) > 0.5).astype('u1'), grid.affine)
    encoded = synthesizer.encode(source, mask=mask)
    first = synthesizer.decode(encoded, PROMPT, grid)
    np.testing.assert_array_equal(first, synthesizer.decode(encoded, PROMPT, grid))
    assert not first[np.asarray(mask.dataobj) == 0].any()
    assert np.isfinite(first).all()
    assert first.max() > 0


def test_with_a_gain_the_prompt_acts_through_the_signals_alone(tiny_model):
    """The default protocol stays, and what differs from it acts in proportion to the gain."""
    source = _ball(_tilted((3.0, 3.0, 3.0), (24, 24, 24)), (0, 0, 0), 24.0)
    mask = nb.Nifti1Image((source.get_fdata() > 0.5).astype('u1'), source.affine)
    usual = default_protocol('T2w', 3.0)
    prompts = [render_prompt(usual), render_prompt(usual.replace(echo_time=0.16))]

    def images(gain: float) -> list[np.ndarray]:
        loaded = load_model(tiny_model)
        synthesizer = Synthesizer(loaded, torch.device('cpu'), 'float32')
        # So bright that no voxel is cut off at 0.
        torch.nn.init.constant_(loaded.network.synthesis.imnet.layers[-1].bias, 5.0)
        synthesizer.config = dataclasses.replace(synthesizer.config, physics_gain=gain)
        encoded = synthesizer.encode(source, mask=mask)
        return [synthesizer.decode(encoded, prompt, Grid.of(source)) for prompt in prompts]

    plain, once, twice = images(0.0), images(1.0), images(2.0)
    np.testing.assert_array_equal(once[0], plain[0])
    np.testing.assert_array_equal(twice[0], plain[0])
    change = once[1] - once[0]
    assert np.abs(change).max() > 1
    np.testing.assert_allclose(twice[1] - twice[0], 2 * change, atol=0.01)


def test_a_gain_needs_signals_to_act_on():
    with pytest.raises(ValueError, match='mixes the signals'):
        dataclasses.replace(get_config('paper'), physics_gain=1.0)


def test_features_too_large_to_keep_are_made_again(tiny_model, monkeypatch):
    model = Synthesizer.load(tiny_model, 'cpu', 'float32')
    model.config = dataclasses.replace(model.config, tile=12)
    grid = _tilted((3.0, 3.0, 3.0), (16, 14, 12))
    source = _ball(grid, np.zeros(3), 20.0)
    mask = nb.Nifti1Image(np.ones(grid.shape, 'u1'), grid.affine)
    expected = model.decode(model.encode(source, mask=mask), PROMPT, grid)
    monkeypatch.setattr(synthesizer, '_KEPT_BYTES', 0)
    encoded = model.encode(source, mask=mask)
    assert len(encoded.tiles) > 1
    assert all(features is None for _, features in encoded.tiles)
    np.testing.assert_allclose(model.decode(encoded, PROMPT, grid), expected, atol=1e-3)


def test_published_tiles_are_never_smaller_than_the_tile(tiny_model):
    model = Synthesizer.load(tiny_model, 'cpu', 'float32')
    model.config = dataclasses.replace(model.config, tile=40, tiling='published')
    grid = _tilted((3.0, 3.0, 3.0), (16, 14, 12))
    source = _ball(grid, np.zeros(3), 20.0)
    mask = nb.Nifti1Image(np.ones(grid.shape, 'u1'), grid.affine)
    encoded = model.encode(source, mask=mask)
    assert encoded.grid.shape == (40, 40, 40)
    assert len(encoded.tiles) == 1


def test_order_of_the_axes_does_not_move_the_image(copying):
    """What the network sees transposed comes back where it belongs."""
    grid = _tilted((1.0, 1.0, 1.0), (50, 44, 40), tilt_deg=0)
    centre = np.array([-12.0, -20.0, -8.0])
    source = _ball(grid, centre, 9.0)
    mask = nb.Nifti1Image(np.ones(grid.shape, 'u1'), grid.affine)
    copying.config = dataclasses.replace(
        copying.config, axes='zyx', tiling='published', overlap=0.5, intensity='percentile_clip'
    )
    image = copying.decode(copying.encode(source, mask=mask), PROMPT, grid)
    np.testing.assert_allclose(_centroid(image, grid), centre, atol=0.1)


def test_clipping_does_not_depend_on_what_was_cropped():
    volume = np.zeros((20, 20, 20), 'f4')
    volume[5:15, 5:15, 5:15] = np.random.default_rng(0).random((10, 10, 10)) * 900 + 50
    part = volume[4:16, 4:16, 4:16]
    whole = percentile_clip(volume, volume > 0, volume.size)
    np.testing.assert_allclose(
        percentile_clip(part, part > 0, volume.size), whole[4:16, 4:16, 4:16]
    )
    assert whole.max() == 1
    assert np.isfinite(percentile_clip(part, part > 0, 10**8)).all()


def test_quotation_marks_in_prompts_are_ignored():
    ids, _ = prompt_tensors([f'"{PROMPT}"', PROMPT])
    assert torch.equal(ids[0], ids[1])


def test_empty_mask_is_refused(tiny_model):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    empty = nb.Nifti1Image(np.zeros((8, 8, 8), 'u1'), np.eye(4))
    with pytest.raises(ScanError, match='mask is empty'):
        synthesizer.encode(empty, mask=empty)


def test_constant_source_is_refused(tiny_model):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    ones = nb.Nifti1Image(np.ones((20, 20, 20), 'f4'), np.diag([3, 3, 3, 1.0]))
    mask = nb.Nifti1Image(np.pad(np.ones((8,) * 3, 'u1'), 6), ones.affine)
    with pytest.raises(ScanError, match='no brain'):
        synthesizer.encode(ones, mask=mask)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda scan, mask: (scan - 2, mask), 'nowhere brighter than 0'),
        (lambda scan, mask: (np.where(scan > 0.99, np.nan, scan), mask), 'not numbers'),
        (lambda scan, mask: (np.stack([scan, scan], -1), mask), '4 dimensions'),
        (lambda scan, mask: (scan, mask * (np.arange(20) == 9)), 'one voxel thick'),
    ],
)
def test_source_that_says_nothing_is_refused(tiny_model, change, words):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    scan = np.random.default_rng(0).random((20, 20, 20), 'f4')
    data, mask = change(scan, np.pad(np.ones((8,) * 3, 'u1'), 6))
    scan, mask = (
        nb.Nifti1Image(a.astype(t), np.diag([3, 3, 3, 1.0]))
        for a, t in ((data, 'f4'), (mask, 'u1'))
    )
    with pytest.raises(ScanError, match=words):
        synthesizer.encode(scan, mask=mask)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'contrast': None}, 'names no modality'),
        ({'repetition_time': 20.0}, 'repetition_time 20 lies outside'),
        ({'echo_time': 0.9}, 'echo_time 0.9 lies outside'),
        ({'inversion_time': 3.9}, 'inversion_time 3.9 lies outside'),
        ({'flip_angle': 20.0}, 'flip_angle 20 lies outside'),
        ({'field_strength': 9.4}, 'field_strength 9.4 lies outside'),
        ({'age': 1.5}, 'age 1.5 lies outside'),
        ({'repetition_time': 5.0, 'inversion_time': 5.5}, 'inversion time of 5.5 s'),
    ],
)
def test_prompt_outside_of_what_was_trained_on_is_warned_of(tiny_model, changes, words):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    synthesizer._card = {'ranges': training_ranges()}
    usual = default_protocol('FLAIR', 3.0).replace(
        age=40.0, repetition_time=9.0, inversion_time=2.5
    )
    assert synthesizer.in_range(usual) == []
    warnings = synthesizer.in_range(usual.replace(**changes))
    assert any(words in warning for warning in warnings), warnings


def test_contrast_that_was_not_trained_on_is_warned_of(tiny_model):
    synthesizer = Synthesizer.load(tiny_model, 'cpu', 'float32')
    synthesizer._card = {'ranges': {'T1w': {}}}
    assert synthesizer.in_range(default_protocol('T1w', 3.0)) == []
    (warning,) = synthesizer.in_range(default_protocol('SWI', 3.0))
    assert warning == 'the model was not trained on SWI images'


def test_absent_gpu_is_an_error_and_not_a_fallback():
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    with pytest.raises(UsageError, match='--device'):
        find_device('cuda')


def test_one_wild_voxel_does_not_dim_the_brain():
    brain = np.random.default_rng(0).uniform(100, 3500, (20, 20, 20)).astype('f4')
    clean = scale_source(brain, np.ones(brain.shape, bool))
    brain[3, 3, 3] = 65527
    np.testing.assert_allclose(
        scale_source(brain, np.ones(brain.shape, bool))[10:], clean[10:], rtol=0.01
    )


@given(size=st.integers(1, 300), tile=st.integers(1, 128), overlap=st.floats(0, 0.6))
def test_tiles_cover_everything_and_overlap(size, tile, overlap):
    starts = tile_starts(size, tile, overlap)
    edge = min(tile, size)
    covered = np.zeros(size, int)
    for start in starts:
        assert start >= 0
        covered[start : start + edge] += 1
        assert start + edge <= size
    assert (covered > 0).all()
    assert all(b - a <= edge * (1 - overlap) + 1 for a, b in itertools.pairwise(starts))


def test_blending_favours_the_tile_whose_centre_is_near():
    left, right = tile_boxes((30, 20, 20), 20, 0.25)
    point = np.array([[14.0, 9.5, 9.5]])
    assert inside(point, left).all()
    assert inside(point, right).all()
    assert blend_weight(point, left) > blend_weight(point, right)


@given(
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    zooms=st.tuples(*[st.floats(0.4, 6.0)] * 3),
    new=st.tuples(*[st.floats(0.4, 6.0)] * 3),
    tilt=st.floats(-40, 40),
)
def test_new_voxels_keep_the_corner_and_cover_the_field_of_view(shape, zooms, new, tilt):
    old = _tilted(zooms, shape, tilt_deg=tilt)
    grid = old.with_zooms(new)
    corner = np.array([-0.5, -0.5, -0.5, 1.0])
    np.testing.assert_allclose(grid.affine @ corner, old.affine @ corner, atol=1e-6)
    np.testing.assert_allclose(grid.zooms, new, rtol=1e-6)
    extent, covered = old.zooms * old.shape, grid.zooms * grid.shape
    assert (covered >= extent - 1e-3 * grid.zooms).all()
    assert (covered < extent + grid.zooms).all()


def test_resampling_onto_its_own_grid_changes_nothing():
    grid = _tilted((1.0, 1.2, 3.0), (20, 18, 9))
    img = nb.Nifti1Image(np.random.default_rng(0).random(grid.shape, dtype='f4'), grid.affine)
    np.testing.assert_allclose(resample(img, Grid.of(img)), img.get_fdata(), atol=1e-5)


def test_cover_is_the_field_of_view_moved_by_the_transform():
    grid = _tilted((1.0, 1.0, 1.0), (20, 20, 20), tilt_deg=0)
    img = nb.Nifti1Image(np.ones((20, 20, 20), 'f4'), grid.affine)
    assert covers(img, grid).all()
    shift = np.eye(4)
    shift[0, 3] = 5.0  # five voxels further along the first axis of the image
    inside = covers(img, grid, world=shift)
    assert inside[:15].all()
    assert not inside[15:].any()
