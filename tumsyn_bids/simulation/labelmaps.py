"""Label maps of heads, read from files that may hold anything."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import nibabel as nb
import numpy as np

from ..errors import UsageError
from ..grids import Grid, resample
from ..physics.tissues import LARGEST_LABEL, TISSUES, tissue_of_label

TISSUE_NAMES: tuple[str, ...] = tuple(TISSUES)
#: Marks labels that have no tissue.
_NO_TISSUE = 255
#: Voxel sizes in mm that are resampled to 1 mm: finer and coarser ones are hardly those of a head.
_VOXEL_SIZES = (0.2, 2.0)
#: Relative difference from 1 mm that is rounding.
_TOLERANCE = 0.01
#: What holds a brain is thicker than this along each axis, in mm.
_THINNEST = 20.0
#: Numbers of a file that are stored as floats may be off by this.
_ROUNDING = 1e-3
_LISTED = 5
_OF_A_HEAD = 'Give one volume of a whole head, of voxels with FreeSurfer numbers'


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label map, at 1 mm and in RAS+ order.

    Maps of other voxel sizes are resampled to the nearest neighbour: whatever is measured in
    voxels later on is meant in mm.

    Parameters
    ----------
    path : path-like
        NIfTI with FreeSurfer numbers, or those of SynthSeg's training maps.

    Returns
    -------
    ndarray of int32, shape (X, Y, Z)
        Labels that all have a tissue.

    Raises
    ------
    UsageError
        If the file holds no such map; names the file and, where a label has no tissue, the label
        and its number of voxels.
    """
    path = Path(path)
    img, data = _load(path)
    labels = _whole_numbers(path, data)
    _check_known(path, labels)
    _check_size(path, labels.shape, Grid.of(img).zooms)
    img = nb.as_closest_canonical(nb.Nifti1Image(labels.astype(np.int32), img.affine))
    grid = Grid.of(img)
    if np.abs(grid.zooms - 1).max() <= _TOLERANCE:
        return np.asarray(img.dataobj)
    return resample(img, grid.with_zooms((1, 1, 1)), order=0).astype(np.int32)


def tissues_of(labels: np.ndarray) -> np.ndarray:
    """Return the place of each label's tissue in :data:`TISSUE_NAMES`, uint8; 255 if it has none.

    Parameters
    ----------
    labels : ndarray of int, any shape
    """
    # What is too large, and -1 from behind, is the last entry.
    return _table()[np.clip(labels, -1, LARGEST_LABEL + 1)]


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    table = np.full(LARGEST_LABEL + 2, _NO_TISSUE, dtype=np.uint8)
    for label in range(LARGEST_LABEL + 1):
        try:
            table[label] = TISSUE_NAMES.index(tissue_of_label(label))
        except KeyError:
            continue
    return table


def _load(path: Path) -> tuple[nb.spatialimages.SpatialImage, np.ndarray]:
    """Return an image of three axes and its voxels."""
    try:
        img = nb.load(path)
        data = np.asarray(img.dataobj)
    except nb.filebasedimages.ImageFileError as error:
        raise UsageError(
            'the file is no NIfTI image',
            path=path,
            remedy='Convert it to NIfTI, copy it again, or take it out of the folder',
        ) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(
            f'the label map cannot be read ({error})',
            path=path,
            remedy='Copy it again from where it came from',
        ) from error
    if not isinstance(img, nb.spatialimages.SpatialImage) or data.dtype.kind not in 'biuf':
        raise UsageError('the file holds no volume of plain numbers', path=path, remedy=_OF_A_HEAD)
    # A fourth axis of one volume is a habit of some tools.
    if data.ndim < 3 or data.size != np.prod(data.shape[:3]):
        shape = ' × '.join(map(str, data.shape))
        raise UsageError(f'{shape} voxels are not one volume', path=path, remedy=_OF_A_HEAD)
    return img, data.reshape(data.shape[:3])


def _whole_numbers(path: Path, data: np.ndarray) -> np.ndarray:
    if data.dtype.kind != 'f':
        return data.astype(np.int64)
    odd = ~np.isfinite(data)
    if odd.any():
        raise UsageError(
            f'{_voxels(odd.sum())} hold no finite number',
            path=path,
            remedy='Give them the number of their tissue, or 0',
        )
    labels = np.rint(data)
    odd = np.abs(data - labels) > _ROUNDING
    if odd.any():
        raise UsageError(
            f'{_voxels(odd.sum())} hold no whole number, such as {data[odd][0]:g}',
            path=path,
            remedy='Give labels, not an image; resample labels to the nearest neighbour only',
        )
    return labels.astype(np.int64)


def _check_known(path: Path, labels: np.ndarray) -> None:
    unknown = labels[tissues_of(labels) == _NO_TISSUE]
    if not unknown.size:
        return
    values, counts = np.unique(unknown, return_counts=True)
    order = np.argsort(-counts, kind='stable')
    named = [f'{values[i]} ({_voxels(counts[i])})' for i in order[:_LISTED]]
    if len(values) > _LISTED:
        named.append(f'{len(values) - _LISTED} more')
    raise UsageError(
        f'no tissue is known for label{"s" * (len(values) > 1)} {", ".join(named)}',
        path=path,
        remedy='Use the numbers of FreeSurfer (aseg, aparc+aseg, wmparc) or of the maps that '
        f'SynthSeg is trained on, or leave the map out with --exclude {path.name}',
    )


def _check_size(path: Path, shape: tuple[int, ...], zooms: np.ndarray) -> None:
    low, high = _VOXEL_SIZES
    if not all(low <= zoom <= high for zoom in zooms):
        size = ' × '.join(f'{zoom:g}' for zoom in zooms)
        raise UsageError(
            f'voxels of {size} mm are not between {low:g} and {high:g} mm',
            path=path,
            remedy='Give a map of 1 mm, or correct the affine in its header',
        )
    thinnest = (zooms * shape).min()
    if thinnest < _THINNEST:
        raise UsageError(
            f'the map is only {thinnest:g} mm thick along one axis', path=path, remedy=_OF_A_HEAD
        )


def _voxels(count: int) -> str:
    return f'{count} voxel' if count == 1 else f'{count} voxels'
