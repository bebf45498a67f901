"""A sheet of slices: rows of pictures, drawn into one SVG file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np

from ..files import write_text
from .slices import robust_range, side_by_side, to_bytes
from .templates import render

_GUTTER = 118
_HEADER = 38
_SPACE = 6
_JPEG_QUALITY = 88
#: Of an outline, if a row names no other.
OUTLINE_COLOUR = '#ff4d6d'


@dataclass(frozen=True)
class _Layer:
    href: str
    flickers: bool = False


@dataclass(frozen=True)
class Row:
    """One line of slices; layers lie on top of one another."""

    label: str
    plane: str
    width: int
    height: int
    layers: tuple[_Layer, ...]
    sublabel: str = ''
    synthetic: bool = False
    contour: str = ''
    colour: str = OUTLINE_COLOUR
    x: int = 0
    y: int = 0


def in_memory(img: nb.spatialimages.SpatialImage) -> nb.Nifti1Image:
    """Read the voxels once; slices are then sampled without touching the file again."""
    data = np.nan_to_num(np.asarray(img.dataobj, dtype=np.float32))
    return nb.Nifti1Image(data, img.affine)


def flat(samples: dict[str, np.ndarray]) -> np.ndarray:
    """Return the values of all slices of all planes in one row."""
    return np.concatenate([tiles.ravel() for tiles in samples.values()])


def brain_range(samples: dict, brain: dict) -> tuple[float, float]:
    """Let the brain set the brightness: fat and eyes would darken it."""
    return robust_range(flat(samples)[flat(brain) > 0])


def gray(samples: dict[str, np.ndarray], limits: tuple[float, float]) -> dict[str, np.ndarray]:
    """Turn the slices of each plane into bytes; ``limits`` become black and white."""
    return {plane: to_bytes(tiles, *limits) for plane, tiles in samples.items()}


def marked(tiles: np.ndarray) -> np.ndarray:
    """Write SYNTHETIC into the pixels of each tile, so that a cut-out still says it."""
    from PIL import Image, ImageDraw, ImageFont

    font, (height, width) = ImageFont.load_default(13), tiles.shape[1:]
    pictures = []
    for tile in tiles:
        picture = Image.fromarray(tile)
        place = (width // 2, height - 2)
        ImageDraw.Draw(picture).text(place, 'SYNTHETIC', fill=170, font=font, anchor='mb')
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def row_of(label: str, plane: str, tiles: Sequence[np.ndarray], **details) -> Row:
    """Put slices side by side.

    Parameters
    ----------
    label, plane : str
    tiles : sequence of ndarray of uint8, shape (N, H, W) or (N, H, W, 3)
        One array for each layer; all but the first are seen when the row is pointed at.
    **details
        Other fields of :class:`Row`.
    """
    rasters = [side_by_side(layer) for layer in tiles]
    height, width = rasters[0].shape[:2]
    layers = tuple(
        _Layer(_data_uri(raster), flickers=number > 0) for number, raster in enumerate(rasters)
    )
    return Row(label, plane, width, height, layers, **details)


def save_sheet(out: str | Path, title: str, rows: Sequence[Row], note: str) -> Path:
    """Place rows below one another, rows of one plane together, and write the SVG file."""
    width = _GUTTER + max(row.width for row in rows) + _SPACE
    placed, y = [], _HEADER
    for row in rows:
        if placed and row.plane != placed[-1].plane:
            y += 2 * _SPACE
        x = _GUTTER + (width - _GUTTER - _SPACE - row.width) // 2
        placed.append(replace(row, x=x, y=y))
        y += row.height + _SPACE
    text = render(
        'figure.svg.j2',
        title=title,
        note=note,
        rows=placed,
        width=width,
        height=y,
        gutter=_GUTTER,
    )
    return write_text(out, text)


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=_JPEG_QUALITY, subsampling=0)
    return 'data:image/jpeg;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')
