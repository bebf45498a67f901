"""Errors that a user can act on, and the exit codes of the command line."""

from __future__ import annotations

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
