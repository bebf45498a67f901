"""The most frequent protocol of each contrast in a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..acquisition import Acquisition
from ..targets import modal_protocol
from .layout import list_participants
from .metadata import MetadataReader

#: The modal protocols are those of at most so many participants, evenly spread over the sorted
#: list: the same for each participant of a dataset, however the work is divided.
MODAL_PARTICIPANTS = 50


def dataset_protocols(root: str | Path, reader: MetadataReader) -> dict[str, Acquisition]:
    """Return the modal protocol of each contrast of a dataset, where there is one.

    Of at most :data:`MODAL_PARTICIPANTS` participants, evenly spread.
    """
    people = list_participants(root)
    step = max(1, -(-len(people) // MODAL_PARTICIPANTS))
    scans: dict[str, list[Acquisition]] = {}
    for subject in people[::step]:
        for path in anatomical_files(Path(root) / f'sub-{subject}'):
            try:
                acq, _ = reader.imaging(path)
            except Exception:  # noqa: BLE001 - told where that session is planned
                continue
            if acq.contrast is not None:
                scans.setdefault(acq.contrast, []).append(acq)
    modal = {contrast: modal_protocol(found) for contrast, found in scans.items()}
    return {contrast: acq for contrast, acq in modal.items() if acq is not None}


def anatomical_files(folder: Path) -> Iterator[Path]:
    """Return the images in a participant's anatomical folders, session by session."""
    for pattern in ('anat', 'swi', 'ses-*/anat', 'ses-*/swi'):
        for inside in sorted(folder.glob(pattern)):
            yield from sorted(inside.glob('*.nii*'))
