"""What a container promises, held without one: the program in a sandbox of bubblewrap."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from sandbox import require_bwrap, sandboxed, small_disk, writable


@pytest.fixture
def folder(phantom_dir, tiny_model, tmp_path):
    """A participant with a FLAIR alone, a tiny model and a coarse target, all for reading."""
    (tmp_path / 'ds').mkdir()
    for path in phantom_dir.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / 'ds')
    shutil.copytree(phantom_dir / 'sub-02', tmp_path / 'ds' / 'sub-02')
    shutil.copytree(tiny_model, tmp_path / 'tiny')
    coarse = [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]
    (tmp_path / 'targets.json').write_text(json.dumps(coarse))
    return tmp_path


def arguments(folder, *more):
    args = [folder / 'ds', folder / 'out', 'participant', '-w', folder / 'work', '--nprocs', 1]
    args += ['--model', folder / 'tiny', '--targets', folder / 'targets.json']
    return [*args, '--skull-strip', 'none', *more]


def test_the_sandbox_holds(tmp_path):
    script = 'id -u; touch /usr/x || touch ~/x || echo shut; ls /sys/class/net | grep -v lo'
    command = [require_bwrap(), '--ro-bind', '/', '/', '--unshare-net', '--unshare-user']
    command += ['--uid', '65534', '--setenv', 'HOME', '/nonexistent', 'sh', '-c', script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[:2] == ['65534', 'shut']


def test_version_without_anything_writable(tmp_path):
    done = sandboxed(tmp_path, '--version', expect=0)
    assert 'tumsyn-bids' in done.stdout


def test_dry_run_without_anything_writable(folder):
    before = sorted(folder.rglob('*'))
    done = sandboxed(folder, *arguments(folder, '--dry-run'), expect=0)
    assert 'prompt    Age:' in done.stdout
    assert sorted(folder.rglob('*')) == before


def test_dry_run_of_a_user_without_name_and_home(folder):
    """As ``docker run --user 12345`` with an empty environment."""
    nobody = ['--uid', '12345', '--gid', '12345', '--unsetenv', 'HOME']
    done = sandboxed(folder, *arguments(folder, '--dry-run'), mounts=nobody, expect=0)
    assert 'prompt    Age:' in done.stdout


def test_read_only_output_is_refused_at_once(folder):
    (folder / 'out').mkdir()
    done = sandboxed(folder, *arguments(folder), mounts=writable(folder / 'work'), expect=2)
    (line,) = done.stderr.splitlines()
    assert f'{folder / "out"}: ' in line
    assert 'not writable' in line


def test_a_scan_without_permission_is_named(folder):
    (scan,) = (folder / 'ds' / 'sub-02').rglob('*_FLAIR.nii.gz')
    scan.chmod(0)
    mounts = writable(folder / 'out', folder / 'work')
    done = sandboxed(folder, *arguments(folder), mounts=mounts, expect=1)
    scan.chmod(0o644)
    assert scan.name in done.stderr
    assert 'Permission denied' in done.stderr
    assert 'permissions' in done.stderr


def assert_full_disk_is_told(done, disk):
    first = next(line for line in done.stderr.splitlines() if 'error: sub-02' in line)
    assert 'no space is left on the disk. Free some space' in first
    assert str(disk) in first


def test_a_full_output_disk_is_told_with_what_to_do(folder):
    mounts = [*writable(folder / 'work'), *small_disk(folder / 'out', 200_000)]
    done = sandboxed(folder, *arguments(folder), mounts=mounts, expect=1)
    assert_full_disk_is_told(done, folder / 'out')
    assert '1 FAILED (sub-02)' in done.stdout.splitlines()[-1]
    # What was computed is in the work directory, and the next run takes it from there.
    mounts = writable(folder / 'work', folder / 'more')
    args = arguments(folder)
    args[1] = folder / 'more'
    sandboxed(folder, *args, mounts=mounts, expect=0)
    log = next(Path(folder, 'more', 'logs').glob('2*/sub-02.log')).read_text()
    assert 'Executing "correct_bias"' not in log


def test_a_full_work_disk_is_told_with_what_to_do(folder):
    mounts = [*writable(folder / 'out'), *small_disk(folder / 'work', 600_000)]
    done = sandboxed(folder, *arguments(folder), mounts=mounts, expect=1)
    assert_full_disk_is_told(done, folder / 'work')
    assert not list((folder / 'out').rglob('*desc-synth*'))


@pytest.mark.slow
def test_a_participant_from_end_to_end(folder):
    mounts = writable(folder / 'out', folder / 'work')
    args = [arg for arg in arguments(folder) if arg not in ('--skull-strip', 'none')]
    done = sandboxed(folder, *args, mounts=mounts, expect=0)
    assert '1 of 1 session complete' in done.stdout.splitlines()[-1]
    (image,) = (folder / 'out' / 'sub-02' / 'anat').glob('*_desc-synthflat_T2w.nii.gz')
    assert image.stat().st_size > 1000
    assert (folder / 'out' / 'sub-02.html').is_file()
    assert {path.name for path in folder.iterdir()} == {
        'ds',
        'out',
        'work',
        'tiny',
        'targets.json',
    }
