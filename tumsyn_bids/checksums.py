"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, read piece by piece: checkpoints can be larger than memory."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
