"""Runs of the program as containers run it: unprivileged, read-only, without network and home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tumsyn_bids

NOBODY = 65534
_SOURCE = Path(tumsyn_bids.__file__).parents[1]


def require_bwrap() -> str:
    """Return the path of bubblewrap; skip where it is absent or may not make name spaces."""
    bwrap = shutil.which('bwrap')
    if bwrap is None:
        pytest.skip('bubblewrap is not installed (apt-get install bubblewrap)')
    command = [bwrap, '--ro-bind', '/', '/', '--unshare-user', '--unshare-net', 'true']
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f'bubblewrap may not make name spaces here: {tried.stderr.strip()}')
    return bwrap


def sandboxed(folder: Path, *args, mounts=(), expect: int, timeout: float = 900):
    """Start ``tumsyn-bids`` as nobody on a read-only system of which ``folder`` is a part.

    Parameters
    ----------
    folder : Path
        Seen where it is, although ``/tmp`` is empty otherwise.
    *args
        Of the command line.
    mounts : sequence of str
        Further arguments of bubblewrap, after those that make ``folder`` read-only.
    expect : int
        Exit code.
    """
    command = [require_bwrap(), '--ro-bind', '/', '/', '--dev', '/dev', '--proc', '/proc']
    command += ['--tmpfs', '/tmp', '--unshare-net', '--unshare-user', '--die-with-parent']
    command += ['--uid', str(NOBODY), '--gid', str(NOBODY)]
    for part in (sys.prefix, _SOURCE, folder):  # any of them may lie in the /tmp that was emptied
        command += ['--ro-bind', str(part), str(part)]
    command += [*map(str, mounts), '--chdir', '/tmp']
    command += [sys.executable, '-m', 'tumsyn_bids', *map(str, args)]
    env = {'PATH': os.defpath, 'HOME': '/nonexistent', 'PYTHONPATH': str(_SOURCE)}
    env |= {'PYTHONDONTWRITEBYTECODE': '1', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def writable(*folders: Path) -> list[str]:
    """Return the arguments that make folders writable in the sandbox."""
    arguments = []
    for folder in folders:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        arguments += ['--bind', str(folder), str(folder)]
    return arguments


def small_disk(folder: Path, size: int) -> list[str]:
    """Return the arguments that make a folder a disk of so many bytes."""
    folder.mkdir(exist_ok=True)
    return ['--size', str(size), '--tmpfs', str(folder)]
