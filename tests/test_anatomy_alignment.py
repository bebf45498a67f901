"""Bias correction, co-registration and brain extraction, against the truth of the phantom."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.boundary import moved_edge
from tumsyn_bids.anatomy.brain import extract_brain, is_stripped
from tumsyn_bids.anatomy.conversion import read_itk
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.anatomy.registration import register_linear, similarity
from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid, resample


@pytest.fixture(scope='module')
def dataset(repository):
    return repository / 'data' / 'ds-phantom'


@pytest.fixture(scope='module')
def pair(dataset):
    """T1w and T2w of a session (the T2w in another pose), brain mask, true transform."""
    stem = 'sub-03/ses-1/anat/sub-03_ses-1_'
    truth = dataset / 'derivatives' / 'truth'
    paths = [dataset / f'{stem}{name}.nii.gz' for name in ('T1w', 'T2w')]
    scans = [correct_bias(sanitize(path).img) for path in paths]
    mask = nb.load(truth / f'{stem}space-individual_desc-brain_mask.nii.gz')
    return *scans, mask, read_itk(truth / f'{stem}from-T2w_to-individual_mode-image_xfm.txt')


def distances(found, truth, mask):
    """Return how far (mm) two transforms of fixed to moving coordinates put brain voxels apart."""
    points = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0)[::500])
    return np.linalg.norm(apply_affine(found, points) - apply_affine(truth, points), axis=1)


def dice(ours, theirs):
    return 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())


def dice_with_truth(brain, truth):
    grid = Grid.of(brain.img)
    theirs = resample(nb.Nifti1Image(truth.get_fdata(dtype=np.float32), truth.affine), grid) > 0.5
    return dice(np.asarray(brain.img.dataobj) > 0, theirs)


def displaced(img, degrees, shift, centre):
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(degrees, degrees=True).as_matrix()
    move[:3, 3] = centre - move[:3, :3] @ centre + shift
    return nb.Nifti1Image(np.asarray(img.dataobj), move @ img.affine), move


def test_the_true_motion_between_contrasts_is_found(pair):
    fixed, moving, mask, truth = pair
    assert distances(np.eye(4), truth, mask).mean() > 3
    found = register_linear(fixed, moving, fixed_mask=mask, threads=1)
    error = distances(found.matrix, truth, mask)
    assert error.mean() < 0.5
    assert error.max() < 1.0
    assert found.cost_after < found.cost_before
    assert found.cost_after == pytest.approx(
        -similarity(fixed, moving, found.matrix, fixed_mask=mask)
    )


@pytest.mark.parametrize(
    ('degrees', 'shift'), [((30, 0, 0), (0, 0, 30)), ((-12, 15, 23), (20, -15, -16))]
)
def test_a_large_displacement_is_recovered(pair, degrees, shift):
    fixed, moving, mask, truth = pair
    centre = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0)).mean(axis=0)
    moved, move = displaced(moving, degrees, shift, centre)
    found = register_linear(fixed, moved, fixed_mask=mask, threads=1)
    assert distances(found.matrix, move @ truth, mask).mean() < 0.5


def test_a_registration_is_the_same_each_time(pair):
    fixed, moving, mask, _ = pair
    first, second = (
        register_linear(fixed, moving, fixed_mask=mask, threads=1, seed=5) for _ in range(2)
    )
    np.testing.assert_array_equal(first.matrix, second.matrix)


def test_scans_that_do_not_overlap_are_refused(pair):
    fixed, moving, mask, _ = pair
    empty = nb.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine)
    with pytest.raises(ScanError, match='nothing to compare'):
        register_linear(fixed, moving, fixed_mask=empty, threads=1)


@pytest.mark.parametrize(('scan', 'contrast'), [('sub-01', 'T1w'), ('sub-02', 'FLAIR')])
def test_the_brain_mask_is_the_true_one_whatever_the_only_scan(dataset, scan, contrast):
    img = correct_bias(sanitize(dataset / scan / 'anat' / f'{scan}_{contrast}.nii.gz').img)
    name = f'{scan}_space-individual_desc-brain_mask.nii.gz'
    truth = nb.load(dataset / 'derivatives' / 'truth' / scan / 'anat' / name)
    brain = extract_brain(img, contrast, threads=1)
    assert brain.method == 'ants'
    assert brain.warnings == ()
    assert dice_with_truth(brain, truth) > 0.95
    true_ml = truth.get_fdata().sum() * abs(np.linalg.det(truth.affine)) / 1000
    assert brain.volume_ml == pytest.approx(true_ml, rel=0.08)


def test_an_image_without_skull_keeps_its_brain_and_says_so(dataset):
    folder = dataset / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    stripped = nb.load(folder / 'sub-01_space-individual_desc-truth_T2w.nii.gz')
    truth = nb.load(folder / 'sub-01_space-individual_desc-brain_mask.nii.gz')
    assert is_stripped(stripped)
    brain = extract_brain(stripped, 'T2w', threads=1)
    assert brain.method == 'none'
    assert any('without its skull' in note for note in brain.warnings)
    assert dice_with_truth(brain, truth) > 0.97


def test_a_head_is_not_taken_for_a_stripped_brain(dataset):
    assert not is_stripped(sanitize(dataset / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz').img)


def test_noise_is_not_silently_given_a_brain():
    rng = np.random.default_rng(0)
    noise = nb.Nifti1Image(
        rng.gamma(2, 50, (60, 60, 50)).astype(np.float32), np.diag([3, 3, 3, 1])
    )
    try:
        brain = extract_brain(noise, 'T1w', threads=1)
    except ScanError:
        return
    assert brain.warnings


def test_where_the_field_of_view_ends_does_not_widen_the_brain():
    grid = Grid((60, 60, 60), np.diag([2.0, 2, 2, 1]))
    distance = np.linalg.norm((np.indices(grid.shape).T - 29.5).T, axis=0) * 2
    brain = (distance < 45).astype(np.float32)
    head = np.where(distance < 45, 300.0, np.where((distance > 50) & (distance < 56), 500.0, 20))
    top = 49  # the dome goes on for another 6 mm
    cut = Grid((60, 60, top), grid.affine)
    whole = moved_edge(head, grid, brain, grid)[:, :, :top]
    ended = moved_edge(head[:, :, :top], cut, brain[:, :, :top], cut)
    assert (whole > 0)[:, :, -1].sum() > 300
    assert (ended > 0)[:, :, -1].sum() == pytest.approx((whole > 0)[:, :, -1].sum(), rel=0.12)


def test_bias_correction_takes_most_of_a_known_shading_away(dataset):
    img = sanitize(dataset / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz').img
    folder = dataset / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    labels = nb.load(folder / 'sub-01_space-individual_desc-truth_dseg.nii.gz')
    data = np.asarray(labels.dataobj)
    white = np.isin(data, (2, 41)).astype(np.float32)
    inside = resample(nb.Nifti1Image(white, labels.affine), Grid.of(img)) > 0.99
    ramp = np.exp(np.linspace(-0.8, 0.8, img.shape[1]))[None, :, None]
    shaded = nb.Nifti1Image((np.asarray(img.dataobj) * ramp).astype(np.float32), img.affine)

    def variation(image):
        values = np.asarray(image.dataobj)[inside]
        return values.std() / values.mean()

    assert variation(shaded) > 0.15
    assert variation(correct_bias(shaded)) < 0.5 * variation(shaded)
