"""Random fields that vary slowly in space."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F


def smooth_fields(
    rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Draw fields between whose knots of unit variance values are interpolated.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of 3 int
    cells : tuple of int
        Voxels between the knots, one field each.

    Yields
    ------
    ndarray of float32, shape ``shape``
    """
    for cell in cells:
        knots = [max(n // cell, 2) for n in shape]
        coarse = torch.from_numpy(rng.standard_normal((1, 1, *knots), dtype=np.float32))
        yield F.interpolate(coarse, size=shape, mode='trilinear', align_corners=True)[0, 0].numpy()
