"""What the simulated scanner shows agrees with physics and geometry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.anatomy import build_anatomy
from tumsyn_bids.simulation.phantom import draw_person, rigid, transform_points
from tumsyn_bids.simulation.scanner import View, contrast_map, scan, scan_grid

POSE = rigid((6, -4, 8), (5, -7, 3))


@pytest.fixture(scope='module')
def anatomy():
    return build_anatomy(2)


@pytest.fixture(scope='module')
def person():
    return draw_person(np.random.default_rng(7))


@pytest.fixture(scope='module')
def grid():
    return scan_grid((3, 3, 3), (180, 231, 201), 'RAS', centre=(0, -2, -16))


@pytest.fixture(scope='module')
def pure(anatomy, person, grid):
    """Voxels that hold nearly one tissue of the brain alone."""
    view = View.of(anatomy, person, grid)

    def share(*tissues):
        table = {name: float(name in tissues) for name in _names()}
        return view.mean(anatomy.mix(table) * anatomy.brain) > 0.95

    return {'white': share('white_matter'), 'grey': share('cortex'), 'fluid': share('csf')}


def _names():
    from tumsyn_bids.simulation.anatomy import TISSUE_NAMES

    return TISSUE_NAMES


def _middle(values, grid):
    """World position of the centre of mass."""
    index = np.indices(grid.shape).reshape(3, -1)
    mean = (index * values.ravel()).sum(axis=1) / values.sum()
    return transform_points(grid.affine, mean)


def _means(img, pure):
    data = np.asarray(img.dataobj, dtype=float)
    return {name: data[where].mean() for name, where in pure.items()}


@pytest.mark.parametrize(
    ('contrast', 'order'),
    [
        ('T1w', ('white', 'grey', 'fluid')),
        ('T2w', ('fluid', 'grey', 'white')),
        ('PDw', ('fluid', 'grey', 'white')),
        ('FLAIR', ('grey', 'white', 'fluid')),
    ],
)
def test_tissues_come_in_the_order_of_the_contrast(anatomy, person, grid, pure, contrast, order):
    acquisition = default_protocol(contrast, 1.5)
    means = _means(scan(anatomy, person, acquisition, grid, snr=None, bias=0), pure)
    bright, middle, dark = (means[name] for name in order)
    assert bright > 1.05 * middle
    assert middle > 1.05 * dark


def test_flair_nulls_fluid(anatomy, person, grid, pure):
    acquisition = Acquisition(
        contrast='FLAIR', repetition_time=9, echo_time=0.12, inversion_time=2.5, flip_angle=150
    )
    means = _means(scan(anatomy, person, acquisition, grid, snr=None, bias=0), pure)
    assert means['fluid'] < 0.3 * means['white']


def test_a_missing_parameter_is_named(anatomy, person, grid):
    with pytest.raises(ValueError, match='inversion_time'):
        scan(anatomy, person, default_protocol('FLAIR', 3).replace(inversion_time=None), grid)


def test_the_brain_has_the_level_asked_for(anatomy, person):
    contrast = contrast_map(anatomy, default_protocol('T2w', 3), 70)
    assert contrast[anatomy.brain].mean() == pytest.approx(70)


@pytest.mark.parametrize(
    ('zooms', 'axcodes', 'tilt'),
    [
        ((3, 3, 3), 'PSR', (0, 0, 0)),
        ((2, 2, 6), 'LAS', (0, 0, 0)),
        ((2, 2, 6), 'LAS', (-20, 5, 10)),
        ((3, 2, 4), 'LSA', (0, 12, -7)),
        ((4, 3, 2), 'RPI', (3, 3, 3)),
    ],
)
def test_anatomy_has_one_place_in_the_world(anatomy, person, grid, zooms, axcodes, tilt):
    brain = anatomy.brain.astype(float)
    expected_view = View.of(anatomy, person, grid)
    expected = _middle(expected_view.mean(brain), grid)
    fov = np.array([260, 260, 260])
    other = scan_grid(zooms, fov, axcodes, centre=(0, -2, 0), tilt_deg=tilt)
    values = View.of(anatomy, person, other).mean(brain)
    assert_allclose(_middle(values, other), expected, atol=0.1)
    volume = values.sum() * np.prod(zooms)
    assert volume == pytest.approx(expected_view.mean(brain).sum() * 27, rel=5e-3)


def test_storage_axes_point_where_the_codes_say():
    import nibabel as nb

    grid = scan_grid((1, 2, 3), (100, 120, 150), 'PSR', centre=(1, 2, 3), tilt_deg=(0, 0, 0))
    assert ''.join(nb.aff2axcodes(grid.affine)) == 'PSR'
    assert grid.shape == (100, 60, 50)
    assert_allclose(grid.zooms, (1, 2, 3))
    middle = transform_points(grid.affine, (np.array(grid.shape) - 1) / 2)
    assert_allclose(middle, (1, 2, 3))


def test_a_pose_moves_the_head_by_its_inverse(anatomy, person, grid):
    brain = anatomy.brain.astype(float)
    still = _middle(View.of(anatomy, person, grid).mean(brain), grid)
    moved = _middle(View.of(anatomy, person, grid, POSE).mean(brain), grid)
    assert_allclose(moved, transform_points(np.linalg.inv(POSE), still), atol=0.05)


def test_a_thick_slice_is_the_mean_of_thin_ones(anatomy, person):
    contrast = contrast_map(anatomy, default_protocol('T1w', 3))
    thin = scan_grid((2, 2, 2), (120, 120, 64), 'RAS', tilt_deg=(10, 0, 0))
    thick = thin.with_zooms((2, 2, 8))
    fine = View.of(anatomy, person, thin).mean(contrast)
    coarse = View.of(anatomy, person, thick).mean(contrast)
    expected = fine.reshape(60, 60, 8, 4).mean(axis=3)
    assert_allclose(coarse, expected, atol=6)
    assert np.abs(coarse - expected).mean() < 0.2


def test_what_lies_in_a_gap_is_not_seen(anatomy, person):
    contrast = contrast_map(anatomy, default_protocol('T1w', 3))
    thin = scan_grid((2, 2, 2), (120, 120, 66), 'RAS')
    spaced = thin.with_zooms((2, 2, 6))
    fine = View.of(anatomy, person, thin).mean(contrast)
    gapped = View.of(anatomy, person, spaced).mean(contrast, slice_thickness_mm=2)
    assert_allclose(gapped, fine[:, :, 1::3], atol=1e-6)


def test_noise_is_rician_of_the_strength_asked_for(anatomy, person, grid, pure):
    acquisition = default_protocol('T1w', 3)
    clean = scan(anatomy, person, acquisition, grid, level=1000, snr=None, bias=0)
    noisy = scan(anatomy, person, acquisition, grid, level=1000, snr=20, bias=0, seed=3)
    clean, noisy = (np.asarray(img.dataobj, dtype=float) for img in (clean, noisy))
    air = noisy[clean == 0]
    assert air.mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.02)
    assert (noisy - clean)[pure['white']].std() == pytest.approx(50, rel=0.03)


def test_shading_is_smooth_and_as_strong_as_asked_for(anatomy, person, grid):
    options = {'level': 1000, 'snr': None, 'seed': 5}
    acquisition = default_protocol('T1w', 3)
    flat = np.asarray(scan(anatomy, person, acquisition, grid, bias=0, **options).dataobj)
    shaded = np.asarray(scan(anatomy, person, acquisition, grid, bias=0.2, **options).dataobj)
    field = np.log(shaded[flat > 300] / flat[flat > 300])
    assert 0.1 < field.std() < 0.3
    neighbours = (flat[:-1] > 300) & (flat[1:] > 300)
    ratio = shaded / np.maximum(flat, 1)
    assert np.abs(np.diff(ratio, axis=0)[neighbours]).max() < 0.08


def test_a_floor_clears_the_background(anatomy, person, grid):
    acquisition = default_protocol('T1w', 3)
    data = np.asarray(scan(anatomy, person, acquisition, grid, level=100, snr=50, floor=8).dataobj)
    assert data[data > 0].min() >= 8
    assert (data == 0).mean() > 0.3


def test_the_same_seed_gives_the_same_scan(anatomy, person, grid):
    acquisition = default_protocol('T1w', 3)
    first, again, other = (
        np.asarray(scan(anatomy, person, acquisition, grid, seed=seed).dataobj)
        for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert (first == again).all()
    assert (first != other).any()


def test_both_header_transforms_agree(anatomy, person):
    grid = scan_grid((4, 4, 6), (180, 220, 150), 'LAS', tilt_deg=(15, -3, 6))
    img = scan(anatomy, person, default_protocol('T1w', 3), grid)
    assert img.get_data_dtype() == np.int16
    assert (img.header['qform_code'], img.header['sform_code']) == (1, 1)
    assert_allclose(img.get_qform(), img.get_sform(), atol=1e-3)
    assert_allclose(img.affine, grid.affine, atol=1e-4)
