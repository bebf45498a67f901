"""The participant level: plan, leave out what is done, process the rest, say how it went."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..bids.description import check_output_dir
from ..bids.lock import LockedError, ParticipantLocks
from ..bids.status import (
    SessionRecord,
    fingerprint,
    is_complete,
    sweep_output,
    with_leftovers,
    write_record,
)
from ..errors import EXIT_OK, EXIT_SUBJECT_FAILED, ScanError, explain_storage, unwritable
from ..plan import SessionPlan
from ..resources import SESSION_GB, session_gb
from ..settings import Settings
from ..verdicts import FAIL, failed_images
from .checks import check_settings
from .crashes import details_of, write_crash
from .environment import prepare_environment
from .parser import PROG, Request
from .progress import Progress, complain, duration, say
from .reports import write_report
from .sessions import SessionJob

#: What the owner of a GPU may take of the main memory: CUDA's libraries, the model, one image.
#: An allowance, not a measurement.
OWNER_GB = 3.0


@dataclass
class Tally:
    """How many sessions ended how."""

    complete: int = 0
    done_before: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: int = 0
    not_finished: int = 0
    reports_failed: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Number of sessions that came to an end, good or bad."""
        complete = self.complete + self.done_before
        return complete + len(self.failed) + self.skipped + len(self.in_use)

    @property
    def only_skipped(self) -> bool:
        """Whether there was nothing to do in any session."""
        return bool(self.skipped) and self.skipped == self.ended + self.not_finished

    @property
    def exit_code(self) -> int:
        bad = self.failed or self.not_finished or self.reports_failed or self.in_use
        return EXIT_SUBJECT_FAILED if bad or self.only_skipped else EXIT_OK

    def verdict(self, settings: Settings, seconds: float) -> str:
        """Word the last line of the output."""
        total = self.ended + self.not_finished
        before = f' ({self.done_before} of them before)' if self.done_before else ''
        done = self.complete + self.done_before
        parts = [f'{done} of {total} session{"" if total == 1 else "s"} complete{before}']
        if self.failed:
            shown = ', '.join(self.failed[:5]) + (', …' if len(self.failed) > 5 else '')
            parts.append(f'{len(self.failed)} FAILED ({shown})')
        if self.skipped:
            parts.append(f'{self.skipped} skipped')
        if self.in_use:
            parts.append(f'{len(self.in_use)} left to another process')
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
    check_settings(settings, dry_run=request.dry_run)
    check_output_dir(settings.output_dir, __version__)
    plans, failures = make_plans(settings, dry_run=request.dry_run)
    if request.dry_run:
        from ..bids.plan_text import plan_table

        check_spaces(settings)
        say(plan_table(plans, failures))
        return EXIT_OK
    settings = settings.replace(run_id=new_run_id())
    settings = settings.replace(output_spaces=standard_spaces(settings))
    jobs = prepare(settings, plans)
    warn(plans)
    with ParticipantLocks(*lock_folders(settings)) as locks:
        run = Run(settings, locks=locks)
        try:
            for failure in failures:
                run.refuse(failure)
            run.process(jobs)
            run.report_refused()
        finally:  # interrupted or not, the last line says how far it came
            run.tally.not_finished = len(plans) + len(failures) - run.tally.ended
            if run.tally.only_skipped:
                complain(
                    f'{PROG}: error: {settings.bids_dir}: no session has an image in anat/ or '
                    'swi/. Check which dataset and participants were given.'
                )
            say(run.tally.verdict(settings, time.monotonic() - begun))
    return run.tally.exit_code


def warn(plans: list[SessionPlan]) -> None:
    """Tell of scans that are there and cannot be used, before hours pass without them."""
    for plan in plans:
        for warning in plan.warnings:
            complain(f'{PROG}: warning: {plan.label}: {warning}')


def standard_spaces(settings: Settings) -> tuple[str, ...]:
    """Return the standard spaces asked for, in full; what is needed of TemplateFlow is there.

    Raises
    ------
    UsageError
    """
    if not settings.output_spaces:
        return ()
    try:
        prepare_environment(settings.work_dir)
    except OSError as error:
        raise unwritable(error) from error
    from ..bids.spaces import parse_spaces
    from ..interfaces.standard import check_space

    spaces = parse_spaces(settings.output_spaces)
    for space in spaces:
        check_space(space)
    return tuple(space.words for space in spaces)


def check_spaces(settings: Settings) -> None:
    """Raise :class:`UsageError` where a standard space asked for is unknown; leave nothing behind.

    Whether TemplateFlow has what is needed of a space is not looked at: it might fetch it.
    """
    if not settings.output_spaces:
        return
    try:
        with tempfile.TemporaryDirectory(prefix='tumsyn-caches-') as folder:
            prepare_environment(Path(folder))
            from ..bids.spaces import parse_spaces

            parse_spaces(settings.output_spaces)
    except OSError as error:
        raise unwritable(error) from error


def lock_folders(settings: Settings) -> tuple[Path, Path]:
    """Return where the locks of participants lie: outputs and scratch files have one writer."""
    return settings.output_dir / 'logs' / 'locks', settings.work_dir / 'locks'


def new_run_id() -> str:
    """Return a name for a run that sorts by time and is never given twice."""
    return f'{datetime.now():%Y%m%d-%H%M%S}_{secrets.token_hex(3)}'


def make_plans(settings: Settings, *, dry_run: bool = False):
    """Return the plans of the sessions asked for, and the sessions that cannot be planned.

    In a dry run an index of the dataset is used if it is there, and not made.
    """
    from ..bids.layout import OUR_QUERIES, index_dataset, load_filters, unknown_queries
    from ..bids.planning import build_plans, requested_targets

    targets = requested_targets(settings.targets_file, settings.like)
    filters = load_filters(settings.bids_filter_file) if settings.bids_filter_file else None
    for name in unknown_queries(filters or ()):
        complain(
            f'{PROG}: warning: {settings.bids_filter_file}: {name}: the filter is used for '
            f'nothing. Name it after a contrast: {", ".join(OUR_QUERIES)}.'
        )
    layout = index_dataset(
        settings.bids_dir,
        database_dir=settings.bids_database_dir,
        participant_label=settings.participant_label or None,
        make_database=not dry_run,
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
        match_brightness=settings.match_brightness,
    )


def prepare(settings: Settings, plans: list[SessionPlan]) -> list[SessionJob]:
    """Check the model, write the root files of the output directory, and list the sessions.

    Raises
    ------
    UsageError, ModelError
        Nothing has been written then.
    """
    from ..bids.description import write_dataset_files
    from ..bids.naming import describe_labels
    from ..networks.model import load_model

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
        raise unwritable(error) from error
    return [SessionJob(plan, settings, model_sha256) for plan in plans]


@dataclass
class Run:
    """One call of the participant level.

    Attributes
    ----------
    settings : Settings
    tally : Tally
    locks : ParticipantLocks or None
        Without them, nobody else is expected to write.
    """

    settings: Settings
    tally: Tally = field(default_factory=Tally)
    locks: ParticipantLocks | None = None
    _refused: dict[str, None] = field(default_factory=dict)

    def process(self, jobs: list[SessionJob]) -> None:
        """Process what is not done yet."""
        jobs = [job for job in map(self._unless_done, jobs) if job]
        for job in jobs:
            self._refused.pop(job.plan.subject, None)  # its report follows its last session
        if not jobs:
            return
        gpus = find_gpus(self.settings.device)
        needed = max(session_gb(job.plan, self.settings.skull_strip) for job in jobs)
        workers, threads = share(self.settings, len(jobs), len(gpus), needed)
        jobs = [replace(job.with_threads(threads), gpus=gpus) for job in jobs]
        progress = Progress(len(jobs), workers)
        plural = 'session' if len(jobs) == 1 else 'sessions'
        progress.note(f'{PROG}: {len(jobs)} {plural} to process, logs in {self.settings.log_dir}')
        if self.settings.mem_gb < needed:
            progress.note(
                f'{PROG}: warning: a session may take {needed:.1f} GB of memory, and '
                f'{self.settings.mem_gb:.1f} GB are all that it may use (--mem)'
            )
        if self.settings.use_plugin:
            from .plugin import process_with_plugin as process
        else:
            from .pool import process_in_pool as process
        process(self, jobs, progress, workers)
        progress.close()

    def refuse(self, failure) -> None:
        """Put down a session that could not even be planned, or has nothing to do."""
        if not self._own(failure.subject, failure.label):
            return
        if failure.skipped:
            self.finish(_unplanned(failure, state='skipped', message=failure.error.problem))
            return
        self._refused[failure.subject] = None
        refused = [f'{refusal.path}: {refusal.reason}' for refusal in failure.refused]
        warnings = (*refused, *map(str, failure.findings))
        record = _unplanned(
            failure,
            state='failed',
            message='could not be planned',
            error=str(failure.error),
            warnings=warnings,
        )
        details = ''.join(f'{warning}\n' for warning in warnings) + failure.details
        crashes = self.crash(failure.label, 'plan', str(failure.error), details)
        shown = tuple(str(path.relative_to(self.settings.output_dir)) for path in crashes)
        self.finish(replace(record, crashes=shown))

    def report_refused(self) -> None:
        """Write the reports of subjects whose sessions were refused and of whom none was begun."""
        for subject in self._refused:
            try:
                write_report(self.settings, subject)
            except Exception as error:  # noqa: BLE001 - told to the user; other reports go on
                self.report_failed(f'sub-{subject}', error)

    def finish(self, record: SessionRecord, progress: Progress | None = None) -> None:
        """Put down how a session ended, and tell the user where it failed."""
        record = with_leftovers(self.settings.output_dir, record)
        try:
            write_record(self.settings.output_dir, record)
        except OSError as error:
            record = self._unrecorded(record, error)
        if progress is not None:
            progress.finished(record.label, record.state, record.seconds)
            for warning in record.warnings if self.settings.verbose else ():
                progress.note(f'{record.label}: warning: {warning}')
        if record.state == 'complete':
            self.tally.complete += 1
            for doubt in self._doubts(record):
                complain(f'{PROG}: warning: {record.label}: {doubt}')
            return
        if record.state == 'skipped':
            self.tally.skipped += 1
            complain(f'{PROG}: warning: {record.label}: skipped: {record.message}')
            return
        self.tally.failed.append(record.label)
        report = (
            f' (details: {self.settings.output_dir / record.crashes[0]})' if record.crashes else ''
        )
        complain(f'{PROG}: error: {record.label}: {record.error}{report}')

    def _doubts(self, record: SessionRecord) -> Iterator[str]:
        """Yield what is told on the terminal of a session that is complete."""
        if not self.settings.verbose:  # else they have been told with all other warnings
            yield from (f'{mended}; look at the report' for mended in record.mended)
            yield from (record.leftover_warning,) if record.leftover_warning else ()
        yield from (row['message'] for row in record.checks if row['result'] == FAIL)
        for row in failed_images(record.confidence):
            yield (
                f'the {row["image"]} is not to be trusted ({row["figures"]}); '
                f'do not use {row["file"]} before you know why'
            )

    def report_failed(self, label: str, error: BaseException) -> None:
        """Put down that the report of a subject could not be written."""
        self.tally.reports_failed.append(label)
        crashes = self.crash(label, 'report', str(error), details_of(error))
        reason = explain_storage(str(error), self.settings.output_dir)
        shown = f' (details: {crashes[0]})' if crashes else ''
        complain(f'{PROG}: error: {label}: the report was not written: {reason}{shown}')

    def crash(self, label: str, step: str, reason: str, details: str = '') -> tuple[Path, ...]:
        """Write a crash report; there is none where the disk does not take it."""
        try:
            return (write_crash(self.settings.log_dir, label, step, reason, details),)
        except OSError:
            return ()

    def _unrecorded(self, record: SessionRecord, error: OSError) -> SessionRecord:
        """Return how a session ended whose record the disk does not take: never complete."""
        reason = explain_storage(str(error), self.settings.output_dir)
        if record.state == 'failed':
            complain(f'{PROG}: error: {record.label}: its failure was not recorded: {reason}')
            return record
        return replace(record, state='failed', error=reason)

    def _unless_done(self, job: SessionJob) -> SessionJob | None:
        """Return the job with its fingerprint, or None where its outputs are there already."""
        plan = job.plan
        try:
            wanted = fingerprint(plan, job.model_sha256, __version__, decisive(self.settings))
        except OSError as error:
            self.refuse(unreadable(plan, error))
            return None
        session = (self.settings.output_dir, plan.subject, plan.session)
        if is_complete(*session, wanted):
            self.tally.done_before += 1
            return None
        if not self._own(plan.subject, plan.label):
            return None
        if is_complete(*session, wanted):  # another process was about to end
            self.tally.done_before += 1
            return None
        return replace(job, fingerprint=wanted)

    def _own(self, participant: str, label: str) -> bool:
        """Take the lock of a participant, or tell the user who has it."""
        if self.locks is None:
            return True
        try:
            self.locks.acquire(participant)
        except LockedError as error:
            self.tally.in_use.append(label)
            complain(f'{PROG}: error: {label}: {error}')
            return False
        except OSError as error:
            raise unwritable(error) from error
        sweep_output(self.settings.output_dir, participant)
        return True


def _unplanned(failure, **what) -> SessionRecord:
    """Return the record of a session without a plan."""
    return SessionRecord(
        participant=failure.subject,
        session=failure.session,
        started=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        seconds=0,
        version=__version__,
        **what,
    )


def decisive(settings: Settings) -> dict:
    """Return the settings that change a session's outputs and are not in its plan."""
    values = {'skull_strip': settings.skull_strip, 'random_seed': settings.random_seed}
    if settings.coreg != 'rigid':
        values['coreg'] = settings.coreg
    if settings.tissues:
        values['tissues'] = True
    if settings.output_spaces:
        values['output_spaces'] = list(settings.output_spaces)
    if settings.morphometry != 'none':
        values |= {
            'morphometry': settings.morphometry,
            'fs_subjects_dir': str(settings.fs_subjects_dir or ''),
            **({'fs_recon': True} if settings.fs_recon else {}),
        }
    return values


def share(
    settings: Settings, n_sessions: int, n_gpus: int = 0, needed: float = SESSION_GB
) -> tuple[int, int]:
    """Return how many sessions run side by side, and with how many threads each.

    Parameters
    ----------
    settings : Settings
    n_sessions : int
    n_gpus : int
        Each has an owner, which takes memory as well.
    needed : float
        Memory of one session, GB.
    """
    # A second session makes more of a processor than a second thread does.
    threads = settings.omp_nthreads or 1
    memory = settings.mem_gb - n_gpus * OWNER_GB
    room = min(settings.nprocs // threads, int(memory // needed), n_sessions)
    workers = max(room, 1)
    return workers, settings.omp_nthreads or max(settings.nprocs // workers, 1)


def find_gpus(device: str) -> tuple[str, ...]:
    """Return the GPUs that this run may use, each as ``CUDA_VISIBLE_DEVICES`` of its owner."""
    from ..resources import available_gpus
    from ..synthesis.synthesizer import count_devices

    return available_gpus(device, 0 if device == 'cpu' else count_devices())


def unreadable(plan: SessionPlan, error: OSError):
    """Return the failure of a session one of whose scans cannot be read."""
    from ..bids.planning import SessionFailure

    problem = ScanError(
        f'cannot be read ({error.strerror})', path=error.filename, remedy='Check its permissions'
    )
    return SessionFailure(plan.subject, plan.session, problem)
