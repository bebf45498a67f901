"""Records of sessions, the table derived from them, and when a session counts as done."""

from __future__ import annotations

import json
import multiprocessing
import os

import pytest

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.bids import status
from tumsyn_bids.bids.tables import read_tsv
from tumsyn_bids.plan import Finding, Scan, SessionPlan, SynthesisTask, Target


def record(participant='01', session='1', state='complete', **more) -> status.SessionRecord:
    return status.SessionRecord(participant, session, state, '2025-01-02T03:04:05Z', 61.27, **more)


@pytest.fixture
def plan(tmp_path) -> SessionPlan:
    folder = tmp_path / 'raw'
    folder.mkdir()
    scans = []
    for contrast in ('T1w', 'FLAIR'):
        path = folder / f'sub-01_{contrast}.nii.gz'
        path.write_bytes(contrast.encode() * 100)
        scans.append(
            Scan(str(path), Acquisition(contrast, echo_time=0.1), {'subject': '01'}, (1,), (1.0,))
        )
    task = SynthesisTask(
        Target('', Acquisition('T2w'), {}), scans[0].path, 'Modality: T2w', 'missing', 'sharpest'
    )
    finding = Finding(str(folder / 'participants.tsv'), 'age', '-3', 'negative', 'as missing')
    return SessionPlan('01', None, tuple(scans), scans[0].path, 'T1w', (task,), (), (finding,))


def test_record_round_trip(tmp_path, plan):
    written = record(
        outputs=(status.OutputFile('a.nii.gz', 3, 'ff'),),
        warnings=('odd',),
        steps={'bias': 1.5},
        scores=({'psnr': 20.0},),
        figures=({'kind': 'mask', 'title': 'Mask', 'path': 'x.svg'},),
        plan=json.loads(plan.to_json()),
    )
    status.write_record(tmp_path, written)
    assert status.read_record(tmp_path, '01', '1') == written
    assert status.read_record(tmp_path, '01', '2') is None


def test_records_of_another_version_are_read(tmp_path):
    path = status.write_record(tmp_path, record())
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'invented_later': 1}))
    assert status.read_record(tmp_path, '01', '1') == record()


def test_status_table(tmp_path):
    checks = tuple({'result': result} for result in ('pass', 'warn', 'pass'))
    images = ({'verdict': 'fail'}, {'verdict': 'pass'}, {'cycle': 0.9})
    told = {'warnings': ('a', 'b'), 'checks': checks, 'confidence': images}
    status.write_record(tmp_path, record('02', None, **told))
    error = 'sub-01_T1w.nii.gz: truncated\tfile. Copy it again.\nTraceback'
    status.write_record(tmp_path, record(state='failed', error=error))
    rows = read_tsv(tmp_path / 'logs' / 'status.tsv')
    assert [row['participant'] for row in rows] == ['01', '02']
    assert rows[0]['error'] == 'sub-01_T1w.nii.gz: truncated file. Copy it again.'
    assert rows[0]['state'] == 'failed'
    assert rows[0]['images'] == 'n/a'
    assert rows[1] == {
        'participant': '02',
        'session': 'n/a',
        'state': 'complete',
        'started': '2025-01-02T03:04:05Z',
        'seconds': '61.3',
        'n_outputs': '0',
        'n_warnings': '2',
        'checks': 'warn',
        'images': 'fail',
        'version': 'n/a',
        'message': 'n/a',
        'error': 'n/a',
    }


def test_a_session_has_one_row_however_often_it_runs(tmp_path):
    for state in ('failed', 'complete'):
        status.write_record(tmp_path, record(state=state))
    assert [row['state'] for row in read_tsv(tmp_path / 'logs' / 'status.tsv')] == ['complete']


def test_unknown_state_is_refused(tmp_path):
    with pytest.raises(ValueError, match='done'):
        status.write_record(tmp_path, record(state='done'))


def test_broken_records_are_told_and_do_not_stop_the_others(tmp_path):
    status.write_record(tmp_path, record())
    folder = tmp_path / 'logs' / 'sessions'
    (folder / 'sub-02.json').write_text('{"participant": "02"')
    (folder / 'sub-03.json').write_text('{"participant": "03"}')
    records, problems = status.read_records(tmp_path)
    assert [item.participant for item in records] == ['01']
    assert {path.name for path in problems} == {'sub-02.json', 'sub-03.json'}
    assert status.read_record(tmp_path, '02', None) is None


def _write_some(output_dir, participant):
    for session in 'abc':
        status.write_record(output_dir, record(participant, session))


def test_no_row_is_lost_when_processes_write_together(tmp_path):
    context = multiprocessing.get_context('fork')
    people = [f'{number:02d}' for number in range(6)]
    processes = [context.Process(target=_write_some, args=(tmp_path, person)) for person in people]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    rows = read_tsv(tmp_path / 'logs' / 'status.tsv')
    assert {(row['participant'], row['session']) for row in rows} == {
        (person, session) for person in people for session in 'abc'
    }


def finished(tmp_path, mark='f'):
    output = tmp_path / 'out' / 'sub-01' / 'x.nii.gz'
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(b'content')
    outputs = status.describe_outputs(tmp_path / 'out', [output])
    status.write_record(tmp_path / 'out', record(fingerprint=mark, outputs=outputs))
    return output


def test_done_only_while_everything_is_as_it_was_written(tmp_path):
    output = finished(tmp_path)
    out = tmp_path / 'out'
    assert status.is_complete(out, '01', '1', 'f')
    assert not status.is_complete(out, '01', '1', 'other')
    assert not status.is_complete(out, '01', '2', 'f')
    output.write_bytes(b'changed')  # same size
    assert not status.is_complete(out, '01', '1', 'f')
    output.write_bytes(b'cut')
    assert not status.is_complete(out, '01', '1', 'f')
    output.unlink()
    assert not status.is_complete(out, '01', '1', 'f')


def test_failed_session_is_not_done(tmp_path):
    finished(tmp_path)
    status.write_record(tmp_path / 'out', record(state='failed', fingerprint='f'))
    assert not status.is_complete(tmp_path / 'out', '01', '1', 'f')


def test_files_that_an_earlier_plan_left_are_remembered_until_they_are_gone(tmp_path):
    left, out = finished(tmp_path), tmp_path / 'out'
    failed = status.with_leftovers(out, record(state='failed'))
    assert (failed.leftovers, failed.warnings) == (('sub-01/x.nii.gz',), ())
    status.write_record(out, failed)
    complete = status.with_leftovers(out, record(warnings=('odd',)))
    assert complete.leftovers == ('sub-01/x.nii.gz',)
    assert complete.warnings == ('odd', complete.leftover_warning)
    assert 'x.nii.gz' in complete.leftover_warning
    status.write_record(out, complete)
    assert status.read_record(out, '01', '1') == complete
    again = record(outputs=status.describe_outputs(out, [left]))
    assert status.with_leftovers(out, again) == again
    left.unlink()
    assert status.with_leftovers(out, record()) == record()


def test_outputs_are_described_relative_to_the_output_directory(tmp_path):
    finished(tmp_path)
    (found,) = status.describe_outputs(tmp_path / 'out', ['sub-01/x.nii.gz', 'sub-01/x.nii.gz'])
    assert (found.path, found.size) == ('sub-01/x.nii.gz', 7)
    assert found.sha256.startswith('ed7002b4')
    with pytest.raises(ValueError, match='subpath'):
        status.describe_outputs(tmp_path / 'out', [__file__])


def test_fingerprint_sees_content_not_dates_or_places(tmp_path, plan):
    first = status.fingerprint(plan, 'sha', '0.1', {'seed': 1})
    os.utime(plan.scans[0].path, (1, 1))
    assert status.fingerprint(plan, 'sha', '0.1', {'seed': 1}) == first
    (tmp_path / 'raw').rename(tmp_path / 'moved')
    text = plan.to_json().replace(str(tmp_path / 'raw'), str(tmp_path / 'moved'))
    moved = SessionPlan.from_json(text)
    assert moved != plan
    assert status.fingerprint(moved, 'sha', '0.1', {'seed': 1}) == first


@pytest.mark.parametrize('change', ['scan', 'sidecar', 'model', 'version', 'settings', 'target'])
def test_fingerprint_sees_all_that_matters(plan, change):
    arguments = {'model_sha256': 'sha', 'version': '0.1', 'settings': {'seed': 1}}
    first = status.fingerprint(plan, **arguments)
    text = plan.to_json()
    if change == 'scan':
        with open(plan.scans[1].path, 'ab') as stream:
            stream.write(b'.')
    elif change == 'sidecar':
        text = text.replace('"echo_time": 0.1', '"echo_time": 0.2')
    elif change == 'target':
        text = text.replace('Modality: T2w', 'Modality: PD')
    else:
        key = {'model': 'model_sha256'}.get(change, change)
        arguments[key] = {'seed': 2} if change == 'settings' else 'other'
    assert status.fingerprint(SessionPlan.from_json(text), **arguments) != first
