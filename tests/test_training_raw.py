"""Training on raw BIDS: scans on different grids are aligned by the app, once."""

from __future__ import annotations

import json

import nibabel as nb
import pytest
from bids_builder import part_of

from tumsyn_bids.cli.prepare import prepared
from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import UsageError
from tumsyn_bids.training.people import is_raw, load_paired_subjects


@pytest.fixture(scope='module')
def raw(phantom_dir, tmp_path_factory):
    """One person with a T1w and a T2w on another grid, and one who must not be seen."""
    dataset = part_of(phantom_dir, tmp_path_factory.mktemp('raw') / 'ds', 'sub-02', 'sub-03')
    for path in (dataset / 'sub-03' / 'ses-2' / 'anat').iterdir():
        path.unlink()
    (dataset / 'sub-03' / 'ses-2' / 'anat').rmdir()
    (dataset / 'sub-03' / 'ses-2').rmdir()
    anat = dataset / 'sub-03' / 'ses-1' / 'anat'
    shapes = {nb.load(path).shape for path in anat.glob('*.nii.gz')}
    assert len(shapes) == 2
    return dataset


def test_raw_scans_on_different_grids_are_aligned_once_and_trained_on(raw, tmp_path, capfd):
    command = ['train', 'synthesis', str(tmp_path / 'run'), '--pairs', str(raw), '--seed', '1']
    command += ['--exclude', 'sub-02', '--config', 'tiny', '--precision', '32-true']
    assert main([*command, '--steps', '1']) == 0
    (made,) = (tmp_path / 'run' / 'preprocessed').glob('ds-*')
    manifest = json.loads((tmp_path / 'run' / 'manifest.json').read_text())
    assert manifest['people'] == {'sub-03_ses-1': ['T1w', 'T2w']}
    assert not list(made.rglob('*desc-synth*'))
    assert not (made / 'sub-02').exists()
    (person,) = load_paired_subjects(made)
    assert person.person.age is not None
    assert set(person.protocols) == {'T1w', 'T2w'}
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*.nii.gz')}
    assert len(before) == 3
    assert main([*command, '--steps', '1']) == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*.nii.gz')} == before
    assert '(1 of them before)' in capfd.readouterr().out


def test_derivatives_are_taken_as_they_are(raw, tmp_path):
    other = tmp_path / 'derived'
    other.mkdir()
    (other / 'dataset_description.json').write_text('{"DatasetType": "derivative"}')
    assert is_raw(raw)
    assert prepared([other], tmp_path / 'run') == [other]
    assert not (tmp_path / 'run').exists()


def test_nobody_left_is_refused_before_anything_is_made(raw, tmp_path):
    with pytest.raises(UsageError, match='no participant to train on'):
        prepared([raw], tmp_path / 'run', exclude=('sub-02', 'sub-03'))
    assert not (tmp_path / 'run').exists()


def test_a_raw_dataset_in_the_place_of_a_prepared_one_is_answered_with_what_to_do(raw):
    with pytest.raises(UsageError, match='such as an output directory of tumsyn-bids'):
        load_paired_subjects(raw)
