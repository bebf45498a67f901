"""Worker processes: reused, isolated from each other's failures, stopped when asked."""

from __future__ import annotations

import os
import signal
from collections import deque

import pytest

from tumsyn_bids.cli.workers import Ended, Job, Told, WorkerDied, Workers
from tumsyn_bids.errors import ScanError


def tell_pid(number, tell):
    tell(f'at {number}')
    return os.getpid(), os.environ['OMP_NUM_THREADS']


def fail(tell):
    raise ScanError('is truncated', path='/x.nii.gz', remedy='Copy it again')


def die(tell):
    os.kill(os.getpid(), signal.SIGKILL)


def ask_for(request, tell):
    return tell.ask(Job(globals()[request], (), request)), os.getpid()


def own(tell):
    return os.getpid(), os.environ['CUDA_VISIBLE_DEVICES']


def jobs(*runs):
    return deque(Job(run, args, run.__name__) for run, *args in runs)


def collect(queue, *, count=1, gpus=()):
    with Workers(count, 1, gpus) as workers:
        return list(workers.work(queue))


def test_a_process_is_reused_and_reports():
    events = collect(jobs((tell_pid, 1), (tell_pid, 2)))
    assert [event.text for event in events if isinstance(event, Told)] == ['at 1', 'at 2']
    results = [event.result for event in events if isinstance(event, Ended)]
    assert len({pid for pid, _ in results}) == 1
    assert {threads for _, threads in results} == {'1'}


def test_errors_come_back_whole_and_others_go_on():
    events = collect(jobs((fail,), (tell_pid, 1)))
    first, *_, last = events
    assert isinstance(first.error, ScanError)
    assert str(first.error) == '/x.nii.gz: is truncated. Copy it again.'
    assert last.error is None


def test_a_killed_process_is_named_and_replaced():
    events = [e for e in collect(jobs((die,), (tell_pid, 1)), count=1) if isinstance(e, Ended)]
    died = next(event for event in events if event.job.label == 'die')
    assert isinstance(died.error, WorkerDied)
    assert 'memory' in str(died.error)
    lived = next(event for event in events if event.job.label == 'tell_pid')
    assert lived.error is None


def test_jobs_may_be_added_while_others_run():
    queue = jobs((tell_pid, 1))
    ended = 0
    with Workers(2, 1) as workers:
        for event in workers.work(queue):
            if isinstance(event, Ended):
                ended += 1
                if ended == 1:
                    queue.append(Job(tell_pid, (2,), 'later'))
    assert ended == 2


def test_leaving_stops_what_runs():
    with Workers(1, 1) as workers:
        events = workers.work(jobs((tell_pid, 1)))
        next(events)
        process = workers._busy[0]._process
    assert not process.is_alive()


def test_what_needs_a_gpu_is_done_by_its_one_owner():
    asking = [(ask_for, 'own')] * 3
    ended = [e for e in collect(jobs(*asking), count=2, gpus=['4']) if isinstance(e, Ended)]
    owners = {event.result[0] for event in ended}
    assert len(ended) == 3
    assert len(owners) == 1
    ((owner, gpu),) = owners
    assert gpu == '4'
    assert owner not in {event.result[1] for event in ended}


def test_the_death_of_an_owner_fails_who_asked_and_no_other():
    asking = [(ask_for, 'die'), (ask_for, 'fail'), (ask_for, 'own')]
    ended = [e for e in collect(jobs(*asking), gpus=['4']) if isinstance(e, Ended)]
    died, failed, lived = ended
    assert isinstance(died.error, WorkerDied)
    assert died.error.exit_code == -9
    assert isinstance(failed.error, ScanError)
    assert lived.result[0][1] == '4'


@pytest.mark.parametrize(('code', 'words'), [(-9, 'signal 9'), (3, 'exit code 3')])
def test_worker_died_says_how(code, words):
    assert words in str(WorkerDied(code))
