"""What is written of checks, transforms, tissues and standard spaces, without registering."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.anatomy.conversion import read_itk, write_itk
from tumsyn_bids.bids.derivatives import preproc_sidecar, save_image
from tumsyn_bids.bids.naming import session_paths
from tumsyn_bids.bids.tables import read_tsv
from tumsyn_bids.plan import Scan, SessionPlan

SPACE = 'MNI152NLin2009cAsym:res-2'


@pytest.fixture
def session(tmp_path):
    """A plan with T1w and T2w, what the writing steps need, and a head-sized blob."""
    raw = tmp_path / 'raw'
    raw.mkdir()
    grid = (np.indices((40, 44, 40)).T - (20, 22, 20)).T * 5.0
    data = 1000 * np.exp(-np.square(grid / 40).sum(axis=0)).astype(np.float32)
    affine = np.diag([5.0, 5, 5, 1])
    affine[:3, 3] = (-100, -110, -80)
    scans = []
    for contrast in ('T1w', 'T2w'):
        path = raw / f'sub-01_{contrast}.nii'
        nb.Nifti1Image(data, affine).to_filename(path)
        entities = {'subject': '01'}
        scans.append(Scan(str(path), Acquisition(contrast), entities, data.shape, (5, 5, 5)))
    plan = SessionPlan('01', None, tuple(scans), scans[0].path, 'it is the T1w', ())
    out = tmp_path / 'out'
    places = {'plan': plan.to_json(), 'bids_dir': str(raw), 'output_dir': str(out)}
    return plan, places, out


def sidecar(path):
    return json.loads(path.with_name(path.name.split('.')[0] + '.json').read_text())


def test_a_scan_in_a_standard_space(session, tmp_path):
    from tumsyn_bids.interfaces.standard import WriteStandard

    plan, places, out = session
    t2w = plan.scans[1]
    img = nb.load(t2w.path)
    written = out / session_paths(plan).preproc[t2w.path]
    save_image(img, written, preproc_sidecar(plan, t2w, bids_dir=tmp_path / 'raw'))
    shift = np.eye(4)
    shift[:3, 3] = (10, 0, -20)
    transform = write_itk(shift, tmp_path / 'shift.txt')
    WriteStandard(
        **places,
        scan=t2w.path,
        in_file=t2w.path,
        written=str(written),
        transforms=[str(transform)],
        space=SPACE,
    ).run(cwd=str(tmp_path))
    name = 'sub-01_space-MNI152NLin2009cAsym_res-2_desc-preproc_T2w.nii.gz'
    found = nb.load(out / 'sub-01' / 'anat' / name)
    assert found.shape == (97, 115, 97)
    np.testing.assert_allclose(found.header.get_zooms(), 2)
    brightest = np.unravel_index(np.argmax(found.get_fdata()), found.shape)
    place = nb.affines.apply_affine(found.affine, brightest)
    there = nb.affines.apply_affine(img.affine, (20, 22, 20))
    np.testing.assert_allclose(place, there - shift[:3, 3], atol=1.5)
    about = sidecar(out / 'sub-01' / 'anat' / name)
    assert about['Sources'][1].endswith('from-individual_to-MNI152NLin2009cAsym_mode-image_xfm.h5')
    assert 'SpatialReference' not in about
    assert about['Resolution'] == '2 x 2 x 2 mm voxels'


def test_transforms_are_written_both_ways(session, tmp_path):
    from tumsyn_bids.interfaces.derivatives import WriteTransform

    plan, places, out = session
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    WriteTransform(
        **places,
        scan=plan.scans[1].path,
        transform_file=str(write_itk(matrix, tmp_path / 'a.txt')),
        inverse_file=str(write_itk(np.linalg.inv(matrix), tmp_path / 'b.txt')),
    ).run(cwd=str(tmp_path))
    folder = out / 'sub-01' / 'anat'
    forward = folder / 'sub-01_from-T2w_to-individual_mode-image_xfm.txt'
    back = folder / 'sub-01_from-individual_to-T2w_mode-image_xfm.txt'
    np.testing.assert_allclose(read_itk(forward) @ read_itk(back), np.eye(4), atol=1e-5)
    np.testing.assert_allclose(read_itk(forward), matrix, atol=1e-5)
    assert 'resamples the T2w onto the reference' in sidecar(forward)['Description']
    assert 'resamples the reference onto the T2w' in sidecar(back)['Description']


def test_checks_become_a_table_that_explains_itself(session, tmp_path):
    from tumsyn_bids.interfaces.derivatives import WriteChecks

    plan, places, out = session
    check = {'measure': 'covered', 'value': 0.5, 'result': 'fail', 'message': 'half is missing'}
    check |= {'step': 'co-registration', 'scan': plan.scans[1].path}
    done = WriteChecks(**places, checks=[check]).run(cwd=str(tmp_path)).outputs
    path = out / 'sub-01' / 'anat' / 'sub-01_desc-anatomy_qc.tsv'
    (row,) = read_tsv(path)
    assert row == {
        'step': 'co-registration',
        'scan': 'bids:raw:sub-01_T2w.nii',
        'contrast': 'T2w',
        'measure': 'covered',
        'value': '0.5',
        'result': 'fail',
        'message': 'half is missing',
    }
    assert row.keys() - {'Description'} <= sidecar(path).keys()
    assert 'covered' in sidecar(path)['measure']['Levels']
    assert done.checks[0]['result'] == 'fail'


def test_tissues_are_written_under_their_bids_names(session, tmp_path):
    from tumsyn_bids.interfaces.tissues import DrawTissues, WriteTissues

    plan, places, out = session
    affine = np.diag([5.0, 5, 5, 1])
    affine[:3, 3] = (-100, -110, -80)
    labels = np.zeros((40, 44, 40), np.uint8)
    labels[10:30, 10:30, 10:30] = 3
    labels[12:28, 12:28, 12:28], labels[15:25, 15:25, 15:25] = 1, 2
    files = {}
    for name, number in (('GM', 1), ('WM', 2), ('CSF', 3)):
        files[name] = str(tmp_path / f'{name}.nii')
        nb.Nifti1Image((labels == number).astype(np.float32), affine).to_filename(files[name])
    nb.Nifti1Image(labels, affine).to_filename(tmp_path / 'labels.nii')
    given = {**places, 'labels': str(tmp_path / 'labels.nii')}
    WriteTissues(**given, probabilities=files).run(cwd=str(tmp_path))
    folder = out / 'sub-01' / 'anat'
    stem = 'sub-01_space-individual_res-1mm'
    assert {path.name for path in folder.glob('*.nii.gz')} == {
        f'{stem}_dseg.nii.gz',
        *(f'{stem}_label-{name}_probseg.nii.gz' for name in files),
    }
    rows = read_tsv(folder / f'{stem}_dseg.tsv')
    assert {row['abbreviation']: row['index'] for row in rows} == {
        'GM': '1',
        'WM': '2',
        'CSF': '3',
    }
    stored = nb.load(folder / f'{stem}_label-WM_probseg.nii.gz')
    np.testing.assert_array_equal(stored.get_fdata(), labels == 2)
    assert sidecar(folder / f'{stem}_label-WM_probseg.nii.gz')['Label'] == 'WM'
    (figure,) = DrawTissues(**given, in_file=plan.reference).run(cwd=str(tmp_path)).outputs.figures
    assert 'reason' not in figure
    assert (out / figure['path']).is_file()
