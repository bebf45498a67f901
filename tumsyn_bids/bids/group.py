"""Merge what participants produced into tables over the whole dataset."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..files import write_text
from .group_agreement import SUMMARY_COLUMNS, agreement_panels, summarize_agreement
from .group_morphometry import MORPHOMETRY_TABLES, morphometry_tables, numeric
from .status import COLUMNS, read_records, status_rows
from .tables import read_tsv, to_tsv

#: Tables of sessions that are put under one another: name of the group table to the pattern of
#: the session tables. A table that a later step writes needs one line here.
SESSION_TABLES: dict[str, str] = {
    'validation': 'sub-*/**/*_desc-validation_scores.tsv',
    'agreement_sessions': 'sub-*/**/*_desc-validation_morph.tsv',
    'synthqc': 'sub-*/**/*_desc-synth_qc.tsv',
    'checks': 'sub-*/**/*_desc-anatomy_qc.tsv',
}
_MEASURES = 'sub-*/**/*_seg-aparcaseg_morph.tsv'

SYNTHESIS_COLUMNS = (
    'participant',
    'session',
    'contrast',
    'target',
    'purpose',
    'source',
    'model',
    'model_version',
    'model_sha256',
    'prompt',
    'path',
)

_UNLISTED = (
    'no complete session has it among its outputs: it was left by an earlier plan, or its session '
    'has failed since'
)

_log = logging.getLogger(__name__)


@dataclass
class _Merge:
    """A merge in progress: what could not be read is kept and told at the end.

    ``listed`` holds the outputs of complete sessions, relative to the output directory.
    """

    output_dir: Path
    listed: frozenset[str] = frozenset()
    written: list[Path] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, rows: list[dict], columns: tuple[str, ...]) -> None:
        path = self.output_dir / f'group_{name}.tsv'
        self.written.append(write_text(path, to_tsv(rows, columns)))

    def find(self, pattern: str) -> list[Path]:
        """Return the outputs of complete sessions that fit a pattern; others are told."""
        found = []
        for path in sorted(self.output_dir.glob(pattern)):
            if path.relative_to(self.output_dir).as_posix() in self.listed:
                found.append(path)
            else:
                self.report(path, _UNLISTED)
        return found

    def drop(self, name: str) -> None:
        """Remove a table of an earlier merge of which nothing is left."""
        (self.output_dir / f'group_{name}.tsv').unlink(missing_ok=True)

    def report(self, path: Path, problem: object) -> None:
        name = path.relative_to(self.output_dir).as_posix()
        self.problems[name] = str(problem)
        _log.warning('%s was left out of the group tables: %s', path, problem)


def merge_group(output_dir: str | Path) -> list[Path]:
    """Merge the tables of all sessions of an output directory.

    Writes ``group_status.tsv`` (one row a session), ``group_synthesis.tsv`` (one row a synthetic
    image), one table for each of :data:`SESSION_TABLES` of which a session table exists, the
    tables of :mod:`~tumsyn_bids.bids.group_morphometry` where sessions were measured, and, where
    files were left out, ``group_problems.tsv`` (file and problem): files that are damaged or
    incomplete, and those that no complete session has among its outputs. They never stop the
    merge.

    Parameters
    ----------
    output_dir : path-like

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    UsageError
        Where the folder holds no results of participants.
    """
    records, broken = read_records(output_dir)
    complete = [record for record in records if record.state == 'complete']
    listed = frozenset(output.path for record in complete for output in record.outputs)
    merge = _Merge(Path(output_dir), listed)
    if not records and not broken:
        raise UsageError(
            'no results of participants were found',
            path=output_dir,
            remedy='Run the participant level first',
        )
    for path, problem in broken.items():
        merge.report(path, problem)
    merge.write('status', status_rows(records), COLUMNS)
    merge.write('synthesis', _synthesis_rows(merge), SYNTHESIS_COLUMNS)
    for name, pattern in SESSION_TABLES.items():
        _merge_tables(merge, name, pattern)
    measured = morphometry_tables(_session_rows(merge, merge.find(_MEASURES), numeric))
    for name in MORPHOMETRY_TABLES:
        if name in measured:
            merge.write(name, *measured[name])
        else:
            merge.drop(name)
    _write_problems(merge)
    return merge.written


def _synthesis_rows(merge: _Merge) -> list[dict]:
    rows = []
    for path in merge.find('sub-*/**/*_desc-synth*.json'):
        if path.with_suffix('.tsv').is_file():
            continue  # it describes a table
        try:
            sidecar = json.loads(path.read_text(encoding='utf-8'))
            row = _synthesis_row(path.relative_to(merge.output_dir), sidecar)
        except (OSError, ValueError, KeyError, TypeError) as error:
            merge.report(
                path, f'no sidecar of a synthetic image ({type(error).__name__}: {error})'
            )
            continue
        if not (merge.output_dir / row['path']).is_file():
            merge.report(path, 'the image that it describes is missing')
            continue
        rows.append(row)
    return rows


def _synthesis_row(path: Path, sidecar: Mapping) -> dict:
    model, requested = sidecar['SynthesisModel'], sidecar['RequestedParameters']
    return {
        **_person(path),
        'contrast': requested['Contrast'],
        'target': sidecar.get('TargetName'),
        'purpose': sidecar['Purpose'],
        'source': sidecar['Sources'][0],
        'model': model['Name'],
        'model_version': model['Version'],
        'model_sha256': model['SHA256'],
        'prompt': model['Prompt'],
        'path': path.with_suffix('.nii.gz').as_posix(),
    }


def _merge_tables(merge: _Merge, name: str, pattern: str) -> None:
    paths = merge.find(pattern)
    if paths:
        merge.write(name, _session_rows(merge, paths), ('participant', 'session'))
    else:
        merge.drop(name)


def _session_rows(
    merge: _Merge, paths: list[Path], convert: Callable[[Mapping], dict] = dict
) -> list[dict]:
    """Return the rows of some tables of sessions, each with its participant and session.

    A table that cannot be read, or that ``convert`` cannot take in, is left out whole and told.
    """
    rows = []
    for path in paths:
        try:
            person = _person(path.relative_to(merge.output_dir))
            rows += [{**person, **convert(line)} for line in read_tsv(path)]
        except KeyError as error:
            merge.report(path, f'there is no column {error}')
        except (OSError, ValueError) as error:
            merge.report(path, error)
    return rows


def _write_problems(merge: _Merge) -> None:
    if merge.problems:
        rows = [{'path': name, 'problem': text} for name, text in merge.problems.items()]
        merge.write('problems', rows, ('path', 'problem'))
    else:
        merge.drop('problems')


def _person(path: Path) -> dict:
    """Read participant and session off the folders of a file."""
    labels = dict(part.split('-', 1) for part in path.parts[:2] if part[:4] in ('sub-', 'ses-'))
    return {'participant': labels['sub'], 'session': labels.get('ses')}


AGREEMENT_FIGURE = 'group_agreement.svg'


def write_agreement(output_dir: str | Path, compare, draw) -> list[Path]:
    """Write ``group_agreement.tsv`` and its figure, from the merged table of all sessions.

    Without that table, files of an earlier merge are removed.

    Parameters
    ----------
    output_dir : path-like
        Where :func:`merge_group` wrote.
    compare, draw : callable
        As for :func:`~tumsyn_bids.bids.group_agreement.summarize_agreement`; and what writes the
        figure, given panels (title to values on acquired and on synthetic images) and a path.
    """
    merge = _Merge(Path(output_dir))
    figure = merge.output_dir / AGREEMENT_FIGURE
    table = merge.output_dir / 'group_agreement_sessions.tsv'
    rows = read_tsv(table) if table.is_file() else []
    if not rows:
        merge.drop('agreement')
        figure.unlink(missing_ok=True)
        return []
    merge.write('agreement', summarize_agreement(rows, compare), SUMMARY_COLUMNS)
    panels = agreement_panels(rows)
    return [*merge.written, *([draw(panels, figure)] if panels else [])]
