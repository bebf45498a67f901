"""Age and sex from ``participants.tsv``, ``sessions.tsv`` and ``scans.tsv`` as they really are."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ScanError, UsageError
from ..plan import Finding
from ..values import TREATED_AS_MISSING, as_number, doubt, is_missing
from .sidecars import dataset_root, read_json_object

_PER_YEAR = {'y': 1.0, 'm': 12.0, 'w': 365.25 / 7, 'd': 365.25}
_UNIT_WORDS = {
    'y': ('y', 'yr', 'yrs', 'year', 'years'),
    'm': ('m', 'mo', 'mos', 'month', 'months'),
    'w': ('w', 'wk', 'wks', 'week', 'weeks'),
    'd': ('d', 'day', 'days'),
}
_UNIT_OF = {word: unit for unit, words in _UNIT_WORDS.items() for word in words}
_WIDEST_RANGE = 10.0

# Column names without case, blanks and punctuation.
_WHEN = r'(?:at|in|of)?(?:the)?(?:scan|mri|mr|imaging|scanning|session|visit)?'
_AGE = re.compile(
    rf'(?:scan|mri)?age{_WHEN}(?P<unit>in)?(?P<word>{"|".join(sorted(_UNIT_OF, key=len)[::-1])})?'
    r'(?:\d+yearbins?)?'
)
_AGE_OF_SESSION = re.compile(
    r'age(?:scan|mri)?(?P<session>(?:ses(?:sion)?|wave|visit|w|v|t)\d*\w*)'
)
_SEX = ('sex', 'gender', 'biologicalsex', 'participantsex')
_MALE = ('m', 'male', 'man', 'boy', 'males')
_FEMALE = ('f', 'female', 'woman', 'girl', 'females')
_SEX_WORD = r'(fe)?male'


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
        The JSON beside it: column to description.
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
        return age, sex, findings

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
    if not path.is_file():
        return None
    raw = path.read_bytes()
    try:
        text = raw.decode('utf-8-sig')
    except UnicodeDecodeError:
        text = raw.decode('cp1252', errors='replace')
    lines = [line for line in text.splitlines() if line.strip()]
    cells = [
        [cell.strip().strip('"').strip() for cell in line]
        for line in csv.reader(lines, delimiter='\t', quoting=csv.QUOTE_NONE)
    ]
    columns = tuple(cells[0]) if cells else ()
    rows = tuple(dict(zip(columns, row, strict=False)) for row in cells[1:])
    return Table(path.relative_to(root).as_posix(), columns, rows, _about(root, path, inherited))


def _about(root: Path, path: Path, inherited: str) -> dict:
    own = path.with_suffix('.json')
    for candidate in (own, root / inherited if inherited else own):
        if not candidate.is_file():
            continue
        try:
            content = read_json_object(candidate)
        except ScanError as error:
            raise UsageError(error.problem, path=error.path, remedy=error.remedy) from error
        return {key.strip(): value for key, value in content.items() if isinstance(value, dict)}
    return {}


def _key(column: str) -> str:
    return re.sub(r'[^a-z0-9]', '', column.lower())


def _age_column(table: Table, session: str | None) -> str | None:
    """Return the column with the age at this session's scan.

    ``age_ses-02`` or ``AgeMRI_W2`` go before a plain ``age`` when the session matches; ages at
    other events (``age_at_stroke``) are not taken.
    """
    keys = {column: _key(column) for column in table.columns}
    if session is not None:
        wanted = _session_key(session)
        for column, key in keys.items():
            match = _AGE_OF_SESSION.fullmatch(key)
            if match and _session_key(match['session']) == wanted:
                return column
    return next((column for column, key in keys.items() if _AGE.fullmatch(key)), None)


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
    column = _age_column(table, session)
    text = _cell(table, column, findings) if column else None
    if text is None:
        return None
    about = table.about.get(column, {})
    unit = _age_unit(column, about)
    number, used, note = _parse_age(_level(about, text) or text, unit)
    if number is None:
        findings.append(Finding(table.path, column, text, note, TREATED_AS_MISSING))
        return None
    age = round(number / _PER_YEAR[used], 2)
    problem = doubt('age', age)
    if problem:
        findings.append(Finding(table.path, column, text, problem, TREATED_AS_MISSING))
        return None
    if note:
        action = f'{age:g} years are used'
        findings.append(Finding(table.path, column, text, note, action, severity='info'))
    return age


def _age_unit(column: str, about: dict) -> str | None:
    """Return the unit of a column: its name's, the JSON's, the description's, or years."""
    match = _AGE.fullmatch(_key(column))
    if match and match['word']:
        return _UNIT_OF[match['word']]
    units = str(about.get('Units', '')).lower()
    if 'gestation' in units or 'postmenstrual' in units:
        return None
    words = re.findall(r'[a-z]+', units) or re.findall(
        r'\bin (\w+)', str(about.get('Description', '')).lower()
    )
    return next((_UNIT_OF[word] for word in words if word in _UNIT_OF), 'y')


def _parse_age(text: str, unit: str | None) -> tuple[float | None, str, str]:
    """Return number, unit and a remark; the number is None if the text is no age after birth."""
    if unit is None or 'gestation' in text.lower():
        return None, 'y', 'is an age before birth'
    text = text.lower().strip().rstrip(',;.')
    spread = re.fullmatch(r'(\d+(?:\.\d+)?)\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)\s*([a-z]*)', text)
    if spread:
        return _middle(spread, unit)
    match = re.fullmatch(r'([<>≥≤=]*)\s*(-?\d+(?:[.,]\d+)?)\s*(\+?)\s*([a-z]*)\.?(?: old)?', text)
    if not match or (match[4] and match[4] not in _UNIT_OF):
        return None, 'y', 'is not an age'
    number = as_number(match[2].replace(',', '.'))
    note = 'is a limit, not an age' if match[1].strip('=') or match[3] else ''
    return number, _UNIT_OF.get(match[4], unit), note


def _middle(spread: re.Match, unit: str) -> tuple[float | None, str, str]:
    low, high = float(spread[1]), float(spread[2])
    if spread[3] and spread[3] not in _UNIT_OF:
        return None, 'y', 'is not an age'
    unit = _UNIT_OF.get(spread[3], unit)
    if not 0 <= high - low <= _WIDEST_RANGE * _PER_YEAR[unit]:
        return None, 'y', 'is too wide a range to be an age'
    return (low + high) / 2, unit, 'is a range; its middle is taken'


def _level(about: dict, text: str) -> str | None:
    """Return what a code stands for, from the ``Levels`` of the column's JSON."""
    levels = about.get('Levels')
    if not isinstance(levels, dict) or text not in levels:
        return None
    level = levels[text]
    return str(level.get('Description', '')) if isinstance(level, dict) else str(level)


def _sex(table: Table, findings: list[Finding]) -> str | None:
    column = next((column for column in table.columns if _key(column) in _SEX), None)
    text = _cell(table, column, findings) if column else None
    if text is None:
        return None
    plain = re.sub(r'[^a-z0-9]', '', text.lower())
    if plain in _MALE:
        return 'M'
    if plain in _FEMALE:
        return 'F'
    about = table.about.get(column, {})
    sex = _sex_word(_level(about, text)) or _sex_code(plain, str(about.get('Description', '')))
    if sex is None:
        coded = plain.isdigit()
        problem = 'is a code that no JSON explains' if coded else 'is neither male nor female'
        severity = 'warning' if coded else 'info'
        findings.append(Finding(table.path, column, text, problem, TREATED_AS_MISSING, severity))
    return sex


def _sex_word(text: str | None) -> str | None:
    match = re.search(rf'\b{_SEX_WORD}\b', (text or '').lower())
    if not match:
        return None
    return 'F' if match[1] else 'M'


def _sex_code(code: str, description: str) -> str | None:
    """Read a code from prose such as ``1 = male, 2 = female`` or ``male: 1; female: 2``."""
    text = description.lower()
    link = r'\s*(?:=|:|-|–|is|for|means)\s*'
    match = re.search(rf'\b{re.escape(code)}{link}{_SEX_WORD}\b', text)
    match = match or re.search(rf'\b{_SEX_WORD}{link}{re.escape(code)}\b', text)
    return _sex_word(match[0]) if match else None
