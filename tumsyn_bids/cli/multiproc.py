"""Nipype's MultiProc plugin on processes that may die: the others go on, and the step is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from traceback import format_exception

from nipype.pipeline.plugins import MultiProcPlugin

from .steps import died_at, redirect
from .workers import Job, Line, Worker, WorkerDied


class IsolatedMultiProcPlugin(MultiProcPlugin):
    """MultiProc whose steps have a process each, reused while it lives.

    Nipype's own waits forever for the result of a process that was killed. Here that step fails
    with a reason, and the steps that run beside it are not disturbed. Steps that use a GPU have
    processes of their own, one a GPU slot, so that no other process has a CUDA context.

    Parameters
    ----------
    plugin_args : dict
        Of MultiProc (``mp_context`` has no effect: processes are spawned), and further
        ``n_threads`` (of each process), ``log`` (path that the processes speak into) and
        ``gpus`` (one ``CUDA_VISIBLE_DEVICES`` for each GPU).
    """

    def __init__(self, plugin_args: dict):
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()  # it starts processes on demand, so that there are none yet
        threads, log = plugin_args['n_threads'], plugin_args['log']
        gpus = plugin_args['gpus'] or ('',)
        slots = [gpus[number % len(gpus)] for number in range(self.n_gpu_procs)]
        self.pool = _Lanes(
            _Lane([''] * self.processors, threads, log), _Lane(slots or [''], threads, log)
        )

    def run(self, graph, config, updatehash: bool = False) -> None:
        """Run the steps, and leave no process behind, however it ends."""
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            self.pool.shutdown()


class _Lanes:
    """Takes the place of MultiProc's pool of processes."""

    def __init__(self, processors: _Lane, gpus: _Lane):
        self._processors, self._gpus = processors, gpus

    def submit(self, run: Callable, node, updatehash: bool, task: int) -> Future:
        lane = self._gpus if node.is_gpu_node() else self._processors
        return lane.submit(run, node, updatehash, task)

    def shutdown(self) -> None:
        for lane in (self._processors, self._gpus):
            lane.shutdown()


class _Lane:
    """Processes side by side, started when first needed and replaced when they die.

    Each job is waited for by a thread. What threads share are lists, to which one item is added
    or from which one is taken at a time.
    """

    def __init__(self, slots: Sequence[str], n_threads: int, log: Path):
        self._n_threads, self._log = n_threads, log
        self._threads = ThreadPoolExecutor(len(slots))
        self._free = list(reversed(slots))
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._closed = False

    def submit(self, run: Callable, node, updatehash: bool, task: int) -> Future:
        job = Job(_run_quietly, (run, node, updatehash, task, self._log), node.fullname)
        return self._threads.submit(self._finish, job, node, task)

    def shutdown(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.stop()

    def _finish(self, job: Job, node, task: int) -> dict:
        """Do a job and return what Nipype expects of it, also where there is no result."""
        worker = self._take()
        ended = worker.call(job)
        if isinstance(ended.error, WorkerDied):
            self._free.append(worker.gpu)
            failure = died_at(node, ended.error)
        else:
            self._idle.append(worker)
            failure = ended.error
        if failure is None:
            return ended.result
        return {'result': None, 'traceback': format_exception(failure), 'taskid': task}

    def _take(self) -> Worker:
        with suppress(IndexError):
            return self._idle.pop()
        worker = Worker(self._n_threads, gpu=self._free.pop())
        self._all.append(worker)
        if self._closed:  # meanwhile
            worker.stop()
        return worker


def _run_quietly(run: Callable, node, updatehash: bool, task: int, log: Path, tell: Line) -> dict:
    redirect(log)
    return run(node, updatehash, task)
