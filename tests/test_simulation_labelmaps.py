"""Label maps: which labels are known, and what a user is told of a file that cannot be used."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import EXIT_USAGE, UsageError
from tumsyn_bids.physics.tissues import tissue_of_label
from tumsyn_bids.simulation.generator import TISSUE_NAMES, load_tissue_volume
from tumsyn_bids.simulation.labelmaps import read_labels

#: FreeSurfer numbers by tissue: aseg, aparc+aseg, aparc.a2009s+aseg, wmparc.
KNOWN = {
    'csf': (4, 5, 14, 15, 24, 30, 43, 44, 62, 72),
    'choroid_plexus': (31, 63, 136, 137, 163, 164),
    'white_matter_lesion': (25, 57, 77, 78, 79, 80, 81, 82),
    'cortex': (3, 42, 1000, 1035, 2000, 2035, 11100, 11175, 12100, 12175),
    'white_matter': (
        *(2, 41, 251, 255, 3000, 3035, 4000, 4035),
        *(5001, 5002, 13100, 13175, 14100, 14175),
    ),
    'optic_nerve': (85, 530),
    'vessel': (502, 514),
}


@pytest.fixture
def labels():
    """A head of nested spheres: ventricle, white matter, cortex, CSF."""
    index = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing='ij'), -1) - 29.5
    radius = np.linalg.norm(index, axis=-1)
    found = np.zeros((60, 60, 60), dtype=np.int16)
    for limit, label in ((27, 24), (24, 3), (19, 2), (8, 4)):
        found[radius < limit] = label
    return found


def save(path, labels, zooms=(1, 1, 1)):
    nb.save(nb.Nifti1Image(labels, np.diag([*map(float, zooms), 1.0])), path)
    return path


@pytest.mark.parametrize('tissue', KNOWN)
def test_labels_of_freesurfer_and_synthseg_have_their_tissue(tissue):
    assert {tissue_of_label(label) for label in KNOWN[tissue]} == {tissue}


@pytest.mark.parametrize('label', [-1, 1, 165, 777, 5003, 11000, 11176, 13099, 14176, 15001])
def test_other_labels_have_none(label):
    with pytest.raises(KeyError, match=str(label)):
        tissue_of_label(label)


def test_choroid_plexus_and_white_matter_parcels_are_read_as_their_tissue(tmp_path, labels):
    labels[labels == 4] = 31
    labels[labels == 2] = 3028
    volume = load_tissue_volume(save(tmp_path / 'wmparc.nii.gz', labels))
    found = {TISSUE_NAMES[index] for index in np.unique(volume.tissue)}
    assert found == {'air', 'csf', 'cortex', 'white_matter', 'choroid_plexus'}


def test_training_names_the_file_and_the_labels_it_does_not_know(tmp_path, labels, capsys):
    folder = tmp_path / 'maps'
    folder.mkdir()
    labels[30, 30, 30:33], labels[20, 20, 20] = 999, 165
    save(folder / 'sub-01.nii.gz', labels)
    command = ['train', 'synthesis', str(tmp_path / 'out'), '--labelmaps', str(folder)]
    assert main([*command, '--config', 'tiny', '--steps', '2']) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f'{folder / "sub-01.nii.gz"}: no tissue is known for labels' in said
    assert 'labels 999 (3 voxels), 165 (1 voxel).' in said
    assert '--exclude sub-01.nii.gz' in said


def test_many_unknown_labels_are_not_all_listed(tmp_path, labels):
    labels[30, :, :10] = np.arange(6000, 6060)[:, None]
    with pytest.raises(UsageError, match=r'6004 \(10 voxels\), 55 more'):
        read_labels(save(tmp_path / 'scan.nii.gz', labels))


def _not_a_number(labels):
    labels = labels.astype(np.float32)
    labels[1, 1, :2] = np.nan, np.inf
    return labels


def _colours(labels):
    return np.zeros(labels.shape, dtype=[('R', 'u1'), ('G', 'u1'), ('B', 'u1')])


@pytest.mark.parametrize(
    ('change', 'zooms', 'problem', 'remedy'),
    [
        (np.zeros_like, (1, 1, 1), 'no voxel of the label map is brain', 'FreeSurfer numbers'),
        (_not_a_number, (1, 1, 1), '2 voxels hold no finite number', 'number of their tissue'),
        (lambda x: x + 0.5, (1, 1, 1), 'no whole number, such as 0.5', 'nearest neighbour'),
        (lambda x: -x, (1, 1, 1), r'no tissue is known for labels -3 \(', '--exclude'),
        (lambda x: x[:, :, 30:31], (1, 1, 1), 'only 1 mm thick', 'whole head'),
        (lambda x: x[:, :, 30], (1, 1, 1), '60 × 60 voxels are not one volume', 'one volume'),
        (lambda x: np.stack([x, x], -1), (1, 1, 1), '60 × 60 × 60 × 2 voxels', 'one volume'),
        (_colours, (1, 1, 1), 'no volume of plain numbers', 'one volume'),
        (lambda x: x, (0.1, 1, 1), 'voxels of 0.1 × 1 × 1 mm', 'map of 1 mm'),
        (lambda x: x, (1, 1, 5), 'voxels of 1 × 1 × 5 mm', 'map of 1 mm'),
        (lambda x: x, (1e-3, 1e-3, 1e-3), '0.001 mm are not between 0.2 and 2 mm', 'affine'),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(tmp_path, labels, change, zooms, problem, remedy):
    path = save(tmp_path / 'map.nii.gz', change(labels), zooms)
    with pytest.raises(UsageError, match=problem) as error:
        load_tissue_volume(path)
    assert error.value.path == path
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (lambda whole: whole[: len(whole) // 2], 'cannot be read'),
        (lambda whole: b'', 'no NIfTI image'),
        (lambda whole: b'index,name\n1,a\n' * 100, 'no NIfTI image'),
    ],
)
@pytest.mark.parametrize('suffix', ['nii', 'nii.gz'])
def test_a_broken_or_foreign_file_is_named(tmp_path, labels, content, problem, suffix):
    path = save(tmp_path / f'map.{suffix}', labels)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UsageError, match=problem) as error:
        load_tissue_volume(path)
    assert error.value.path == path
    assert error.value.remedy


def test_a_fourth_axis_of_one_volume_and_rounded_floats_are_taken(tmp_path, labels):
    stored = labels[..., None].astype(np.float32) + 1e-5
    assert_array_equal(read_labels(save(tmp_path / 'map.nii.gz', stored)), labels)


def test_other_voxel_sizes_are_read_at_one_millimetre(tmp_path, labels):
    fine = load_tissue_volume(save(tmp_path / 'fine.nii.gz', labels))
    coarse = load_tissue_volume(save(tmp_path / 'coarse.nii.gz', labels[::2, :, ::2], (2, 1, 2)))
    # Voxel size means distance here: how far fluid reaches, and how large tissues are.
    assert coarse.distance.max() <= 12
    assert_allclose(coarse.tissue.shape, fine.tissue.shape, atol=1)
    for name in ('csf', 'cortex', 'white_matter'):
        sizes = [(one.tissue == TISSUE_NAMES.index(name)).sum() for one in (fine, coarse)]
        assert_allclose(*sizes, rtol=0.05)
    assert_allclose(coarse.frame.covariance, fine.frame.covariance, rtol=0.05, atol=3)
