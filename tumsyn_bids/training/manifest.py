"""What a training run is made of, written beside it and compared when the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UsageError
from ..files import write_text
from .engine import CHECKPOINT, Engine

MANIFEST = 'manifest.json'


def keep_manifest(engine: Engine, manifest: dict) -> None:
    """Write the manifest of a run that begins; compare it with that of a run that goes on.

    Parameters
    ----------
    engine : Engine
        Of the run; its first process writes.
    manifest : dict
        JSON-serialisable; ``settings`` is compared entry by entry.

    Raises
    ------
    UsageError
        If the run that would go on was begun with other settings, data or people; they are named.
    """
    manifest = json.loads(json.dumps(manifest))
    path = engine.out_dir / MANIFEST
    if (engine.out_dir / CHECKPOINT).exists() and path.exists():
        differing = _differences(_read(path), manifest)
        if differing:
            raise UsageError(
                f'the run was begun with other options: {"; ".join(differing)}',
                path=path,
                remedy='Give the options of the first start, or another folder',
            )
    if engine.first:
        write_text(path, json.dumps(manifest, indent=2) + '\n')


def _read(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f'cannot be read ({error})', path=path, remedy='Give another folder'
        ) from error


def _differences(old: dict, new: dict) -> list[str]:
    """Name what differs; an entry that one of both does not know is not compared."""
    found = []
    for key in sorted(old.keys() & new.keys()):
        if old[key] == new[key]:
            continue
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            found += _inside(key, old[key], new[key])
        else:
            found.append(f'{key} was {_short(old[key])} and is {_short(new[key])}')
    return found


def _inside(key: str, old: dict, new: dict) -> list[str]:
    if key != 'settings' and old.keys() != new.keys():
        changed = sorted(old.keys() ^ new.keys())
        return [f'{key}: {_short(changed)} came or went']
    return [
        f'{name} was {_short(old[name])} and is {_short(new[name])}'
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + '...'
