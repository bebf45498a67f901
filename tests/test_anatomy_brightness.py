"""Landmarks of the brightness of brains."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
from scipy.stats import spearmanr

from tumsyn_bids.anatomy.brightness import (
    LANDMARKS,
    image_landmarks,
    match_landmarks,
    mean_landmarks,
    scan_landmarks,
)
from tumsyn_bids.errors import ScanError


def image(data, zoom=1.0):
    return nb.Nifti1Image(np.asarray(data, dtype=np.float32), np.diag([zoom, zoom, zoom, 1]))


@pytest.fixture
def brain():
    rng = np.random.default_rng(1)
    mask = np.zeros((24, 24, 24), dtype=np.uint8)
    mask[4:20, 4:20, 4:20] = 1
    return rng.gamma(4, 100, mask.shape) * mask, image(mask)


def test_an_image_gets_the_landmarks_that_are_wanted(brain):
    data, mask = brain
    other = image(np.sqrt(data) * 7)
    wanted = image_landmarks(other, mask)
    own = image_landmarks(image(data), mask)
    matched = match_landmarks(data, own, wanted / wanted[LANDMARKS.index(98.0)])
    found = image_landmarks(image(matched), mask)
    unit = LANDMARKS.index(98.0)
    np.testing.assert_allclose(found / found[unit], wanted / wanted[unit], rtol=1e-3)
    # The 98th percentile, the unit of images, stays; so do the background and the order.
    assert found[unit] == pytest.approx(own[unit], rel=1e-3)
    assert (matched[data == 0] == 0).all()
    assert spearmanr(matched[data > 0], data[data > 0]).statistic == pytest.approx(1)


def test_the_brightest_voxels_keep_their_order(brain):
    data, mask = brain
    own = image_landmarks(image(data), mask)
    bright = np.array([1.0, 1.5, 2.0]) * own[-1]
    matched = match_landmarks(bright, own, 0.5 * own / own[LANDMARKS.index(98.0)])
    assert (np.diff(matched) > 0).all()


def test_an_image_of_few_values_is_matched_without_breaking(brain):
    _, mask = brain
    data = np.where(np.asarray(mask.dataobj) > 0, 500.0, 0.0)
    data[4:8] *= 2
    own = image_landmarks(image(data), mask)
    matched = match_landmarks(data, own, np.linspace(0.1, 1.1, len(LANDMARKS)))
    assert np.isfinite(matched).all()
    assert len(np.unique(matched)) == 3


def test_several_scans_are_averaged():
    assert mean_landmarks([[0, 1, 2], [2, 3, 4]]).tolist() == [1, 2, 3]


def test_a_stripped_scan_tells_its_landmarks_in_any_unit(tmp_path, brain):
    data = np.kron(brain[0], np.ones((2, 2, 2)))
    paths = [tmp_path / 'a.nii', tmp_path / 'b.nii']
    for path, unit in zip(paths, (1.0, 40.0), strict=True):
        img = nb.Nifti1Image((data * unit).astype(np.float32), np.diag([3, 3, 3, 1]))
        img.set_sform(img.affine, 1)
        nb.save(img, path)
    first, second = (scan_landmarks(path, 'T1w', method='none') for path in paths)
    assert first[LANDMARKS.index(98.0)] == 1
    assert first == pytest.approx(second, abs=0.01)
    assert (np.diff(first) > 0).all()


def test_a_scan_without_a_brain_is_refused(tmp_path):
    path = tmp_path / 'constant.nii'
    img = nb.Nifti1Image(np.full((20, 20, 20), 7, dtype=np.float32), np.diag([8, 8, 8, 1]))
    img.set_sform(img.affine, 1)
    nb.save(img, path)
    with pytest.raises(ScanError):
        scan_landmarks(path, 'T1w', method='none')
