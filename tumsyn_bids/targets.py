"""Targets: which acquisitions are asked for, and where each of their values came from.

A target that leaves its protocol open takes it from one place as a whole, the data set's modal
protocol of that contrast or else a default protocol: times of two protocols are never mixed, save
where the user states some of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .acquisition import BIDS_KEYS, CONTRASTS, Acquisition
from .errors import UsageError
from .plan import Target
from .protocols import DEFAULT_FIELD_STRENGTH, DEFAULT_VOXEL_SIZE, protocol_for
from .values import (
    LONGEST_ECHO_SPACING,
    PLAUSIBLE,
    as_number,
    canonical_manufacturer,
    doubt,
    wrong_unit,
)

LIKE_NAME = 'Like'
#: Files of images made for validation begin so; no target of the user may.
_RESERVED = 'val'

PROTOCOL_FIELDS = ('repetition_time', 'echo_time', 'inversion_time', 'flip_angle')
_FIELD_OF = {key: field for field, key in BIDS_KEYS.items()}
_ENTRY_KEYS = ('name', 'contrast', 'suffix', 'voxel_size', *_FIELD_OF)
_NAME = re.compile(r'[A-Za-z0-9]{1,32}')
#: Voxel sizes that can be asked for, in mm.
_VOXEL_SIZES = (0.2, 10.0)


def default_target(contrast: str) -> Target:
    """Return the target of a bare contrast name, with everything else open and without a name."""
    return Target('', Acquisition(contrast=contrast), {'contrast': 'requested'})


def load_targets_file(path: str | Path) -> list[Target]:
    """Read a list of targets from YAML or JSON.

    Parameters
    ----------
    path : path-like
        A list of mappings (or ``targets:`` with such a list) with the keys ``contrast`` (or
        ``suffix``), ``name`` (optional, letters and digits), ``voxel_size`` (mm, one number or
        three), ``RepetitionTime``, ``EchoTime``, ``InversionTime`` (seconds), ``FlipAngle``
        (degrees), ``MagneticFieldStrength`` (T), ``Manufacturer``. What is absent is filled in
        later; ``null`` says that the value is to stay unknown.

    Raises
    ------
    UsageError
        Names the file, the entry and field at fault, and the remedy.
    """
    path = Path(path)
    entries = _entries(path)
    targets = [_target(_Entry(path, number, entry)) for number, entry in enumerate(entries, 1)]
    check_unique(targets, path)
    return targets


def target_of_options(options: Mapping[str, object]) -> Target:
    """Return the target that options of a command line describe.

    Parameters
    ----------
    options : mapping
        Keys of a targets file, each of the option that is named like its field of an
        ``Acquisition`` (``RepetitionTime``: ``--repetition-time``).

    Raises
    ------
    UsageError
        Names the option at fault, and the remedy.
    """
    return _target(_Options(options))


def doubts(acquisition: Acquisition) -> list[str]:
    """Say which numbers of an acquisition that is asked for cannot be meant, one sentence each."""
    found = []
    for field in PLAUSIBLE:
        value = getattr(acquisition, field)
        if value is not None:
            problem = _size_doubt(value) if field == 'voxel_size' else doubt(field, value)
            found += [f'{field.replace("_", " ")}: {problem}'] if problem else []
    return found


def target_like(
    acquisition: Acquisition, source: str, *, name: str = LIKE_NAME, keep_voxel_size: bool = True
) -> Target:
    """Return a target with the protocol of an existing scan.

    Parameters
    ----------
    acquisition : Acquisition
        What that scan is.
    source : str
        Its file, for the provenance.
    name : str
    keep_voxel_size : bool
        Take its voxel size as well, where known.

    Raises
    ------
    UsageError
        The contrast of the scan is unknown.
    """
    if acquisition.contrast is None:
        raise UsageError(
            'the name does not tell the contrast',
            path=source,
            field='--like',
            remedy='Give a file with a BIDS suffix (T1w, T2w, FLAIR, PDw, T2starw, swi), or '
            'write its values into a targets file',
        )
    decided = ['contrast', 'field_strength', 'manufacturer', *PROTOCOL_FIELDS]
    if keep_voxel_size:
        decided.append('voxel_size')
    complete = is_protocol(acquisition)
    known = {
        field: getattr(acquisition, field)
        for field in decided
        if getattr(acquisition, field) is not None or (complete and field in PROTOCOL_FIELDS)
    }
    return Target(name, Acquisition(**known), dict.fromkeys(known, f'like {Path(source).name}'))


def is_protocol(acq: Acquisition) -> bool:
    """Tell whether enough is known to call it a protocol: repetition and echo time."""
    return acq.repetition_time is not None and acq.echo_time is not None


def modal_protocol(acquisitions: Iterable[Acquisition]) -> Acquisition | None:
    """Return the most frequent protocol among scans of one contrast.

    Parameters
    ----------
    acquisitions : iterable of Acquisition

    Returns
    -------
    Acquisition or None
        Contrast, times, flip angle and the field strength most frequent with them; None if no
        scan states both repetition and echo time. Ties go to the more complete protocol, then to
        the one with the smaller numbers, so that the order of the scans does not matter.
    """
    scans = [acq for acq in acquisitions if is_protocol(acq)]
    if not scans:
        return None
    # Scanners adapt times a little to each person: first the kind of protocol, then its numbers.
    kind = _most_frequent([tuple(map(_coarse, _protocol(acq))) for acq in scans])
    scans = [acq for acq in scans if tuple(map(_coarse, _protocol(acq))) == kind]
    values = _most_frequent([_protocol(acq) for acq in scans])
    same = [acq for acq in scans if _protocol(acq) == values]
    return Acquisition(
        contrast=same[0].contrast,
        field_strength=_most_frequent([(acq.field_strength,) for acq in same])[0],
        **dict(zip(PROTOCOL_FIELDS, values, strict=True)),
    )


def resolve_target(
    target: Target,
    *,
    subject: Acquisition,
    modal: Acquisition | None,
    source: Acquisition,
) -> Target:
    """Fill in what a target leaves open, and note where each value came from.

    Parameters
    ----------
    target : Target
        Fields that its provenance names are decided, unknown ones too.
    subject : Acquisition
        Age and sex.
    modal : Acquisition or None
        The data set's modal protocol of the contrast.
    source : Acquisition
        The scan that the image will be made from: gives field strength and manufacturer.

    Returns
    -------
    Target
        With a provenance for every field.
    """
    values: dict[str, object] = {}
    origin = dict(target.provenance)

    def fill(field: str, value: object, where: str) -> None:
        if field not in origin:
            values[field] = value
            origin[field] = where if value is not None else f'unknown ({where})'

    fill('age', subject.age, 'the participant')
    fill('sex', subject.sex, 'the participant')
    fill('manufacturer', source.manufacturer, "the source's scanner")
    fill('voxel_size', DEFAULT_VOXEL_SIZE, 'default: 1 mm isotropic')
    if source.field_strength is not None:
        fill('field_strength', source.field_strength, "the source's scanner")
    asked = target.acquisition.field_strength or values.get('field_strength')
    base, where = _base_protocol(target.contrast, modal, asked)
    fill('field_strength', base.field_strength, where)
    for field in PROTOCOL_FIELDS:
        fill(field, getattr(base, field), where)
    return Target(target.name, target.acquisition.replace(**values), origin)


def check_unique(targets: Sequence[Target], path: str | Path | None = None) -> None:
    """Raise a UsageError if two targets would be written to the same file."""
    # File systems may not tell upper from lower case.
    names = Counter((target.name.lower(), target.contrast) for target in targets)
    twice = [key for key, count in names.items() if count > 1]
    if twice:
        name, contrast = twice[0]
        label = f'named "{name}"' if name else 'without a name'
        raise UsageError(
            f'two {contrast} targets are {label}',
            path=path,
            field='name',
            remedy='Give each target a name of its own',
        )


def _protocol(acq: Acquisition) -> tuple[float | None, ...]:
    return tuple(getattr(acq, field) for field in PROTOCOL_FIELDS)


def _coarse(value: float | None) -> float | None:
    return None if value is None else float(f'{value:.1e}')


def _most_frequent(items: Sequence[tuple]) -> tuple:
    """Return the most frequent tuple; ties go to fewer unknowns, then to smaller numbers."""
    counts = Counter(items)

    def rank(values: tuple) -> tuple:
        numbers = [-1.0 if value is None else value for value in values]
        return -counts[values], values.count(None), numbers

    return min(counts, key=rank)


def _base_protocol(contrast, modal, field_strength) -> tuple[Acquisition, str]:
    if modal is not None:
        return modal, f"the data set's most frequent {contrast} protocol"
    row = protocol_for(contrast, field_strength)
    where = f'default protocol at {row.acquisition.field_strength:g} T'
    if field_strength is None:
        where += f" (the source's field strength is unknown, {DEFAULT_FIELD_STRENGTH:g} T assumed)"
    return row.acquisition, where


class _Entry:
    """One entry of a targets file, and errors that name it."""

    def __init__(self, path: Path, number: int, content: object):
        self.path = path
        self.number = number
        self.origin = f'targets file {path.name}'
        if not isinstance(content, dict):
            raise self.error('', 'is no mapping of fields to values', 'Write "contrast: T2w"')
        self.content = {str(key): value for key, value in content.items()}

    def error(self, field: str, problem: str, remedy: str) -> UsageError:
        where = f'entry {self.number}'
        name = getattr(self, 'content', {}).get('name')
        if name:
            where += f' ({name})'
        return UsageError(
            problem, path=self.path, field=f'{where}, {field}' if field else where, remedy=remedy
        )


class _Options:
    """Options of a command line in the place of an entry, and errors that name them."""

    origin = 'requested'

    def __init__(self, content: Mapping[str, object]):
        self.content = dict(content)

    def error(self, field: str, problem: str, remedy: str) -> UsageError:
        option = _FIELD_OF.get(field, field).replace('_', '-')
        return UsageError(problem, field=f'--{option}', remedy=remedy)


_Stated = _Entry | _Options


def _entries(path: Path) -> list:
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f'the targets file cannot be read ({error})', path=path, remedy='Check the path'
        ) from error
    content = _parsed(path, text)
    if isinstance(content, dict) and set(content) == {'targets'}:
        content = content['targets']
    if not isinstance(content, list) or not content:
        raise UsageError(
            'the targets file holds no list of targets',
            path=path,
            remedy='Write one entry per target, such as "- contrast: T2w"',
        )
    return content


def _parsed(path: Path, text: str) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            _unique([(str(key.value), None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    try:
        if path.suffix == '.json':
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a safe loader
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        where = ' '.join(str(error).split())
        kind = 'JSON' if path.suffix == '.json' else 'YAML'
        raise UsageError(
            f'not valid {kind} ({where})', path=path, remedy='Mend the file'
        ) from error


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """Make a mapping; of two fields of one name, the first would be lost without a word."""
    counts = Counter(key for key, _ in pairs)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f'the field {twice[0]} stands twice in one entry')
    return dict(pairs)


def _target(entry: _Stated) -> Target:
    unknown = [key for key in entry.content if key not in _ENTRY_KEYS]
    if unknown:
        raise entry.error(unknown[0], 'unknown field', f'Use {", ".join(_ENTRY_KEYS)}')
    values: dict[str, object] = {'contrast': _contrast(entry)}
    if entry.content.get('voxel_size') is not None:
        values['voxel_size'] = _voxel_size(entry, entry.content['voxel_size'])
    for key, field in _FIELD_OF.items():
        if key in entry.content:
            values[field] = _value(entry, key, field, entry.content[key])
    _check_times(entry, values)
    return Target(_name(entry), Acquisition(**values), dict.fromkeys(values, entry.origin))


def _contrast(entry: _Stated) -> str:
    key = 'contrast' if 'contrast' in entry.content else 'suffix'
    text = str(entry.content.get(key, '')).strip()
    names = {name.lower(): name for name in CONTRASTS}
    if text.lower() not in names:
        problem = f'"{text}" is no contrast' if text else 'the contrast is missing'
        raise entry.error(key, problem, f'Use one of {", ".join(CONTRASTS)}')
    name = names[text.lower()]
    suffix = str(entry.content.get('suffix') or name).lower()
    if suffix not in (name.lower(), CONTRASTS[name].suffix.lower()):
        problem = f'"{entry.content["suffix"]}" is not the suffix of {name}'
        raise entry.error('suffix', problem, 'Leave it out, or correct the contrast')
    return name


def _name(entry: _Stated) -> str:
    if entry.content.get('name') is None:
        return ''
    name = str(entry.content['name'])
    if not _NAME.fullmatch(name):
        raise entry.error(
            'name',
            f'"{name}" cannot be part of a BIDS file name',
            'Use 1 to 32 letters and digits, nothing else',
        )
    if name.lower().startswith(_RESERVED):
        raise entry.error(
            'name', f'names beginning with "{_RESERVED}" are kept for --validate', 'Use another'
        )
    return name


def _voxel_size(entry: _Stated, value: object) -> tuple[float, float, float]:
    sizes = [as_number(v) for v in (value if isinstance(value, list | tuple) else [value] * 3)]
    remedy = 'Give one number or three, in mm, such as [0.8, 0.8, 1.2]'
    if len(sizes) != 3 or None in sizes:
        raise entry.error('voxel_size', f'"{value}" is no voxel size', remedy)
    problem = _size_doubt(sizes, value)
    if problem:
        raise entry.error('voxel_size', problem, remedy)
    return tuple(sizes)


def _size_doubt(sizes: Sequence[float], stated: object = None) -> str | None:
    """Say why voxel sizes in mm cannot be asked for, as they were stated, or return ``None``."""
    low, high = _VOXEL_SIZES
    if all(low <= size <= high for size in sizes):
        return None
    return f'{sizes if stated is None else stated} mm is outside {low:g} to {high:g} mm'


def _value(entry: _Stated, key: str, field: str, value: object) -> float | str | None:
    if value is None:
        return None
    if field == 'manufacturer':
        name = canonical_manufacturer(str(value))
        if name is None:
            raise entry.error(key, f'"{value}" is no manufacturer known', 'Write e.g. Siemens')
        return name
    units = {'flip_angle': 'degrees', 'field_strength': 'tesla'}
    unit = units.get(field, 'seconds, as BIDS has it')
    number = as_number(value)
    if number is None:
        raise entry.error(key, f'"{value}" is no number', f'Write a bare number in {unit}')
    problem = doubt(field, number)
    if problem:
        right = wrong_unit(field, number)
        example = f': {right[0]:g}' if right else ''
        raise entry.error(key, problem, f'Write it in {unit}{example}')
    return number


def _check_times(entry: _Stated, values: dict) -> None:
    tr, te, ti = (values.get(field) for field in PROTOCOL_FIELDS[:3])
    if tr is not None and te is not None and te >= tr:
        raise entry.error(
            'EchoTime',
            f'{te:g} s is not shorter than the repetition time of {tr:g} s',
            'Check both values',
        )
    if tr is not None and ti is not None and tr > LONGEST_ECHO_SPACING and ti >= tr:
        raise entry.error(
            'InversionTime',
            f'{ti:g} s is not shorter than the repetition time of {tr:g} s',
            'Check both values',
        )
