"""Files that are complete or absent, whatever happens to the process that writes them."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STAGED = re.compile(r'\.[0-9a-f]{12}-')


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Give a hidden name in the folder of ``path``; move it to ``path`` when the block ends well.

    The hidden name ends like ``path``, because image libraries choose the format by the ending,
    and starts with a dot, so that neither the BIDS validator nor pybids takes it for data.

    Parameters
    ----------
    path : path-like
        Where the file shall be in the end. Its folder is made where it is absent.

    Yields
    ------
    Path
        Where to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{uuid.uuid4().hex[:12]}-{path.name}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file atomically; leave it alone where it says the same already."""
    path = Path(path)
    content = text.encode('utf-8')
    if path.is_file() and path.read_bytes() == content:
        return path
    with staged(path) as temporary:
        temporary.write_bytes(content)
    return path


def sweep(paths: Iterable[Path], *, older_than: float = 0.0) -> list[Path]:
    """Remove hidden files that :func:`staged` could not, because its process was killed.

    Parameters
    ----------
    paths : iterable of Path
        Candidates; what does not bear a hidden name of ours is left alone.
    older_than : float
        Seconds. With more than 0, files that another process may be writing now stay.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed = []
    for path in paths:
        with suppress(FileNotFoundError):
            young = older_than and time.time() - path.stat().st_mtime < older_than
            if _STAGED.match(path.name) and not young:
                path.unlink()
                removed.append(path)
    return removed
