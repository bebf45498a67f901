"""An acquisition as the sentence that the text encoder reads, and back.

The sentence is the template of the published prompts (TUMSyn, Fig. 1 and Fig. 5), to the blank:

    Age: 12; Gender: M; Scanner: 3.0 Siemens; Modality: T1w; Voxel size: (0.8, 0.8, 0.8); \
Imaging parameter TR(ms), TE(ms), TI(ms), and FA(degree):  (2500.0, 2.2, 1000.0, 8.0)

What is unknown is written ``None``. The text encoder takes 90 tokens and every digit is one, so
numbers lose decimals, step by step, until the sentence fits; nothing is ever cut off.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .acquisition import CONTRASTS, Acquisition
from .networks.tokenizer import CONTEXT_LENGTH, get_tokenizer

_TEMPLATE = (
    'Age: {age}; Gender: {sex}; Scanner: {scanner}; Modality: {modality}; '
    'Voxel size: ({voxels}); '
    'Imaging parameter TR(ms), TE(ms), TI(ms), and FA(degree):  ({parameters})'
)
_NONE = 'None'


@dataclass(frozen=True)
class _Precision:
    """How numbers are written: significant digits and most decimals of each kind."""

    digits: int
    voxel: int
    time: int
    age: int
    point: bool = True  # 8.0 rather than 8


#: From the finest to the coarsest; the first that fits is taken.
_PRECISIONS = (
    _Precision(digits=7, voxel=4, time=2, age=1),
    _Precision(digits=6, voxel=3, time=2, age=1),
    _Precision(digits=6, voxel=2, time=2, age=1),
    _Precision(digits=5, voxel=2, time=1, age=1),
    _Precision(digits=4, voxel=2, time=1, age=0),
    _Precision(digits=3, voxel=1, time=1, age=0),
    _Precision(digits=3, voxel=1, time=0, age=0, point=False),
    _Precision(digits=2, voxel=1, time=0, age=0, point=False),
    _Precision(digits=1, voxel=1, time=0, age=0, point=False),
)


def render_prompt(acq: Acquisition) -> str:
    """Write an acquisition as a prompt of at most 90 tokens.

    Parameters
    ----------
    acq : Acquisition
        Times in seconds, as in BIDS; the prompt has milliseconds.

    Returns
    -------
    str
        The finest of several roundings that fits. Should a manufacturer's name be so long that
        not even whole numbers help, it is written ``None``.
    """
    for precision in _PRECISIONS:
        text = _render(acq, precision)
        if _fits(text):
            return text
    return _render(acq.replace(manufacturer=None), _PRECISIONS[-1])


def without_person(prompt: str) -> str:
    """Return a prompt that says nothing of who is scanned."""
    return render_prompt(parse_prompt(prompt).replace(age=None, sex=None))


def parse_prompt(text: str) -> Acquisition:
    """Read a prompt; the inverse of :func:`render_prompt` up to its rounding.

    Parameters
    ----------
    text : str
        Any part of the template in any case, or the bare name of a modality. What is absent,
        ``None`` or not a number (the flip angle ``T2var`` of variable-flip-angle trains) is
        ``None`` in the result, an inversion time of 0 too.

    Returns
    -------
    Acquisition
        Times in seconds.
    """
    found = _fields(text)
    field_strength, manufacturer = _scanner(found.get('scanner'))
    times = _numbers(found.get('parameters'), 4)
    voxels = _numbers(found.get('voxels'), 3)
    return Acquisition(
        contrast=_CONTRAST_OF.get((found.get('modality') or text).strip().lower()),
        age=_number(found.get('age')),
        sex=_sex(found.get('sex')),
        field_strength=field_strength,
        manufacturer=manufacturer,
        voxel_size=None if None in voxels else tuple(voxels),
        repetition_time=_seconds(times[0]),
        echo_time=_seconds(times[1]),
        # Some write 0 where nothing is inverted.
        inversion_time=_seconds(times[2]) or None,
        flip_angle=times[3],
    )


def unread(text: str) -> list[str]:
    """Return the parts of a prompt that say nothing to :func:`parse_prompt`.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
        Words outside of the template, and fields whose value is neither ``None`` nor understood.
    """
    read, found = parse_prompt(text), _fields(text)
    parts = []
    for name, field in (('age', 'age'), ('sex', 'sex'), ('voxels', 'voxel_size')):
        value = found.get(name, _NONE)
        if getattr(read, field) is None and set(_words(value)) - {_NONE}:
            parts.append(value)
    times = found.get('parameters', '')
    if _numbers(times, 4) == [None] * 4 and set(_words(times)) - {_NONE}:
        parts.append(times)
    if read.contrast is not None and 'modality' not in found:
        return parts
    rest = re.sub(_HEAD_OF_PARAMETERS, ' ', text, flags=re.I)
    for regex in _PATTERNS.values():
        rest = re.sub(regex, ' ', rest, flags=re.I)
    outside = ' '.join(_words(rest))
    return [outside, *parts] if outside else parts


def _words(text: str) -> list[str]:
    return re.findall(r'[^\s;,"\']+', text)


def _fits(text: str) -> bool:
    return len(get_tokenizer().encode(text, None)) <= CONTEXT_LENGTH


def _render(acq: Acquisition, precision: _Precision) -> str:
    times = (acq.repetition_time, acq.echo_time, acq.inversion_time)
    parameters = [_written(_milliseconds(time), precision.time, precision) for time in times]
    parameters.append(_written(acq.flip_angle, precision.time, precision))
    voxels = acq.voxel_size or (None, None, None)
    return _TEMPLATE.format(
        age=_written_age(acq.age, precision.age),
        sex=acq.sex or _NONE,
        scanner=_written_scanner(acq, precision),
        modality=CONTRASTS[acq.contrast].prompt_name if acq.contrast else _NONE,
        voxels=', '.join(_written(size, precision.voxel, precision) for size in voxels),
        parameters=', '.join(parameters),
    )


def _milliseconds(time: float | None) -> float | None:
    return None if time is None else time * 1000


def _written(value: float | None, decimals: int, precision: _Precision) -> str:
    if value is None:
        return _NONE
    if value == 0:
        return '0.0'
    magnitude = math.floor(math.log10(abs(value)))
    # Never so coarse that a small number becomes 0: an echo time of 0.07 ms stays 0.07.
    decimals = max(min(decimals, precision.digits - 1 - magnitude), -magnitude, 0)
    text = f'{value:.{decimals}f}'
    if '.' in text:
        text = text.rstrip('0').rstrip('.')
    return text if '.' in text or not precision.point else text + '.0'


def _written_age(age: float | None, decimals: int) -> str:
    if age is None:
        return _NONE
    if age < 1:
        decimals = 1
    return f'{age:.{decimals}f}'.removesuffix('.0')


def _written_scanner(acq: Acquisition, precision: _Precision) -> str:
    if acq.field_strength is None and acq.manufacturer is None:
        return _NONE
    digits = _Precision(min(precision.digits, 3), 3, 3, 0)
    return f'{_written(acq.field_strength, 3, digits)} {acq.manufacturer or _NONE}'


_CONTRAST_OF = {contrast.prompt_name.lower(): name for name, contrast in CONTRASTS.items()}
_CONTRAST_OF |= {name.lower(): name for name in CONTRASTS}

_PATTERNS = {
    'age': r'\bage:\s*([^;]+)',
    'sex': r'\bgender:\s*([^;]+)',
    'scanner': r'\bscanner:\s*([^;]+)',
    'modality': r'\bmodality:\s*([^;]+)',
    'voxels': r'\bvoxel size:\s*\(([^)]*)\)',
    'parameters': r'\bfa\(degree\):\s*\(([^)]*)\)',
}
_HEAD_OF_PARAMETERS = r'imaging parameter tr\(ms\), te\(ms\), ti\(ms\), and(?=\s+fa\()'


def _fields(text: str) -> dict[str, str]:
    matches = {name: re.search(regex, text, re.I) for name, regex in _PATTERNS.items()}
    return {name: match[1].strip() for name, match in matches.items() if match}


def _number(text: str | None) -> float | None:
    """Read a number; ``100+`` is 100, anything else that is no number is None."""
    try:
        value = float((text or '').strip().removesuffix('+'))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(text: str | None, count: int) -> list[float | None]:
    values = [_number(part) for part in (text or '').split(',')]
    return values if len(values) == count else [None] * count


def _seconds(milliseconds: float | None) -> float | None:
    # Rounded, so that 2.2 ms becomes 0.0022 s and not 0.0022000000000000001 s.
    return None if milliseconds is None else round(milliseconds / 1000, 9)


def _sex(text: str | None) -> str | None:
    letter = (text or '').upper()
    return letter if letter in ('M', 'F') else None


def _scanner(text: str | None) -> tuple[float | None, str | None]:
    """Split ``3.0 Siemens`` (or ``3T Siemens``) into field strength and manufacturer."""
    first, _, rest = (text or '').partition(' ')
    field_strength = _number(re.sub(r'(?<=[\d.])T$', '', first, flags=re.I))
    name = rest.strip() if field_strength is not None or first == _NONE else (text or '').strip()
    return field_strength, None if name in ('', _NONE) else name
