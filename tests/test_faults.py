"""What disks, batch systems and people do to a run, and what is said and kept then."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from bids_builder import part_of

from tumsyn_bids.bids.status import SessionRecord, sweep_output
from tumsyn_bids.cli.main import main
from tumsyn_bids.cli.participant import Run
from tumsyn_bids.errors import SessionError, explain_storage
from tumsyn_bids.files import staged, sweep
from tumsyn_bids.settings import Settings

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def command(phantom_dir, tiny_model, tmp_path):
    """Return a function that words the command line of a quick run."""
    coarse = [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]

    def words(folder, *subjects, more=()):
        dataset = folder / 'the data'
        if not dataset.exists():
            part_of(phantom_dir, dataset, *subjects)
            (folder / 'targets.json').write_text(json.dumps(coarse))
        args = [sys.executable, '-m', 'tumsyn_bids', dataset, folder / 'out', 'participant']
        args += ['-w', folder / 'work', '--model', tiny_model, '--nprocs', 1, '--omp-nthreads', 1]
        args += ['--targets', folder / 'targets.json', '--skull-strip', 'none', *more]
        return [str(arg) for arg in args]

    return words


def finish(command, expect, **how):
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, **how)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def start(command, until, **how):
    """Start a command and return when it has written a line with certain words."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )
    for line in process.stdout:
        if until in line:
            break
    return process


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file() and 'logs' not in path.parts
    }


def hidden(folder):
    return [path for path in folder.rglob('.*') if path.name != '.bidsignore']


def test_warned_by_the_batch_system_then_resumed_in_an_odd_place(command, tmp_path):
    """One long story, because its steps need each other's files."""
    folder = tmp_path / 'Größe und  Raum 数据'
    run = command(folder, 'sub-02')
    bare = {**os.environ, 'LC_ALL': 'C', 'LANG': ''}
    first = start(run, 'extract brain', env=bare, start_new_session=True)
    # Meanwhile, a second process may not touch the participant; the first is slow.
    os.killpg(first.pid, signal.SIGSTOP)
    second = finish(run, 1)
    os.killpg(first.pid, signal.SIGCONT)
    assert f'process {first.pid} on' in second.stderr
    assert 'out/logs/locks/sub-02.lock' in second.stderr
    assert '1 left to another process' in second.stdout.splitlines()[-1]
    assert not (folder / 'out' / 'logs' / 'sessions').exists()
    # SLURM sends the warning to every process of the job, and repeats it.
    begun = time.monotonic()
    for _ in range(3):
        os.killpg(first.pid, signal.SIGTERM)
        time.sleep(0.05)
    out, err = first.communicate(timeout=20)
    assert time.monotonic() - begun < 20
    assert first.returncode == 130
    assert '0 of 1 session complete, 1 not finished' in out.splitlines()[-1]
    assert 'interrupted' in err
    assert hidden(folder / 'out') == []
    assert list(folder.rglob('*.lock')) == []
    # The same command goes on where it was.
    finish(run, 0, env=bare)
    newest = max((folder / 'out' / 'logs').glob('2*/sub-02.log'))
    assert 'Executing "correct_bias"' not in newest.read_text()
    # Dates tell nothing: neither of the future nor of the past.
    made = contents(folder / 'out')
    for number, path in enumerate(sorted(folder.rglob('*'))):
        os.utime(path, (4e9, 4e9) if number % 2 else (1, 1))
    last = finish(run, 0).stdout.splitlines()[-1]
    assert '1 of 1 session complete (1 of them before)' in last
    assert contents(folder / 'out') == made


@pytest.mark.slow
@pytest.mark.parametrize('plugin', [None, '{plugin: MultiProc}'])
def test_a_worker_killed_for_its_memory_is_named_and_the_others_go_on(command, tmp_path, plugin):
    import psutil

    run = command(tmp_path / 'x', 'sub-01', 'sub-02')
    if plugin:
        (tmp_path / 'plugin.yml').write_text(plugin)
        run += ['--use-plugin', str(tmp_path / 'plugin.yml')]
    process = start(run, 'sub-01: preproc T1w: correct bias')
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if 'spawn_main' in ' '.join(child.cmdline())
    ]
    (worker,) = workers
    worker.kill()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1
    (line,) = [line for line in err.splitlines() if 'error: sub-01' in line]
    assert 'ended by signal 9 (most likely out of memory' in line
    assert 'correct bias' in line
    assert '1 of 2 sessions complete, 1 FAILED (sub-01)' in out.splitlines()[-1]
    done = finish(run, 0)
    assert '2 of 2 sessions complete (1 of them before)' in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_only_what_depends_on_a_changed_scan_is_done_again(command, tmp_path):
    import nibabel as nb
    import numpy as np

    folder = tmp_path / 'x'
    run = command(folder, 'sub-03', more=('--session-label', '1'))
    finish(run, 0)
    (scan,) = (folder / 'the data' / 'sub-03' / 'ses-1').rglob('*_T2w.nii.gz')
    img = nb.load(scan)
    data = np.asarray(img.dataobj) * 1.01
    nb.Nifti1Image(data.astype(img.get_data_dtype()), img.affine, img.header).to_filename(scan)
    os.utime(scan, (1, 1))
    done = finish(run, 0)
    assert 'of them before' not in done.stdout
    logs = sorted((folder / 'out' / 'logs').glob('2*/sub-03.log'), key=os.path.getmtime)
    text = logs[-1].read_text()
    executed = [line for line in text.splitlines() if 'Executing "sanitize"' in line]
    assert len(executed) == 1
    assert 'Executing "extract_brain"' not in text


def test_killed_workers_leave_no_orphans(command, tmp_path):
    import psutil

    run = command(tmp_path / 'x', 'sub-02')
    process = start(run, 'correct bias')
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_plugin_warned_by_the_batch_system_ends_as_soon(command, tmp_path):
    import psutil

    (tmp_path / 'plugin.yml').write_text('{plugin: MultiProc}')
    run = command(tmp_path / 'x', 'sub-02', more=('--use-plugin', tmp_path / 'plugin.yml'))
    process = start(run, 'correct bias', start_new_session=True)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    out, _err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert '0 of 1 session complete, 1 not finished' in out.splitlines()[-1]
    assert children
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert list((tmp_path / 'x').rglob('*.lock')) == []


def test_an_annexed_scan_that_was_not_fetched(command, tmp_path):
    run = command(tmp_path / 'x', 'sub-02')
    (scan,) = (tmp_path / 'x' / 'the data').rglob('*_FLAIR.nii.gz')
    scan.unlink()
    scan.symlink_to('../../.git/annex/objects/aa/bb/MD5E-s1--cc.nii.gz')
    done = finish(run, 1)
    assert f"datalad get '{scan}'" in done.stderr
    assert 'link whose target is absent' in done.stderr


@pytest.mark.parametrize('which', ['out', 'work'])
@pytest.mark.parametrize('how', ['many', 'one'])
def test_very_long_paths_are_refused_before_anything_starts(tmp_path, capsys, which, how):
    (tmp_path / 'ds').mkdir()
    long = '/'.join(['d' * 200] * 18) if how == 'many' else 'ü' * 128
    folders = {'out': tmp_path / 'out', 'work': tmp_path / 'work'}
    folders[which] = folders[which] / long
    args = [tmp_path / 'ds', folders['out'], 'participant', '-w', folders['work']]
    assert main([str(arg) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'too long' in line
    assert [path.name for path in tmp_path.iterdir()] == ['ds']


@pytest.fixture
def run(tmp_path):
    settings = Settings(tmp_path / 'ds', tmp_path / 'out', tmp_path / 'work', run_id='run')
    settings.log_dir.mkdir(parents=True)
    return Run(settings)


def raise_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/out/x')


def test_an_end_that_cannot_be_recorded_is_a_failure(run, monkeypatch, capsys):
    monkeypatch.setattr('tumsyn_bids.cli.participant.write_record', raise_full)
    run.finish(SessionRecord('01', None, 'complete', '', 1.0))
    run.finish(SessionRecord('02', None, 'failed', '', 1.0, error='it broke'))
    assert run.tally.failed == ['sub-01', 'sub-02']
    assert run.tally.complete == 0
    err = capsys.readouterr().err
    assert '/out/x: no space is left on the disk. Free some space' in err
    assert 'sub-02: it broke' in err


def test_a_full_disk_stops_neither_the_others_nor_the_verdict(run, monkeypatch, capsys):
    monkeypatch.setattr('tumsyn_bids.cli.participant.write_crash', raise_full)
    run.report_failed('sub-01', OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert 'no space is left' in capsys.readouterr().err
    assert run.tally.exit_code == 1


def test_a_step_whose_disk_is_full_names_the_disk_not_the_scan(tmp_path):
    from tumsyn_bids.interfaces.base import Step, StepInputSpec

    class Fill(Step):
        input_spec = StepInputSpec

        def _work(self, folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SessionError) as caught:
        Fill(scan='/ds/sub-01_T1w.nii.gz').run(cwd=str(tmp_path))
    assert caught.value.path == tmp_path
    assert 'no space is left' in str(caught.value)


@pytest.mark.parametrize(
    ('reason', 'words'),
    [
        ("OSError: [Errno 28] No space left on device: '/w/a b'", '/w/a b: no space is left'),
        ('OSError: [Errno 28] No space left on device', '/w: no space is left'),
        ('OSError: [Errno 122] Disk quota exceeded', '/w: the disk quota'),
        ("OSError: [Errno 30] Read-only file system: '/o'", '/o: the file system is read-only'),
        ("OSError: [Errno 2] No such file or directory: '/o'", 'OSError: [Errno 2] No such'),
        ('ValueError: no', 'ValueError: no'),
    ],
)
def test_errors_of_disks_are_worded_for_people(reason, words):
    assert explain_storage(reason, '/w').startswith(words)


def test_a_writer_that_meets_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.txt'
    path.write_text('old')

    def fill():
        with staged(path) as temporary:
            temporary.write_text('half')
            raise FULL

    with pytest.raises(OSError, match='No space'):
        fill()
    assert [item.name for item in tmp_path.iterdir()] == ['x.txt']
    assert path.read_text() == 'old'


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    anat = tmp_path / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    other = tmp_path / 'sub-02' / 'anat'
    other.mkdir(parents=True)
    name = '.0123456789ab-'
    gone = [anat / f'{name}x.nii.gz', tmp_path / f'{name}sub-01.html']
    stay = [other / f'{name}x.nii.gz', anat / '.hidden', anat / 'x.nii.gz']
    stay += [tmp_path / '.bidsignore', tmp_path / f'{name}dataset_description.json']
    for path in gone + stay:
        path.write_text('')
    assert sorted(sweep_output(tmp_path, '01')) == sorted(gone)
    assert all(path.exists() for path in stay)
    os.utime(stay[-1], (1, 1))
    assert sweep([stay[-1]], older_than=86400) == [stay[-1]]


def test_an_interrupted_plugin_does_not_finish_first_what_it_is_at():
    code = """
import subprocess, sys
from tumsyn_bids.cli.plugin import _children_stopped_if_interrupted
child = subprocess.Popen(['sleep', '600'])
try:
    with _children_stopped_if_interrupted():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print(child.wait(10))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '-9\n'
