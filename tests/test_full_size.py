"""The full-size network on this machine."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_one_tile_of_the_full_size_network_fits_into_10_gb(repository):
    command = [sys.executable, str(repository / 'benchmarks' / 'full_size_tile.py')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=True)
    assert '113,595,137' in done.stdout
    peak = re.search(r'peak memory of the process: ([\d.]+) GB', done.stdout)
    assert float(peak[1]) < 10
