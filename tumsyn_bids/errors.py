"""Errors that a user can act on, and the exit codes of the command line."""

from __future__ import annotations

import errno
import re
from pathlib import Path

EXIT_OK = 0
EXIT_SUBJECT_FAILED = 1
EXIT_USAGE = 2


class TumsynError(Exception):
    """A problem stated so that a user can mend it.

    Parameters
    ----------
    problem : str
        What is wrong, one sentence without a full stop.
    path : path-like, optional
        The file or folder at fault.
    field : str, optional
        The field of that file at fault.
    remedy : str, optional
        What the user can do, one sentence without a full stop.
    """

    exit_code = EXIT_SUBJECT_FAILED

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ):
        self.problem = problem
        self.path = None if path is None else Path(path)
        self.field = field
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        where = ': '.join(str(part) for part in (self.path, self.field) if part)
        text = f'{where}: {self.problem}' if where else self.problem
        return f'{text}. {self.remedy}.' if self.remedy else f'{text}.'

    def __reduce__(self):
        # Exceptions cross process borders inside Nipype's MultiProc plugin.
        return (_rebuild, (type(self), self.problem, self.path, self.field, self.remedy))


def _rebuild(cls, problem, path, field, remedy):
    return cls(problem, path=path, field=field, remedy=remedy)


class UsageError(TumsynError):
    """The command line or the dataset as a whole cannot be used; nothing was started."""

    exit_code = EXIT_USAGE


class ScanError(TumsynError):
    """One image cannot be used; the session may go on with the others."""


class SessionError(TumsynError):
    """One session cannot be processed; other sessions go on."""


class ModelError(TumsynError):
    """A checkpoint or model configuration cannot be used."""

    exit_code = EXIT_USAGE


_AGAIN = 'then start the same command again; what is done is not done again'
#: Errors of a disk that no program can mend, in words, each with what to do.
STORAGE_PROBLEMS = {
    errno.ENOSPC: ('no space is left on the disk', f'Free some space, {_AGAIN}'),
    errno.EDQUOT: ('the disk quota is used up', f'Free some space or raise the quota, {_AGAIN}'),
    errno.EFBIG: ('the file would exceed the size limit', f'Raise the limit, {_AGAIN}'),
    errno.EROFS: (
        'the file system is read-only',
        f'Choose another folder or remount it, {_AGAIN}',
    ),
    errno.EIO: ('the disk reports an error', f'Look at the disk, {_AGAIN}'),
    errno.ENAMETOOLONG: ('the path is too long', 'Choose a folder with a shorter path'),
}
_ERRNO = re.compile(r"\[Errno (?P<number>\d+)\][^:]*(?:: '(?P<path>[^']*)')?")


def storage_error(error: OSError, folder: str | Path) -> SessionError | None:
    """Word an error of the disk; ``None`` where it is of another kind.

    Parameters
    ----------
    error : OSError
    folder : path-like
        Named where the error does not name the file.
    """
    known = STORAGE_PROBLEMS.get(error.errno)
    if known is None:
        return None
    return SessionError(known[0], path=error.filename or folder, remedy=known[1])


def unwritable(error: OSError, folder: str | Path | None = None) -> UsageError:
    """Say that nothing can be done because a file cannot be written.

    Parameters
    ----------
    error : OSError
    folder : path-like, optional
        Named in place of the file.
    """
    return UsageError(
        f'cannot be written ({error.strerror or error})',
        path=folder or error.filename,
        remedy='Check permissions and free space',
    )


def explain_storage(reason: str, folder: str | Path) -> str:
    """Put an error of the disk that somebody has worded as ``[Errno 28] …`` into our words."""
    match = _ERRNO.search(reason)
    if match is None:
        return reason
    error = storage_error(OSError(int(match['number']), '', match['path'] or None), folder)
    return reason if error is None else str(error)
