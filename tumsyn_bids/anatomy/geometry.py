"""Scans read from disk: refused, or returned with numbers and a header that mean one thing."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..errors import ScanError
from ..grids import Grid, resample
from ..plan import Finding

#: Corner displacement in mm above which sform and qform are said to disagree.
FORM_TOLERANCE_MM = 0.5
#: Largest cosine between two axes that is taken for rounding, not for shear.
SHEAR_TOLERANCE = 1e-4
#: Share of the finite voxels that may be enclosed non-finite ones and are mended.
MAX_ENCLOSED_NONFINITE = 1e-3
#: Fewest voxels along each axis; a localiser or a single slice has less.
MIN_VOXELS = 5
MIN_ZOOM_MM, MAX_ZOOM_MM = 0.1, 15.0


@dataclass(frozen=True)
class Sanitized:
    """A scan that is safe to compute with.

    Attributes
    ----------
    img : Nifti1Image
        3D, float32, in memory, axes in the order they are stored in, all voxels finite; qform and
        sform are equal, orthogonal and have code 1.
    findings : list of Finding
        What was odd in the file, and what was done about it.
    """

    img: nb.Nifti1Image
    findings: list[Finding]


def sanitize(path: str | Path) -> Sanitized:
    """Read an anatomical scan and settle everything that programs read in different ways.

    The rules, in the order in which they are applied:

    * several volumes, single slices, complex and colour images, and images whose voxels are all
      alike are refused; trailing axes of length one are dropped;
    * the sform says where the voxels are if its code is set, else the qform; a scan with neither
      is refused, since left and right are then a guess. If both are set and displace a corner of
      the image by more than :data:`FORM_TOLERANCE_MM` against each other, the sform is taken and
      the disagreement reported;
    * a sheared image is resampled (cubic) onto the closest grid with orthogonal axes, because
      neither a qform nor ITK can express shear;
    * NaN and infinite voxels that reach the border of the image count as background and become
      0; up to :data:`MAX_ENCLOSED_NONFINITE` enclosed ones are copied from their nearest
      neighbour; more are refused.

    Parameters
    ----------
    path : path-like
        A NIfTI-1 or NIfTI-2 file, compressed or not.

    Raises
    ------
    ScanError
        If the file cannot be used; it says why and what to do.
    """
    path = Path(path)
    findings: list[Finding] = []
    source = _open(path)
    data = _squeeze(_voxels(source, path), path)
    affine = _affine(source.header, data.shape, path, findings)
    data = _finite(data, path, findings)
    _refuse_empty(data, path)
    img = _settled(data, affine)
    if _shear(affine) > SHEAR_TOLERANCE:
        grid = orthogonal_grid(Grid.of(nb.Nifti1Image(data, affine)))
        img = _settled(resample(nb.Nifti1Image(data, affine), grid, order=3), grid.affine)
        findings.append(
            Finding(
                str(path),
                'sform',
                f'{_shear(affine):.4f}',
                'the axes of the image are not orthogonal (sheared affine)',
                'resampled onto the closest orthogonal grid',
            )
        )
    return Sanitized(img, findings)


def winsorize(data: np.ndarray, low: float = 0.1, high: float = 99.9) -> np.ndarray:
    """Clip intensities to percentiles of the voxels that are not exactly zero.

    A single wrapped voxel, or ringing below zero, would otherwise set the scale of histograms.

    Parameters
    ----------
    data : ndarray
    low, high : float
        Percentiles of the non-zero voxels. Zero voxels stay zero.
    """
    signal = data[data != 0]
    if signal.size == 0:
        return data
    lowest, highest = np.percentile(signal, (low, high))
    return np.clip(data, min(lowest, 0), highest).astype(np.float32, copy=False)


def orthogonal_grid(grid: Grid) -> Grid:
    """Return the smallest grid with orthogonal axes that covers a grid and has its voxel size.

    The axes are those of the closest rotation (polar decomposition).
    """
    directions = grid.affine[:3, :3] / grid.zooms
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    corners = nb.affines.apply_affine(grid.affine, _corner_indices(grid.shape)) @ rotation
    start, stop = corners.min(axis=0), corners.max(axis=0)
    steps = np.ceil((stop - start) / grid.zooms - 1e-3).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = rotation * grid.zooms
    affine[:3, 3] = rotation @ ((start + stop - steps * grid.zooms) / 2)
    return Grid(tuple(int(n) + 1 for n in steps), affine)


def _open(path: Path) -> nb.Nifti1Image:
    if path.is_symlink() and not path.exists():
        raise ScanError(
            'the file is a link whose target is absent',
            path=path,
            remedy=f'Fetch its content, e.g. with `datalad get {path.name}`',
        )
    if not path.is_file():
        raise ScanError('there is no such file', path=path, remedy='Check the path')
    try:
        head = path.open('rb').read(32)
    except OSError as error:
        raise ScanError(
            f'the file cannot be read ({error.strerror})',
            path=path,
            remedy='Check its permissions and the disk',
        ) from error
    if b'annex/objects' in head:
        raise ScanError(
            'the file is a git-annex pointer without content',
            path=path,
            remedy=f'Fetch its content, e.g. with `datalad get {path.name}`',
        )
    try:
        img = nb.load(path)
    except _BROKEN_GZIP as error:
        raise _broken(path, error) from error
    except (
        nb.filebasedimages.ImageFileError,
        nb.spatialimages.HeaderDataError,
        ValueError,
    ) as error:
        raise ScanError(
            'the file is not a NIfTI image',
            path=path,
            remedy='Convert it to NIfTI, or copy it again if it should be one',
        ) from error
    if not isinstance(img, nb.Nifti1Pair):
        raise ScanError(
            f'the file holds a {type(img).__name__}, not a NIfTI image',
            path=path,
            remedy='Convert it to NIfTI',
        )
    return img


_BROKEN_GZIP = (EOFError, OSError, zlib.error)


def _broken(path: Path, error: Exception) -> ScanError:
    return ScanError(
        f'the file ends too early or is damaged ({error})',
        path=path,
        remedy='Copy it again from where it came from',
    )


def _voxels(img: nb.Nifti1Image, path: Path) -> np.ndarray:
    if img.get_data_dtype().kind not in 'buif':
        raise ScanError(
            f'voxels of type {img.get_data_dtype()} are no intensities',
            path=path,
            remedy='Give a real-valued magnitude image',
        )
    try:
        with np.errstate(over='ignore', invalid='ignore'):
            return np.asarray(img.dataobj).astype(np.float32)
    except (*_BROKEN_GZIP, ValueError) as error:
        raise _broken(path, error) from error


def _squeeze(data: np.ndarray, path: Path) -> np.ndarray:
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 3:
        raise ScanError(
            f'the image holds {int(np.prod(data.shape[3:]))} volumes, not one',
            path=path,
            remedy='Keep one volume, e.g. one echo or the mean',
        )
    if data.ndim < 3 or min(data.shape) < MIN_VOXELS:
        shape = '×'.join(str(n) for n in data.shape)
        raise ScanError(
            f'an image of {shape} voxels is no volume of a head',
            path=path,
            remedy='Leave localisers and single slices out',
        )
    return data


def _affine(header, shape, path: Path, findings: list[Finding]) -> np.ndarray:
    sform, qform = _sform(header), _qform(header, path, findings)
    if sform is None and qform is None:
        raise ScanError(
            'the header says nowhere how the voxels lie in space (no valid sform or qform)',
            path=path,
            field='sform_code',
            remedy='Convert the scan from DICOM again, or set the sform if you know what is left',
        )
    affine = qform if sform is None else sform
    if sform is not None and qform is not None:
        corners = _corner_indices(shape)
        apart = nb.affines.apply_affine(sform, corners) - nb.affines.apply_affine(qform, corners)
        distance = np.linalg.norm(apart, axis=1).max()
        if distance > FORM_TOLERANCE_MM:
            findings.append(
                Finding(
                    str(path),
                    'qform',
                    f'{distance:.1f} mm',
                    f'sform and qform disagree by up to {distance:.1f} mm',
                    'the sform was taken',
                )
            )
    zooms = nb.affines.voxel_sizes(affine)
    if zooms.min() < MIN_ZOOM_MM or zooms.max() > MAX_ZOOM_MM:
        size = '×'.join(f'{zoom:.4g}' for zoom in zooms)
        raise ScanError(
            f'a voxel size of {size} mm cannot be',
            path=path,
            field='pixdim',
            remedy='Mend the header',
        )
    return affine


def _sform(header) -> np.ndarray | None:
    affine, code = header.get_sform(coded=True)
    return _invertible(affine) if code > 0 else None


def _qform(header, path: Path, findings: list[Finding]) -> np.ndarray | None:
    """Return the qform; also where only the sform is coded, since some programs read it still."""
    try:
        affine, code = header.get_qform(coded=True)
        if code <= 0:
            stored = any(float(header[f'qoffset_{axis}']) for axis in 'xyz')
            if not stored or header['sform_code'] <= 0:
                return None
            affine = header.get_qform()
        found = _invertible(affine)
        if found is None:
            raise ValueError('its numbers are no place in space')
        return found
    except (nb.spatialimages.HeaderDataError, ValueError) as error:
        numbers = ' '.join(f'{float(header[f"quatern_{axis}"]):g}' for axis in 'bcd')
        problem = f'the qform is broken ({error})'
        findings.append(Finding(str(path), 'qform', numbers, problem, 'the sform was taken'))
        return None


def _invertible(affine: np.ndarray) -> np.ndarray | None:
    affine = np.asarray(affine, dtype=float)
    usable = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    return affine if usable else None


def _finite(data: np.ndarray, path: Path, findings: list[Finding]) -> np.ndarray:
    broken = ~np.isfinite(data)
    count = int(broken.sum())
    if not count:
        return data
    enclosed = broken & ~_touching_border(broken)
    if count == data.size or enclosed.sum() > MAX_ENCLOSED_NONFINITE * (data.size - count):
        raise ScanError(
            f'{count} voxels are NaN or infinite',
            path=path,
            remedy='Convert the scan again, or replace those voxels',
        )
    nearest = ndimage.distance_transform_edt(broken, return_distances=False, return_indices=True)
    data = np.where(enclosed, data[tuple(nearest)], np.where(broken, 0, data))
    findings.append(
        Finding(
            str(path),
            'voxels',
            str(count),
            f'{count} voxels are NaN or infinite, {int(enclosed.sum())} of them inside the image',
            'those at the border set to 0, the others copied from their nearest neighbour',
        )
    )
    return data


def _touching_border(mask: np.ndarray) -> np.ndarray:
    """Return the parts of a mask that are connected to the border of the array."""
    seeds = np.ones(mask.shape, dtype=bool)
    seeds[1:-1, 1:-1, 1:-1] = False
    return ndimage.binary_propagation(seeds & mask, mask=mask)


def _refuse_empty(data: np.ndarray, path: Path) -> None:
    lowest, highest = np.percentile(data, (0.1, 99.9))
    if lowest == highest:
        raise ScanError(
            f'the image is empty: practically all voxels are {lowest:g}',
            path=path,
            remedy='Convert the scan again, or leave it out',
        )


def _shear(affine: np.ndarray) -> float:
    """Return the largest cosine between two axes."""
    directions = affine[:3, :3] / nb.affines.voxel_sizes(affine)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def _settled(data: np.ndarray, affine: np.ndarray) -> nb.Nifti1Image:
    img = nb.Nifti1Image(data.astype(np.float32, copy=False), affine)
    img.set_qform(affine, code=1)
    # The qform is orthogonal by construction; taking it for both leaves no rounding between them.
    img.set_sform(img.get_qform(), code=1)
    img.header.set_xyzt_units('mm', 'sec')
    return img


def _corner_indices(shape) -> np.ndarray:
    return np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing='ij'), -1).reshape(-1, 3)
