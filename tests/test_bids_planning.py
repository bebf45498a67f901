"""From datasets to plans: references, sources, targets, and sessions that cannot be planned."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from bids_builder import SIDECAR, Builder

from tumsyn_bids.acquisition import CONTRASTS, FIELDS
from tumsyn_bids.bids import planning
from tumsyn_bids.bids.layout import index_dataset, load_filters
from tumsyn_bids.bids.metadata import MetadataReader
from tumsyn_bids.bids.modal import MODAL_PARTICIPANTS, dataset_protocols
from tumsyn_bids.bids.plan_text import plan_table
from tumsyn_bids.bids.planning import build_plans
from tumsyn_bids.bids.requests import requested_targets, target_from_file
from tumsyn_bids.errors import UsageError
from tumsyn_bids.plan import SessionPlan
from tumsyn_bids.prompt import parse_prompt
from tumsyn_bids.protocols import default_protocol

T2W = {
    'MagneticFieldStrength': 3,
    'Manufacturer': 'GE',
    'RepetitionTime': 5,
    'EchoTime': 0.085,
    'FlipAngle': 111,
}


@pytest.fixture
def dataset(tmp_path):
    builder = Builder(tmp_path / 'ds')
    builder.text('participants.tsv', 'participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\n')
    return builder


def plan(dataset, **options):
    return build_plans(index_dataset(dataset.root), **options)


def only(dataset, **options) -> SessionPlan:
    (session,), failures = plan(dataset, **options)
    assert failures == []
    return session


def made(session):
    return [(task.target.contrast, task.purpose) for task in session.tasks]


def names(session):
    return {(task.target.contrast, task.purpose): Path(task.source).name for task in session.tasks}


def test_missing_contrasts_from_the_t1w(dataset):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    session = only(dataset)
    assert session.label == 'sub-01'
    assert made(session) == [('T2w', 'missing'), ('FLAIR', 'missing')]
    assert session.reference_reason == 'it is the T1w'
    task = session.tasks[0]
    expected = default_protocol('T2w', 3).replace(age=30, sex='F', manufacturer='Siemens')
    assert task.target.acquisition == expected
    assert parse_prompt(task.prompt) == expected
    assert set(task.target.provenance) == set(FIELDS)
    assert SessionPlan.from_json(session.to_json()) == session


def test_nothing_to_do_when_all_is_there(dataset):
    for suffix in ('T1w', 'T2w', 'FLAIR'):
        dataset.image(f'sub-01_{suffix}.nii.gz')
    session = only(dataset)
    assert session.tasks == ()
    assert 'nothing; all contrasts are there' in plan_table([session])


def test_what_is_odd_about_a_person_is_told_once(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\nsub-01\t-3\n')
    for suffix in ('T1w', 'T2w', 'FLAIR'):
        dataset.image(f'sub-01_{suffix}.nii.gz', SIDECAR | T2W)
    assert [finding.value for finding in only(dataset).findings] == ['-3']


def test_sharpest_scan_is_the_reference_without_a_t1w(dataset):
    dataset.image('sub-01_T2w.nii.gz', zooms=(3, 3, 5))
    dataset.image('sub-01_FLAIR.nii.gz', zooms=(4, 4, 4))
    dataset.image('sub-01_ce-gd_T1w.nii.gz', zooms=(3, 3, 3))
    session = only(dataset)
    assert session.reference.endswith('FLAIR.nii.gz')
    assert 'sharpest (FLAIR, 4 x 4 x 4 mm)' in session.reference_reason
    assert names(session) == {('T1w', 'missing'): 'sub-01_FLAIR.nii.gz'}


@pytest.mark.parametrize('suffix', ['T1w', 'T2w', 'FLAIR', 'PDw', 'T2starw', 'swi', 'ce-gd_T1w'])
def test_any_contrast_may_be_the_only_one(dataset, suffix):
    dataset.image(f'sub-01_{suffix}.nii.gz')
    session = only(dataset)
    assert session.reference_reason in ('it is the T1w', 'it is the only scan')
    contrast = session.scans[0].contrast
    usual = {'T1w', 'T2w', 'FLAIR'}
    assert {task.target.contrast for task in session.tasks} == usual - {contrast}


def test_all_contrasts(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    dataset.image('sub-01_T2w.nii.gz')
    dataset.image('sub-01_FLAIR.nii.gz', zooms=(3, 3, 3))
    session = only(dataset, contrasts=('all',))
    assert [task.target.contrast for task in session.tasks] == list(CONTRASTS)
    assert names(session)['T1w', 'requested'] == 'sub-01_FLAIR.nii.gz'
    assert names(session)['SWI', 'missing'] == 'sub-01_T1w.nii.gz'
    reasons = {task.target.contrast: task.reason for task in session.tasks}
    assert reasons['T1w'] == 'the sharpest scan that is not T1w itself (FLAIR, 3 x 3 x 3 mm)'
    assert reasons['T2w'] == 'the reference (T1w)'


def test_own_contrast_is_the_source_of_last_resort(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    session = only(dataset, contrasts=('T1w',))
    assert session.tasks[0].reason == 'the only scan of the session, itself T1w'


def test_named_contrasts_are_made_even_if_acquired(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    dataset.image('sub-01_T2w.nii.gz')
    assert made(only(dataset, contrasts=('T2w', 'PDw', 'T2w'))) == [
        ('T2w', 'requested'),
        ('PDw', 'missing'),
    ]


def test_validation_takes_the_acquired_protocol(dataset):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    dataset.image('sub-01_T2w.nii.gz', T2W)
    dataset.image('sub-01_PDw.nii.gz', T2W)
    session = only(dataset, validate=True)
    assert names(session) == {
        ('FLAIR', 'missing'): 'sub-01_T1w.nii.gz',
        ('T1w', 'validate'): 'sub-01_T2w.nii.gz',
        ('T2w', 'validate'): 'sub-01_T1w.nii.gz',
    }
    target = session.tasks[-1].target
    acq = target.acquisition
    assert (acq.repetition_time, acq.echo_time, acq.flip_angle) == (5, 0.085, 111)
    assert (acq.inversion_time, acq.manufacturer) == (None, 'GE')
    assert acq.voxel_size == (1, 1, 1)
    assert target.provenance['echo_time'] == 'the acquired sub-01_T2w.nii.gz'


def test_validation_mixes_no_protocols(dataset):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    dataset.image('sub-01_T2w.nii.gz', {'MagneticFieldStrength': 3, 'RepetitionTime': 9})
    target = only(dataset, validate=True).tasks[-1].target
    expected = default_protocol('T2w', 3)
    assert target.acquisition.repetition_time == expected.repetition_time
    assert target.acquisition.echo_time == expected.echo_time
    assert target.provenance['repetition_time'] == 'default protocol at 3 T'
    assert target.provenance['field_strength'] == 'the acquired sub-01_T2w.nii.gz'


def test_validation_asks_for_an_image_of_the_acquired_voxels(dataset):
    """Thick slices look different; on the grid of the comparison they still do."""
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    dataset.image('sub-01_T2w.nii.gz', T2W, zooms=(3, 4, 6))
    found = only(dataset, validate=True).tasks
    tasks = {(task.target.contrast, task.purpose): task for task in found}
    task = tasks['T2w', 'validate']
    assert 'Voxel size: (3.0, 4.0, 6.0)' in task.prompt
    assert task.target.acquisition.voxel_size == (1, 1, 1)
    assert task.requested.acquisition.voxel_size == (3, 4, 6)
    assert task.requested.provenance['voxel_size'] == 'the acquired scan that is compared'
    assert tasks['FLAIR', 'missing'].requested == tasks['FLAIR', 'missing'].target
    assert 'Voxel size: (1.0, 1.0, 1.0)' in tasks['FLAIR', 'missing'].prompt


def test_validation_needs_two_contrasts(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    assert ('T1w', 'validate') not in made(only(dataset, validate=True))


def test_modal_protocol_of_the_dataset(dataset):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    dataset.image('sub-02_T1w.nii.gz', SIDECAR)
    dataset.image('sub-02_T2w.nii.gz', T2W)
    plans, _ = plan(dataset, participant_label=['01'])
    target = plans[0].tasks[0].target
    assert target.acquisition.echo_time == 0.085
    assert target.acquisition.manufacturer == 'Siemens'
    assert target.provenance['echo_time'] == "the data set's most frequent T2w protocol"
    layout = index_dataset(dataset.root, participant_label=['01'])
    alone, _ = build_plans(layout, participant_label=['01'])
    assert alone == plans


def test_modal_protocol_reads_a_bounded_number_of_participants(dataset):
    for number in range(120):
        sidecar = {'RepetitionTime': 2, 'EchoTime': 0.002 + 1e-4 * (number % 7)}
        dataset.text(f'sub-{number:03d}/anat/sub-{number:03d}_T1w.nii.gz', '')
        dataset.json(f'sub-{number:03d}/anat/sub-{number:03d}_T1w.json', sidecar)
    reader = MetadataReader(dataset.root)
    seen = []
    original = reader.imaging
    reader.imaging = lambda path: (seen.append(path), original(path))[1]
    assert set(dataset_protocols(dataset.root, reader)) == {'T1w'}
    assert 30 <= len(seen) <= MODAL_PARTICIPANTS


def test_targets_files_and_imitation(dataset, tmp_path):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    other = dataset.image('sub-02_T2w.nii.gz', T2W, zooms=(3, 3, 6))
    file = tmp_path / 'targets.yaml'
    file.write_text('- {name: fine, contrast: T1w, voxel_size: 0.7}')
    targets = requested_targets(file, [other])
    (session, _), _ = plan(dataset, contrasts=(), targets=targets)
    assert [(t.target.name, t.target.contrast, t.purpose) for t in session.tasks] == [
        ('fine', 'T1w', 'requested'),
        ('Like', 'T2w', 'requested'),
    ]
    like = session.tasks[1].target
    assert like.acquisition.voxel_size == (3, 3, 6)
    assert like.acquisition.echo_time == 0.085
    assert like.acquisition.age == 30
    assert like.provenance['echo_time'] == 'like sub-02_T2w.nii.gz'


def test_several_imitations_get_numbers(dataset):
    paths = [dataset.image(f'sub-0{n}_T2w.nii.gz', T2W) for n in (1, 2)]
    assert [target.name for target in requested_targets(None, paths)] == ['Like1', 'Like2']


def test_imitated_sidecar_inherits_in_its_dataset(dataset):
    dataset.json('T2w.json', {'EchoTime': 0.07})
    path = dataset.json('sub-01/anat/sub-01_T2w.json', {'RepetitionTime': 4})
    target = target_from_file(path)
    assert (target.acquisition.echo_time, target.acquisition.repetition_time) == (0.07, 4)
    assert target.acquisition.voxel_size is None


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('RepetitionTime', 5000),
        ('EchoTime', 'short'),
        ('Manufacturer', 'Ward 17'),
        ('AcquisitionVoxelSize', [1, 1]),
    ],
)
def test_imitated_sidecar_with_an_implausible_value(dataset, field, value):
    image = dataset.image('sub-01_T2w.nii.gz')
    dataset.json('T2w.json', {field: value})
    sidecar = dataset.json('sub-01/anat/sub-01_T2w.json', {'FlipAngle': 90})
    for path in (image, sidecar):
        with pytest.raises(UsageError) as error:
            target_from_file(path)
        assert (error.value.path, error.value.field) == (dataset.root / 'T2w.json', field)
        assert error.value.remedy


def test_imitated_scan_whose_name_misleads_is_used(dataset):
    path = dataset.image('sub-01_acq-FLAIR_T2w.nii.gz', T2W)
    assert target_from_file(path).contrast == 'FLAIR'


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('protocol.json', '{"EchoTime": 0.1}', 'does not tell the contrast'),
        ('sub-1_T2w.json', '{', 'not valid JSON'),
        ('sub-1_T2w.nii.gz', 'x', 'header cannot be read'),
    ],
)
def test_unusable_imitations(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        target_from_file(path)
    with pytest.raises(UsageError, match='no such file'):
        target_from_file(tmp_path / 'absent_T1w.json')


def test_named_and_default_target_of_one_contrast_may_coexist(dataset, tmp_path):
    dataset.image('sub-01_T1w.nii.gz')
    file = tmp_path / 'targets.yaml'
    file.write_text('- contrast: T2w')
    with pytest.raises(UsageError, match='two T2w targets are without a name'):
        plan(dataset, targets=requested_targets(file))
    file.write_text('- {contrast: T2w, name: long}')
    assert len(only(dataset, targets=requested_targets(file)).tasks) == 3


def test_session_without_a_usable_scan(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    dataset.image('sub-02_T1w.nii.gz', shape=(24, 24, 1))
    dataset.text('sub-03/func/sub-03_task-rest_bold.nii.gz', '')
    plans, failures = plan(dataset)
    assert [item.label for item in plans] == ['sub-01']
    assert [item.label for item in failures] == ['sub-02', 'sub-03']
    assert 'sub-02_T1w.nii.gz: its 24 x 24 x 1 voxels' in str(failures[0].error)
    assert 'found func' in str(failures[1].error)
    assert failures[0].error.path == dataset.root / 'sub-02'
    assert failures[0].refused
    assert 'anat/' in failures[1].error.remedy
    assert [item.skipped for item in failures] == [False, True]
    lines = plan_table(plans, failures).splitlines()
    assert lines[-1].endswith('in 1 session; 1 session skipped; 1 session cannot be processed.')
    assert any(line.startswith('  skipped') for line in lines)


def test_images_that_are_not_there_are_no_reason_to_skip_a_session(dataset):
    link = dataset.root / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz'
    link.parent.mkdir(parents=True)
    link.symlink_to('.git/annex/objects/none')
    assert [item.skipped for item in plan(dataset)[1]] == [False]


def test_broken_sidecar_fails_its_session_alone(dataset):
    dataset.image('sub-01_ses-1_T1w.nii.gz')
    dataset.image('sub-01_ses-2_T1w.nii.gz')
    broken = dataset.text('sub-01/ses-2/anat/sub-01_ses-2_T1w.json', '{"a": 1,}')
    plans, failures = plan(dataset)
    assert [item.label for item in plans] == ['sub-01_ses-1']
    assert [item.label for item in failures] == ['sub-01_ses-2']
    assert failures[0].error.path == broken
    assert failures[0].error.exit_code == 1


def unfetched(path):
    path.unlink()
    path.symlink_to('../../.git/annex/objects/absent')


def empty(path):
    path.write_bytes(b'')


def cut(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:200]))


def of_several_volumes(path):
    nb.Nifti1Image(np.zeros((24, 24, 24, 3), np.uint8), np.diag([4, 4, 4, 1])).to_filename(path)


@pytest.mark.parametrize(
    ('spoil', 'remedy'),
    [
        (unfetched, 'datalad get'),
        (empty, 'Convert or copy'),
        (cut, 'Convert or copy'),
        (of_several_volumes, 'keep one of them'),
    ],
)
def test_scan_that_cannot_be_used_is_told_and_not_made(dataset, tmp_path, spoil, remedy):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    spoil(dataset.image('sub-01_T2w.nii.gz'))
    session = only(dataset)
    assert made(session) == [('FLAIR', 'missing')]
    (warning,) = session.warnings
    assert 'sub-01/anat/sub-01_T2w.nii.gz: ' in warning
    assert remedy in warning
    assert 'no T2w is made as missing' in warning
    assert SessionPlan.from_json(session.to_json()) == session
    assert '  warning     sub-01_T2w.nii.gz: ' in plan_table([session])
    # Who asks for it by name gets it.
    assert made(only(dataset, contrasts=('T2w',))) == [('T2w', 'requested')]
    file = tmp_path / 'targets.yaml'
    file.write_text('- {contrast: T2w, name: mine}')
    session = only(dataset, contrasts=(), targets=requested_targets(file))
    assert made(session) == [('T2w', 'requested')]


def test_session_whose_only_scan_cannot_be_used_fails(dataset):
    unfetched(dataset.image('sub-01_T1w.nii.gz'))
    _, [failure] = plan(dataset)
    assert 'datalad get' in failure.error.problem


def test_an_error_of_the_program_fails_its_session_alone(dataset, monkeypatch):
    for name in ('sub-01_ses-1', 'sub-01_ses-2', 'sub-02', 'sub-03'):
        dataset.image(f'{name}_T1w.nii.gz', SIDECAR)
    imaging = MetadataReader.imaging

    def fragile(self, path):
        if 'ses-2' in str(path):
            raise AttributeError('no attribute "lower"')
        return imaging(self, path)

    monkeypatch.setattr(MetadataReader, 'imaging', fragile)
    sessions = planning.list_sessions

    def closed(layout, subject):
        if subject == '03':
            raise PermissionError(13, 'Permission denied', str(dataset.root / 'sub-03'))
        return sessions(layout, subject)

    monkeypatch.setattr(planning, 'list_sessions', closed)
    plans, failures = plan(dataset)
    assert [item.label for item in plans] == ['sub-01_ses-1', 'sub-02']
    by_label = {item.label: item for item in failures}
    assert set(by_label) == {'sub-01_ses-2', 'sub-03'}
    assert 'AttributeError: no attribute' in by_label['sub-01_ses-2'].error.problem
    assert 'Traceback' in by_label['sub-01_ses-2'].details
    assert by_label['sub-03'].error.path == dataset.root / 'sub-03'
    assert 'Permission denied' in by_label['sub-03'].error.problem


@pytest.mark.parametrize(('policy', 'found'), [('warn', 2), ('none', 1)])
def test_missing_metadata_is_found_or_not(dataset, policy, found):
    dataset.image('sub-01_T1w.nii.gz', {**SIDECAR, 'RepetitionTime': 2300})
    findings = only(dataset, missing_metadata=policy).findings
    assert len(findings) == found
    assert findings[0].field == 'RepetitionTime'
    assert 'milliseconds' in findings[0].problem


@pytest.mark.parametrize(
    ('sidecar', 'field'),
    [
        ({**SIDECAR, 'RepetitionTime': 2300}, 'RepetitionTime'),
        ({**SIDECAR, 'Manufacturer': 'n/a'}, 'Manufacturer'),
        ({}, 'MagneticFieldStrength, Manufacturer, RepetitionTime, EchoTime'),
    ],
)
def test_missing_metadata_as_an_error(dataset, sidecar, field):
    dataset.image('sub-01_T1w.nii.gz', sidecar)
    dataset.image('sub-02_T1w.nii.gz', SIDECAR)
    plans, failures = plan(dataset, missing_metadata='error')
    assert [item.label for item in plans] == ['sub-02']
    assert failures[0].error.field == field
    assert '--missing-metadata warn' in failures[0].error.remedy
    assert field in [finding.field for finding in failures[0].findings]


def test_implausible_age_as_an_error_names_the_table(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\nsub-01\t-3\n')
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    _, failures = plan(dataset, missing_metadata='error')
    assert failures[0].error.path == dataset.root / 'participants.tsv'
    assert failures[0].error.field == 'age'


def test_sex_that_prompts_cannot_say_is_no_error(dataset):
    dataset.text('participants.tsv', 'participant_id\tsex\nsub-01\tOther\n')
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    assert only(dataset, missing_metadata='error').scans[0].acquisition.sex is None


def test_range_of_ages_is_no_error(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\nsub-01\t20-25\n')
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    assert only(dataset, missing_metadata='error').findings[0].severity == 'info'


def test_labels(dataset):
    dataset.image('sub-01_ses-1_T1w.nii.gz')
    dataset.image('sub-01_ses-2_T1w.nii.gz')
    dataset.image('sub-02_ses-1_T1w.nii.gz')
    plans, _ = plan(dataset, participant_label=['sub-01', '02'], session_label=['ses-1'])
    assert [item.label for item in plans] == ['sub-01_ses-1', 'sub-02_ses-1']
    with pytest.raises(UsageError, match='no session 9 among these participants; there are 1, 2'):
        plan(dataset, session_label=['9'])
    with pytest.raises(UsageError, match='no participant 07'):
        plan(dataset, participant_label=['07'])


def test_unknown_contrast(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    with pytest.raises(UsageError, match='"T3w" is no contrast'):
        plan(dataset, contrasts=('T3w',))


def test_empty_dataset(dataset):
    with pytest.raises(UsageError, match='no participant'):
        plan(dataset)


def test_filter_file_decides(dataset, tmp_path):
    dataset.image('sub-01_acq-x_T1w.nii.gz')
    dataset.image('sub-01_T1w.nii.gz')
    path = tmp_path / 'filter.json'
    path.write_text('{"t1w": {"acquisition": "*"}}')
    session = only(dataset, filters=load_filters(path))
    assert session.reference.endswith('acq-x_T1w.nii.gz')
    assert 'filter' in session.refused[0].reason


def test_contrast_that_a_filter_leaves_out_altogether_is_made_with_a_warning(dataset):
    dataset.image('sub-01_T1w.nii.gz', SIDECAR)
    for run in (1, 2):
        dataset.image(f'sub-01_run-{run}_T2w.nii.gz', T2W)
    session = only(dataset, filters={'t2w': {'run': 3}})
    assert made(session) == [('T2w', 'missing'), ('FLAIR', 'missing')]
    (warning,) = session.warnings
    assert 'left out by your filter "t2w", which leaves no T2w' in warning
    assert only(dataset, filters={'t2w': {'run': 1}}).warnings == ()


def test_table_is_plain_and_narrow(dataset):
    dataset.image('sub-01_T1w.nii.gz', {**SIDECAR, 'InversionTime': 900})
    dataset.image('sub-01_T2w.nii.gz', T2W)
    dataset.image('sub-01_UNIT1.nii.gz')
    dataset.text('sub-03/func/sub-03_task-rest_bold.nii.gz', '')
    text = plan_table(*plan(dataset, validate=True))
    assert max(map(len, text.splitlines())) <= 99
    for words in (
        'sub-01_T1w.nii.gz: 4 x 4 x 4 mm, 3 T, Siemens, TR 2300 ms, TE 2.98 ms, FA 9',
        'reference   sub-01_T1w.nii.gz: it is the T1w',
        'desc-synth_FLAIR.nii.gz (missing in this session)',
        'prompt    Age: 30; Gender: F; Scanner: 3.0 Siemens; Modality: FLAIR;',
        'repetition time, echo time, inversion time, flip angle: default protocol at 3 T',
        'not used    sub-01_UNIT1.nii.gz: ',
        'InversionTime 900: 900 s is outside',
        'sub-03\n  skipped ',
        '3 images to make in 1 session; 1 session skipped.',
    ):
        assert words in text


def test_clinical_dataset(shared_data):
    """Four sessions, one of which lacks a T2w; quick enough for a dry run."""
    started = time.monotonic()
    plans, failures = build_plans(index_dataset(shared_data / 'ds-openms'), validate=True)
    text = plan_table(plans, failures)
    assert time.monotonic() - started < 10
    assert failures == []
    assert [item.label for item in plans] == [
        'sub-01_ses-1',
        'sub-01_ses-2',
        'sub-12_ses-1',
        'sub-19_ses-2',
    ]
    assert all(item.reference.endswith('T1w.nii.gz') for item in plans)
    missing = [(item.label, made(item)[0]) for item in plans if made(item)[0][1] == 'missing']
    assert missing == [('sub-19_ses-2', ('T2w', 'missing'))]
    assert sum(len(item.tasks) for item in plans) == 12
    assert 'Age: 19; Gender: M;' in text


def test_children_and_derivatives(shared_data):
    plans, failures = build_plans(index_dataset(shared_data / 'bme-x-children'))
    assert [item.label for item in plans] == [
        'sub-0001_ses-V01',
        'sub-0003_ses-V01',
        'sub-0009_ses-V01',
    ]
    assert failures == []
    _, failures = build_plans(index_dataset(shared_data / 'openms-mni'))
    assert len(failures) == 2
    assert 'derived image' in str(failures[0].error)
