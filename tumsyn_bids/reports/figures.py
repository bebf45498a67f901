"""Figures of the report: one SVG file each, a few hundred kilobytes, drawn in a second or two.

Pictures lie in world space: left of the body is left in the picture, whatever the storage order
or tilt of the images. Images of one figure must share their world space, not their grid.
"""

from __future__ import annotations

import base64
import io
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np

from .slices import PLANES, View, contour_path, robust_range, side_by_side, to_bytes
from .templates import render

_GUTTER = 118
_HEADER = 38
_SPACE = 6
_JPEG_QUALITY = 88
_MASK_COLOUR = '#ff4d6d'
_REFERENCE_COLOUR = '#5dd39e'
#: Difference, as a share of the brightness range, that gets the strongest colour.
_FULL_DIFFERENCE = 0.3


@dataclass(frozen=True)
class _Layer:
    href: str
    flickers: bool = False


@dataclass(frozen=True)
class _Row:
    """One line of slices; layers lie on top of one another."""

    label: str
    plane: str
    width: int
    height: int
    layers: tuple[_Layer, ...]
    sublabel: str = ''
    synthetic: bool = False
    contour: str = ''
    colour: str = _MASK_COLOUR
    x: int = 0
    y: int = 0


def plot_mask(
    img: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    out: str | Path,
    *,
    title: str = 'Brain mask',
    note: str = '',
) -> Path:
    """Draw the outline of a brain mask over its scan.

    Parameters
    ----------
    img, mask : SpatialImage
        Same world space; grids may differ.
    out : path-like
        SVG file.
    title, note : str
        Left and right above the picture.

    Returns
    -------
    Path
    """
    img, mask = _in_memory(img), _in_memory(mask)
    view = View.around(mask, margin=15)
    samples, outlines = view.sample(img), view.sample(mask)
    pixels = _gray(samples, _brain_range(samples, outlines))
    rows = [
        _row(plane, plane, [pixels[plane]], contour=contour_path(outlines[plane]))
        for plane in PLANES
    ]
    return _save(out, title, rows, note)


def plot_registration(
    fixed: nb.spatialimages.SpatialImage,
    moving_before: nb.spatialimages.SpatialImage,
    moving_after: nb.spatialimages.SpatialImage,
    out: str | Path,
    *,
    mask: nb.spatialimages.SpatialImage | None = None,
    title: str = 'Co-registration',
    note: str = 'point at the picture: it alternates with the reference',
    fixed_label: str = 'reference',
    moving_label: str = 'scan',
) -> Path:
    """Draw a scan before and after its alignment; it flickers with the reference when pointed at.

    Parameters
    ----------
    fixed : SpatialImage
        The reference.
    moving_before : SpatialImage
        The other scan where its header puts it.
    moving_after : SpatialImage
        The other scan, resampled into the reference's world space.
    out : path-like
        SVG file.
    mask : SpatialImage, optional
        Brain of the reference: its outline is drawn over all rows. Without it the outline of the
        head is.
    title, note, fixed_label, moving_label : str

    Returns
    -------
    Path
    """
    fixed, before, after = _in_memory(fixed), _in_memory(moving_before), _in_memory(moving_after)
    outlined = _foreground(fixed) if mask is None else _in_memory(mask)
    view = View.around(outlined, margin=15)
    outlines, samples, aligned = (view.sample(item) for item in (outlined, fixed, after))
    reference = _gray(samples, _brain_range(samples, outlines))
    limits = _brain_range(aligned, outlines)
    paths = {plane: contour_path(tiles) for plane, tiles in outlines.items()}
    states = {'before': _gray(view.sample(before), limits), 'after': _gray(aligned, limits)}
    rows = [
        _row(
            f'{moving_label} {state}',
            plane,
            [reference[plane], pixels[plane]],
            sublabel=f'on {fixed_label}',
            contour=paths[plane],
            colour=_REFERENCE_COLOUR,
        )
        for plane in PLANES
        for state, pixels in states.items()
    ]
    return _save(out, title, rows, note)


def plot_synthesis(
    source_img: nb.spatialimages.SpatialImage,
    synthetic_img: nb.spatialimages.SpatialImage,
    out: str | Path,
    title: str,
    *,
    source_label: str = 'source',
    synthetic_label: str = 'image',
    note: str = 'only the row marked SYNTHETIC was computed',
) -> Path:
    """Draw a synthetic image under the scan that it was made from.

    Parameters
    ----------
    source_img : SpatialImage
        The acquired scan in the world space of the synthetic image.
    synthetic_img : SpatialImage
        0 outside the brain.
    out : path-like
        SVG file.
    title, source_label, synthetic_label, note : str

    Returns
    -------
    Path
    """
    synthetic = _in_memory(synthetic_img)
    view = View.around(synthetic)
    computed, source = view.sample(synthetic), view.sample(_in_memory(source_img))
    acquired = _gray(source, _brain_range(source, computed))
    computed = _gray(computed, _brain_range(computed, computed))
    rows = []
    for plane in PLANES:
        rows.append(_row(source_label, plane, [acquired[plane]], sublabel='acquired'))
        rows.append(_row(synthetic_label, plane, [_marked(computed[plane])], synthetic=True))
    return _save(out, title, rows, note)


def plot_validation(
    acquired: nb.spatialimages.SpatialImage,
    synthetic: nb.spatialimages.SpatialImage,
    out: str | Path,
    *,
    title: str = 'Synthetic against acquired',
    note: str = 'difference: red brighter, blue darker than acquired; full colour at 30 %',
    label: str = 'image',
) -> Path:
    """Draw an acquired image, its synthetic counterpart and their difference.

    Both are divided by the 99.5th percentile of their values in the brain, in the slices shown.
    The difference is synthetic minus acquired: red where the synthetic image is brighter, blue
    where it is darker, full colour at 30 % of the brightness range.

    Parameters
    ----------
    acquired, synthetic : SpatialImage
        Same contrast and world space; ``synthetic`` is 0 outside the brain.
    out : path-like
        SVG file.
    title, note, label : str

    Returns
    -------
    Path
    """
    made = _in_memory(synthetic)
    view = View.around(made)
    made, real = view.sample(made), view.sample(_in_memory(acquired))
    real = {plane: tiles * (made[plane] > 0) for plane, tiles in real.items()}
    real, made = _scaled(real), _scaled(made)
    rows = []
    for plane in PLANES:
        pixels = to_bytes(real[plane], 0, 1), to_bytes(made[plane], 0, 1)
        rows.append(_row(label, plane, [pixels[0]], sublabel='acquired'))
        rows.append(_row(label, plane, [_marked(pixels[1])], synthetic=True))
        change = _diverging(made[plane] - real[plane])
        rows.append(_row('difference', plane, [change], sublabel='made − real'))
    return _save(out, title, rows, note)


def _in_memory(img: nb.spatialimages.SpatialImage) -> nb.Nifti1Image:
    """Read the voxels once; slices are then sampled without touching the file again."""
    data = np.nan_to_num(np.asarray(img.dataobj, dtype=np.float32))
    return nb.Nifti1Image(data, img.affine)


def _like(img: nb.Nifti1Image, data: np.ndarray) -> nb.Nifti1Image:
    return nb.Nifti1Image(data.astype(np.float32), img.affine)


def _flat(samples: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tiles.ravel() for tiles in samples.values()])


def _scaled(samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    high = robust_range(_flat(samples), (0.0, 99.5))[1]
    return {plane: tiles / high for plane, tiles in samples.items()}


def _foreground(img: nb.Nifti1Image) -> nb.Nifti1Image:
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    smooth = gaussian_filter(np.asarray(img.dataobj), 2)
    # Half of Otsu's threshold: the outline should follow the skin, not the bright fat.
    return _like(img, smooth > threshold_otsu(smooth) / 2)


def _brain_range(samples: dict, brain: dict) -> tuple[float, float]:
    """Let the brain set the brightness: fat and eyes would darken it."""
    return robust_range(_flat(samples)[_flat(brain) > 0])


def _gray(samples: dict[str, np.ndarray], limits: tuple[float, float]) -> dict[str, np.ndarray]:
    return {plane: to_bytes(tiles, *limits) for plane, tiles in samples.items()}


def _diverging(values: np.ndarray) -> np.ndarray:
    """Colour differences: black where there is none, red above, blue below."""
    strength = np.clip(values / _FULL_DIFFERENCE, -1, 1)
    up, down = np.maximum(strength, 0), np.maximum(-strength, 0)
    colours = np.stack([up + 0.25 * down, 0.35 * up + 0.55 * down, 0.25 * up + down], axis=-1)
    return (255 * np.clip(colours, 0, 1)).astype(np.uint8)


def _marked(tiles: np.ndarray) -> np.ndarray:
    """Write SYNTHETIC into the pixels of each tile, so that a cut-out still says it."""
    from PIL import Image, ImageDraw, ImageFont

    font, (height, width) = ImageFont.load_default(13), tiles.shape[1:]
    marked = []
    for tile in tiles:
        picture = Image.fromarray(tile)
        place = (width // 2, height - 2)
        ImageDraw.Draw(picture).text(place, 'SYNTHETIC', fill=170, font=font, anchor='mb')
        marked.append(np.asarray(picture))
    return np.stack(marked)


def _row(label: str, plane: str, tiles: Sequence[np.ndarray], **details) -> _Row:
    rasters = [side_by_side(layer) for layer in tiles]
    height, width = rasters[0].shape[:2]
    layers = tuple(
        _Layer(_data_uri(raster), flickers=number > 0) for number, raster in enumerate(rasters)
    )
    return _Row(label, plane, width, height, layers, **details)


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=_JPEG_QUALITY, subsampling=0)
    return 'data:image/jpeg;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')


def _save(out: str | Path, title: str, rows: Sequence[_Row], note: str) -> Path:
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
    return _write(Path(out), text)


def _write(path: Path, text: str) -> Path:
    """Write atomically, so that a report never embeds half a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{uuid.uuid4().hex[:12]}-{path.name}')
    try:
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
