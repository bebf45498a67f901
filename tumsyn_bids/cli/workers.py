"""Processes that work through jobs side by side, each reused, each free to die alone.

Processes are spawned, never forked: neither CUDA nor ITK survives a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
        Importable; called as ``run(*args, tell)`` where ``tell`` is a :class:`Line`.
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
class Asked:
    """A job waits for something that only the owner of a GPU may do."""

    job: Job
    request: Job


@dataclass(frozen=True)
class Ended:
    """A job has come to its end.

    ``error`` is set where it raised or where its process died; ``result`` is what it returned.
    """

    job: Job
    result: object = None
    error: BaseException | None = None


class WorkerDied(Exception):
    """The process of a job ended without an answer.

    Parameters
    ----------
    exit_code : int or None
        Negative: the signal that ended it.
    """

    def __init__(self, exit_code: int | None):
        self.exit_code = exit_code
        # A negative code is the signal; 9 is what the kernel sends when memory runs out.
        why = f'by signal {-exit_code}' if (exit_code or 0) < 0 else f'with exit code {exit_code}'
        hint = ' (most likely out of memory: raise --mem or lower --nprocs)'
        super().__init__(f'its process ended {why}{hint if exit_code == -9 else ""}')

    def __reduce__(self):
        return WorkerDied, (self.exit_code,)


class Workers:
    """Processes that answer jobs, and the owners of GPUs, whom those processes may ask.

    Parameters
    ----------
    count : int
    n_threads : int
        Threads that the libraries may use in each process.
    gpus : sequence of str
        One for each GPU: ``CUDA_VISIBLE_DEVICES`` of the process that alone uses it. What jobs
        ask for (:meth:`Line.ask`) is done there, one request at a time; those who asked wait.
    """

    def __init__(self, count: int, n_threads: int, gpus: Sequence[str] = ()):
        self._count, self._n_threads = count, n_threads
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._free_gpus = list(reversed(gpus))
        self._idle_owners: list[Worker] = []
        self._serving: dict[Worker, Worker] = {}
        self._requests: deque[tuple[Worker, Job]] = deque()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info) -> None:
        for worker in (*self._idle, *self._busy, *self._idle_owners, *self._serving):
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
        worker = self._idle.pop() if self._idle else Worker(self._n_threads)
        worker.give(job)
        self._busy.append(worker)

    def _listen(self) -> Iterator[Told | Ended]:
        everybody = [*self._busy, *self._serving]
        ready = wait([worker.connection for worker in everybody])
        for worker in [worker for worker in everybody if worker.connection in ready]:
            event = worker.hear()
            if worker in self._serving:
                self._served(worker, event)
            elif isinstance(event, Asked):
                self._requests.append((worker, event.request))
            else:
                self._settle(worker, event)
                yield event
        self._serve_requests()

    def _settle(self, worker: Worker, event: Told | Ended) -> None:
        if isinstance(event, Ended):
            self._busy.remove(worker)
            if not isinstance(event.error, WorkerDied):
                self._idle.append(worker)

    def _serve_requests(self) -> None:
        while self._requests and (self._idle_owners or self._free_gpus):
            worker, request = self._requests.popleft()
            if worker not in self._busy:  # died while it waited
                continue
            if not self._idle_owners:
                self._idle_owners.append(Worker(self._n_threads, gpu=self._free_gpus.pop()))
            owner = self._idle_owners.pop()
            owner.give(request)
            self._serving[owner] = worker

    def _served(self, owner: Worker, event: Told | Asked | Ended) -> None:
        if not isinstance(event, Ended):
            return
        self._serving.pop(owner).answer(event)
        if isinstance(event.error, WorkerDied):
            self._free_gpus.append(owner.gpu)
        else:
            self._idle_owners.append(owner)


class Worker:
    """One process and the line to it.

    Parameters
    ----------
    n_threads : int
        Threads that the libraries may use in it.
    gpu : str
        Its ``CUDA_VISIBLE_DEVICES``; inherited where empty.
    """

    def __init__(self, n_threads: int, gpu: str = ''):
        context = multiprocessing.get_context('spawn')
        self.gpu = gpu
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, n_threads, gpu), daemon=True)
        self._process.start()
        theirs.close()  # so that the line breaks when the process dies
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        """Let the process do a job."""
        self._job = job
        # A process that died while idle is noticed when its answer is awaited.
        with suppress(OSError):
            self.connection.send(job)

    def hear(self) -> Told | Asked | Ended:
        """Wait for what the process has to say."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Ended(self._job, error=WorkerDied(self._process.exitcode))
        if kind == 'told':
            return Told(self._job, value)
        if kind == 'asked':
            return Asked(self._job, value)
        return Ended(self._job, **{kind: value})

    def answer(self, ended: Ended) -> None:
        """Give the process what it has asked for."""
        with suppress(OSError):  # it died while it waited, which is noticed elsewhere
            self.connection.send((ended.result, ended.error))

    def call(self, job: Job) -> Ended:
        """Let the process do a job and wait for the end."""
        self.give(job)
        while not isinstance(event := self.hear(), Ended):
            continue
        return event

    def stop(self) -> None:
        """End the process, whatever it is at."""
        # Not SIGTERM, which workers ignore. Outputs are complete or absent whenever this happens.
        self._process.kill()
        self._process.join()


class Line:
    """What a job may say to the process that has given it; called with a text, it tells that."""

    def __init__(self, connection):
        self._connection = connection

    def __call__(self, text: str) -> None:
        self._connection.send(('told', text))

    def ask(self, request: Job):
        """Have a job done by the owner of a GPU and return its result.

        Raises
        ------
        Exception
            What the job raised, or :class:`WorkerDied`.
        """
        self._connection.send(('asked', request))
        result, error = self._connection.recv()
        if error is not None:
            raise error
        return result


def limit_threads(n_threads: int) -> None:
    """Tell the libraries that are yet to be imported how many threads to use."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_threads)


def _serve(connection, n_threads: int, gpu: str) -> None:
    """Answer jobs until the line is closed; runs in the worker process."""
    import signal

    # Ctrl-C reaches the whole process group, and SLURM warns every process of a job with SIGTERM;
    # the parent alone decides what happens then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    limit_threads(n_threads)
    if gpu:  # before CUDA is initialised in this process
        os.environ['CUDA_VISIBLE_DEVICES'] = gpu
    line = Line(connection)
    with suppress(EOFError):
        while True:
            job = connection.recv()
            try:
                answer = ('result', job.run(*job.args, line))
            except Exception as error:  # noqa: BLE001 - reported to the parent, which decides
                answer = ('error', error)
            connection.send(answer)
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
