"""The templates of the report; everything that is put into them is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / 'data'


@cache
def environment():
    """Return the Jinja environment of the report (autoescape is on for every template)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, **content) -> str:
    """Fill a template."""
    return environment().get_template(name).render(**content)
