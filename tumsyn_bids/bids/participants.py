"""Age and sex from ``participants.tsv``, ``sessions.tsv`` and ``scans.tsv`` as they really are."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ScanError, UsageError
from ..plan import Finding
from ..values import TREATED_AS_MISSING, doubt, is_missing
from .demographics import PER_YEAR, UNIT_OF, age_unit, level, parse_age, sex_of
from .sidecars import dataset_root, read_json_object

# Column names without case, blanks and punctuation.
_WHEN = r'(?:at|in|of)?(?:the)?(?:scan|mri|mr|imaging|scanning|acquisition|session|visit)?'
_WHOSE = r'(?:scan|mri|participant|patient|subject)?'
_AGE = re.compile(
    rf'{_WHOSE}age{_WHEN}(?P<unit>in)?(?P<word>{"|".join(sorted(UNIT_OF, key=len)[::-1])})?'
    r'(?:\d+yearbins?)?'
)
_AGE_OF_SESSION = re.compile(
    r'age(?:scan|mri)?(?P<session>(?:ses(?:sion)?|wave|visit|w|v|t)\d*\w*)'
)
_SEX = re.compile(
    r'(?:biological|birth|participant|patient|subject)?(?:sex|gender)'
    r'(?:(?:assigned)?atbirth|mf|fm)?'
)


@dataclass(frozen=True)
class Table:
    """A TSV file with its JSON.

    Attributes
    ----------
    path : str
        Relative to the dataset.
    columns : tuple of str
    rows : tuple of dict
    about : dict
        The JSON beside it: column, as :func:`_key` has it, to description with lower-case keys.
    """

    path: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    about: dict

    def where(self, column: str, label: str) -> tuple[dict[str, str], ...]:
        """Return the rows whose ``column`` holds a label, with or without its ``sub-``."""
        wanted = _bare(label)
        return tuple(row for row in self.rows if _bare(row.get(column, '')) == wanted)


class People:
    """The people of one dataset; every table is read once.

    Parameters
    ----------
    root : path-like
        Root of the dataset.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._participants: Table | None = None
        self._rows: dict[str, list[dict[str, str]]] = {}
        self._loaded = False

    def person(
        self, subject: str, session: str | None
    ) -> tuple[float | None, str | None, list[Finding]]:
        """Return the age in years, the sex and what was odd about them.

        The age is looked for in the session's ``scans.tsv``, then the subject's
        ``sessions.tsv``, then ``participants.tsv``; the sex the other way round.
        """
        findings: list[Finding] = []
        tables = self._tables(subject, session)
        if self._participants and 'participant_id' not in self._participants.columns:
            problem = 'has no column of this name; is the file tab-separated?'
            found = ', '.join(self._participants.columns)[:80]
            path = self._participants.path
            findings.append(Finding(path, 'participant_id', found, problem, 'file left unread'))
        age = _first(_age(table, session, findings) for table in tables)
        sex = _first(_sex(table, findings) for table in reversed(tables))
        if age is None and sex is None and not findings and self._lacks(subject):
            problem, action = 'has no line of this participant', 'age and sex left unknown'
            path = self._participants.path
            findings.append(Finding(path, 'participant_id', f'sub-{subject}', problem, action))
        return age, sex, findings

    def _lacks(self, subject: str) -> bool:
        return self._participants is not None and subject not in self._rows

    def _tables(self, subject: str, session: str | None) -> list[Table]:
        """Return the tables about a session, each cut to the rows that concern it."""
        folder = self.root / f'sub-{subject}'
        tables = []
        if session is not None:
            stem = f'sub-{subject}_ses-{session}'
            scans = _read(self.root, folder / f'ses-{session}' / f'{stem}_scans.tsv', 'scans.json')
            tables.append(_of_scans(scans, stem))
        else:
            scans = _read(self.root, folder / f'sub-{subject}_scans.tsv', 'scans.json')
            tables.append(_of_scans(scans, f'sub-{subject}'))
        sessions = _read(self.root, folder / f'sub-{subject}_sessions.tsv', 'sessions.json')
        if sessions is not None and session is not None:
            tables.append(_only(sessions, sessions.where('session_id', session)))
        tables.append(self._participant(subject, session))
        return [table for table in tables if table is not None]

    def _participant(self, subject: str, session: str | None) -> Table | None:
        if not self._loaded:
            self._loaded = True
            self._participants = _read(self.root, self.root / 'participants.tsv', '')
            for row in self._participants.rows if self._participants else ():
                self._rows.setdefault(_bare(row.get('participant_id', '')), []).append(row)
        if self._participants is None:
            return None
        table = _only(self._participants, tuple(self._rows.get(subject, ())))
        if session is not None and 'session_id' in table.columns:
            # Without a row for this session, those of the others serve if they agree.
            return _only(table, table.where('session_id', session) or table.rows)
        return table


def read_person(layout, subject: str, session: str | None):
    """Return age in years, sex (``'M'``, ``'F'``) and findings of one session.

    Parameters
    ----------
    layout : BIDSLayout or path-like
        The dataset.
    subject, session : str or None
        Labels without ``sub-`` and ``ses-``.

    Returns
    -------
    age : float or None
    sex : str or None
    findings : list of Finding
    """
    return People(dataset_root(layout)).person(subject, session)


def _first(values):
    return next((value for value in values if value is not None), None)


def _bare(label: str) -> str:
    label = label.strip()
    return label.split('-', 1)[1] if label.startswith(('sub-', 'ses-')) else label


def _only(table: Table, rows) -> Table:
    return Table(table.path, table.columns, tuple(rows), table.about)


def _of_scans(table: Table | None, stem: str) -> Table | None:
    """Keep the rows of ``scans.tsv`` that are about this session's files."""
    if table is None:
        return None
    files = [(Path(row.get('filename', '').strip()).name, row) for row in table.rows]
    return _only(table, [row for name, row in files if name.startswith(f'{stem}_')])


def _read(root: Path, path: Path, inherited: str) -> Table | None:
    """Read a TSV file: byte-order mark, CRLF, stray blanks and quotes are forgiven."""
    if not path.is_file() and not path.is_symlink():
        return None
    # Not splitlines, which takes characters inside of cells for line ends too.
    lines = [line for line in re.split(r'[\r\n]+', _decoded(_raw(root, path))) if line.strip()]
    cells = [[cell.strip().strip('"').strip() for cell in line.split('\t')] for line in lines]
    columns = tuple(cells[0]) if cells else ()
    rows = tuple(dict(zip(columns, row, strict=False)) for row in cells[1:])
    return Table(path.relative_to(root).as_posix(), columns, rows, _about(root, path, inherited))


def _raw(root: Path, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        absent = path.is_symlink() and not path.exists()
        # One at the root concerns everybody, others one participant.
        raise (UsageError if path.parent == root else ScanError)(
            'the table is a link whose target is absent'
            if absent
            else f'the table cannot be read ({error.strerror})',
            path=path,
            remedy=f"Fetch its content with datalad get '{path}'"
            if absent
            else 'Check its permissions and the disk',
        ) from error


def _decoded(raw: bytes) -> str:
    """Decode UTF-8, or what spreadsheets write: UTF-16, or the code page of Windows."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode('utf-16', errors='replace')
    try:
        text = raw.decode('utf-8-sig')
    except UnicodeDecodeError:
        text = raw.decode('cp1252', errors='replace')
    return text.replace('\0', '')


def _about(root: Path, path: Path, inherited: str) -> dict:
    own = path.with_suffix('.json')
    for candidate in (own, root / inherited if inherited else own):
        if not candidate.is_file() and not candidate.is_symlink():
            continue
        try:
            content = read_json_object(candidate)
        except ScanError as error:
            if candidate.parent != root:  # it concerns one participant, not the dataset
                raise
            raise UsageError(error.problem, path=error.path, remedy=error.remedy) from error
        return {
            _key(column): {name.lower(): value for name, value in description.items()}
            for column, description in content.items()
            if isinstance(description, dict)
        }
    return {}


def _key(column: str) -> str:
    return re.sub(r'[^a-z0-9]', '', column.lower())


def _age_columns(table: Table, session: str | None) -> list[str]:
    """Return the columns with the age at this session's scan; the first that is filled counts.

    ``age_ses-02`` or ``AgeMRI_W2`` go before a plain ``age`` when the session matches; ages at
    other events (``age_at_stroke``) are not taken.
    """
    keys = {column: _key(column) for column in table.columns}
    if session is not None:
        wanted = _session_key(session)
        for column, key in keys.items():
            match = _AGE_OF_SESSION.fullmatch(key)
            if match and _session_key(match['session']) == wanted:
                return [column]
    return [column for column, key in keys.items() if _AGE.fullmatch(key)]


def _session_key(label: str) -> str:
    """Make ``02``, ``ses-02`` and ``ses02`` alike, and ``wave3`` and ``W3``."""
    text = re.sub(r'[^a-z0-9]', '', label.lower())
    text = re.sub(r'^(?:session|ses)', '', text)
    text = re.sub(r'^wave', 'w', text)
    text = re.sub(r'^visit', 'v', text)
    return re.sub(r'0+(?=\d)', '', text) if re.fullmatch(r'[a-z]?\d+', text) else text


def _cell(table: Table, column: str, findings: list[Finding]) -> str | None:
    """Return the one value of a column, or ``None`` if the rows are silent or disagree."""
    values = {row.get(column, '').strip() for row in table.rows}
    values = {value for value in values if not is_missing(value)}
    if len(values) > 1:
        text = ', '.join(sorted(values))
        findings.append(
            Finding(table.path, column, text[:80], 'several rows disagree', TREATED_AS_MISSING)
        )
    return values.pop() if len(values) == 1 else None


def _age(table: Table, session: str | None, findings: list[Finding]) -> float | None:
    columns = _age_columns(table, session)
    return _first(_age_in(table, column, findings) for column in columns)


def _age_in(table: Table, column: str, findings: list[Finding]) -> float | None:
    text = _cell(table, column, findings)
    if text is None:
        return None
    about = table.about.get(_key(column), {})
    match = _AGE.fullmatch(_key(column))
    unit, problem = age_unit(match and match['word'], about)
    number, used, note = parse_age(level(about, text) or text, unit or 'y')
    problem = problem or (note if number is None else None)
    age = None if problem else round(number / PER_YEAR[used], 2)
    problem = problem or doubt('age', age)
    if problem:
        findings.append(Finding(table.path, column, text, problem, TREATED_AS_MISSING))
        return None
    if note:
        action = f'{age:g} years are used'
        findings.append(Finding(table.path, column, text, note, action, severity='info'))
    return age


def _sex(table: Table, findings: list[Finding]) -> str | None:
    columns = [column for column in table.columns if _SEX.fullmatch(_key(column))]
    return _first(_sex_in(table, column, findings) for column in columns)


def _sex_in(table: Table, column: str, findings: list[Finding]) -> str | None:
    text = _cell(table, column, findings)
    if text is None:
        return None
    sex = sex_of(text, table.about.get(_key(column), {}))
    if sex is None:
        coded = text.removesuffix('.0').isdigit()
        problem = 'is a code that no JSON explains' if coded else 'is neither male nor female'
        severity = 'warning' if coded else 'info'
        findings.append(Finding(table.path, column, text, problem, TREATED_AS_MISSING, severity))
    return sex
