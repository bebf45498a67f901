"""Sessions under one of Nipype's own plugins, all in one graph, for clusters that want that."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from ..errors import UsageError
from ..settings import Settings
from .progress import Progress
from .reports import write_report
from .sessions import SessionJob, StepClock, execute, scratch, set_detail, settle
from .workers import limit_threads


def load_plugin(path: Path) -> tuple[str, dict]:
    """Read the name and the arguments of a Nipype plugin.

    Parameters
    ----------
    path : Path
        YAML such as ``{plugin: MultiProc, plugin_args: {n_procs: 4}}``.

    Raises
    ------
    UsageError
        Where it is no such file.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            f'cannot be read as YAML ({" ".join(str(error).split())})', path=path, remedy=_REMEDY
        ) from error
    known = isinstance(content, dict) and set(content) <= {'plugin', 'plugin_args'}
    if not known or not isinstance(content.get('plugin'), str):
        raise UsageError('does not name a plugin', path=path, field='plugin', remedy=_REMEDY)
    arguments = content.get('plugin_args') or {}
    if content['plugin'] not in PLUGINS:
        raise UsageError(
            f'names the plugin {content["plugin"]!r}, which is not supported',
            path=path,
            field='plugin',
            remedy=f'Take one of {", ".join(PLUGINS)}',
        )
    if not isinstance(arguments, dict):
        raise UsageError('is not a mapping', path=path, field='plugin_args', remedy=_REMEDY)
    return content['plugin'], arguments


def check_plugin(settings: Settings) -> bool:
    """Tell whether the work is done on this machine.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    UsageError
        Where the plugin asked for cannot work.
    """
    if settings.use_plugin is None:
        return True
    name, _arguments = load_plugin(settings.use_plugin)
    if name in ('Linear', 'MultiProc'):
        return True
    folder = scratch(settings)
    if re.search(r'[^\w./+:@=,-]', str(folder)):
        raise UsageError(
            f"has characters that Nipype's plugin {name} hands to a shell",
            path=folder,
            field='-w',
            remedy='Choose a work directory without blanks and the like',
        )
    if name.startswith('SLURM') and shutil.which('sbatch') is None:
        raise UsageError(
            'the command sbatch is not there',
            path=settings.use_plugin,
            field='plugin',
            remedy='Start tumsyn-bids where jobs can be submitted, outside of a container',
        )
    return False


#: Those that end when the work has ended, which Nipype's other plugins for graphs do not.
PLUGINS = ('Linear', 'MultiProc', 'SLURM', 'SLURMGraph', 'SGE', 'PBS', 'LSF', 'OAR', 'Condor')
_REMEDY = 'Write for instance {plugin: MultiProc, plugin_args: {n_procs: 4, memory_gb: 16}}'


def process_with_plugin(run, jobs: list[SessionJob], progress: Progress, workers: int) -> None:
    """Process sessions in one graph; called in place of the pool.

    Parameters
    ----------
    run : Run
    jobs : list of SessionJob
    progress : Progress
    workers : int
        Not used: the plugin decides what runs side by side.
    """
    settings = run.settings
    limit_threads(jobs[0].settings.omp_nthreads)
    from ..workflows.session import init_tumsyn_wf, session_name

    log = settings.log_dir / 'nipype.log'
    _log_to(log)
    set_detail(settings.verbose)
    workflow = init_tumsyn_wf(
        plans=[job.plan for job in jobs],
        settings=jobs[0].settings,
        model_sha256=jobs[0].model_sha256,
        # The machine that sends batch jobs need not have what they ask for.
        use_cuda=bool(jobs[0].gpus) or settings.device.startswith('cuda'),
    )
    workflow.base_dir = str(scratch(settings))
    clocks = {
        session_name(job.plan): StepClock(
            lambda text, job=job: progress.step(job.plan.label, text)
        )
        for job in jobs
    }

    def callback(node, status: str, result: object = None) -> None:
        clocks[node.fullname.split('.')[1]](node, status)

    begun = datetime.now(timezone.utc)
    plugin = _make_plugin(jobs[0], {'status_callback': callback}, progress)
    with _children_speak_into(log), _children_stopped_if_interrupted():
        error = execute(workflow, jobs, plugin)
    subjects = dict.fromkeys(job.plan.subject for job in jobs)
    for job in jobs:
        name = session_name(job.plan)
        record = settle(
            job, begun, clocks[name].seconds, error, workflow.get_node(name).visit_desc()
        )
        run.finish(record, progress)
    for subject in subjects:
        try:
            write_report(settings, subject)
        except Exception as problem:  # noqa: BLE001 - told to the user; other reports go on
            run.report_failed(f'sub-{subject}', problem)


def _make_plugin(job: SessionJob, ours: dict, progress: Progress):
    """Make the plugin that the user has named, with defaults from the other options."""
    from nipype.pipeline import plugins

    settings = job.settings
    name, given = load_plugin(settings.use_plugin)
    if name == 'MultiProc':
        from .multiproc import IsolatedMultiProcPlugin

        defaults = {'n_procs': settings.nprocs, 'memory_gb': settings.mem_gb}
        defaults |= {'n_gpu_procs': len(job.gpus), 'raise_insufficient': False}
        ours |= {'gpus': job.gpus, 'n_threads': settings.omp_nthreads}
        ours |= {'log': settings.log_dir / 'nipype.log'}
        return IsolatedMultiProcPlugin({**defaults, **given, **ours})
    if name in ('SLURM', 'SLURMGraph'):
        from .batch import WatchedSlurmGraphPlugin, WatchedSlurmPlugin

        chosen = WatchedSlurmPlugin if name == 'SLURM' else WatchedSlurmGraphPlugin
        ours |= {'run_id': settings.run_id, 'tell': lambda text: progress.step(name, text)}
        ours |= {'gpu': settings.device.startswith('cuda')}
        return chosen(plugin_args={**given, **ours})
    return getattr(plugins, f'{name}Plugin')(plugin_args={**given, **ours})


@contextmanager
def _children_stopped_if_interrupted() -> Iterator[None]:
    """End the processes of a plugin at once, which would else first finish what they are at."""
    try:
        yield
    except KeyboardInterrupt:
        import psutil

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        raise


@contextmanager
def _children_speak_into(log: Path) -> Iterator[None]:
    """Give processes that are started meanwhile a log for standard output; ours stays."""
    terminal, former = os.dup(1), sys.stdout
    former.flush()
    with open(log, 'a') as stream:
        os.dup2(stream.fileno(), 1)
    sys.stdout = os.fdopen(os.dup(terminal), 'w')
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = former
        os.dup2(terminal, 1)
        os.close(terminal)


def _log_to(path: Path) -> None:
    """Send what Nipype says to a file; the terminal is for progress and the verdict."""
    import nipype  # noqa: F401 - sets up its loggers

    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter('%(asctime)s %(name)s %(levelname)s: %(message)s'))
    logger = logging.getLogger('nipype')
    logger.handlers[:] = [handler]
    logger.propagate = False
