"""Entry point of ``tumsyn-bids``: dispatch, error lines and exit codes."""

from __future__ import annotations

import traceback

from ..errors import TumsynError
from . import parser
from .progress import complain

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


def main(argv=None) -> int:
    """Run ``tumsyn-bids`` and return its exit code."""
    return guarded(parser.PROG, _run, argv)


def guarded(prog: str, run, argv) -> int:
    """Call ``run(argv)`` and turn what it raises into one line and an exit code."""
    try:
        return run(argv)
    except TumsynError as error:
        complain(f'{prog}: error: {error}')
        return error.exit_code
    except KeyboardInterrupt:
        complain(f'{prog}: error: interrupted. Start the same command again to go on.')
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence says what happened
        traceback.print_exc()
        complain(f'{prog}: error: internal error: {type(error).__name__}: {error}')
        return EXIT_INTERNAL


def _run(argv) -> int:
    request = parser.parse(argv)
    if request.analysis_level == 'group':
        from .group import run_group

        return run_group(request)
    from .participant import run_participant

    return run_participant(request)
