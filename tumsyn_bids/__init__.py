"""Synthesis of missing MRI contrasts in BIDS datasets."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for, so that importing the package costs nothing."""
    if name != '__version__':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version('tumsyn-bids')
    except PackageNotFoundError:  # a source tree that was never installed
        return '0+unknown'
