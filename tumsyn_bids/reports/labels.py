"""Figures of labelled structures over a scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nb
import numpy as np

from ..grids import resample
from .sheet import brain_range, gray, in_memory, marked, row_of, save_sheet
from .slices import PLANES, View

_OPACITY = 0.55


def plot_labels(
    img: nb.spatialimages.SpatialImage,
    labels: nb.spatialimages.SpatialImage,
    out: str | Path,
    *,
    colours: Mapping[int, tuple[int, int, int]],
    synthetic: bool = False,
    title: str = 'Structures',
    note: str = '',
) -> Path:
    """Draw a scan, and the scan with its structures in colour.

    Parameters
    ----------
    img, labels : SpatialImage
        Same world space; grids may differ.
    out : path-like
        SVG file.
    colours : mapping of int to tuple
        RGB from 0 to 255 for each label; others stay gray.
    synthetic : bool
        Write SYNTHETIC into each slice.
    title, note : str
        Left and right above the picture.

    Returns
    -------
    Path
    """
    img = in_memory(img)
    numbers = nb.Nifti1Image(np.asarray(labels.dataobj).astype(np.int32), labels.affine)
    view = View.around(numbers)
    samples = view.sample(img)
    shades = gray(samples, brain_range(samples, samples))
    table = np.zeros((max(colours) + 1, 4), np.float32)
    for number, colour in colours.items():
        table[number] = (*colour, 1)
    rows = []
    for plane in PLANES:
        tiles = marked(shades[plane]) if synthetic else shades[plane]
        rows.append(row_of('T1w', plane, [tiles], synthetic=synthetic))
        found = np.stack([
            resample(numbers, view.grid(plane, cut), order=0)[:, ::-1, 0].T
            for cut in view.cuts[plane]
        ])  # fmt: skip
        paint = table[np.clip(np.rint(found).astype(int), 0, len(table) - 1)]
        share = _OPACITY * paint[..., 3:]
        mixed = (1 - share) * tiles[..., None] + share * paint[..., :3]
        rows.append(row_of('structures', plane, [mixed.astype(np.uint8)]))
    return save_sheet(out, title, rows, note)
