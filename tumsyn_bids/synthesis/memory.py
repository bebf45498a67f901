"""What to do when a GPU has too little memory for the tiles of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from ..errors import SessionError
from .synthesizer import Synthesizer

Result = TypeVar('Result')
#: Smaller tiles would be all margin, mm at the usual 1 mm.
_LEAST_TILE = 48


def with_tiles_that_fit(
    synthesizer: Synthesizer, make: Callable[[Synthesizer], Result]
) -> tuple[Result, list[str]]:
    """Do something with a synthesizer; where the GPU's memory runs out, again in smaller tiles.

    Parameters
    ----------
    synthesizer : Synthesizer
        Stays as it is.
    make : callable
        Is given a synthesizer.

    Returns
    -------
    result
        What ``make`` returned.
    warnings : list of str
        Which tiles it took, if they are not those of the model.

    Raises
    ------
    SessionError
        If it does not fit into the smallest tiles, or the model's result depends on their size.
    """
    try:
        return make(synthesizer), []
    except torch.OutOfMemoryError as error:
        reason = error
    whole = tile = synthesizer.config.tile
    # The released attention depends on the size of the tile, so such a model has no choice.
    while synthesizer.config.tiling != 'published' and tile // 2 >= _LEAST_TILE:
        tile //= 2
        torch.cuda.empty_cache()
        smaller = copy.copy(synthesizer)
        smaller.config = replace(synthesizer.config, tile=tile)
        try:
            made = make(smaller)
        except torch.OutOfMemoryError as error:
            reason = error
        else:
            return made, [
                f'the GPU ran out of memory: made in tiles of {tile} instead of {whole} voxels'
            ]
    raise SessionError(
        f'the GPU has too little memory for tiles of {tile}³ voxels',
        field='--device',
        remedy='Free memory on the GPU, take a larger one, or use --device cpu',
    ) from reason
