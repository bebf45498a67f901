"""The participant level: plan, leave out what is done, process the rest, say how it went."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from .. import __version__
from ..bids.status import SessionRecord, fingerprint, is_complete, write_record
from ..errors import EXIT_OK, EXIT_SUBJECT_FAILED, ScanError, UsageError
from ..plan import SessionPlan
from ..settings import Settings
from .checks import check_settings
from .crashes import details_of, write_crash
from .environment import prepare_environment
from .parser import PROG, Request
from .progress import Progress, complain, duration, say
from .sessions import SessionJob

#: What one session may take: clinical heads were measured at 2 GB, heads of 1 mm take more.
SESSION_GB = 4.0
#: Registration gains little from more threads than these.
SESSION_THREADS = 2


@dataclass
class Tally:
    """How many sessions ended how."""

    complete: int = 0
    done_before: int = 0
    failed: list[str] = field(default_factory=list)
    not_finished: int = 0
    reports_failed: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Number of sessions that came to an end, good or bad."""
        return self.complete + self.done_before + len(self.failed)

    @property
    def exit_code(self) -> int:
        bad = self.failed or self.not_finished or self.reports_failed
        return EXIT_SUBJECT_FAILED if bad else EXIT_OK

    def verdict(self, settings: Settings, seconds: float) -> str:
        """Word the last line of the output."""
        total = self.ended + self.not_finished
        before = f' ({self.done_before} of them before)' if self.done_before else ''
        done = self.complete + self.done_before
        parts = [f'{done} of {total} session{"" if total == 1 else "s"} complete{before}']
        if self.failed:
            shown = ', '.join(self.failed[:5]) + (', …' if len(self.failed) > 5 else '')
            parts.append(f'{len(self.failed)} FAILED ({shown})')
        if self.not_finished:
            parts.append(f'{self.not_finished} not finished')
        if self.reports_failed:
            parts.append(f'no report of {", ".join(self.reports_failed[:5])}')
        verdict = 'finished' if self.exit_code == EXIT_OK else 'finished with failures'
        return (
            f'{PROG}: {verdict}: {", ".join(parts)}; took {duration(seconds)}; '
            f'see {settings.output_dir / "logs" / "status.tsv"}'
        )


def run_participant(request: Request) -> int:
    """Process the sessions of a dataset and return the exit code."""
    begun = time.monotonic()
    settings = request.settings
    check_settings(settings)
    plans, failures = make_plans(settings)
    if request.dry_run:
        from ..bids.plan_text import plan_table

        say(plan_table(plans, failures))
        return EXIT_OK
    settings = settings.replace(run_id=new_run_id())
    jobs = prepare(settings, plans)
    run = Run(settings)
    for failure in failures:
        run.refuse(failure)
    try:
        run.process(jobs)
    finally:  # interrupted or not, the last line says how far it came
        run.tally.not_finished = len(plans) + len(failures) - run.tally.ended
        say(run.tally.verdict(settings, time.monotonic() - begun))
    return run.tally.exit_code


def new_run_id() -> str:
    """Return a name for a run that sorts by time and is never given twice."""
    return f'{datetime.now():%Y%m%d-%H%M%S}_{secrets.token_hex(3)}'


def make_plans(settings: Settings):
    """Return the plans of the sessions asked for, and the sessions that cannot be planned."""
    from ..bids.layout import index_dataset, load_filters
    from ..bids.planning import build_plans, requested_targets

    targets = requested_targets(settings.targets_file, settings.like)
    filters = load_filters(settings.bids_filter_file) if settings.bids_filter_file else None
    layout = index_dataset(
        settings.bids_dir,
        database_dir=settings.bids_database_dir,
        participant_label=settings.participant_label or None,
    )
    return build_plans(
        layout,
        participant_label=settings.participant_label,
        session_label=settings.session_label,
        contrasts=settings.contrasts,
        targets=targets,
        validate=settings.validate,
        filters=filters,
        missing_metadata=settings.missing_metadata,
    )


def prepare(settings: Settings, plans: list[SessionPlan]) -> list[SessionJob]:
    """Check model and output directory, write the dataset's root files, and list the sessions.

    Raises
    ------
    UsageError, ModelError
        Nothing has been written then.
    """
    from ..bids.description import check_output_dir, write_dataset_files
    from ..bids.naming import describe_labels
    from ..networks.model import load_model

    check_output_dir(settings.output_dir, __version__)
    model_sha256 = load_model(settings.model).sha256
    try:
        prepare_environment(settings.work_dir)
        settings.log_dir.mkdir(parents=True)
        (settings.log_dir / 'config.toml').write_text(settings.to_toml())
        write_dataset_files(
            settings.output_dir,
            settings.bids_dir,
            version=__version__,
            descriptions=describe_labels(plans),
        )
    except OSError as error:
        raise UsageError(
            f'cannot be written ({error.strerror})',
            path=error.filename,
            remedy='Check permissions and free space',
        ) from error
    return [SessionJob(plan, settings, model_sha256) for plan in plans]


@dataclass
class Run:
    """One call of the participant level.

    Attributes
    ----------
    settings : Settings
    tally : Tally
    """

    settings: Settings
    tally: Tally = field(default_factory=Tally)

    def process(self, jobs: list[SessionJob]) -> None:
        """Process what is not done yet."""
        jobs = [job for job in map(self._unless_done, jobs) if job]
        if not jobs:
            return
        workers, threads = share(self.settings, len(jobs))
        jobs = [job.with_threads(threads) for job in jobs]
        progress = Progress(len(jobs), workers)
        plural = 'session' if len(jobs) == 1 else 'sessions'
        progress.note(f'{PROG}: {len(jobs)} {plural} to process, logs in {self.settings.log_dir}')
        if self.settings.use_plugin:
            from .plugin import process_with_plugin as process
        else:
            from .pool import process_in_pool as process
        process(self, jobs, progress, workers)
        progress.close()

    def refuse(self, failure) -> None:
        """Put down a session that could not even be planned."""
        record = SessionRecord(
            participant=failure.subject,
            session=failure.session,
            state='failed',
            started=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            seconds=0,
            message='could not be planned',
            error=str(failure.error),
            version=__version__,
            warnings=tuple(f'{refusal.path}: {refusal.reason}' for refusal in failure.refused),
        )
        crash = write_crash(self.settings.log_dir, failure.label, 'plan', str(failure.error))
        self.finish(replace(record, crashes=(str(crash.relative_to(self.settings.output_dir)),)))

    def finish(self, record: SessionRecord, progress: Progress | None = None) -> None:
        """Put down how a session ended, and tell the user where it failed."""
        write_record(self.settings.output_dir, record)
        if progress is not None:
            progress.finished(record.label, record.state, record.seconds)
            for warning in record.warnings if self.settings.verbose else ():
                progress.note(f'{record.label}: warning: {warning}')
        if record.state == 'complete':
            self.tally.complete += 1
            return
        self.tally.failed.append(record.label)
        report = (
            f' (details: {self.settings.output_dir / record.crashes[0]})' if record.crashes else ''
        )
        complain(f'{PROG}: error: {record.label}: {record.error}{report}')

    def report_failed(self, label: str, error: BaseException) -> None:
        """Put down that the report of a subject could not be written."""
        self.tally.reports_failed.append(label)
        crash = write_crash(self.settings.log_dir, label, 'report', str(error), details_of(error))
        complain(f'{PROG}: error: {label}: the report was not written: {error} (details: {crash})')

    def _unless_done(self, job: SessionJob) -> SessionJob | None:
        """Return the job with its fingerprint, or None where its outputs are there already."""
        plan = job.plan
        try:
            wanted = fingerprint(plan, job.model_sha256, __version__, decisive(self.settings))
        except OSError as error:
            self.refuse(unreadable(plan, error))
            return None
        if is_complete(self.settings.output_dir, plan.subject, plan.session, wanted):
            self.tally.done_before += 1
            return None
        return replace(job, fingerprint=wanted)


def decisive(settings: Settings) -> dict:
    """Return the settings that change a session's outputs and are not in its plan."""
    return {'skull_strip': settings.skull_strip, 'random_seed': settings.random_seed}


def share(settings: Settings, n_sessions: int) -> tuple[int, int]:
    """Return how many sessions run side by side, and with how many threads each."""
    threads = settings.omp_nthreads or min(SESSION_THREADS, settings.nprocs)
    room = min(settings.nprocs // threads, int(settings.mem_gb // SESSION_GB), n_sessions)
    workers = max(room, 1)
    return workers, settings.omp_nthreads or max(settings.nprocs // workers, 1)


def unreadable(plan: SessionPlan, error: OSError):
    """Return the failure of a session one of whose scans cannot be read."""
    from ..bids.planning import SessionFailure

    problem = ScanError(
        f'cannot be read ({error.strerror})', path=error.filename, remedy='Check its permissions'
    )
    return SessionFailure(plan.subject, plan.session, problem)
