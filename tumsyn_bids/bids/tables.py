"""BIDS tables: tab-separated, one header line, ``n/a`` where nothing is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def to_tsv(rows: Sequence[Mapping], columns: Sequence[str] = ()) -> str:
    """Word rows as a table.

    Parameters
    ----------
    rows : sequence of mapping
        Tabs and line breaks inside values become blanks; empty, absent and not finite values
        become ``n/a``.
    columns : sequence of str
        Columns that come first and are present even where no row has them.
    """
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    return ''.join('\t'.join(line) + '\n' for line in lines)


def read_tsv(path: str | Path) -> list[dict[str, str]]:
    """Read a table; every value is a string, as it stands there.

    Raises
    ------
    ValueError
        Where a line has more or fewer values than the header, with its number.
    OSError
    """
    lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    records = list(csv.reader(lines, delimiter='\t', quoting=csv.QUOTE_NONE))
    if not records:
        raise ValueError('the table is empty')
    header, *values = records
    for number, line in enumerate(values, start=2):
        if len(line) != len(header):
            raise ValueError(f'line {number} has {len(line)} values, not {len(header)}')
    return [dict(zip(header, line, strict=True)) for line in values]


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f'{value:.6g}' if math.isfinite(value) else None
    text = '' if value is None else ' '.join(str(value).split())
    return text or 'n/a'
