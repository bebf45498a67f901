"""Embeddings that another text encoder has made: one vector per prompt, in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..errors import UsageError

_FORMATS = '.safetensors, .npz, .json and .tsv'


def clean_prompt(prompt: str) -> str:
    """Return a prompt without quotation marks, its words one blank apart.

    As it is tokenised and looked up, so that a prompt can be copied from anywhere.
    """
    return ' '.join(prompt.replace('"', '').split())


def read_embeddings(path: str | Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Read a table of embeddings.

    Parameters
    ----------
    path : path-like
        ``.safetensors``: a vector under each prompt as its key. ``.json``: an object from prompt
        to list of numbers. ``.tsv``: a prompt and its numbers in each line, without a header.
        ``.npz``: the arrays ``prompts``, shape (N,), and ``embeddings``, shape (N, D).

    Returns
    -------
    prompts : tuple of str
        Without quotation marks.
    embeddings : ndarray of float32, shape (N, D)

    Raises
    ------
    UsageError
        If the file cannot be read, is empty, has vectors of different lengths or numbers that are
        not finite, or has one prompt twice with different vectors.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise UsageError(
            f'{path.suffix or "a file without suffix"} is no table of embeddings',
            path=path,
            remedy=f'Known are {_FORMATS}',
        )
    try:
        rows = [(clean_prompt(str(p)), np.asarray(v, dtype=np.float32)) for p, v in reader(path)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f'is no readable table of embeddings ({reason})',
            path=path,
            remedy='See "Other text encoders" in the page on training',
        ) from error
    return _checked(path, rows)


def _checked(path: Path, rows: list) -> tuple[tuple[str, ...], np.ndarray]:
    if not rows:
        raise UsageError('holds no embeddings', path=path, remedy='Give one vector per prompt')
    sizes = sorted({vector.shape for _, vector in rows})
    if len(sizes) > 1 or len(sizes[0]) != 1 or sizes[0][0] == 0:
        raise UsageError(
            f'its vectors have different or no lengths: {", ".join(map(str, sizes[:5]))}',
            path=path,
            remedy='Give one vector of numbers, of always the same length, per prompt',
        )
    table: dict[str, np.ndarray] = {}
    for prompt, vector in rows:
        if not np.isfinite(vector).all():
            raise UsageError('a vector is not finite', path=path, field=prompt)
        if not np.array_equal(table.setdefault(prompt, vector), vector):
            raise UsageError('has two different vectors for one prompt', path=path, field=prompt)
    return tuple(table), np.stack(list(table.values()))


def _read_npz(path: Path):
    with np.load(path, allow_pickle=False) as arrays:
        return list(zip(arrays['prompts'], arrays['embeddings'], strict=True))


def _read_tsv(path: Path):
    lines = [line.split('\t') for line in path.read_text().splitlines() if line.strip()]
    return [(prompt, [float(number) for number in numbers]) for prompt, *numbers in lines]


_READERS = {
    '.safetensors': lambda path: list(load_file(path).items()),
    '.npz': _read_npz,
    '.json': lambda path: list(json.loads(path.read_text()).items()),
    '.tsv': _read_tsv,
}
