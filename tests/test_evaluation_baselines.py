"""Look-up tables and histograms with a known answer, and the bar that real scans set."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.evaluation import baselines, metrics


@pytest.fixture
def source():
    return np.random.default_rng(3).random((20, 20, 20)).astype(np.float32)


def test_table_recovers_any_function_of_grey_values(source):
    mask = np.ones(source.shape, bool)
    target = np.abs(np.sin(5 * source))  # not monotone
    table = baselines.fit_lut(source, target, mask)
    assert np.abs(table.apply(source) - target).max() < 5 / baselines.DEFAULT_BINS


def test_table_is_fitted_within_the_mask_only(source):
    mask = np.zeros(source.shape, bool)
    mask[:10] = True
    target = np.where(mask, 0.25, 0.75)
    table = baselines.fit_lut(source, target, mask, bins=16)
    np.testing.assert_allclose(table.values, 0.25)
    assert (table.apply(source, mask)[~mask] == 0).all()


def test_table_interpolates_grey_values_it_never_saw():
    source = np.array([0.05, 0.95])
    table = baselines.fit_lut(source, np.array([0.0, 0.9]), np.ones(2), bins=10)
    np.testing.assert_allclose(table.values, np.arange(10) / 10, atol=1e-6)


def test_table_has_a_place_for_both_ends():
    table = baselines.LookUpTable(np.array([0.1, 0.9], dtype=np.float32))
    np.testing.assert_allclose(table.apply(np.array([0.0, 0.49, 0.5, 1.0])), [0.1, 0.1, 0.9, 0.9])


def test_table_fitted_on_the_answer_is_the_best_of_all(source):
    mask = np.ones(source.shape, bool)
    target = source**2 + np.random.default_rng(1).normal(0, 0.1, source.shape)
    fitted = baselines.fit_lut(source, target, mask, bins=32)
    best = metrics.psnr(fitted.apply(source), target)
    for shift in (-0.02, 0.02):
        other = baselines.LookUpTable(fitted.values + np.float32(shift))
        assert metrics.psnr(other.apply(source), target) < best


def test_empty_mask_is_refused(source):
    with pytest.raises(ValueError, match='mask is empty'):
        baselines.fit_lut(source, source, np.zeros(source.shape))


def test_matched_histogram_is_that_of_the_target(source):
    mask = np.zeros(source.shape, bool)
    mask[5:15] = True
    target = 3 * np.random.default_rng(5).random(source.shape) ** 2
    matched = baselines.match_histogram(source, target, mask)
    q = np.linspace(0, 100, 21)
    np.testing.assert_allclose(
        np.percentile(matched[mask], q), np.percentile(target[mask], q), atol=0.02
    )
    assert (matched[~mask] == 0).all()
    order = np.argsort(source[mask])
    assert (np.diff(matched[mask][order]) >= 0).all()


@pytest.mark.parametrize(
    ('source', 'target', 'psnr_whole', 'psnr_brain', 'ssim_whole'),
    [
        ('T1w', 'T2w', 25.1, 17.0, 0.934),
        ('T2w', 'T1w', 24.5, 16.4, 0.942),
        ('T1w', 'FLAIR', 24.4, 16.3, 0.921),
        ('FLAIR', 'T1w', 22.6, 14.5, 0.908),
    ],
)
def test_bar_set_by_real_scans(shared_data, source, target, psnr_whole, psnr_brain, ssim_whole):
    """Mean over the two people of the best table fitted on the answer."""
    rows = []
    for subject in ('sub-07', 'sub-19'):
        stem = shared_data / 'openms-mni' / subject / 'anat' / f'{subject}_space-MNI_desc-brain'
        images = [np.asarray(nb.load(f'{stem}_{c}.nii.gz').dataobj) for c in (source, target)]
        mask = (images[0] != 0) | (images[1] != 0)
        grey, answer = (metrics.prepare(image, mask) for image in images)
        best = baselines.fit_lut(grey, answer, mask).apply(grey, mask)
        rows.append(metrics.score_prepared(best, answer, mask))
    mean = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    assert mean['psnr_whole'] == pytest.approx(psnr_whole, abs=0.06)
    assert mean['psnr_brain'] == pytest.approx(psnr_brain, abs=0.06)
    assert mean['ssim_whole'] == pytest.approx(ssim_whole, abs=0.0015)
