"""The layout of the package, checked by machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

HEAVY = ('torch', 'ants', 'niworkflows', 'nireports', 'bids', 'pandas', 'matplotlib', 'nilearn')


def test_import_contracts_are_kept(repository):
    # Its own process: the linter switches off the loggers of the process that it runs in.
    code = (
        'from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('module', ['tumsyn_bids.cli.main', 'tumsyn_bids.cli.tools'])
def test_help_imports_nothing_heavy(module):
    pytest.importorskip(module)
    code = (
        f'import sys, {module} as cli\n'
        'try:\n'
        '    cli.main(["--help"])\n'
        'except SystemExit as stop:\n'
        '    assert not stop.code, stop.code\n'
        f'print("LOADED", *(set({HEAVY}) & set(sys.modules)))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'LOADED'


def test_help_answers_within_two_seconds_of_processor_time():
    pytest.importorskip('tumsyn_bids.cli.main')
    command = [sys.executable, '-m', 'tumsyn_bids', '--help']
    subprocess.run(command, capture_output=True, check=True, timeout=60)  # byte-compiles
    before = os.times()
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    wall = time.monotonic() - started
    after = os.times()
    # Processor time, because other tests may keep every core of the machine busy meanwhile.
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    assert done.returncode == 0
    assert 'participant' in done.stdout
    assert min(used, wall) < 2


def test_importing_the_package_does_nothing():
    code = (
        'import sys\n'
        'before = set(sys.modules)\n'
        'import tumsyn_bids\n'
        'print(*set(sys.modules) - before)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {'tumsyn_bids', '__future__'}


def test_version_is_the_installed_one():
    from importlib.metadata import version

    import tumsyn_bids

    assert tumsyn_bids.__version__ == version('tumsyn-bids')
    with pytest.raises(AttributeError, match='no attribute'):
        _ = tumsyn_bids.nonsense
