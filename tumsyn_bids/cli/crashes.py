"""Crash reports whose first line says which file failed and why."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

# The exception that ends a traceback; Nipype indents the traceback it quotes.
_OURS = re.compile(r'^\s*tumsyn_bids\.errors\.\w+: (?P<text>.+)$', re.MULTILINE)
_ANY = re.compile(r'^\s*(?P<text>[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)$', re.MULTILINE)
_NODE = re.compile(r'^Node: (?P<text>\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Crash:
    """A step that failed.

    Attributes
    ----------
    path : Path
        The report.
    node : str
        Full name of the step in its graph.
    reason : str
        One line: which file, and why.
    """

    path: Path
    node: str
    reason: str


def collect_crashes(folder: Path, destination: Path, label: str) -> list[Crash]:
    """Move the reports that Nipype left, and put the reason on their first line.

    Parameters
    ----------
    folder : Path
        Where Nipype wrote; left without reports.
    destination : Path
        Where the reports go, as ``crash-<label>-<step>.txt``.
    label : str
        Name of the session.
    """
    return [_settle(path, destination, label) for path in sorted(folder.glob('*.txt'))]


def write_crash(folder: Path, label: str, step: str, reason: str, details: str = '') -> Path:
    """Write a report; its first line says in which session and step, on which file, and why."""
    path = _free(folder / f'crash-{label}-{step}.txt')
    path.write_text(f'{label}: {step}: {" ".join(reason.split())}\n\n{details}')
    return path


def details_of(error: BaseException) -> str:
    """Return the traceback of an error as text."""
    return ''.join(traceback.format_exception(error))


def _settle(path: Path, destination: Path, label: str) -> Crash:
    text = path.read_text(errors='replace')
    node = _last(_NODE, text) or 'unknown'
    reason = _last(_OURS, text) or _last(_ANY, text) or 'no reason recorded'
    step = node.rsplit('.', 1)[-1]
    new = write_crash(destination, label, step, reason, text)
    path.unlink()
    return Crash(new, node, reason)


def _last(pattern: re.Pattern, text: str) -> str | None:
    found = [match['text'].strip() for match in pattern.finditer(text)]
    return found[-1] if found else None


def _free(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f'{path.stem}-{number}.txt')
    return candidate
