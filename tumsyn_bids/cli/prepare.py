"""Raw datasets for training: what the app makes of their scans, kept beside the run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from ..bids.layout import list_participants
from ..bids.lock import LockedError, ParticipantLocks
from ..errors import UsageError
from ..training.people import is_raw
from . import parser
from .participant import run_participant

#: Beside ``model`` in the folder of a run.
FOLDER = 'preprocessed'
_LOOK_AGAIN_S = 5.0


def prepared(
    datasets: Sequence[str | Path], run: Path, *, exclude: Sequence[str] = ()
) -> list[Path]:
    """Return datasets with one grid per session and brain masks, made where they are raw.

    Scans are chosen, corrected, aligned and masked by the participant level itself, which makes
    no image here. What is done already is not done again; of several processes one does it.

    Parameters
    ----------
    datasets : sequence of path-like
        Raw BIDS, or derivatives, which stay as they are.
    run : Path
        Folder of the training, receives ``preprocessed``.
    exclude : sequence of str
        Participants (``sub-19``) that are not looked at.

    Raises
    ------
    UsageError
        If a raw dataset cannot be read, or nobody is left in it.
    """
    found = []
    for dataset in map(Path, datasets):
        found.append(_prepare(dataset, run, exclude) if is_raw(dataset) else dataset)
    return found


def _prepare(raw: Path, run: Path, exclude: Sequence[str]) -> Path:
    # Two datasets may have one name.
    mark = hashlib.sha256(str(raw.absolute()).encode()).hexdigest()[:6]
    out = run / FOLDER / f'{raw.absolute().name}-{mark}'
    labels = [label for label in list_participants(raw) if f'sub-{label}' not in exclude]
    if not labels:
        raise UsageError('has no participant to train on', path=raw, remedy='Exclude fewer')
    words = [str(raw), str(out), 'participant', '--participant-label', *labels]
    request = parser.parse([*words, '-w', str(run / FOLDER / 'work'), '--device', 'cpu'])
    settings = request.settings.replace(contrasts=(), clean_workdir='on-success')
    with ParticipantLocks(run / FOLDER / 'locks') as locks:
        _wait_for(locks, out.name)
        # Whoever failed has been named, and is left out of the training.
        run_participant(parser.Request('participant', settings))
    return out


def _wait_for(locks: ParticipantLocks, name: str) -> None:
    while True:
        try:
            return locks.acquire(name)
        except LockedError:
            time.sleep(_LOOK_AGAIN_S)
