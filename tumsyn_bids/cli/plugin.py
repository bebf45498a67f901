"""Sessions under one of Nipype's own plugins, all in one graph, for clusters that want that."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from ..errors import UsageError
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
    if not isinstance(arguments, dict):
        raise UsageError('is not a mapping', path=path, field='plugin_args', remedy=_REMEDY)
    return content['plugin'], arguments


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
    plugin, arguments = load_plugin(settings.use_plugin)
    limit_threads(jobs[0].settings.omp_nthreads)
    from ..workflows.session import init_tumsyn_wf, session_name

    log = settings.log_dir / 'nipype.log'
    _log_to(log)
    set_detail(settings.verbose)
    workflow = init_tumsyn_wf(
        plans=[job.plan for job in jobs],
        settings=jobs[0].settings,
        model_sha256=jobs[0].model_sha256,
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
    arguments = {**_defaults(plugin), **arguments, 'status_callback': callback}
    with _children_speak_into(log), _children_stopped_if_interrupted():
        error = execute(workflow, jobs, plugin, arguments)
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


def _defaults(plugin: str) -> dict:
    # Neither CUDA nor ITK survives a fork.
    return {'mp_context': 'spawn'} if plugin == 'MultiProc' else {}


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
