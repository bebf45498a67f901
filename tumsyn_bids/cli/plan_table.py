"""The plan of a run as text, for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..bids.naming import session_paths
from ..bids.planning import SessionFailure
from ..plan import SessionPlan, SynthesisTask


def format_plans(
    plans: Iterable[SessionPlan], failures: Iterable[SessionFailure], bids_dir: Path
) -> str:
    """Word what would be done: input, prompt, output and why, session by session."""
    plans, failures = list(plans), list(failures)
    lines: list[str] = []
    for plan in plans:
        lines += [*_session(plan, bids_dir), '']
    for failure in failures:
        lines += [failure.label, f'  CANNOT BE PROCESSED  {failure.error}', '']
    images = sum(len(plan.tasks) for plan in plans)
    lines.append(
        f'{len(plans)} sessions to process, {images} images to synthesize, '
        f'{len(failures)} sessions that cannot be processed'
    )
    return '\n'.join(lines)


def _session(plan: SessionPlan, bids_dir: Path) -> Iterator[str]:
    yield plan.label
    for scan in plan.scans:
        note = f'  (reference: {plan.reference_reason})' if scan.path == plan.reference else ''
        zooms = ' x '.join(f'{zoom:.2g}' for zoom in scan.zooms)
        yield f'  scan     {scan.contrast:<8} {_relative(scan.path, bids_dir)}  {zooms} mm{note}'
    for task, output in zip(plan.tasks, session_paths(plan).synthetic, strict=True):
        yield from _task(plan, task, output)
    if not plan.tasks:
        yield '  nothing to synthesize: all that was asked for was acquired'
    for refusal in plan.refused:
        yield f'  refused  {_relative(refusal.path, bids_dir)}: {refusal.reason}'
    for finding in plan.findings:
        yield (
            f'  note     {finding.path}: {finding.field}: {finding.problem} '
            f'(found {finding.value}; {finding.action})'
        )


def _task(plan: SessionPlan, task: SynthesisTask, output: Path) -> Iterator[str]:
    source = plan.scan(task.source).contrast
    yield f'  make     {task.target.contrast:<8} {output}  ({task.purpose})'
    yield f'    from   {source}: {task.reason}'
    yield f'    prompt {task.prompt}'
    origins: dict[str, list[str]] = {}
    for name, origin in task.target.provenance.items():
        origins.setdefault(origin, []).append(name)
    for origin, names in origins.items():
        yield f'    {", ".join(names)}: {origin}'


def _relative(path: str, bids_dir: Path) -> str:
    try:
        return str(Path(path).relative_to(bids_dir))
    except ValueError:
        return path
