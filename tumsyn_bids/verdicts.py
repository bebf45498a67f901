"""Verdicts on what was measured: the words, their order, and the worst of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def worst_image(confidence: Iterable[Mapping]) -> str:
    """Return the worst verdict on the synthetic images of a session; empty if there is none.

    Parameters
    ----------
    confidence : iterable of mapping
        Rows of the table of confidence.
    """
    return worst((row['verdict'] for row in confidence if _is_judged(row)), default='')


def failed_images(confidence: Iterable[Mapping]) -> list[dict[str, str]]:
    """Return ``image`` (what it is), ``file`` (its name) and ``figures`` of images that failed."""
    return [
        {
            'image': f'synthetic {row.get("contrast")} from {row.get("source")}',
            'file': str(row.get('synthetic', '')).rpartition('/')[2],
            'figures': ', '.join(
                f'{name.replace("_", " ")} {value:.2f}'
                for name, value in row.items()
                if isinstance(value, float)
            ),
        }
        for row in confidence
        if row.get('verdict') == FAIL
    ]


def _is_judged(row: Mapping) -> bool:
    return row.get('verdict') in VERDICTS
