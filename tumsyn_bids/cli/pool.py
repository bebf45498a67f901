"""Sessions in processes of our own: each complete before the next, none stops another."""

from __future__ import annotations

from collections import Counter, deque
from datetime import datetime, timezone

from ..errors import TumsynError, explain_storage
from .crashes import details_of
from .progress import Progress
from .reports import run_report
from .sessions import SessionJob, run_session, unfinished
from .workers import Ended, Job, Told, Workers


def process_in_pool(run, jobs: list[SessionJob], progress: Progress, workers: int) -> None:
    """Process sessions side by side; each subject's report follows its last session.

    Parameters
    ----------
    run : Run
    jobs : list of SessionJob
    progress : Progress
    workers : int
    """
    pool = _Pool(run, progress, jobs)
    with Workers(workers, jobs[0].settings.omp_nthreads, jobs[0].gpus) as processes:
        for event in processes.work(pool.queue):
            pool.hear(event)


class _Pool:
    """What is known about the sessions while they run."""

    def __init__(self, run, progress: Progress, jobs: list[SessionJob]):
        self.run, self.progress = run, progress
        self.queue = deque(Job(run_session, (job,), job.plan.label) for job in jobs)
        self._open = Counter(job.plan.subject for job in jobs)
        self._step: dict[str, str] = {}
        self._begun: dict[str, datetime] = {}

    def hear(self, event: Told | Ended) -> None:
        if isinstance(event, Told):
            self._begun.setdefault(event.job.label, datetime.now(timezone.utc))
            self._step[event.job.label] = event.text
            self.progress.step(event.job.label, event.text)
        elif event.job.run is run_session:
            self._session_ended(event)
        else:
            self._report_ended(event)

    def _session_ended(self, event: Ended) -> None:
        (job,) = event.job.args
        record = event.result if event.error is None else self._broken(job, event.error)
        self.run.finish(record, self.progress)
        self._open[job.plan.subject] -= 1
        stop = record.state == 'failed' and self.run.settings.stop_on_first_crash
        if stop:
            self.queue.clear()
        if stop or not self._open[job.plan.subject]:
            self.queue.append(self._report(job))

    def _report(self, job: SessionJob) -> Job:
        return Job(run_report, (job.settings, job.plan.subject), f'sub-{job.plan.subject}')

    def _report_ended(self, event: Ended) -> None:
        if event.error is not None:
            self.run.report_failed(event.job.label, event.error)
        if self.run.locks is not None:
            _settings, subject = event.job.args
            self.run.locks.release(subject)

    def _broken(self, job: SessionJob, error: BaseException):
        """Return the record of a session whose process died or whose workflow could not start."""
        label = job.plan.label
        step = self._step.get(label, 'start')
        reason = str(error) if isinstance(error, TumsynError) else f'while at "{step}": {error}'
        reason = explain_storage(reason, job.settings.output_dir)
        crashes = self.run.crash(label, 'process', reason, details_of(error))
        return unfinished(job, self._begun.get(label), reason, *crashes)
