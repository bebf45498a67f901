"""Run the workflow of a session and put down what became of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..bids.naming import sidecar_path
from ..bids.status import SessionRecord, describe_outputs
from ..errors import explain_storage
from ..plan import SessionPlan
from ..settings import Settings
from ..verdicts import FAIL, failed_images
from .crashes import collect_crashes
from .workers import Line


@dataclass(frozen=True)
class SessionJob:
    """All that is needed to process a session, or to say later what was processed.

    Attributes
    ----------
    plan : SessionPlan
    settings : Settings
    model_sha256 : str
    fingerprint : str
        See :func:`tumsyn_bids.bids.status.fingerprint`.
    gpus : tuple of str
        ``CUDA_VISIBLE_DEVICES`` of each GPU's owner; empty where none is used.
    """

    plan: SessionPlan
    settings: Settings
    model_sha256: str
    fingerprint: str = ''
    gpus: tuple[str, ...] = ()

    def with_threads(self, threads: int) -> SessionJob:
        """Return the same job for a process with so many threads."""
        return replace(self, settings=self.settings.replace(omp_nthreads=threads))

    @property
    def crash_dir(self) -> Path:
        """Where Nipype leaves its crash reports."""
        return self.settings.work_dir / 'crashes' / self.plan.label

    @property
    def log_file(self) -> Path:
        """The log of the subject."""
        return self.settings.log_dir / f'sub-{self.plan.subject}.log'


@dataclass
class StepClock:
    """Nipype's status callback: tells which step begins and adds up how long each took."""

    tell: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)

    def __call__(self, node, status: str) -> None:
        if node.name.startswith('join_'):  # glue, over in a moment
            return
        name = step_name(node.fullname)
        if status == 'start':
            self._begun[name] = time.monotonic()
            self.tell(name)
        elif name in self._begun:  # steps that were never begun are said to end as well
            self.seconds[name] = round(time.monotonic() - self._begun.pop(name), 2)


def step_name(fullname: str) -> str:
    """Word the full name of a node.

    Examples
    --------
    >>> step_name('sub_01_wf.preproc_T1w_wf.correct_bias')
    'preproc T1w: correct bias'
    >>> step_name('tumsyn_wf.sub_01_wf.write_mask')
    'write mask'
    """
    *above, step = fullname.split('.')
    words = step.replace('_', ' ')
    parent = above[-1].removesuffix('_wf').replace('_', ' ') if above else ''
    inner = parent.split(' ')[0] in ('preproc', 'brain', 'coreg', 'synthesis', 'score')
    return f'{parent}: {words}' if inner else words


def run_session(job: SessionJob, tell: Line) -> SessionRecord:
    """Process a session in this process, which speaks into the log of the subject from now on."""
    speak_into(job.log_file, job.plan.label)
    set_detail(job.settings.verbose)
    from ..workflows.session import init_session_wf

    workflow = init_session_wf(
        plan=job.plan,
        settings=job.settings,
        model_sha256=job.model_sha256,
        use_cuda=bool(job.gpus),
    )
    # Where this session lies in the graph of many, so that steps done there count here.
    workflow.base_dir = str(scratch(job.settings) / 'tumsyn_wf')
    clock, begun = StepClock(tell), datetime.now(timezone.utc)
    from .steps import GpuElsewherePlugin

    arguments = {'status_callback': clock, 'line': tell, 'log': job.log_file}
    error = execute(workflow, [job], GpuElsewherePlugin(arguments))
    return settle(job, begun, clock.seconds, error, workflow.visit_desc())


def execute(workflow, jobs: list[SessionJob], plugin) -> str:
    """Run a workflow that does some sessions by a plugin; return what went wrong, if anything."""
    from ..workflows.config import configure
    from ..workflows.session import session_name, summary_file

    settings = jobs[0].settings
    configure(workflow, crash_dir=jobs[0].crash_dir)
    for job in jobs:
        shutil.rmtree(job.crash_dir, ignore_errors=True)
        summary_file(job.plan, settings).unlink(missing_ok=True)
        summary_file(job.plan, settings).parent.mkdir(parents=True, exist_ok=True)
        inner = workflow.get_node(session_name(job.plan))
        if inner is not None:
            configure(inner, crash_dir=job.crash_dir)
    if settings.write_graph:
        workflow.write_hierarchical_dotfile(
            dotfilename=str(settings.log_dir / f'{workflow.name}.dot'), colored=True
        )
    try:
        workflow.run(plugin=plugin)
    except Exception as error:  # noqa: BLE001 - Nipype raises what its nodes raised, of any kind
        return f'{type(error).__name__}: {error}'
    return ''


def settle(
    job: SessionJob, begun: datetime, steps: dict[str, float], error: str, methods: str
) -> SessionRecord:
    """Make the record of a session whose workflow has run, and tidy up after it.

    Parameters
    ----------
    job : SessionJob
    begun : datetime
    steps : dict of str to float
        Seconds of each step.
    error : str
        What the workflow as a whole raised, if anything.
    methods : str
        How the workflow describes itself.
    """
    from ..workflows.session import session_name, summary_file

    settings, plan = job.settings, job.plan
    crashes = collect_crashes(job.crash_dir, settings.log_dir, plan.label)
    path = summary_file(plan, settings)
    if crashes or not path.is_file():
        reason = crashes[0].reason if crashes else error or 'the workflow left no summary'
        reason = explain_storage(reason, settings.work_dir)
        record = unfinished(job, begun, reason, *(crash.path for crash in crashes))
        return replace(record, steps=steps, methods=methods)
    record = _completed(job, begun, json.loads(path.read_text()))
    if settings.clean_workdir == 'on-success':
        path.unlink()
        shutil.rmtree(scratch(settings) / 'tumsyn_wf' / session_name(plan))
    return replace(record, steps=steps, methods=methods)


def unfinished(job: SessionJob, begun: datetime | None, reason: str, *crashes: Path):
    """Return the record of a session that failed."""
    shown = tuple(str(path.relative_to(job.settings.output_dir)) for path in crashes)
    what = {'message': 'failed', 'error': reason, 'warnings': job.plan.warnings}
    return _record(job, begun, state='failed', crashes=shown, **what)


def _completed(job: SessionJob, begun: datetime, summary: dict) -> SessionRecord:
    files = [Path(name) for name in summary['outputs']]
    files += [sidecar_path(file) for file in files if sidecar_path(file).is_file()]
    return _record(
        job,
        begun,
        state='complete',
        message=_outcome(len(job.plan.tasks), summary['checks'], summary['confidence']),
        outputs=describe_outputs(job.settings.output_dir, files),
        warnings=(*job.plan.warnings, *summary['warnings']),
        mended=tuple(summary.get('mended', ())),
        model=summary['model'],
        scores=tuple(summary['scores']),
        confidence=tuple(summary['confidence']),
        figures=tuple(summary['figures']),
        checks=tuple(summary['checks']),
    )


def _outcome(n_images: int, checks: list[dict], confidence: list[dict]) -> str:
    """Say in one line what was made, and which checks and which images failed."""
    made = f'{n_images} synthetic image{"" if n_images == 1 else "s"}'
    failed = [f'{row["step"]} of the {row["contrast"]}' for row in checks if row['result'] == FAIL]
    parts = [made]
    if failed:
        parts.append(f'CHECKS FAILED: {", ".join(dict.fromkeys(failed))}')
    distrusted = [row['image'] for row in failed_images(confidence)]
    if distrusted:
        parts.append(f'IMAGES FAILED: {", ".join(dict.fromkeys(distrusted))}')
    return '; '.join(parts)


def _record(job: SessionJob, begun: datetime | None, **what) -> SessionRecord:
    now = datetime.now(timezone.utc)
    begun = begun or now
    return SessionRecord(
        participant=job.plan.subject,
        session=job.plan.session,
        started=begun.isoformat(timespec='seconds'),
        seconds=round((now - begun).total_seconds(), 1),
        version=__version__,
        fingerprint=job.fingerprint,
        plan=json.loads(job.plan.to_json()),
        **what,
    )


def scratch(settings: Settings) -> Path:
    """Return the folder of Nipype's files; another version's steps do not count as done."""
    return settings.work_dir / f'tumsyn-{__version__}'


def set_detail(verbose: int) -> None:
    """Let Nipype tell more in the logs from ``-vv`` on."""
    if verbose > 1:
        import logging

        import nipype  # noqa: F401 - sets the levels of its loggers when it is imported

        for name in ('workflow', 'interface', 'utils'):
            logging.getLogger(f'nipype.{name}').setLevel(logging.DEBUG)


def speak_into(log_file: Path, label: str) -> None:
    """Send all that this process and the libraries in it say to a log, C++ code included."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(log_file, 'a') as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    print(f'\n===== {label} =====', flush=True)  # noqa: T201 - the log is stdout now
