"""Whose brightness an image takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from bids_builder import Builder

from tumsyn_bids.bids.derivatives import ModelRecord, synthetic_sidecar
from tumsyn_bids.bids.donors import DONORS
from tumsyn_bids.bids.layout import index_dataset
from tumsyn_bids.bids.plan_text import plan_table
from tumsyn_bids.bids.planning import build_plans
from tumsyn_bids.bids.requests import requested_targets
from tumsyn_bids.bids.status import fingerprint
from tumsyn_bids.plan import SessionPlan

T2W = {'RepetitionTime': 5.0, 'EchoTime': 0.09}


@pytest.fixture
def dataset(tmp_path):
    builder = Builder(tmp_path / 'ds')
    for label in ('01', '02', '03', '04', '05'):
        builder.image(f'sub-{label}_T1w.nii.gz')
    return builder


def tasks(dataset, label='01', **options):
    (plan,), failures = build_plans(
        index_dataset(dataset.root, participant_label=[label]),
        participant_label=[label],
        **options,
    )
    assert not failures
    return plan, {(task.purpose, task.target.contrast): task for task in plan.tasks}


def donors(task):
    return [Path(donor.path).name for donor in task.donors]


def test_other_peoples_scans_of_the_contrast_tell_how_bright_an_image_is(dataset):
    dataset.image('sub-03_T2w.nii.gz')
    dataset.image('sub-05_T2w.nii.gz')
    plan, made = tasks(dataset, contrasts=('T2w', 'FLAIR'))
    assert donors(made['missing', 'T2w']) == ['sub-03_T2w.nii.gz', 'sub-05_T2w.nii.gz']
    assert donors(made['missing', 'FLAIR']) == []
    assert SessionPlan.from_json(plan.to_json()) == plan
    assert 'bright as sub-03_T2w.nii.gz, sub-05_T2w.nii.gz' in ' '.join(plan_table([plan]).split())


def test_an_image_that_is_compared_never_looks_at_its_own_person(dataset):
    dataset.image('sub-01_T2w.nii.gz')
    dataset.image('sub-02_T2w.nii.gz')
    _, made = tasks(dataset, validate=True)
    assert donors(made['validate', 'T2w']) == ['sub-02_T2w.nii.gz']
    assert donors(made['validate', 'T1w']) == [f'sub-0{n}_T1w.nii.gz' for n in (2, 3, 4)]


def test_people_who_join_later_change_nothing(dataset):
    dataset.image('sub-02_T1w.nii.gz')
    before = tasks(dataset, '01', contrasts=('T1w',))[1]['requested', 'T1w']
    assert len(before.donors) == DONORS
    dataset.image('sub-99_T1w.nii.gz')
    assert tasks(dataset, '01', contrasts=('T1w',))[1]['requested', 'T1w'] == before


def test_one_scan_a_person_and_the_one_that_would_be_used(dataset):
    dataset.image('sub-02_ses-1_run-1_T2w.nii.gz')
    dataset.image('sub-02_ses-1_run-2_T2w.nii.gz')
    dataset.image('sub-02_ses-2_T2w.nii.gz')
    dataset.image('sub-03_ses-1_T2w.nii.gz', shape=(32, 32, 1))
    _, made = tasks(dataset, contrasts=('T2w',))
    assert donors(made['missing', 'T2w']) == ['sub-02_ses-1_run-2_T2w.nii.gz']


def test_their_brains_are_found_where_their_sessions_are_seen_best(dataset):
    dataset.image('sub-02_T2w.nii.gz')
    dataset.image('sub-06_T2w.nii.gz')
    _, made = tasks(dataset, contrasts=('T2w',))
    first, second = made['missing', 'T2w'].donors
    assert (Path(first.reference).name, first.reference_contrast) == ('sub-02_T1w.nii.gz', 'T1w')
    assert (Path(second.reference).name, second.reference_contrast) == ('sub-06_T2w.nii.gz', 'T2w')


def test_scans_of_another_protocol_are_no_models(dataset):
    for label, echo in (('02', 0.09), ('03', 0.0902), ('04', 0.015)):
        dataset.image(f'sub-{label}_T2w.nii.gz', {**T2W, 'EchoTime': echo})
    dataset.image('sub-05_T2w.nii.gz')
    _, made = tasks(dataset, contrasts=('T2w',))
    assert donors(made['missing', 'T2w']) == [f'sub-0{n}_T2w.nii.gz' for n in (2, 3, 5)]


def test_a_protocol_that_the_user_states_is_carried_out_alone(dataset, tmp_path):
    dataset.image('sub-02_T2w.nii.gz')
    path = tmp_path / 'targets.json'
    path.write_text('[{"contrast": "T2w", "EchoTime": 0.1}, {"name": "b", "contrast": "T2w"}]')
    plan, _ = tasks(dataset, contrasts=(), targets=requested_targets(path))
    assert [task.donors for task in plan.tasks] == [(), ()]
    _, made = tasks(dataset, contrasts=('T2w',), match_brightness='none')
    assert made['missing', 'T2w'].donors == ()


def test_a_donor_that_changes_makes_the_session_due_again(dataset):
    path = dataset.image('sub-02_T2w.nii.gz')
    plan, _ = tasks(dataset, contrasts=('T2w',))
    before = fingerprint(plan, 'model', '1', {})
    assert fingerprint(plan, 'model', '1', {}) == before
    path.write_bytes(path.read_bytes() + b' ')
    assert fingerprint(plan, 'model', '1', {}) != before


def test_the_sidecar_names_the_scans_that_were_taken(dataset):
    dataset.image('sub-02_T2w.nii.gz')
    plan, made = tasks(dataset, contrasts=('T2w',))
    task = made['missing', 'T2w']
    common = {'bids_dir': dataset.root, 'model': ModelRecord('m', '1', 'f'), 'mask': Path('m')}
    sidecar = synthetic_sidecar(plan, task, donors=[donor.path for donor in task.donors], **common)
    assert sidecar['BrightnessSources'] == ['bids:raw:sub-02/anat/sub-02_T2w.nii.gz']
    assert 'BrightnessSources' not in synthetic_sidecar(plan, task, **common)
