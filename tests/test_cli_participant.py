"""How a run is shared out, what is put down when sessions end, and the verdict."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
from bids_builder import Builder

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.bids.status import SessionRecord, describe_outputs, read_record
from tumsyn_bids.bids.tables import read_tsv
from tumsyn_bids.cli.participant import Run, Tally, make_plans, share, warn
from tumsyn_bids.cli.pool import _Pool
from tumsyn_bids.cli.progress import Progress
from tumsyn_bids.cli.reports import run_report
from tumsyn_bids.cli.sessions import (
    SessionJob,
    StepClock,
    _completed,
    _outcome,
    run_session,
    step_name,
)
from tumsyn_bids.cli.workers import Ended, Told, WorkerDied
from tumsyn_bids.errors import ScanError
from tumsyn_bids.plan import Finding, Refusal, Scan, SessionPlan
from tumsyn_bids.reports.content import SessionContent
from tumsyn_bids.resources import session_gb
from tumsyn_bids.settings import Settings


@pytest.fixture
def settings(tmp_path):
    made = Settings(
        tmp_path / 'ds', tmp_path / 'out', tmp_path / 'work', nprocs=2, mem_gb=16, run_id='run'
    )
    made.log_dir.mkdir(parents=True)
    (tmp_path / 'ds').mkdir()
    return made


@pytest.fixture
def make_job(settings):
    def make(subject, session=None):
        path = settings.bids_dir / f'sub-{subject}_{session}_T1w.nii'
        nb.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_filename(path)
        scan = Scan(str(path), Acquisition(contrast='T1w'), {}, (3, 3, 3), (1, 1, 1))
        plan = SessionPlan(subject, session, (scan,), str(path), 'it is the T1w', ())
        return SessionJob(plan, settings, 'ab' * 32)

    return make


@pytest.mark.parametrize(
    ('nprocs', 'threads', 'mem_gb', 'sessions', 'expected'),
    [
        (2, 0, 16, 4, (2, 1)),
        (8, 0, 64, 1, (1, 8)),
        (8, 0, 64, 100, (8, 1)),
        (8, 0, 64, 3, (3, 2)),
        (8, 0, 9, 100, (2, 4)),
        (8, 1, 640, 100, (8, 1)),
        (8, 4, 64, 100, (2, 4)),
        (1, 0, 2, 5, (1, 1)),
    ],
)
def test_sessions_share_processors_and_memory(
    settings, nprocs, threads, mem_gb, sessions, expected
):
    settings = settings.replace(nprocs=nprocs, omp_nthreads=threads, mem_gb=mem_gb)
    assert share(settings, sessions) == expected


def test_the_owners_of_gpus_have_their_part_of_the_memory(settings):
    settings = settings.replace(nprocs=8, omp_nthreads=1, mem_gb=9)
    assert [share(settings, 100, n_gpus)[0] for n_gpus in (0, 1, 8)] == [2, 1, 1]


def test_whole_heads_take_more_than_brains(make_job):
    plan = make_job('01').plan
    large = replace(plan.scans[0], shape=(256, 256, 176), zooms=(1.0, 1.0, 1.0))
    large = replace(plan, scans=(large,))
    assert [session_gb(plan, how) for how in ('ants', 'none')] == [4, 4]
    assert session_gb(large, 'ants') == 4
    assert session_gb(large, 'none') == pytest.approx(5.8, abs=0.1)


@pytest.mark.parametrize(('mem_gb', 'warned'), [(2, True), (8, False)])
def test_memory_for_less_than_a_session_is_told(
    settings, make_job, monkeypatch, capsys, mem_gb, warned
):
    seen = []
    monkeypatch.setattr('tumsyn_bids.cli.pool.process_in_pool', lambda *args: seen.append(args))
    Run(settings.replace(mem_gb=mem_gb, device='cpu')).process([make_job('01')])
    assert len(seen) == 1
    assert ('2.0 GB are all that it may use' in capsys.readouterr().out) == warned


@pytest.mark.parametrize(
    ('tally', 'code', 'words'),
    [
        (Tally(complete=3), 0, 'finished: 3 of 3 sessions complete'),
        (Tally(done_before=1), 0, 'finished: 1 of 1 session complete (1 of them before)'),
        (Tally(complete=1, failed=['sub-2']), 1, '1 of 2 sessions complete, 1 FAILED (sub-2)'),
        (Tally(complete=1, not_finished=2), 1, '1 of 3 sessions complete, 2 not finished'),
        (Tally(complete=1, reports_failed=['sub-1']), 1, 'no report of sub-1'),
        (Tally(complete=1, skipped=1), 0, 'finished: 1 of 2 sessions complete, 1 skipped'),
        (Tally(skipped=2), 1, '0 of 2 sessions complete, 2 skipped'),
    ],
)
def test_the_verdict_agrees_with_the_exit_code(settings, tally, code, words):
    assert tally.exit_code == code
    verdict = tally.verdict(settings, 61)
    assert words in verdict
    assert 'took 1 min 01 s' in verdict
    assert ('failures' in verdict) == bool(code)


def test_a_session_that_is_done_is_left_out(settings, make_job):
    run, job = Run(settings), make_job('01')
    first = run._unless_done(job)
    record = SessionRecord('01', None, 'complete', '', 1.0, fingerprint=first.fingerprint)
    run.finish(record)
    assert run._unless_done(job) is None
    other_model = SessionJob(job.plan, settings, 'cd' * 32)
    assert run._unless_done(other_model) is not None
    assert run.tally.done_before == 1


def test_a_scan_that_vanished_is_a_failure_of_its_session(settings, make_job, capsys):
    run, job = Run(settings), make_job('01')
    (settings.bids_dir / 'sub-01_None_T1w.nii').unlink()
    assert run._unless_done(job) is None
    assert run.tally.failed == ['sub-01']
    assert 'sub-01_None_T1w.nii: cannot be read' in capsys.readouterr().err


def pool_of(run, *jobs):
    return _Pool(run, Progress(len(jobs), 1, stream=io.StringIO()), list(jobs))


def end(pool, label, **how):
    job = next(job for job in pool.queue if job.label == label)
    pool.queue.remove(job)
    pool.hear(Ended(job, **how))


def record(subject, session=None, state='complete'):
    return SessionRecord(subject, session, state, '', 1.0, error='why' * (state == 'failed'))


def test_the_report_of_a_subject_follows_its_last_session(settings, make_job):
    pool = pool_of(Run(settings), make_job('01', '1'), make_job('01', '2'))
    end(pool, 'sub-01_ses-1', result=record('01', '1'))
    assert [job.run for job in pool.queue] == [run_session]
    end(pool, 'sub-01_ses-2', result=record('01', '2', 'failed'))
    assert [job.run for job in pool.queue] == [run_report]


def test_nothing_is_started_after_a_failure_if_so_wished(settings, make_job):
    run = Run(settings.replace(stop_on_first_crash=True))
    pool = pool_of(run, make_job('01'), make_job('02'))
    end(pool, 'sub-01', result=record('01', state='failed'))
    assert [job.run for job in pool.queue] == [run_report]


def test_a_process_that_dies_is_told_with_its_step(settings, make_job, capsys):
    run = Run(settings)
    pool = pool_of(run, make_job('01'))
    pool.hear(Told(pool.queue[0], 'extract brain'))
    end(pool, 'sub-01', error=WorkerDied(-9))
    line = capsys.readouterr().err
    assert 'sub-01' in line
    assert 'extract brain' in line
    assert 'memory' in line
    with open(settings.output_dir / 'logs' / 'status.tsv', newline='') as stream:
        (row,) = csv.DictReader(stream, delimiter='\t')
    assert row['state'] == 'failed'
    (crash,) = settings.log_dir.glob('crash-*.txt')
    assert crash.read_text().startswith('sub-01: process: while at "extract brain"')


def test_a_session_that_cannot_be_planned_is_put_down(settings, capsys):
    from tumsyn_bids.bids.planning import SessionFailure

    run = Run(settings)
    error = ScanError('no usable scan', path='/ds/sub-01', remedy='Provide one')
    finding = Finding('sub-01/anat/sub-01_T1w.json', 'EchoTime', '3', 'is too long', 'dropped')
    run.refuse(SessionFailure('01', None, error, findings=(finding,), details='Traceback'))
    assert run.tally.failed == ['sub-01']
    assert 'sub-01: /ds/sub-01: no usable scan. Provide one.' in capsys.readouterr().err
    (crash,) = settings.log_dir.glob('crash-sub-01-plan.txt')
    assert 'sub-01_T1w.json: EchoTime 3: is too long; dropped' in crash.read_text()
    assert 'Traceback' in crash.read_text()


def test_scans_that_cannot_be_used_are_told_and_recorded(make_job, capsys):
    refused = Refusal('sub-01/anat/x_T2w.nii', 'it is a link', 'warning', acquired='T2w')
    other = Refusal('sub-01/anat/x_UNIT1.nii', 'noise')
    job = make_job('01')
    job = replace(job, plan=replace(job.plan, refused=(refused, other)))
    warn([job.plan])
    told = 'sub-01/anat/x_T2w.nii: it is a link (it counts as acquired: no T2w is made as missing)'
    assert capsys.readouterr().err.splitlines() == [f'tumsyn-bids: warning: sub-01: {told}']
    named = ('outputs', 'warnings', 'scores', 'confidence', 'figures', 'checks')
    summary = {**{name: [] for name in named}, 'warnings': ['later'], 'model': {}}
    record = _completed(job, None, summary)
    assert record.warnings == (told, 'later')
    session = SessionContent(record.to_dict(), job.plan)
    assert session.n_doubts == 3


def test_filter_that_is_used_for_nothing_is_told(settings, capsys):
    builder = Builder(settings.bids_dir)
    builder.image('sub-01_T1w.nii.gz')
    path = builder.json('code/filter.json', {'T1': {'run': 1}, 'bold': {'task': 'x'}})
    (plan,), _ = make_plans(settings.replace(bids_filter_file=path))
    assert len(plan.scans) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'filter.json: t1: the filter is used for nothing' in line
    assert 't1w, t2w, flair' in line


def test_a_refused_session_has_a_report(settings):
    from tumsyn_bids.bids.planning import SessionFailure

    run = Run(settings)
    error = ScanError('no usable scan', path='/ds/sub-01', remedy='Provide one')
    run.refuse(SessionFailure('01', None, error))
    run.refuse(SessionFailure('02', None, error, skipped=True))
    run.process([])
    run.report_refused()
    assert 'no usable scan' in (settings.output_dir / 'sub-01.html').read_text()
    assert not (settings.output_dir / 'sub-02.html').exists()


def test_a_session_without_anatomical_images_is_skipped(settings, capsys):
    from tumsyn_bids.bids.planning import SessionFailure

    run = Run(settings)
    error = ScanError('no usable anatomical scan (found func)', path='/ds/sub-01')
    run.refuse(SessionFailure('01', '2', error, skipped=True))
    assert (run.tally.skipped, run.tally.failed) == (1, [])
    assert capsys.readouterr().err == (
        'tumsyn-bids: warning: sub-01_ses-2: skipped: no usable anatomical scan (found func)\n'
    )
    (row,) = read_tsv(settings.output_dir / 'logs' / 'status.tsv')
    assert (row['state'], row['error']) == ('skipped', 'n/a')
    assert 'found func' in row['message']
    assert not list(settings.log_dir.glob('crash-*'))


def test_a_header_that_was_mended_is_told_at_once(settings, capsys):
    odd = 'sub-01_T2w.nii.gz: qform: sform and qform disagree by up to 31.0 mm'
    Run(settings).finish(replace(record('01'), warnings=(odd, 'other'), mended=(odd,)))
    assert capsys.readouterr().err.splitlines() == [
        f'tumsyn-bids: warning: sub-01: {odd}; look at the report'
    ]


def test_what_an_earlier_plan_left_is_told(settings, capsys):
    old = settings.output_dir / 'sub-01' / 'old.nii.gz'
    old.parent.mkdir()
    old.write_bytes(b'old')
    outputs = describe_outputs(settings.output_dir, [old])
    Run(settings).finish(replace(record('01'), outputs=outputs))
    assert capsys.readouterr().err == ''
    Run(settings).finish(record('01'))
    assert 'sub-01: left by an earlier plan' in capsys.readouterr().err
    (warning,) = read_record(settings.output_dir, '01', None).warnings
    assert 'old.nii.gz' in warning


def test_an_image_that_failed_is_told_at_once_and_in_the_message(settings, capsys):
    image = {'synthetic': 'bids::sub-01/anat/sub-01_desc-synth_T2w.nii.gz', 'contrast': 'T2w'}
    image |= {'source': 'T1w', 'cycle': 0.4, 'prompt_deviation': 0.312}
    images = [{**image, 'verdict': 'fail'}, {**image, 'contrast': 'FLAIR', 'verdict': 'warn'}]
    Run(settings).finish(replace(record('01'), confidence=tuple(images)))
    assert capsys.readouterr().err == (
        'tumsyn-bids: warning: sub-01: the synthetic T2w from T1w is not to be trusted '
        '(cycle 0.40, prompt deviation 0.31); do not use sub-01_desc-synth_T2w.nii.gz before '
        'you know why\n'
    )
    assert _outcome(2, [], images) == '2 synthetic images; IMAGES FAILED: synthetic T2w from T1w'
    check = {'step': 'co-registration', 'contrast': 'T2w', 'result': 'fail'}
    assert _outcome(1, [check], images[1:]) == (
        '1 synthetic image; CHECKS FAILED: co-registration of the T2w'
    )


class Node:
    def __init__(self, fullname):
        self.fullname, self.name = fullname, fullname.split('.')[-1]


def test_steps_are_timed_and_glue_is_not_told():
    told = []
    clock = StepClock(told.append)
    step, glue = Node('a_wf.preproc_T1w_wf.correct_bias'), Node('a_wf.join_summarize_outputs')
    for node in (step, glue):
        clock(node, 'start')
        clock(node, 'end')
    clock(Node('a_wf.summarize'), 'end')  # Nipype says so of steps that it never began
    assert told == ['preproc T1w: correct bias']
    assert set(clock.seconds) == {'preproc T1w: correct bias'}


@pytest.mark.parametrize(
    ('fullname', 'words'),
    [
        ('sub_01_wf.coreg_FLAIR_wf.register', 'coreg FLAIR: register'),
        ('tumsyn_wf.sub_01_wf.write_mask', 'write mask'),
        ('sub_01_wf.synthesis_from_T1w_wf.synthesize', 'synthesis from T1w: synthesize'),
    ],
)
def test_steps_are_worded(fullname, words):
    assert step_name(fullname) == words


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_processes_and_says_how_far_it_came(
    phantom_dir, tiny_model, tmp_path, number
):
    command = [sys.executable, '-m', 'tumsyn_bids', phantom_dir, tmp_path / 'out', 'participant']
    command += ['-w', tmp_path / 'work', '--model', tiny_model, '--participant-label', '02']
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what runs in their background with SIGINT ignored; children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if 'correct bias' in line:
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert '0 of 1 session complete, 1 not finished' in out.splitlines()[-1]
    assert 'interrupted' in err
    import psutil

    left = [p for p in psutil.process_iter(['environ']) if str(tmp_path) in str(p.info['environ'])]
    assert left == []
