"""Landmarks of the brightness of brains."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
from scipy.stats import spearmanr

from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.brightness import (
    LANDMARKS,
    find_brain,
    image_landmarks,
    match_landmarks,
    mean_landmarks,
    scan_landmarks,
    unit_landmarks,
)
from tumsyn_bids.anatomy.conversion import read_itk
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid, resample


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


def stored(path, data, zoom):
    img = nb.Nifti1Image(np.asarray(data, dtype=np.float32), np.diag([zoom, zoom, zoom, 1]))
    img.set_sform(img.affine, 1)
    nb.save(img, path)
    return path


def test_a_stripped_scan_tells_its_landmarks_in_any_unit(tmp_path, brain):
    data = np.kron(brain[0], np.ones((2, 2, 2)))
    found = []
    for name, unit in (('a.nii', 1.0), ('b.nii', 40.0)):
        path = stored(tmp_path / name, data * unit, 3)
        found.append(unit_landmarks(*find_brain(path, 'T1w', method='none'), path))
    first, second = found
    assert first[LANDMARKS.index(98.0)] == 1
    assert first == pytest.approx(second, abs=0.01)
    assert (np.diff(first) > 0).all()


def test_the_brain_of_a_scan_is_where_another_scan_of_its_session_shows_it(repository):
    """The head moved between the two, and the skull is bright."""
    dataset = repository / 'data' / 'ds-phantom'
    stem = 'sub-03/ses-1/anat/sub-03_ses-1_'
    truth = dataset / 'derivatives' / 'truth'
    reference = nb.load(dataset / f'{stem}T1w.nii.gz')
    mask = nb.load(truth / f'{stem}space-individual_desc-brain_mask.nii.gz')
    path = dataset / f'{stem}T2w.nii.gz'
    world = read_itk(truth / f'{stem}from-T2w_to-individual_mode-image_xfm.txt')
    data = resample(correct_bias(sanitize(path).img), Grid.of(mask), world=world)
    true = unit_landmarks(nb.Nifti1Image(data, mask.affine), mask, path)
    assert scan_landmarks(path, reference, mask) == pytest.approx(true, abs=0.02)


def test_a_scan_without_a_brain_is_refused(tmp_path):
    path = stored(tmp_path / 'constant.nii', np.full((20, 20, 20), 7), 8)
    with pytest.raises(ScanError):
        find_brain(path, 'T1w', method='none')
