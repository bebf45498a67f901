"""Entry point of ``tumsyn-bids``: dispatch, error lines and exit codes."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TumsynError
from . import parser
from .environment import ensure_home
from .progress import complain

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


def main(argv=None) -> int:
    """Run ``tumsyn-bids`` and return its exit code."""
    return guarded(parser.PROG, _run, argv)


def guarded(prog: str, run, argv) -> int:
    """Call ``run(argv)`` and turn what it raises into one line and an exit code."""
    ensure_home()
    try:
        with _termination_as_interrupt():
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


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, which batch systems send first, clean up like Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    former = signal.signal(signal.SIGTERM, _interrupt_once)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _interrupt_once:  # else it stays ignored to the end
            signal.signal(signal.SIGTERM, former)


def _interrupt_once(number, frame) -> None:
    """Begin to clean up; batch systems repeat the signal, and that shall not disturb it."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(argv) -> int:
    request = parser.parse(argv)
    if request.analysis_level == 'group':
        from .group import run_group

        return run_group(request)
    from .participant import run_participant

    return run_participant(request)
