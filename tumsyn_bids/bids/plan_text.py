"""The plan as text: what ``--dry-run`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

from ..acquisition import FIELDS
from ..plan import Finding, Refusal, Scan, SessionPlan, SynthesisTask
from .naming import session_paths
from .planning import SessionFailure

_WIDTH = 99
_INDENT = 14
_PURPOSES = {
    'missing': 'missing in this session',
    'requested': 'asked for',
    'validate': 'acquired; made to be compared with it',
}


def plan_table(plans: Iterable[SessionPlan], failures: Iterable[SessionFailure] = ()) -> str:
    """Return the plans as plain text of at most 99 columns.

    Parameters
    ----------
    plans : iterable of SessionPlan
    failures : iterable of SessionFailure

    Returns
    -------
    str
        For each session its scans and the reference; for each image to be made its file, its
        source and why, the prompt, and where each value came from; then what was refused or odd.
    """
    plans, failures = list(plans), list(failures)
    blocks = [_session(plan) for plan in plans] + [_failure(failure) for failure in failures]
    count = sum(len(plan.tasks) for plan in plans)
    verdict = f'{_plural(count, "image")} to make in {_plural(len(plans), "session")}'
    skipped = sum(failure.skipped for failure in failures)
    if skipped:
        verdict += f'; {_plural(skipped, "session")} skipped'
    if len(failures) > skipped:
        verdict += f'; {_plural(len(failures) - skipped, "session")} cannot be processed'
    return '\n\n'.join([*('\n'.join(block) for block in blocks), verdict + '.'])


def _session(plan: SessionPlan) -> list[str]:
    lines = [plan.label]
    lines += [line for scan in plan.scans for line in _line(scan.contrast, _scan(scan))]
    reference = plan.scan(plan.reference)
    lines += _line('reference', f'{Path(reference.path).name}: {plan.reference_reason}')
    if not plan.tasks:
        lines += _line('to make', 'nothing; all contrasts are there')
    else:
        for path, task in zip(session_paths(plan).synthetic, plan.tasks, strict=True):
            lines += _task(path, task)
    return lines + _refused(plan.refused) + _found(plan.findings)


def _scan(scan: Scan) -> str:
    acq = scan.acquisition
    known = [
        ' x '.join(f'{zoom:.3g}' for zoom in scan.zooms) + ' mm',
        None if acq.field_strength is None else f'{acq.field_strength:g} T',
        acq.manufacturer,
        _milliseconds('TR', acq.repetition_time),
        _milliseconds('TE', acq.echo_time),
        _milliseconds('TI', acq.inversion_time),
        None if acq.flip_angle is None else f'FA {acq.flip_angle:g}',
    ]
    return f'{Path(scan.path).name}: {", ".join(item for item in known if item)}'


def _milliseconds(name: str, seconds: float | None) -> str | None:
    return None if seconds is None else f'{name} {seconds * 1000:g} ms'


def _task(path: Path, task: SynthesisTask) -> list[str]:
    lines = _line('to make', f'{path.name} ({_PURPOSES[task.purpose]})')
    lines += _line('  from', f'{Path(task.source).name}: {task.reason}')
    lines += _line('  prompt', ' '.join(task.prompt.split()))
    if task.donors:
        names = ', '.join(Path(donor.path).name for donor in task.donors)
        lines += _line('  bright as', names)
    for where, fields in _by_origin(task).items():
        lines += _line('  values', f'{", ".join(fields)}: {where}')
    return lines


def _by_origin(task: SynthesisTask) -> dict[str, list[str]]:
    """Group the target's fields by where their values came from."""
    grouped: dict[str, list[str]] = {}
    for field in FIELDS:
        where = task.requested.provenance.get(field, 'unknown')
        grouped.setdefault(where, []).append(field.replace('_', ' '))
    return grouped


def _refused(refused: Iterable[Refusal]) -> list[str]:
    labels = {'info': 'not used', 'warning': 'warning'}
    lines = [
        _line(labels[item.severity], f'{Path(item.path).name}: {item.reason}') for item in refused
    ]
    return [line for group in lines for line in group]


def _found(findings: Iterable[Finding]) -> list[str]:
    lines = [_line(item.severity, str(item)) for item in findings]
    return [line for group in lines for line in group]


def _failure(failure: SessionFailure) -> list[str]:
    verdict = 'skipped' if failure.skipped else 'error'
    lines = [failure.label, *_line(verdict, str(failure.error))]
    return lines + _refused(failure.refused) + _found(failure.findings)


def _line(label: str, text: str) -> list[str]:
    """Wrap a text behind its label; long words (file names) are not broken."""
    first = f'  {label}'.ljust(_INDENT)
    width = _WIDTH - _INDENT
    parts = wrap(text, width, break_long_words=False, break_on_hyphens=False) or ['']
    return [first + parts[0], *(' ' * _INDENT + part for part in parts[1:])]


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
