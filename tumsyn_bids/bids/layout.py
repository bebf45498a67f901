"""The index of a dataset: quick, limited to what is asked for, and clear about what is wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..acquisition import CONTRASTS
from ..errors import ScanError, UsageError
from .sidecars import dataset_root, read_json_object

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

#: Folders inside a session that hold no images of ours; indexing skips them.
_OTHER_DATATYPES = 'beh|dwi|eeg|fmap|func|ieeg|meg|micr|motion|mrs|nirs|perf|pet|figures'
_IMAGES = ('.nii', '.nii.gz')
#: Names that queries of a filter file may have: our contrasts, and those that other BIDS Apps know
#: and that select nothing here.
OUR_QUERIES = tuple(name.lower() for name in CONTRASTS)
_THEIR_QUERIES = ('bold', 'sbref', 'fmap', 'roi', 'dwi', 'asl', 'm0scan', 'pet', 'xfm')


def index_dataset(
    bids_dir: str | Path,
    *,
    database_dir: str | Path | None = None,
    participant_label: Iterable[str] | None = None,
    make_database: bool = True,
) -> BIDSLayout:
    """Index the anatomical images of a dataset.

    Parameters
    ----------
    bids_dir : path-like
    database_dir : path-like, optional
        Folder for the index, which is then made of the whole dataset once and read by later runs
        as it is. Remove the folder when the dataset has changed.
    participant_label : iterable of str, optional
        Index these participants only; with or without ``sub-``. Ignored with ``database_dir``.
    make_database : bool
        Without, an index that is not in ``database_dir`` yet is kept in memory alone.

    Returns
    -------
    BIDSLayout
        Of the raw data: nothing under ``derivatives/``, ``sourcedata/`` or ``code/`` and no
        functional data. Without metadata, which :mod:`~tumsyn_bids.bids.metadata` reads when a
        scan is planned.

    Raises
    ------
    UsageError
        The folder is missing or no BIDS dataset, or a participant is not in it.
    """
    root = check_dataset(bids_dir)
    wanted = None
    if participant_label is not None:
        wanted = match_participants(root, participant_label)
    database = None if database_dir is None else Path(database_dir)
    made = database is not None and (database / 'layout_index.sqlite').exists()
    if database is None or not (made or make_database):
        return _index(root, wanted, None)
    if not made:
        _build_database(root, database)
    return _index(root, None, database)


def check_dataset(bids_dir: str | Path) -> Path:
    """Return the absolute path of a dataset, or raise a UsageError that says what it lacks."""
    root = Path(bids_dir).absolute()
    if not root.is_dir():
        raise UsageError(
            'the BIDS folder does not exist' if not root.exists() else 'this is no folder',
            path=root,
            remedy='Give the root folder of a BIDS dataset as the first argument',
        )
    description = root / 'dataset_description.json'
    if not description.is_file():
        inside = 'sub-' in root.name or root.name.startswith('ses-')
        above = next((p for p in root.parents if (p / description.name).is_file()), None)
        raise UsageError(
            'this is no BIDS dataset: it has no dataset_description.json',
            path=root,
            remedy=f'Give its root, {above}'
            if inside and above
            else 'Give the root of the dataset, or write the file with at least '
            '{"Name": "...", "BIDSVersion": "1.10.0"}',
        )
    try:
        read_json_object(description)
    except ScanError as error:
        raise UsageError(error.problem, path=description, remedy=error.remedy) from error
    return root


def list_participants(layout: BIDSLayout | str | Path) -> list[str]:
    """Return the labels of all participants that have a folder, sorted, without ``sub-``.

    From the disk and not from the index: a participant without images is to be reported.
    """
    with os.scandir(dataset_root(layout)) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name.removeprefix('sub-') for name in names if name.startswith('sub-'))


def match_participants(bids_dir: str | Path, participant_label: Iterable[str]) -> list[str]:
    """Return labels without ``sub-``, checked against the dataset.

    Raises
    ------
    UsageError
        A label has no folder; those that exist are listed.
    """
    there = list_participants(bids_dir)
    wanted = [str(label).removeprefix('sub-') for label in participant_label]
    absent = [label for label in wanted if label not in there]
    if absent:
        raise UsageError(
            f'no participant {_listed(absent)} in the dataset; it has {_listed(there)}',
            path=bids_dir,
            field='--participant-label',
            remedy='Check the labels',
        )
    return sorted(set(wanted))


def list_sessions(layout: BIDSLayout, subject: str) -> list[str | None]:
    """Return the session labels of a participant, sorted; ``[None]`` without sessions.

    A session counts that has a folder, whatever is in it, so that one without any anatomical
    image is noticed. ``None`` comes first if images lie outside of sessions as well.
    """
    with os.scandir(Path(layout.root) / f'sub-{subject}') as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    sessions: list[str | None] = [n.removeprefix('ses-') for n in names if n.startswith('ses-')]
    outside = not sessions or 'anat' in names or 'swi' in names
    return [None, *sessions] if outside else sessions


def load_filters(path: str | Path) -> dict[str, dict]:
    """Read a BIDS filter file as fMRIPrep has it.

    Parameters
    ----------
    path : path-like
        JSON ``{"t1w": {"acquisition": "mprage", "run": [1, 2], "reconstruction": null}}``.
        ``null`` means that the entity must be absent, ``"*"`` that it must be there.

    Returns
    -------
    dict
        Lower-case query name to pybids filters.

    Raises
    ------
    UsageError
        The file cannot be read or has another structure.
    """
    from bids.layout import Query

    try:
        content = read_json_object(Path(path))
    except ScanError as error:
        raise UsageError(error.problem, path=path, remedy=error.remedy) from error
    special = {None: Query.NONE, '*': Query.ANY}
    filters = {}
    for name, query in content.items():
        if not isinstance(query, dict):
            raise UsageError(
                'a filter must map entities to values',
                path=path,
                field=name,
                remedy='Write for instance {"t1w": {"acquisition": "mprage"}}',
            )
        filters[name.lower()] = {
            entity: _query_value(path, f'{name}, {entity}', value, special)
            for entity, value in query.items()
        }
    return filters


def unknown_queries(filters: Iterable[str]) -> list[str]:
    """Return those names of queries that neither we nor fMRIPrep and its relatives know."""
    return [name for name in filters if name not in (*OUR_QUERIES, *_THEIR_QUERIES)]


def _query_value(path, field: str, value, special: dict):
    values = value if isinstance(value, list) else [value]
    if not all(item is None or isinstance(item, str | int | float) for item in values):
        raise UsageError(
            f'{json.dumps(value)[:80]} is no value of an entity',
            path=path,
            field=field,
            remedy='Give a text, a number, null, or a list of these',
        )
    return value if isinstance(value, list) else special.get(value, value)


def _listed(labels: Sequence[str], most: int = 10) -> str:
    shown = ', '.join(labels[:most]) or 'none'
    return f'{shown} and {len(labels) - most} more' if len(labels) > most else shown


def _index(root: Path, wanted: list[str] | None, database: Path | None) -> BIDSLayout:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignored, closed = _ignored(root, wanted), set()
    while True:
        indexer = BIDSLayoutIndexer(validate=False, ignore=ignored, index_metadata=False)
        try:
            return BIDSLayout(
                root,
                # Names that BIDS does not know are kept: refused with a reason, not in silence.
                validate=False,
                config=['bids', 'derivatives'],
                indexer=indexer,
                database_path=database,
                reset_database=bool(closed),
            )
        except PermissionError as error:
            # The folder is told where the participant is planned; the others go on.
            folder = _closed_folder(root, error)
            if folder in closed:
                raise
            closed.add(folder)
            ignored = [*ignored, re.compile(rf'^/{re.escape(folder)}(/|$)')]


def _closed_folder(root: Path, error: PermissionError) -> str:
    """Return which folder of the dataset may not be read, relative to its root."""
    path = Path(error.filename or root)
    folder = path if os.path.isdir(path) else path.parent
    if root not in folder.parents:
        raise UsageError(
            f'it cannot be read ({error.strerror})', path=path, remedy='Check its permissions'
        ) from error
    return folder.relative_to(root).as_posix()


def _ignored(root: Path, wanted: list[str] | None) -> list[re.Pattern]:
    """Return patterns of all folders that need not be walked."""
    with os.scandir(root) as entries:
        others = [e.name for e in entries if e.is_dir() and not e.name.startswith('sub-')]
    patterns = [rf'/({_OTHER_DATATYPES})(/|$)', r'/\.']
    if others:
        patterns.append(rf'^/({"|".join(map(re.escape, others))})(/|$)')
    if wanted is not None:
        labels = '|'.join(map(re.escape, wanted))
        patterns.append(rf'^/sub-(?!(?:{labels})(?:/|$))')
    return [re.compile(pattern) for pattern in patterns]


def _build_database(root: Path, database: Path) -> None:
    """Index into a temporary folder, so that a broken-off run leaves no half index behind."""
    import shutil
    import tempfile

    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix='.index-') as scratch:
        layout = _index(root, None, Path(scratch) / 'db')
        layout.connection_manager.session.close()
        database.mkdir(exist_ok=True)
        files = list((Path(scratch) / 'db').iterdir())
        # Who finds the index finds all: it comes last.
        for file in sorted(files, key=lambda file: file.name == 'layout_index.sqlite'):
            shutil.move(file, database / file.name)
