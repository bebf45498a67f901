"""One process at a time for a participant; what a dead one has left does not last."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from sandbox import require_bwrap

from tumsyn_bids.bids import lock
from tumsyn_bids.bids.lock import LockedError, ParticipantLocks

HOLD = """
import sys, time
from tumsyn_bids.bids.lock import ParticipantLocks
with ParticipantLocks(sys.argv[1]) as locks:
    locks.acquire(sys.argv[2])
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of participant 01."""
    command = [sys.executable, '-c', HOLD, str(tmp_path), '01']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def grow_old(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_participant_in_use_is_refused_with_who_has_it(tmp_path, holder):
    with ParticipantLocks(tmp_path) as locks:
        with pytest.raises(LockedError) as caught:
            locks.acquire('01')
        assert f'process {holder.pid} on' in str(caught.value)
        assert str(tmp_path / 'sub-01.lock') in str(caught.value)
        locks.acquire('02')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['sub-01.lock']


def test_the_lock_of_a_killed_process_on_this_host_is_broken(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with ParticipantLocks(tmp_path) as locks:
        locks.acquire('01')
        assert json.loads((tmp_path / 'sub-01.lock').read_text())['pid'] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_that_was_given_anew_is_no_sign_of_life(tmp_path, holder):
    path = tmp_path / 'sub-01.lock'
    rewrite(path, began=json.loads(path.read_text())['began'] - 1)
    with ParticipantLocks(tmp_path) as locks:
        locks.acquire('01')


@pytest.mark.parametrize(('age', 'broken'), [(500, False), (1000, True)])
def test_a_lock_of_another_host_is_broken_when_it_is_old(tmp_path, holder, age, broken):
    path = tmp_path / 'sub-01.lock'
    rewrite(path, host='elsewhere', place='elsewhere 1 2')
    grow_old(path, age)
    with ParticipantLocks(tmp_path) as locks:
        if broken:
            locks.acquire('01')
        else:
            with pytest.raises(LockedError, match='elsewhere'):
                locks.acquire('01')


def test_the_clock_of_this_host_does_not_count(tmp_path, holder, monkeypatch):
    rewrite(tmp_path / 'sub-01.lock', place='elsewhere')
    monkeypatch.setattr(time, 'time', lambda: 4e9)
    with ParticipantLocks(tmp_path) as locks, pytest.raises(LockedError):
        locks.acquire('01')


def test_a_holder_gives_signs_of_life(tmp_path):
    path = tmp_path / 'sub-01.lock'
    with ParticipantLocks(tmp_path, heartbeat=0.05) as locks:
        locks.acquire('01')
        grow_old(path, 5000)
        deadline = time.monotonic() + 10
        while time.time() - path.stat().st_mtime > 100 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert time.time() - path.stat().st_mtime < 100


def test_a_lock_that_somebody_took_over_is_left_to_him(tmp_path):
    path = tmp_path / 'sub-01.lock'
    with ParticipantLocks(tmp_path) as locks:
        locks.acquire('01')
        rewrite(path, token='of another')
    assert path.exists()


def test_both_folders_or_none(tmp_path, holder):
    with ParticipantLocks(tmp_path / 'other', tmp_path) as locks:
        with pytest.raises(LockedError):
            locks.acquire('01')
        assert list((tmp_path / 'other').iterdir()) == []


def test_an_answer_of_the_file_server_that_got_lost(tmp_path, monkeypatch):
    """NFS repeats a request; the second finds the link that the first has made."""
    link = os.link

    def link_twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, 'link', link_twice)
    with ParticipantLocks(tmp_path) as locks:
        locks.acquire('01')
        assert (tmp_path / 'sub-01.lock').exists()
    assert list(tmp_path.iterdir()) == []


def test_a_host_of_another_name_is_believed_until_it_is_silent(tmp_path):
    """Two hosts as far as a machine can play them: names and process numbers of their own."""
    command = [require_bwrap(), '--bind', '/', '/', '--dev', '/dev', '--proc', '/proc']
    command += ['--unshare-user', '--unshare-pid', '--unshare-uts', '--hostname', 'node7']
    command += ['--die-with-parent', sys.executable, '-c', HOLD, str(tmp_path), '01']
    path = tmp_path / 'sub-01.lock'
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        with ParticipantLocks(tmp_path) as locks:
            with pytest.raises(LockedError, match='on node7'):
                locks.acquire('01')
            process.kill()
            process.wait()
            with pytest.raises(LockedError, match='on node7'):  # nobody here can know
                locks.acquire('01')
            grow_old(path, 1000)
            locks.acquire('01')
            assert json.loads(path.read_text())['host'] != 'node7'


def test_who_died_while_taking_over_is_in_nobodys_way(tmp_path, holder):
    path = tmp_path / 'sub-01.lock'
    token = json.loads(path.read_text())['token']
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    shutil.copy(path, tmp_path / f'sub-01.lock.{token}')
    with ParticipantLocks(tmp_path) as locks:
        locks.acquire('01')
    assert list(tmp_path.iterdir()) == []


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(lock.EPERM, 'no links here')

    monkeypatch.setattr(os, 'link', refuse)
    with ParticipantLocks(tmp_path) as one, ParticipantLocks(tmp_path) as other:
        one.acquire('01')
        with pytest.raises(LockedError):
            other.acquire('01')


def test_rubbish_in_a_lock_blocks_until_it_is_old(tmp_path):
    path = tmp_path / 'sub-01.lock'
    path.write_text('')
    with ParticipantLocks(tmp_path) as locks:
        with pytest.raises(LockedError):
            locks.acquire('01')
        grow_old(path, 1000)
        locks.acquire('01')


def _race(folder, start, won):
    start.wait()
    with ParticipantLocks(folder) as locks:
        try:
            locks.acquire('01')
        except LockedError:
            return
        won.put(os.getpid())
        time.sleep(3)


@pytest.mark.parametrize('left_behind', [False, True])
def test_of_many_one_wins(tmp_path, holder, left_behind):
    if left_behind:
        rewrite(tmp_path / 'sub-01.lock', place='elsewhere')
        grow_old(tmp_path / 'sub-01.lock', 1000)
    else:
        (tmp_path / 'sub-01.lock').unlink()
    context = multiprocessing.get_context('fork')
    start, won = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, start, won)) for _ in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(30)
    winners = [won.get(timeout=1)]
    assert won.empty(), winners
    assert list(tmp_path.iterdir()) == []
