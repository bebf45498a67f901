"""Figures whose value is known, and the properties that the definitions promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumsyn_bids.evaluation import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def brain():
    """A ball of 12 voxels radius with smooth contents, in [0, 1], and its mask."""
    x = np.linspace(-1, 1, 32)
    i, j, k = np.meshgrid(x, x, x, indexing='ij')
    mask = i**2 + j**2 + k**2 < 0.6
    return np.where(mask, 0.5 + 0.4 * np.sin(4 * i) * np.cos(3 * j), 0).astype(np.float32), mask


def test_scaling_puts_the_percentile_at_one_and_cuts_above():
    image = np.arange(1001, dtype=np.int16)
    scaled = metrics.scale_to_percentile(image, 99.5)
    assert scaled.dtype == np.float32
    assert scaled[0] == 0
    assert scaled[995] == 1
    assert scaled[500] == pytest.approx(500 / 995)
    assert (scaled[995:] == 1).all()


def test_scaling_takes_negative_values_for_ringing():
    image = np.array([-50.0, 0.0, 50.0, 100.0])
    np.testing.assert_allclose(metrics.scale_to_percentile(image, 100), [0, 0, 0.5, 1])


def test_scaling_starts_at_a_positive_minimum():
    np.testing.assert_allclose(metrics.scale_to_percentile([100, 150, 200], 100), [0, 0.5, 1])


@settings(deadline=None, max_examples=30)
@given(gain=st.floats(1e-3, 1e5), q=st.floats(50, 100))
def test_scaling_does_not_depend_on_units(gain, q):
    image = np.linspace(0, 7, 200)
    np.testing.assert_allclose(
        metrics.scale_to_percentile(image * gain, q),
        metrics.scale_to_percentile(image, q),
        atol=1e-5,
    )


@pytest.mark.parametrize('bad', [np.zeros(8), np.full(8, 3.0), np.array([0, np.nan, 1])])
def test_scaling_refuses_what_it_cannot_scale(bad):
    with pytest.raises(ValueError, match=r'NaN|no intensities'):
        metrics.scale_to_percentile(bad)


def test_psnr_of_a_known_error():
    a = np.zeros((4, 4, 4))
    assert metrics.psnr(a, a + 0.1) == pytest.approx(20)
    assert metrics.psnr(a, a) == math.inf


def test_psnr_counts_only_the_mask():
    a, b = np.zeros((2, 5)), np.zeros((2, 5))
    b[0] = 0.01
    b[1] = 0.5
    assert metrics.psnr(a, b, np.array([[1] * 5, [0] * 5])) == pytest.approx(40)


def test_empty_background_raises_psnr_by_the_share_of_the_brain(brain, rng):
    image, mask = brain
    other = image + mask * rng.normal(0, 0.05, image.shape).astype(np.float32)
    gain = metrics.psnr(image, other) - metrics.psnr(image, other, mask)
    assert gain == pytest.approx(-10 * math.log10(mask.mean()), abs=1e-3)


def test_mae_and_pearson_of_known_errors(brain):
    image, mask = brain
    shifted = image + 0.25
    assert metrics.mae(image, shifted, mask) == pytest.approx(0.25, abs=1e-6)
    assert metrics.pearson(image, shifted, mask) == pytest.approx(1)
    assert metrics.pearson(image, -image, mask) == pytest.approx(-1)
    assert math.isnan(metrics.pearson(image, np.ones_like(image), mask))


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = np.full((16, 16, 16), 0.2), np.full((16, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-5)


def test_ssim_window_is_a_gaussian_of_eleven_voxels():
    a = np.zeros((25, 25, 25))
    b = a.copy()
    b[12, 12, 12] = 1
    changed = np.argwhere(metrics.ssim_map(a, b) < 1 - 1e-9)
    assert changed.min() == 12 - metrics.SSIM_WINDOW // 2
    assert changed.max() == 12 + metrics.SSIM_WINDOW // 2


def test_ssim_is_one_for_equal_images_and_falls_with_noise(brain, rng):
    image, mask = brain
    noise = rng.normal(0, 1, image.shape)
    assert metrics.ssim(image, image) == pytest.approx(1)
    figures = [metrics.ssim(image, image + s * noise, mask) for s in (0.02, 0.1, 0.3)]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > figures[-1] + 0.2


def test_score_pair_is_perfect_for_the_same_image_in_other_units(brain):
    image, mask = brain
    scores = metrics.score_pair(1000 * image, 37 * image, mask)
    assert scores['psnr_brain'] > 100
    assert scores['ssim_whole'] == pytest.approx(1, abs=1e-6)
    assert scores['ssim_brain'] == pytest.approx(1, abs=1e-6)
    assert scores['pearson'] == pytest.approx(1)
    assert scores['mae'] == pytest.approx(0, abs=1e-6)
    assert all(isinstance(value, float) for value in scores.values())


def test_score_pair_does_not_see_what_lies_outside_the_mask(brain):
    image, mask = brain
    head = np.where(mask, image, 5.0)
    assert metrics.score_pair(head, image, mask) == metrics.score_pair(image, image, mask)


def test_score_pair_compares_with_the_best_look_up_table(brain, rng):
    source, mask = brain
    answer = np.where(mask, (1 - source) ** 2, 0)
    noisy = answer + mask * rng.normal(0, 0.1, answer.shape)
    scores = metrics.score_pair(noisy, answer, mask, source=source)
    assert scores['lut_psnr_brain'] > scores['psnr_brain'] + 10
    assert scores['lut_ssim_whole'] > scores['ssim_whole']
    assert {f'lut_{name}' for name in metrics.score_pair(noisy, answer, mask)} < set(scores)


def test_score_pair_of_a_thin_slab_has_no_ssim(brain):
    image, mask = (array[:, :, 12:20] for array in brain)
    scores = metrics.score_pair(image, image**2, mask)
    assert math.isnan(scores['ssim_whole'])
    assert math.isfinite(scores['psnr_brain'])


def test_score_pair_names_what_is_wrong(brain):
    image, mask = brain
    with pytest.raises(ValueError, match='mask is empty'):
        metrics.score_pair(image, image, np.zeros_like(mask))
    with pytest.raises(ValueError, match='shapes differ'):
        metrics.score_pair(image[1:], image, mask)


def test_gains_are_differences_of_the_figures_and_lie_in_their_intervals(rng, brain):
    answer, mask = brain
    noise = rng.normal(0, 1, answer.shape).astype(np.float32)
    good, bad = (np.where(mask, np.clip(answer + s * noise, 0, 1), 0) for s in (0.03, 0.1))
    gains = metrics.gain_intervals(good, bad, answer, mask, edge=8, resamples=200)
    scores = [metrics.score_prepared(image, answer, mask) for image in (good, bad)]
    expected = {
        'psnr': scores[0]['psnr_brain'] - scores[1]['psnr_brain'],
        'ssim_whole': scores[0]['ssim_whole'] - scores[1]['ssim_whole'],
        'ssim_brain': scores[0]['ssim_brain'] - scores[1]['ssim_brain'],
    }
    assert scores[0]['psnr_whole'] - scores[1]['psnr_whole'] == pytest.approx(expected['psnr'])
    for name, (gain, low, high) in gains.items():
        assert gain == pytest.approx(expected[name], rel=0.05)
        assert 0 < low <= gain <= high


def test_no_gain_over_itself_and_a_loss_is_negative(rng, brain):
    answer, mask = brain
    noisy = np.where(mask, np.clip(answer + 0.1 * rng.normal(size=answer.shape), 0, 1), 0)
    noisy = noisy.astype(np.float32)
    same = metrics.gain_intervals(noisy, noisy, answer, mask, edge=8, resamples=20)
    assert all(row == (0, 0, 0) for row in same.values())
    smooth = np.where(mask, answer * 0.98, 0)
    lost = metrics.gain_intervals(noisy, smooth, answer, mask, edge=8, resamples=200)
    assert all(high < 0 for _, _, high in lost.values())
