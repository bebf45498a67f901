"""What the terminal shows: what runs now, how many sessions are done, how long it may take."""

from __future__ import annotations

import shutil
import sys
import time


def say(text: str) -> None:
    """Write one line to stdout, at once."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to stderr, whatever line breaks the text has."""
    sys.stderr.write(' '.join(text.split()) + '\n')
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Word a duration: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    if seconds < 3600:
        return f'{seconds // 60} min {seconds % 60:02d} s'
    return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'


class Progress:
    """Lines about the sessions of a run.

    On a terminal the last line is overwritten with what runs now; elsewhere each step is a line.

    Parameters
    ----------
    total : int
        Sessions to process.
    workers : int
        Sessions processed side by side.
    stream : text stream, optional
        Whatever is standard output at the time if not given.
    clock : callable
        Seconds, increasing.
    """

    def __init__(self, total: int, workers: int, *, stream=None, clock=time.monotonic):
        self._total, self._workers, self._clock = total, max(workers, 1), clock
        self._given_stream = stream
        self._tty = self._stream.isatty()
        self._start = clock()
        self._done = 0
        self._running: dict[str, str] = {}

    def step(self, label: str, step: str) -> None:
        """Show that a session has begun a step."""
        self._running[label] = step
        if self._tty:
            self._redraw()
        else:
            self._line(f'[{self._count()}] {label}: {step}')

    def finished(self, label: str, verdict: str, seconds: float) -> None:
        """Show that a session has come to its end."""
        self._running.pop(label, None)
        self._done += 1
        self._line(f'[{self._count()}] {label}: {verdict} after {duration(seconds)}')
        self._redraw()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._line(text)
        self._redraw()

    def close(self) -> None:
        """Leave the terminal with a clean line."""
        if self._tty:
            self._stream.write('\r\x1b[2K')
            self._stream.flush()

    def time_left(self) -> float | None:
        """Estimate the seconds to the end, from the sessions that are done."""
        if not self._done:
            return None
        # Sessions that run now count as half done, on average.
        done = self._done + 0.5 * min(len(self._running), self._total - self._done)
        return (self._clock() - self._start) / done * (self._total - done)

    @property
    def _stream(self):
        return sys.stdout if self._given_stream is None else self._given_stream

    def _count(self) -> str:
        left = self.time_left()
        text = f'{self._done}/{self._total} sessions done'
        return f'{text}, about {duration(left)} left' if left else text

    def _redraw(self) -> None:
        if not (self._tty and self._running):
            return
        now = '; '.join(f'{label}: {step}' for label, step in self._running.items())
        width = shutil.get_terminal_size().columns - 1
        self._stream.write('\r\x1b[2K' + f'[{self._count()}] {now}'[:width])
        self._stream.flush()

    def _line(self, text: str) -> None:
        start = '\r\x1b[2K' if self._tty else ''
        self._stream.write(f'{start}{text}\n')
        self._stream.flush()
