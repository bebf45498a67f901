"""Processes that work through jobs side by side, each reused, each free to die alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait

THREAD_VARIABLES = (
    'OMP_NUM_THREADS',
    'MKL_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS',
)


@dataclass(frozen=True)
class Job:
    """A call that one of the processes makes.

    Attributes
    ----------
    run : callable
        Importable; called as ``run(*args, tell)`` where ``tell(text)`` reports what goes on.
    args : tuple
        Picklable.
    label : str
    """

    run: Callable
    args: tuple
    label: str


@dataclass(frozen=True)
class Told:
    """A job has reported what goes on."""

    job: Job
    text: str


@dataclass(frozen=True)
class Ended:
    """A job has come to its end.

    ``error`` is set where it raised or where its process died; ``result`` is what it returned.
    """

    job: Job
    result: object = None
    error: BaseException | None = None


class WorkerDied(Exception):
    """The process of a job ended without an answer."""

    def __init__(self, exit_code: int | None):
        self.exit_code = exit_code
        # A negative code is the signal; 9 is what the kernel sends when memory runs out.
        why = f'by signal {-exit_code}' if (exit_code or 0) < 0 else f'with exit code {exit_code}'
        hint = ' (most likely out of memory: raise --mem or lower --nprocs)'
        super().__init__(f'its process ended {why}{hint if exit_code == -9 else ""}')


class Workers:
    """Processes that answer jobs.

    Processes are spawned, never forked: neither CUDA nor ITK survives a fork.

    Parameters
    ----------
    count : int
    n_threads : int
        Threads that the libraries may use in each process.
    """

    def __init__(self, count: int, n_threads: int):
        self._context = multiprocessing.get_context('spawn')
        self._count, self._n_threads = count, n_threads
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info) -> None:
        for worker in self._idle + self._busy:
            worker.stop()

    def work(self, jobs: deque[Job]) -> Iterator[Told | Ended]:
        """Yield what happens until all jobs are done; ``jobs`` may grow meanwhile.

        Parameters
        ----------
        jobs : deque of Job
            Emptied from the left. The caller may append to it or clear it between events.
        """
        while jobs or self._busy:
            while jobs and len(self._busy) < self._count:
                self._start(jobs.popleft())
            yield from self._listen()

    def _start(self, job: Job) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._context, self._n_threads)
        worker.give(job)
        self._busy.append(worker)

    def _listen(self) -> Iterator[Told | Ended]:
        ready = wait([worker.connection for worker in self._busy])
        for worker in [worker for worker in self._busy if worker.connection in ready]:
            event = worker.hear()
            if isinstance(event, Ended):
                self._busy.remove(worker)
                if not isinstance(event.error, WorkerDied):
                    self._idle.append(worker)
            yield event


class _Worker:
    """One process and the line to it."""

    def __init__(self, context, n_threads: int):
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, n_threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the line breaks when the process dies
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        self._job = job
        # A process that died while idle is noticed when its answer is awaited.
        with suppress(OSError):
            self.connection.send(job)

    def hear(self) -> Told | Ended:
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Ended(self._job, error=WorkerDied(self._process.exitcode))
        if kind == 'told':
            return Told(self._job, value)
        return Ended(self._job, **{kind: value})

    def stop(self) -> None:
        # Not SIGTERM, which workers ignore. Outputs are complete or absent whenever this happens.
        self._process.kill()
        self._process.join()


def limit_threads(n_threads: int) -> None:
    """Tell the libraries that are yet to be imported how many threads to use."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_threads)


def _serve(connection, n_threads: int) -> None:
    """Answer jobs until the line is closed; runs in the worker process."""
    import signal

    # Ctrl-C reaches the whole process group, and SLURM warns every process of a job with SIGTERM;
    # the parent alone decides what happens then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    limit_threads(n_threads)
    with suppress(EOFError):
        while True:
            job = connection.recv()
            try:
                result = job.run(*job.args, lambda text: connection.send(('told', text)))
            except Exception as error:  # noqa: BLE001 - reported to the parent, which decides
                connection.send(('error', error))
            else:
                connection.send(('result', result))
            with suppress(OSError):  # the log is on a full disk, which the job has told of
                sys.stdout.flush()


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent is killed.

    An orphan would go on writing to folders whose lock has been taken over by another run.
    """
    import ctypes
    import signal

    if not sys.platform.startswith('linux'):
        return
    parent = multiprocessing.parent_process()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:  # gone before the request
        os._exit(1)
