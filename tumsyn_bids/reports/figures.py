"""Figures of the report: one SVG file each, a few hundred kilobytes, drawn in a second or two.

Pictures lie in world space: left of the body is left in the picture, whatever the storage order
or tilt of the images. Images of one figure must share their world space, not their grid.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np

from .sheet import brain_range, flat, gray, in_memory, marked, row_of, save_sheet
from .slices import PLANES, View, contour_path, robust_range, to_bytes

_REFERENCE_COLOUR = '#5dd39e'
#: Difference, as a share of the brightness range, that gets the strongest colour.
_FULL_DIFFERENCE = 0.3


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
    img, mask = in_memory(img), in_memory(mask)
    view = View.around(mask, margin=15)
    samples, outlines = view.sample(img), view.sample(mask)
    pixels = gray(samples, brain_range(samples, outlines))
    rows = [
        row_of(plane, plane, [pixels[plane]], contour=contour_path(outlines[plane]))
        for plane in PLANES
    ]
    return save_sheet(out, title, rows, note)


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
    fixed, before, after = in_memory(fixed), in_memory(moving_before), in_memory(moving_after)
    outlined = _foreground(fixed) if mask is None else in_memory(mask)
    view = View.around(outlined, margin=15)
    outlines, samples, aligned = (view.sample(item) for item in (outlined, fixed, after))
    reference = gray(samples, brain_range(samples, outlines))
    limits = brain_range(aligned, outlines)
    paths = {plane: contour_path(tiles) for plane, tiles in outlines.items()}
    states = {'before': gray(view.sample(before), limits), 'after': gray(aligned, limits)}
    rows = [
        row_of(
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
    return save_sheet(out, title, rows, note)


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
    synthetic = in_memory(synthetic_img)
    view = View.around(synthetic)
    computed, source = view.sample(synthetic), view.sample(in_memory(source_img))
    acquired = gray(source, brain_range(source, computed))
    computed = gray(computed, brain_range(computed, computed))
    rows = []
    for plane in PLANES:
        rows.append(row_of(source_label, plane, [acquired[plane]], sublabel='acquired'))
        rows.append(row_of(synthetic_label, plane, [marked(computed[plane])], synthetic=True))
    return save_sheet(out, title, rows, note)


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
    made = in_memory(synthetic)
    view = View.around(made)
    made, real = view.sample(made), view.sample(in_memory(acquired))
    real = {plane: tiles * (made[plane] > 0) for plane, tiles in real.items()}
    real, made = _scaled(real), _scaled(made)
    rows = []
    for plane in PLANES:
        pixels = to_bytes(real[plane], 0, 1), to_bytes(made[plane], 0, 1)
        rows.append(row_of(label, plane, [pixels[0]], sublabel='acquired'))
        rows.append(row_of(label, plane, [marked(pixels[1])], synthetic=True))
        change = _diverging(made[plane] - real[plane])
        rows.append(row_of('difference', plane, [change], sublabel='made − real'))
    return save_sheet(out, title, rows, note)


def _like(img: nb.Nifti1Image, data: np.ndarray) -> nb.Nifti1Image:
    return nb.Nifti1Image(data.astype(np.float32), img.affine)


def _scaled(samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    high = robust_range(flat(samples), (0.0, 99.5))[1]
    return {plane: tiles / high for plane, tiles in samples.items()}


def _foreground(img: nb.Nifti1Image) -> nb.Nifti1Image:
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    smooth = gaussian_filter(np.asarray(img.dataobj), 2)
    # Half of Otsu's threshold: the outline should follow the skin, not the bright fat.
    return _like(img, smooth > threshold_otsu(smooth) / 2)


def _diverging(values: np.ndarray) -> np.ndarray:
    """Colour differences: black where there is none, red above, blue below."""
    strength = np.clip(values / _FULL_DIFFERENCE, -1, 1)
    up, down = np.maximum(strength, 0), np.maximum(-strength, 0)
    colours = np.stack([up + 0.25 * down, 0.35 * up + 0.55 * down, 0.25 * up + down], axis=-1)
    return (255 * np.clip(colours, 0, 1)).astype(np.uint8)
