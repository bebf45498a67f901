"""Steps that several parts of this room share: working grids, and where the head is."""

from __future__ import annotations

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..errors import ScanError
from ..grids import Grid, resample
from .geometry import winsorize


def isotropic(img: nb.spatialimages.SpatialImage, zoom: float) -> tuple[np.ndarray, Grid]:
    """Return an image, winsorised and non-negative, on isotropic voxels stored close to RAS+.

    Parameters
    ----------
    img : SpatialImage
        3D, finite.
    zoom : float
        Voxel size in mm.
    """
    grid = Grid.of(img).canonical().with_zooms((zoom,) * 3)
    data = np.maximum(winsorize(np.asarray(img.dataobj, dtype=np.float32)), 0)
    return resample(nb.Nifti1Image(data, img.affine), grid), grid


def carried(values: np.ndarray, source: Grid, grid: Grid, world=None) -> np.ndarray:
    """Interpolate a smooth quantity linearly; beyond its border it keeps its border's value.

    Parameters
    ----------
    values : ndarray, shape ``source.shape``
    source, grid : Grid
        Where the values lie, and where they are wanted.
    world : ndarray, shape (4, 4), optional
        Maps world coordinates of ``grid`` to those of ``source``; identity if not given.
    """
    matrix = np.linalg.inv(source.affine) @ (np.eye(4) if world is None else world) @ grid.affine
    return ndimage.affine_transform(
        np.asarray(values, dtype=np.float32),
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=grid.shape,
        order=1,
        mode='nearest',
    )


def carried_mask(mask: nb.spatialimages.SpatialImage, grid: Grid) -> np.ndarray:
    """Return a binary mask image, sampled on a grid; False outside the image."""
    data = (np.asarray(mask.dataobj) > 0).astype(np.float32)
    return resample(nb.Nifti1Image(data, mask.affine), grid) > 0.5


def cropped_brain(
    img: nb.spatialimages.SpatialImage,
    mask: nb.spatialimages.SpatialImage,
    zoom: float,
    margin_mm: float,
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Return a brain without what surrounds it, on isotropic voxels stored close to RAS+.

    Parameters
    ----------
    img, mask : SpatialImage
        In one world space; grids may differ.
    zoom : float
        Voxel size in mm.
    margin_mm : float
        How much is left around the mask.

    Returns
    -------
    brain : ndarray of float32
        0 outside of the mask, nowhere negative.
    inside : ndarray of bool
    grid : Grid

    Raises
    ------
    ScanError
        If the mask is empty.
    """
    grid = Grid.of(img).canonical().with_zooms((zoom,) * 3)
    inside = carried_mask(mask, grid)
    if not inside.any():
        raise ScanError('the brain mask is empty', remedy='Look at the scan and at its mask')
    grid = grid.around(inside, round(margin_mm / zoom))
    inside = carried_mask(mask, grid)
    return np.maximum(resample(img, grid), 0) * inside, inside, grid


def head_mask(data: np.ndarray) -> np.ndarray:
    """Return the filled region that holds signal.

    Otsu's threshold between air and tissue (halved, since dark tissue belongs to the head as
    well), the largest connected part, closed and filled.

    Parameters
    ----------
    data : ndarray, 3D
        Best of roughly isotropic voxels.

    Returns
    -------
    ndarray of bool
    """
    from skimage.filters import threshold_otsu

    data = np.maximum(winsorize(data), 0)
    if data.max() == data.min():
        return data > 0
    inside = data > 0.5 * threshold_otsu(data[data > 0] if (data == 0).mean() > 0.5 else data)
    inside = largest_part(ndimage.binary_opening(inside))
    if not inside.any():
        return data > 0
    inside = ndimage.binary_closing(np.pad(inside, 3), iterations=3)
    return ndimage.binary_fill_holes(inside)[3:-3, 3:-3, 3:-3]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def grown(mask: np.ndarray, distance: float, zooms) -> np.ndarray:
    """Return a mask with all that lies within a distance of its edge.

    The same as ``signed_distance(mask, zooms) > -distance``, many times as fast where the distance
    is a few voxels: the mask is spread along the last axis, by each length that a ball has there,
    and what results is laid beside itself within a disk.

    Parameters
    ----------
    mask : ndarray of bool, 3D
    distance : float
        In mm.
    zooms : float or sequence of 3 float
        Voxel size in mm.
    """
    zooms = np.broadcast_to(np.asarray(zooms, dtype=float), 3)
    reach = distance + zooms.mean() / 2
    room = np.floor(reach / zooms).astype(int)
    # With that much room on all sides, a step in space is a step in the flat array.
    padded = np.pad(np.asarray(mask, dtype=bool), [(n, n) for n in room])
    strides = np.array(padded.strides)
    spread, length = padded.copy(), 0
    result = np.zeros_like(padded)
    for half, i, j in sorted(_lines(reach, room, zooms)):
        while length < half:
            length += 1
            _lay(padded, spread, length)
            _lay(padded, spread, -length)
        _lay(spread, result, int((i, j) @ strides[:2]))
    return result[tuple(slice(n, size - n) for n, size in zip(room, padded.shape, strict=True))]


def shrunk(mask: np.ndarray, distance: float, zooms) -> np.ndarray:
    """Return what lies deeper in a mask than a distance; the border of the array is no edge.

    The same as ``signed_distance(mask, zooms) > distance``, but that voxels at exactly that
    distance are kept; see :func:`grown`.
    """
    return ~grown(~np.asarray(mask, dtype=bool), distance, zooms)


def _lines(reach: float, room: np.ndarray, zooms: np.ndarray) -> list[tuple[int, int, int]]:
    """Return half the length of a ball's lines along the last axis, and where they stand."""
    lines = []
    for i in range(-room[0], room[0] + 1):
        for j in range(-room[1], room[1] + 1):
            left = reach**2 - (i * zooms[0]) ** 2 - (j * zooms[1]) ** 2
            if left > 0:
                lines.append((int(np.ceil(np.sqrt(left) / zooms[2])) - 1, i, j))
    return lines


def _lay(source: np.ndarray, target: np.ndarray, step: int) -> None:
    """Add a mask to another, moved by a number of elements of the flat array."""
    source, target = source.reshape(-1), target.reshape(-1)
    if step < 0:
        source, target, step = source[-step:], target[:step], 0
    elif step:
        source, target = source[:-step], target[step:]
    np.logical_or(target, source, out=target)


def signed_distance(mask: np.ndarray, zooms) -> np.ndarray:
    """Return the distance in mm to the edge of a mask, positive inside.

    The edge lies between voxels. An empty or full mask is far from any edge everywhere.
    """
    zooms = np.broadcast_to(np.asarray(zooms, dtype=float), 3)
    if mask.all() or not mask.any():
        return np.full(mask.shape, 1e3 if mask.all() else -1e3, dtype=np.float32)
    half = zooms.mean() / 2
    inner = ndimage.distance_transform_edt(mask, sampling=zooms) - half
    outer = ndimage.distance_transform_edt(~mask, sampling=zooms) - half
    return np.where(mask, inner, -outer).astype(np.float32)
