"""Ages and sexes as tables spell them, and as the JSON beside a table explains them."""

from __future__ import annotations

import re

from ..values import as_number

PER_YEAR = {'y': 1.0, 'm': 12.0, 'w': 365.25 / 7, 'd': 365.25}
_UNIT_WORDS = {
    'y': ('y', 'yo', 'yr', 'yrs', 'year', 'years'),
    'm': ('m', 'mo', 'mos', 'month', 'months'),
    'w': ('w', 'wk', 'wks', 'week', 'weeks'),
    'd': ('d', 'day', 'days'),
}
UNIT_OF = {word: unit for unit, words in _UNIT_WORDS.items() for word in words}
_WIDEST_RANGE = 10.0
_OTHER_UNIT = re.compile(r'\b(?:decade|hour|minute|second)s?\b')
#: Ages that begin before birth, as of newborns, are none that prompts speak of.
_BEFORE_BIRTH = re.compile(r'gestation|menstrual|concept|\bpma\b')
_UNIT_IN_PROSE = re.compile(
    r'(?:\bin (?:[a-z]+ )?|[(\[,]\s*(?:in )?|^)((?:year|yr|month|week|day)s?)\b'
)

_ONE_AGE = re.compile(
    r'([<>≥≤=]*|over|above)\s*(-?\d+(?:[.,]\d+)?)\s*(\+?)\s*((?!or|and)[a-z]*)\.?(?: old)?'
    r'(\s*(?:or|and) (?:older|above|over|more))?'
)

_MALE = ('m', 'male', 'man', 'boy', 'males', 'men', 'boys')
_FEMALE = ('f', 'female', 'woman', 'girl', 'females', 'women', 'girls')
_SEX_WORD = rf'\b(?:{"|".join((*_FEMALE, *_MALE))})\b'
_NEGATION = r"(?:\b(?:no|non|nor|not|cannot|neither|never|without|except|other than)\b|n't\b)"
#: Two sexes joined, or one that is denied, are taken whole, so that half of it is not believed.
_SEXES = rf'(?:{_NEGATION}\W+)?{_SEX_WORD}(?:\s*(?:/|\bor\b|\band\b|\bnor\b)\s*{_SEX_WORD})*'


def age_unit(word: str | None, about: dict) -> tuple[str | None, str | None]:
    """Return the unit of a column, or None and what is wrong with it.

    Parameters
    ----------
    word : str or None
        The unit that the column's name holds; it goes before all others.
    about : dict
        The column's description; keys in lower case. Its units, or a unit in its prose, else
        years.
    """
    units = str(about.get('units') or about.get('unit') or '').lower()
    prose = str(about.get('description', '')).lower()
    if _BEFORE_BIRTH.search(f'{units} {prose}'):
        return None, 'is counted from before birth'
    if word:
        return UNIT_OF[word], None
    if _OTHER_UNIT.search(units):
        return None, f'is in {units}, and not in years, months, weeks or days'
    words = re.findall(r'[a-z]+', units) or _UNIT_IN_PROSE.findall(prose)
    return next((UNIT_OF[word] for word in words if word in UNIT_OF), 'y'), None


def parse_age(text: str, unit: str) -> tuple[float | None, str, str]:
    """Return number, unit and a remark; the number is None if the text is no age after birth.

    Units are keys of :data:`PER_YEAR`.
    """
    text = text.lower().strip().rstrip(',;.').replace('y/o', 'yo')
    if _BEFORE_BIRTH.search(text):
        return None, 'y', 'is counted from before birth'
    spread = re.fullmatch(r'(\d+(?:\.\d+)?)\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)\s*([a-z]*)', text)
    if spread:
        return _middle(spread, unit)
    match = _ONE_AGE.fullmatch(text)
    if not match or (match[4] and match[4] not in UNIT_OF):
        return None, 'y', 'is not an age'
    number = as_number(match[2].replace(',', '.'))
    if number is None:  # more digits than a number can have
        return None, 'y', 'is not an age'
    limited = match[1].strip('=') or match[3] or match[5]
    note = 'is a limit, not an age' if limited else ''
    return number, UNIT_OF.get(match[4], unit), note


def _middle(spread: re.Match, unit: str) -> tuple[float | None, str, str]:
    low, high = float(spread[1]), float(spread[2])
    if spread[3] and spread[3] not in UNIT_OF:
        return None, 'y', 'is not an age'
    unit = UNIT_OF.get(spread[3], unit)
    if not 0 <= high - low <= _WIDEST_RANGE * PER_YEAR[unit]:
        return None, 'y', 'is too wide a range to be an age'
    return (low + high) / 2, unit, 'is a range; its middle is taken'


def level(about: dict, text: str) -> str | None:
    """Return what a code stands for, from the ``Levels`` of the column's JSON."""
    levels = about.get('levels')
    if not isinstance(levels, dict):
        return None
    # Tables that went through other software may say 1.0 for 1.
    meanings = {key.removesuffix('.0'): value for key, value in levels.items()}
    meaning = meanings.get(text.removesuffix('.0'))
    meaning = meaning.get('Description') if isinstance(meaning, dict) else meaning
    return None if meaning is None else str(meaning)


def sex_of(text: str, about: dict) -> str | None:
    """Return ``'M'`` or ``'F'`` if the value, or the JSON about its column, says so.

    Parameters
    ----------
    text : str
        The value of the table.
    about : dict
        The column's description; keys in lower case.
    """
    plain = re.sub(r'[^a-z0-9]', '', text.lower().removesuffix('.0'))
    if plain in (*_MALE, *_FEMALE):
        return _sex_word(plain)
    meaning = str(level(about, text) or '').lower()
    if re.search(_SEX_WORD, meaning):
        return _sex_word(meaning)
    # Signs were dropped above, and -1, which stands for a missing value, is not 1.
    code = '' if text.strip().startswith('-') else plain
    return _sex_code(code, str(about.get('description', ''))) if code else None


def _sex_word(text: str) -> str | None:
    """Return the sex that a text names, if it names one only and denies none."""
    named = {'F' if word in _FEMALE else 'M' for word in re.findall(_SEX_WORD, text.lower())}
    return named.pop() if len(named) == 1 and not re.search(_NEGATION, text.lower()) else None


def _sex_code(code: str, description: str) -> str | None:
    """Read a code from prose such as ``1 = male, 2 = F``, ``male: 1; female: 2``, ``men (1)``.

    What can be read either way, such as ``M=1 - F=2``, is believed only where both ways agree.
    """
    text, code = description.lower(), re.escape(code)
    link = r'\s*(?:=|:|-|–|is|for|means)\s*'
    found = re.findall(rf'(?<![\w.-]){code}{link}({_SEXES})', text)
    found += re.findall(rf'({_SEXES})(?:{link}|\s*\(){code}\b', text)
    sexes = {_sex_word(words) for words in found}
    return sexes.pop() if len(sexes) == 1 else None
