"""Verdicts on what was measured: the words, their order, and the worst of several."""

from __future__ import annotations

from collections.abc import Iterable

#: From the best to the worst.
PASS, WARN, FAIL = VERDICTS = ('pass', 'warn', 'fail')


def worst(verdicts: Iterable[str], default: str = PASS) -> str:
    """Return the worst of some verdicts.

    Parameters
    ----------
    verdicts : iterable of str
        Of :data:`VERDICTS`.
    default : str
        What is returned if there are none.
    """
    return max(verdicts, key=VERDICTS.index, default=default)
