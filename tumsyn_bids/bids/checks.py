"""The table of checks of a session: what was measured of masks and alignments, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..files import write_text
from ..plan import SessionPlan
from ..verdicts import FAIL, PASS, WARN
from .derivatives import raw_uri, write_sidecar
from .naming import derivative_path
from .tables import to_tsv

COLUMNS = ('step', 'scan', 'contrast', 'measure', 'value', 'result', 'message')


def checks_path(plan: SessionPlan) -> Path:
    """Return where the table of checks goes, relative to the output directory."""
    person = {'subject': plan.subject, 'session': plan.session}
    return derivative_path({**person, 'desc': 'anatomy'}, 'qc', extension='.tsv')


def check_table(
    checks: Iterable[Mapping], plan: SessionPlan, *, bids_dir: str | Path
) -> list[dict]:
    """Return the rows of the table.

    Parameters
    ----------
    checks : iterable of mapping
        ``step``, ``scan`` (path), ``measure``, ``value``, ``result`` and ``message``.
    plan : SessionPlan
    bids_dir : path-like
    """
    rows = []
    for check in checks:
        scan = plan.scan(check['scan'])
        place = {'scan': raw_uri(scan.path, bids_dir), 'contrast': scan.contrast}
        rows.append({name: {**check, **place}[name] for name in COLUMNS})
    return rows


def save_checks(
    rows: Sequence[Mapping],
    meanings: Mapping[str, str],
    plan: SessionPlan,
    *,
    output_dir: str | Path,
) -> Path:
    """Write the table of checks and the JSON that explains its columns.

    Parameters
    ----------
    rows : sequence of mapping
        See :func:`check_table`.
    meanings : mapping of str to str
        What each measure is.
    plan : SessionPlan
    output_dir : path-like
    """
    path = Path(output_dir) / checks_path(plan)
    sidecar = {
        'Description': 'Checks of brain mask and co-registrations',
        'step': {'Description': 'What was checked'},
        'scan': {'Description': 'Acquired file that it was checked on'},
        'contrast': {'Description': 'Contrast of that file'},
        'measure': {'Description': 'What was measured', 'Levels': dict(meanings)},
        'value': {
            'Description': 'The value, in the unit that the measure names; limits are in the '
            'documentation'
        },
        'result': {
            'Description': 'Verdict',
            'Levels': {PASS: 'as expected', WARN: 'doubtful', FAIL: 'not to be trusted'},
        },
        'message': {'Description': 'What is wrong and what to look at'},
    }
    write_sidecar(path, sidecar)
    return write_text(path, to_tsv(rows, COLUMNS))
