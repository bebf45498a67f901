"""The group level: merge what participants produced."""

from __future__ import annotations

from ..errors import EXIT_OK, UsageError, unwritable
from .parser import PROG, Request
from .progress import say


def run_group(request: Request) -> int:
    """Write the ``group_*.tsv`` tables of an output directory and return the exit code.

    Raises
    ------
    UsageError
        Where there is nothing to merge, or the folder cannot be written to.
    """
    from ..bids.group import merge_group, write_agreement
    from ..reports.agreement import save_bland_altman

    output_dir = request.settings.output_dir
    if not output_dir.is_dir():
        raise UsageError(
            'is not a folder', path=output_dir, remedy='Run the participant level first'
        )
    try:
        written = merge_group(output_dir)
        written += write_agreement(output_dir, _agreement, save_bland_altman)
    except OSError as error:
        raise unwritable(error, output_dir) from error
    names = ', '.join(path.name for path in written)
    say(f'{PROG}: finished: {len(written)} group tables in {output_dir}: {names}')
    return EXIT_OK


def _agreement(acquired: list[float], synthetic: list[float]) -> dict:
    """Return the columns of agreement of a structure over people."""
    from dataclasses import asdict

    from ..evaluation.agreement import agreement

    return {
        key.replace('_', '-'): value
        for key, value in asdict(agreement(acquired, synthetic)).items()
    }
