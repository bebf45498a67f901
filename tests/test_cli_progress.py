"""What the terminal shows."""

from __future__ import annotations

import io

import pytest

from tumsyn_bids.cli.progress import Progress, complain, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0.4, '0 s'), (59.4, '59 s'), (185, '3 min 05 s'), (7800, '2 h 10 min')]
)
def test_durations_are_worded(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(2, 1, stream=stream, clock=Clock())
    progress.step('sub-01', 'correct bias')
    progress.finished('sub-01', 'complete', 61)
    assert stream.getvalue().splitlines() == [
        '[0/2 sessions done] sub-01: correct bias',
        '[1/2 sessions done] sub-01: complete after 1 min 01 s',
    ]


def test_time_left_follows_from_the_sessions_done():
    clock = Clock()
    progress = Progress(4, 2, stream=io.StringIO(), clock=clock)
    assert progress.time_left() is None
    clock.now = 60
    progress.step('sub-01', 'x')
    progress.finished('sub-01', 'complete', 60)
    assert progress.time_left() == pytest.approx(180)
    progress.step('sub-02', 'x')
    # One done and one half done in a minute: 40 s each, two and a half to go.
    assert progress.time_left() == pytest.approx(100)


def test_a_terminal_keeps_one_line_for_what_runs():
    stream = Terminal()
    progress = Progress(1, 1, stream=stream, clock=Clock())
    progress.step('sub-01', 'correct bias')
    progress.step('sub-01', 'extract brain')
    assert '\n' not in stream.getvalue()
    progress.finished('sub-01', 'complete', 1)
    progress.close()
    assert stream.getvalue().count('\n') == 1


def test_complaints_are_one_line(capsys):
    complain('two\nlines')
    assert capsys.readouterr().err == 'two lines\n'
