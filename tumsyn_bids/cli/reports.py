"""The report of a subject."""

from __future__ import annotations

from collections.abc import Callable

from ..settings import Settings
from .sessions import speak_into


def run_report(settings: Settings, subject: str, tell: Callable[[str], None]) -> None:
    """Write the report in a process whose output goes into the log of the subject."""
    speak_into(settings.log_dir / f'sub-{subject}.log', f'report of sub-{subject}')
    tell('report')
    write_report(settings, subject)


def write_report(settings: Settings, subject: str) -> None:
    """Write ``sub-<subject>.html`` from the records of all sessions of a subject."""
    from ..bids.status import read_records
    from ..reports import html

    records, _unreadable = read_records(settings.output_dir, subject)
    html.write_report(settings.output_dir, subject, [record.to_dict() for record in records])
