"""The targets that a user asks for by files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import ScanError, UsageError
from ..plan import Target
from ..targets import LIKE_NAME, check_unique, load_targets_file, target_like
from .metadata import STATED_FIELDS, MetadataReader, read_header, with_voxel_size


def requested_targets(
    targets_file: str | Path | None = None, like: Iterable[str | Path] = ()
) -> list[Target]:
    """Return the targets of ``--targets`` and ``--like``.

    Parameters
    ----------
    targets_file : path-like, optional
    like : iterable of path-like
        Sidecars, or images with sidecars. Those in a BIDS dataset inherit.

    Raises
    ------
    UsageError
        A file cannot be used, or two targets have one name.
    """
    targets = load_targets_file(targets_file) if targets_file else []
    files = list(like)
    for number, path in enumerate(files, 1):
        name = LIKE_NAME if len(files) == 1 else f'{LIKE_NAME}{number}'
        targets.append(target_from_file(path, name))
    check_unique(targets, targets_file)
    return targets


def target_from_file(path: str | Path, name: str = LIKE_NAME) -> Target:
    """Return a target with the protocol of a sidecar, or of an image and its sidecars.

    An image also gives its voxel size; a sidecar alone leaves it at 1 mm.

    Raises
    ------
    UsageError
        The file is absent, unreadable, states an implausible value, or does not tell its contrast.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise UsageError('there is no such file', path=path, field='--like', remedy='Check it')
    above = (p for p in path.parents if (p / 'dataset_description.json').is_file())
    reader = MetadataReader(next(above, path.parent))
    try:
        acq, findings = reader.imaging(path)
        if path.suffix != '.json':
            acq = with_voxel_size(acq, read_header(path))
    except ScanError as error:
        raise UsageError(error.problem, path=error.path, remedy=error.remedy) from error
    # As for targets files: no default takes the place of a mistake.
    for finding in findings:
        if finding.field in STATED_FIELDS:
            raise UsageError(
                f'{finding.value}: {finding.problem}',
                path=reader.root / finding.path,
                field=finding.field,
                remedy='Mend the value, or give a copy of the sidecar without it',
            )
    return target_like(acq, str(path), name=name)
