"""Nipype's plugins for SLURM, watched: what they leave open when a job is lost is done here."""

from __future__ import annotations

import getpass
import math
import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception

from networkx import topological_sort
from nipype.pipeline.plugins import SLURMGraphPlugin, SLURMPlugin
from nipype.pipeline.plugins.base import report_crash

from ..errors import SessionError
from .sessions import step_name

#: Seconds between two looks at the queue, whatever the number of jobs in it.
POLL_SECONDS = 2.0
#: What a step's process takes before it has any image: the interpreter and its libraries.
PROCESS_GB = 1.0
_REMEDIES = {
    'OUT_OF_MEMORY': "Raise --mem in the plugin's sbatch_args",
    'KILLED': "It was most likely out of memory: raise --mem in the plugin's sbatch_args",
    'TIMEOUT': "Raise --time in the plugin's sbatch_args",
    'CANCELLED': 'Start the same command again to go on',
    'NODE_FAIL': 'Start the same command again to go on',
    '': 'The folder has what the jobs said',
}


class Queue:
    """The jobs of one run in SLURM's queue, known by a comment that they carry.

    Parameters
    ----------
    run_id : str
        No other run has it.
    """

    def __init__(self, run_id: str):
        self.comment = f'tumsyn-bids:{run_id}'
        self._asked, self._waiting = -math.inf, frozenset()

    def waiting(self) -> frozenset[int]:
        """Return the numbers of the jobs that have not ended, asking the queue now and then."""
        if time.monotonic() - self._asked >= POLL_SECONDS:
            # Where the queue does not answer, nothing is known to have ended.
            answer = _ask('squeue', '-h', '-u', str(os.getuid()), '-o', '%i %k')
            if answer is not None:
                rows = [line.split(maxsplit=1) for line in answer.splitlines()]
                ours = [row[0] for row in rows if row[1:] == [self.comment]]
                self._waiting = frozenset(int(number) for number in ours if number.isdigit())
            self._asked = time.monotonic()
        return self._waiting

    def look_again(self) -> None:
        """Forget the last answer: there are new jobs."""
        self._asked = -math.inf

    def states(self) -> dict[str, str]:
        """Return the states of our jobs that the queue still knows, by number and by name."""
        states = {}
        for line in (_ask('scontrol', '-o', 'show', 'job') or '').splitlines():
            fields = dict(re.findall(r'(\w+)=(\S*)', line))
            if fields.get('Comment') == self.comment:
                killed = fields.get('ExitCode') in ('0:9', '137:0')
                state = fields.get('JobState', '')
                state = 'KILLED' if killed and state == 'FAILED' else state
                states[fields['JobId']] = states[fields['JobName']] = state
        return states

    def cancel(self) -> None:
        """Take all jobs of the run out of the queue."""
        self.look_again()
        numbers = [str(number) for number in sorted(self.waiting())]
        if numbers:
            _ask('scancel', *numbers)

    @contextmanager
    def cancelled_if_interrupted(self):
        """Leave no job behind that nobody waits for."""
        try:
            yield
        except KeyboardInterrupt:
            self.cancel()
            raise


class WatchedSlurmPlugin(SLURMPlugin):
    """A job for each step, sent when the steps before it have ended.

    Each job asks for the processors and the memory that its step declares, unless
    ``sbatch_args`` does; the queue is asked once for all jobs; a job that ends without a result
    is told with its state; results of former inputs are never taken for those of a lost job.

    Parameters
    ----------
    plugin_args : dict
        Of Nipype, and further ``run_id`` and ``gpu`` (steps that use one ask for it).
    """

    def __init__(self, plugin_args: dict):
        super().__init__(plugin_args=plugin_args)
        self._queue = Queue(plugin_args['run_id'])
        self._nodes = {}

    def run(self, graph, config, updatehash: bool = False) -> None:
        """Run the steps; interrupted, take them out of the queue."""
        prepare(graph, self._queue, given=self._sbatch_args or '', gpu=self.plugin_args['gpu'])
        with self._queue.cancelled_if_interrupted():
            super().run(graph, config, updatehash=updatehash)

    def _is_pending(self, taskid: int) -> bool:
        return taskid in self._queue.waiting()

    def _submit_job(self, node, updatehash: bool = False) -> int:
        for left in results_of(node):
            left.unlink()
        taskid = super()._submit_job(node, updatehash=updatehash)
        self._nodes[taskid] = node
        self._queue.look_again()
        return taskid

    def _get_result(self, taskid: int) -> dict | None:
        result = super()._get_result(taskid)
        if result and 'results file does not exist' in ''.join(result['traceback'] or ''):
            error = lost_job(self._nodes[taskid], self._queue.states().get(str(taskid), ''))
            result['traceback'] = format_exception(error)
        return result


class WatchedSlurmGraphPlugin(SLURMGraphPlugin):
    """All jobs at once, each held until those before it have ended; waited for until the end.

    Parameters
    ----------
    plugin_args : dict
        Of Nipype, and further ``run_id``, ``gpu`` and ``tell`` (called with how far it came).
    """

    def __init__(self, plugin_args: dict):
        # Nipype's does not call back, and says so in a warning.
        super().__init__(plugin_args={**plugin_args, 'status_callback': None})
        self._queue = Queue(plugin_args['run_id'])

    def run(self, graph, config, updatehash: bool = False) -> None:
        """Send all jobs, wait for them, and report those that ended without a result."""
        given = f'{self._sbatch_args} --kill-on-invalid-dep=yes'
        prepare(graph, self._queue, given=given, gpu=self.plugin_args['gpu'])
        nodes = list(topological_sort(graph))  # the order in which Nipype numbers the jobs
        with self._queue.cancelled_if_interrupted():
            super().run(graph, config, updatehash=updatehash)
            self._wait(len(nodes))
        self._report_lost(nodes, float(config['execution']['job_finished_timeout']))

    def _wait(self, total: int) -> None:
        before = None
        self._queue.look_again()
        while left := len(self._queue.waiting()):
            if left != before:
                self.plugin_args['tell'](f'{left} of {total} jobs left')
            before = left
            time.sleep(POLL_SECONDS)

    def _report_lost(self, nodes: list, patience: float) -> None:
        """Write a crash report for the first step of each session that nobody knows the end of."""
        told, states = set(), self._queue.states()
        for number, node in enumerate(nodes):
            crashes = Path(node.config['execution']['crashdump_dir'])
            if crashes in told or any(crashes.glob('*.txt')):
                continue
            ours = (states[name] for name in states if name.startswith(f'j{number}_'))
            state = next(ours, '')
            if state in ('', 'COMPLETED') and _appears(node, patience):
                continue
            told.add(crashes)
            report_crash(node, traceback=format_exception(lost_job(node, state)))


def prepare(graph, queue: Queue, *, given: str, gpu: bool) -> None:
    """Let each node's job ask for what the node declares, and carry the mark of this run.

    Parameters
    ----------
    graph : networkx graph of nodes
    queue : Queue
    given : str
        Arguments of ``sbatch`` by the user, which count where they say something themselves.
    gpu : bool
        Whether nodes that use a GPU ask for one.
    """
    # Nipype takes it for granted, and containers and services often lack it.
    os.environ.setdefault('LOGNAME', re.sub(r'\W', '', getpass.getuser()) or 'tumsyn')
    for node in graph.nodes():
        wanted = {'--cpus-per-task': node.n_procs}
        wanted['--mem'] = f'{math.ceil(max(node.mem_gb, PROCESS_GB) * 1024)}M'
        wanted['--output'] = batch_folder(node) / 'slurm-%j.out'
        if gpu and node.is_gpu_node():
            wanted['--gres'] = 'gpu:1'
        words = [f'{key}={value}' for key, value in wanted.items() if not _says(given, key)]
        extra = ' '.join([given, *words, f'--comment={queue.comment}'])
        node.plugin_args = {**node.plugin_args, 'sbatch_args': f' {extra}', 'overwrite': True}


_SHORT = {'--cpus-per-task': '-c', '--output': '-o', '--gres': '-G', '--mem': '--mem'}


def _says(given: str, key: str) -> bool:
    """Tell whether arguments of sbatch say something about an option, in whatever spelling."""
    starts = (key, _SHORT[key], '--gpus' if key == '--gres' else key)
    return any(word.startswith(starts) for word in given.split())


def batch_folder(node) -> Path:
    """Return where Nipype puts the scripts of its jobs."""
    return Path(node.base_dir, node._hierarchy.split('.')[0], 'batch')


def results_of(node) -> list[Path]:
    """Return the files in which a node has left its result."""
    return list(Path(node.output_dir()).glob('result_*.pklz'))


def lost_job(node, state: str) -> SessionError:
    """Word that a job has ended and left nothing.

    Parameters
    ----------
    node : Node
    state : str
        As SLURM names it; empty where it does not know the job any more.
    """
    ended = f'ended without a result{f" ({state})" if state else ""}'
    return SessionError(
        f'while at "{step_name(node.fullname)}": its batch job {ended}',
        path=batch_folder(node),
        remedy=_REMEDIES.get(state, _REMEDIES['']),
    )


def _appears(node, patience: float) -> bool:
    """Tell whether there is a result; file servers may show it late."""
    deadline = time.monotonic() + patience
    while not results_of(node):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _ask(*command: str) -> str | None:
    """Return what one of SLURM's commands says, or None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
