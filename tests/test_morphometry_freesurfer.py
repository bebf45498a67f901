"""Files in formats of FreeSurfer: geometry to the byte, and what other readers make of them."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.morphometry.freesurfer import conformed_grid, write_subject, xfm_text
from tumsyn_bids.morphometry.labels import structures
from tumsyn_bids.morphometry.stats import aseg_stats

BRAIN = {
    'BrainSeg': 1100000.0,
    'BrainSegNotVent': 1080000.0,
    'lhCortex': 230000.0,
    'rhCortex': 231000.0,
    'Cortex': 461000.0,
    'EstimatedTotalIntraCranialVol': 1500000.0,
}


@pytest.fixture(scope='module')
def record():
    rows = []
    for number, item in sorted(structures().items()):
        known = number != 17
        rows.append({
            'number': number,
            'name': item.name,
            'hemisphere': item.hemisphere,
            'voxels': 1000 + number if known else 0,
            'volume_mm3': 1000.5 + number if known else None,
            **dict.fromkeys(('mean', 'sd', 'low', 'high'), 80.0 if known else None),
            'flag': '' if known else 'not found',
        })  # fmt: skip
    affine = np.diag([1.1, 1.2, 1.3, 1.0])
    affine[:3, 3] = 1, 2, 3
    return {'structures': rows, 'brain': dict(BRAIN), 'affine': affine.tolist()}


@pytest.fixture(scope='module')
def subject(tmp_path_factory, record) -> Path:
    numbers = np.zeros((30, 40, 20), np.int32)
    numbers[5:10, 5:30, 5:15] = 1035
    numbers[10:25, 5:30, 5:15] = 41
    affine = np.eye(4)
    affine[:3, 3] = -7, 12, 30
    t1w = np.where(numbers > 0, 500, 20).astype(np.float32)
    brain = nb.Nifti1Image(np.where(numbers > 0, t1w, 0), affine)
    return write_subject(
        tmp_path_factory.mktemp('fs') / 'subjects',
        'sub-01',
        t1w=nb.Nifti1Image(t1w, affine),
        brain=brain,
        labels=nb.Nifti1Image(numbers, affine),
        record=record,
        origin='synthetic',
    )


@pytest.mark.parametrize('name', ['orig', 'T1', 'brainmask', 'aseg', 'aparc+aseg'])
def test_images_are_conformed(subject, name):
    path = subject / 'mri' / f'{name}.mgz'
    img = nb.load(path)
    assert img.shape == (256, 256, 256)
    assert nb.aff2axcodes(img.affine) == ('L', 'I', 'A')
    assert np.allclose(nb.affines.voxel_sizes(img.affine), 1)
    import gzip

    header = gzip.decompress(path.read_bytes())[:90]
    assert struct.unpack('>4i', header[:16]) == (1, 256, 256, 256)
    assert struct.unpack('>h', header[28:30]) == (1,)
    assert struct.unpack('>3f', header[30:42]) == (1, 1, 1)
    cosines = struct.unpack('>9f', header[42:78])
    assert cosines == (-1, 0, 0, 0, 0, -1, 0, 1, 0)


def test_labels_keep_their_place_and_number_of_voxels(subject):
    parcels = nb.load(subject / 'mri' / 'aparc+aseg.mgz')
    data = np.asarray(parcels.dataobj)
    assert (data == 1035).sum() == 5 * 25 * 10
    assert (data == 41).sum() == 15 * 25 * 10
    centre = nb.affines.apply_affine(parcels.affine, np.argwhere(data == 1035).mean(axis=0))
    assert np.allclose(centre, [7 - 7, 17 + 12, 9.5 + 30])
    whole = np.asarray(nb.load(subject / 'mri' / 'aseg.mgz').dataobj)
    assert set(np.unique(whole)) == {0, 3, 41}


def test_original_keeps_its_voxels(subject):
    img = nb.load(subject / 'mri' / 'orig' / '001.mgz')
    assert img.shape == (30, 40, 20)
    assert np.asarray(img.dataobj).max() == 500


def test_brain_is_scaled_to_white_matter_of_110(subject):
    data = np.asarray(nb.load(subject / 'mri' / 'brainmask.mgz').dataobj)
    assert data.dtype == np.uint8
    assert data.max() == 110


def test_middle_voxel_lies_at_the_centre():
    grid = conformed_grid(np.array([3.0, -4.0, 5.0]))
    assert np.allclose(nb.affines.apply_affine(grid.affine, [128] * 3), [3, -4, 5])


def test_talairach_leads_from_brain_to_mni305():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 10, 0, 0
    text = xfm_text(affine)
    assert text.startswith('MNI Transform File')
    lines = text.split('Linear_Transform =\n')[1].rstrip(';\n').split('\n')
    matrix = np.array([line.split() for line in lines], float)
    # FreeSurfer's own example: (10, -20, 35) of MNI305 is (10.695, -18.409, 36.137) of MNI152.
    in_brain = nb.affines.apply_affine(affine, [10.695, -18.409, 36.137])
    assert np.allclose(matrix @ [*in_brain, 1], [10, -20, 35], atol=0.01)


def test_aseg_stats_say_what_is_unknown(record):
    text = aseg_stats(record, 'sub-01', 'acquired')
    rows = [line.split() for line in text.splitlines() if not line.startswith('#')]
    by_name = {row[4]: row for row in rows}
    assert by_name['Left-Hippocampus'][3] == 'nan'
    assert by_name['Right-Hippocampus'][1:4] == ['53', '1053', '1053.5']
    assert all(len(row) == 10 for row in rows)
    assert '# Measure EstimatedTotalIntraCranialVol, eTIV, ' in text
    assert not any(row[4].startswith('ctx-') for row in rows)


def test_tables_name_the_kind_of_image(subject):
    for table in (subject / 'stats').glob('*.stats'):
        assert 'measured on the synthetic T1w; not by FreeSurfer' in table.read_text()


def test_freesurfer_stats_reads_the_parcels(subject):
    # Needs pandas below 2, which pybids refuses: run it in an environment of its own.
    reader = pytest.importorskip('freesurfer_stats')
    pandas = pytest.importorskip('pandas')
    if int(pandas.__version__.split('.')[0]) >= 2:
        pytest.skip('freesurfer-stats needs pandas below 2')
    stats = reader.CorticalParcellationStats.read(subject / 'stats' / 'lh.aparc.stats')
    assert stats.hemisphere == 'left'
    table = stats.structural_measurements.set_index('structure_name')
    assert len(table) == 34
    assert table.loc['insula', 'gray_matter_volume_mm^3'] == 2036
    assert np.isnan(table.loc['insula', 'average_thickness_mm'])
