"""What became of each session, and whether it has to be done again.

Each session has one record, ``logs/sessions/<label>.json``, replaced as a whole when the session
ends. ``logs/status.tsv`` is derived from all records, so processes that work on different
participants of one output directory need no lock: whoever writes last has read every record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from ..checksums import file_sha256
from ..files import sweep, write_text
from ..plan import SessionPlan
from ..verdicts import worst, worst_image
from .tables import to_tsv

STATES = ('complete', 'failed', 'skipped')

#: Fields of a record that hold several things.
_TUPLES = (
    'warnings',
    'mended',
    'scores',
    'confidence',
    'figures',
    'checks',
    'crashes',
    'leftovers',
)

COLUMNS = (
    'participant',
    'session',
    'state',
    'started',
    'seconds',
    'n_outputs',
    'n_warnings',
    'checks',
    'images',
    'version',
    'message',
    'error',
)


@dataclass(frozen=True)
class OutputFile:
    """A file that a session has written.

    Attributes
    ----------
    path : str
        Relative to the output directory.
    size : int
        Bytes.
    sha256 : str
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SessionRecord:
    """What became of a session; all that the report and the tables say about it.

    Attributes
    ----------
    participant : str
        Without ``sub-``.
    session : str or None
        Without ``ses-``.
    state : {'complete', 'failed', 'skipped'}
        ``skipped`` means that there was nothing to do: no anatomical image. A session found done
        by a later run keeps its ``complete`` record untouched.
    started : str
        ISO 8601, UTC.
    seconds : float
        Wall time.
    message : str
        One line for people.
    error : str
        Which file failed and why; its first line goes into the table.
    version : str
        Ours.
    fingerprint : str
        See :func:`fingerprint`.
    outputs : tuple of OutputFile
    warnings : tuple of str
    mended : tuple of str
        Those of the warnings that are about headers or voxels that had to be mended.
    steps : dict of str to float
        Seconds of each step.
    model : dict
        ``name``, ``version``, ``sha256``.
    scores : tuple of dict
        Agreement of synthetic with acquired images, one for each validated image.
    confidence : tuple of dict
        How far each synthetic image can be trusted.
    figures : tuple of dict
        ``kind``, ``title``, ``path`` (relative to the output directory), and optionally
        ``caption`` and ``reason`` (why it was not drawn).
    checks : tuple of dict
        Rows of the table of checks; see :mod:`~.checks`.
    crashes : tuple of str
        Crash reports, relative to the output directory.
    methods : str
        How the workflow describes its steps, for the methods section of the report.
    leftovers : tuple of str
        Files that earlier plans of the session have written and this one has not, relative to
        the output directory.
    plan : dict or None
        The plan as :meth:`tumsyn_bids.plan.SessionPlan.to_json` words it; ``None`` where no plan
        could be made.
    """

    participant: str
    session: str | None
    state: str
    started: str
    seconds: float
    message: str = ''
    error: str = ''
    version: str = ''
    fingerprint: str = ''
    outputs: tuple[OutputFile, ...] = ()
    warnings: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    steps: dict[str, float] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    scores: tuple[dict, ...] = ()
    confidence: tuple[dict, ...] = ()
    figures: tuple[dict, ...] = ()
    checks: tuple[dict, ...] = ()
    crashes: tuple[str, ...] = ()
    methods: str = ''
    leftovers: tuple[str, ...] = ()
    plan: dict | None = None

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-1``."""
        return session_label(self.participant, self.session)

    @property
    def leftover_warning(self) -> str:
        """What to say about :attr:`leftovers`; empty where that is nothing."""
        if not self.leftovers or self.state != 'complete':
            return ''
        names = [Path(path).name for path in self.leftovers]
        names = [name for name in names if not name.endswith('.json')] or names
        shown = ', '.join(names[:5]) + (f' and {len(names) - 5} more' if names[5:] else '')
        return (
            f'left by an earlier plan, not made by this one, and not taken into group tables: '
            f'{shown}; remove what is not needed'
        )

    def to_dict(self) -> dict:
        """Return a JSON-serialisable mapping, as it stands in the record's file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> SessionRecord:
        """Rebuild a record from :meth:`to_dict`; unknown keys are ignored.

        Raises
        ------
        KeyError, TypeError
            Where it is no record.
        """
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known['outputs'] = tuple(OutputFile(**item) for item in known.get('outputs', ()))
        for name in _TUPLES:
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


def session_label(participant: str, session: str | None) -> str:
    """Return ``sub-01`` or ``sub-01_ses-1``."""
    return f'sub-{participant}_ses-{session}' if session else f'sub-{participant}'


def record_path(output_dir: str | Path, participant: str, session: str | None) -> Path:
    """Return where the record of a session lies."""
    return Path(output_dir, 'logs', 'sessions', session_label(participant, session) + '.json')


def write_record(output_dir: str | Path, record: SessionRecord) -> Path:
    """Write the record of a session and bring ``logs/status.tsv`` up to date.

    Returns
    -------
    Path
        Of the record.

    Raises
    ------
    ValueError
        Where the state is none of :data:`STATES`.
    """
    if record.state not in STATES:
        raise ValueError(f'state {record.state!r} is none of {STATES}')
    path = record_path(output_dir, record.participant, record.session)
    write_text(path, json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + '\n')
    write_status_table(output_dir)
    return path


def read_record(
    output_dir: str | Path, participant: str, session: str | None
) -> SessionRecord | None:
    """Read the record of a session; ``None`` where there is none or it cannot be read."""
    try:
        return _load(record_path(output_dir, participant, session))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def with_leftovers(output_dir: str | Path, record: SessionRecord) -> SessionRecord:
    """Return a record that knows which files earlier plans of its session have left behind.

    Call it before the former record is replaced. Only a session that is complete warns of them:
    of one that failed it is not known what its outputs would be.
    """
    former = read_record(output_dir, record.participant, record.session)
    if former is None:
        return record
    made = {*former.leftovers, *(output.path for output in former.outputs)}
    made -= {output.path for output in record.outputs}
    left = tuple(sorted(path for path in made if Path(output_dir, path).is_file()))
    record = replace(record, leftovers=left)
    told = (record.leftover_warning,) if record.leftover_warning else ()
    return replace(record, warnings=(*record.warnings, *told))


def read_records(
    output_dir: str | Path, participant: str | None = None
) -> tuple[list[SessionRecord], dict[Path, str]]:
    """Read the records of all sessions, or of those of one participant.

    Returns
    -------
    records : list of SessionRecord
        Sorted by participant and session.
    problems : dict of Path to str
        Records that cannot be read, and why.
    """
    records, problems = [], {}
    for path in sorted(Path(output_dir, 'logs', 'sessions').glob('sub-*.json')):
        try:
            record = _load(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems[path] = f'no record of a session ({type(error).__name__}: {error})'
            continue
        if participant in (None, record.participant):
            records.append(record)
    return sorted(records, key=lambda item: (item.participant, item.session or '')), problems


def status_rows(records: Iterable[SessionRecord]) -> list[dict]:
    """Return one row of the status table for each record."""
    return [
        {
            **{name: getattr(record, name) for name in COLUMNS if hasattr(record, name)},
            'seconds': round(float(record.seconds), 1),
            'n_outputs': len(record.outputs),
            'n_warnings': len(record.warnings),
            'checks': worst((row['result'] for row in record.checks), default=''),
            'images': worst_image(record.confidence),
            'error': next(iter(record.error.strip().splitlines()), ''),
        }
        for record in records
    ]


def write_status_table(output_dir: str | Path) -> Path:
    """Derive ``logs/status.tsv`` from the records.

    A record that another process writes while we do is not lost: after the table is in place the
    records are looked at again, and the table is derived anew where they have changed.
    """
    path = Path(output_dir, 'logs', 'status.tsv')
    for _ in range(20):
        seen = _record_stamps(output_dir)
        records, _problems = read_records(output_dir)
        write_text(path, to_tsv(status_rows(records), COLUMNS))
        if _record_stamps(output_dir) == seen:
            break
    return path


def sweep_output(output_dir: str | Path, participant: str) -> list[Path]:
    """Remove what a killed process has left half written of a participant that is ours alone.

    Returns
    -------
    list of Path
        What was removed. Hidden files that belong to no single participant go after a day, since
        another process may be writing them now.
    """
    output_dir = Path(output_dir)
    name = f'sub-{participant}'
    sessions, locks = (output_dir / 'logs' / folder for folder in ('sessions', 'locks'))
    own = [*(output_dir / name).rglob('.*'), *output_dir.glob(f'.*-{name}.html')]
    own += [*sessions.glob(f'.*-{name}.json'), *sessions.glob(f'.*-{name}_ses-*.json')]
    shared = [*output_dir.glob('.*'), *(output_dir / 'logs').glob('.*'), *locks.glob('.*')]
    return sweep(own) + sweep(shared, older_than=86400)


def fingerprint(
    plan: SessionPlan, model_sha256: str, version: str, settings: Mapping[str, object]
) -> str:
    """Digest everything that decides the outputs of a session.

    The content of the images counts, not their dates or where the dataset is mounted. Sidecars
    and participant tables count through the acquisitions that the plan has read from them, so
    that inherited fields count and unrelated fields do not.

    Parameters
    ----------
    plan : SessionPlan
    model_sha256 : str
    version : str
        Ours.
    settings : mapping
        The settings that change outputs; JSON-serialisable values.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        Where a scan of the plan cannot be read.
    """
    donors = [donor for task in plan.tasks for donor in task.donors]
    used = {scan.path for scan in plan.scans}
    used |= {path for donor in donors for path in (donor.path, donor.reference)}
    contents = {path: f'sha256:{file_sha256(path)}' for path in used}
    decisive = {
        'plan': _without_paths(json.loads(plan.to_json()), contents),
        'model': model_sha256,
        'version': version,
        'settings': dict(settings),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def is_complete(
    output_dir: str | Path, participant: str, session: str | None, wanted: str
) -> bool:
    """Tell whether a session is done: same fingerprint, and every output as it was written.

    Parameters
    ----------
    output_dir : path-like
    participant, session : str
    wanted : str
        The :func:`fingerprint` of what would be done now.
    """
    record = read_record(output_dir, participant, session)
    if record is None or record.state != 'complete' or record.fingerprint != wanted:
        return False
    return all(_is_intact(Path(output_dir), item) for item in record.outputs)


def describe_outputs(
    output_dir: str | Path, paths: Iterable[str | Path]
) -> tuple[OutputFile, ...]:
    """Measure files of the output directory for a record.

    Parameters
    ----------
    output_dir : path-like
    paths : iterable of path-like
        Absolute, or relative to the output directory.
    """
    output_dir = Path(output_dir).absolute()
    found = []
    for path in sorted({output_dir / path for path in paths}):
        relative = path.relative_to(output_dir).as_posix()
        found.append(OutputFile(relative, path.stat().st_size, file_sha256(path)))
    return tuple(found)


def _load(path: Path) -> SessionRecord:
    return SessionRecord.from_dict(json.loads(path.read_text(encoding='utf-8')))


def _record_stamps(output_dir: str | Path) -> Sequence[tuple]:
    stamps = []
    for path in sorted(Path(output_dir, 'logs', 'sessions').glob('sub-*.json')):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        stamps.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return stamps


def _is_intact(output_dir: Path, item: OutputFile) -> bool:
    path = output_dir / item.path
    if not path.is_file() or path.stat().st_size != item.size:
        return False
    return file_sha256(path) == item.sha256


def _without_paths(value: object, contents: Mapping[str, str]) -> object:
    """Replace paths of scans by their content, and other absolute paths by their last part."""
    if isinstance(value, dict):
        return {key: _without_paths(item, contents) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, contents) for item in value]
    if not isinstance(value, str):
        return value
    return contents.get(value, Path(value).name if value.startswith('/') else value)
