"""What is no brain, not whole, or not the same person is flagged; what is right passes."""

from __future__ import annotations

import math

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumsyn_bids.anatomy.brain import extract_brain
from tumsyn_bids.anatomy.conversion import read_itk
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.anatomy.quality import LIMITS, judge, messages
from tumsyn_bids.anatomy.registration import register_linear
from tumsyn_bids.anatomy.selfcheck import check_alignment
from tumsyn_bids.verdicts import worst

STEM = 'sub-03/ses-1/anat/sub-03_ses-1_'


@pytest.fixture(scope='module')
def dataset(repository):
    return repository / 'data' / 'ds-phantom'


@pytest.fixture(scope='module')
def scans(dataset):
    """T1w and T2w of a person, brain mask, true transform, and the FLAIR of another person."""
    truth = dataset / 'derivatives' / 'truth'
    names = (f'{STEM}T1w', f'{STEM}T2w', 'sub-02/anat/sub-02_FLAIR')
    t1w, t2w, other = (sanitize(dataset / f'{x}.nii.gz').img for x in names)
    mask = nb.load(truth / f'{STEM}space-individual_desc-brain_mask.nii.gz')
    transform = read_itk(truth / f'{STEM}from-T2w_to-individual_mode-image_xfm.txt')
    return t1w, t2w, mask, transform, other


def results(checks):
    return {check.measure: check.result for check in checks}


def test_two_scans_of_one_person_pass(scans):
    t1w, t2w, mask, transform, _ = scans
    checks = check_alignment(t1w, t2w, transform, mask, contrast='T2w')
    assert worst(results(checks).values()) == 'pass', checks
    values = {check.measure: check.value for check in checks}
    assert values['information-after'] > values['information-before']
    assert values['moved'] > 3


def test_scans_of_two_people_are_told_apart(scans):
    t1w, _, mask, _, other = scans
    found = register_linear(t1w, other, fixed_mask=mask, threads=1)
    checks = check_alignment(t1w, other, found.matrix, mask, contrast='FLAIR')
    assert results(checks)['likeness-to-mirrored'] == 'fail'
    assert any('another person' in text for text in messages(checks))


def test_a_bad_alignment_is_flagged(scans):
    t1w, t2w, mask, transform, _ = scans
    shift = np.eye(4)
    shift[:3, 3] = (0, 25, 20)
    checks = results(check_alignment(t1w, t2w, transform @ shift, mask, contrast='T2w'))
    assert checks['overlap'] != 'pass'
    assert checks['likeness-to-mirrored'] != 'pass'


def test_a_scan_of_half_the_brain_is_flagged(scans):
    t1w, t2w, mask, transform, _ = scans
    half = t2w.slicer[:, :, : t2w.shape[2] // 2]
    checks = results(check_alignment(t1w, half, transform, mask, contrast='T2w'))
    assert checks['covered'] == 'fail'


def knee(shape=(50, 50, 50), zoom=3.0):
    """A leg: skin fat, muscle, two bones with marrow, and the gap of a joint."""
    x, y, z = ((np.indices(shape).T - np.array(shape) / 2) * zoom).T
    data = np.zeros(shape)
    around = np.hypot(x, y)
    data[around < 65], data[around < 57] = 900, 350
    bone = np.hypot(x, y - 5) - 10 * np.exp(-((z / 25) ** 2))
    data[bone < 18], data[bone < 14] = 150, 800
    data[(np.abs(z) < 4) & (np.hypot(x, y - 5) < 28)] = 500
    data[np.hypot(x - 15, y + 25) < 9] = 120
    return data


def bottle(shape=(50, 50, 50), zoom=3.0):
    x, y, z = ((np.indices(shape).T - np.array(shape) / 2) * zoom).T
    return 800.0 * ((np.hypot(x, y) < 70) & (np.abs(z) < 65))


@pytest.mark.slow
@pytest.mark.parametrize('shape', [knee, bottle])
def test_what_is_no_head_is_not_silently_given_a_brain(shape):
    rng = np.random.default_rng(0)
    data = shape()
    noisy = np.abs(data + rng.normal(0, 20, data.shape)).astype(np.float32)
    brain = extract_brain(nb.Nifti1Image(noisy, np.diag([3.0, 3, 3, 1])), 'T1w', threads=1)
    assert 'fail' in results(brain.checks).values(), brain.checks
    assert any('hardly looks like a brain' in text for text in brain.warnings)


def test_a_cropped_brain_is_flagged(dataset):
    folder = dataset / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    img = nb.load(folder / 'sub-01_space-individual_desc-truth_T2w.nii.gz').slicer[::2, ::2, ::2]
    inside = np.asarray(img.dataobj) > 0
    middle = round(ndimage.center_of_mass(inside)[2])
    whole = extract_brain(img, 'T2w', method='none')
    half = extract_brain(img.slicer[:, :, middle:], 'T2w', method='none')
    assert results(whole.checks)['cut'] == 'pass'
    assert results(half.checks)['cut'] == 'fail'
    assert any('field of view cuts' in text for text in half.warnings)


@pytest.mark.parametrize(
    ('volume', 'result'), [(1500, 'pass'), (700, 'warn'), (2300, 'warn'), (100, 'fail')]
)
def test_an_implausible_volume_never_passes(volume, result):
    (check,) = judge({'volume': volume})
    assert check.result == result
    assert bool(check.message) == (result != 'pass')


@pytest.mark.parametrize('name', LIMITS)
def test_a_value_that_could_not_be_measured_is_not_taken_for_good(name):
    (check,) = judge({name: math.nan})
    assert check.result == 'fail'
    assert check.message
