"""Real people with several contrasts on one grid, read from derivatives."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import nibabel as nb
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from ..acquisition import Acquisition
from ..anatomy.intensity import largest_part
from ..bids.metadata import MetadataReader
from ..bids.participants import People
from ..errors import UsageError
from ..greys import grey_levels
from ..grids import Grid, resample
from ..physics.recontrast import class_means, tissue_shares
from ..place import BrainFrame
from ..simulation.lesions import distance_to_ventricles
from .corruption import BRIGHTEST

LOGGER = logging.getLogger(__name__)

#: Fluid farther from the brain's surface than this belongs to the ventricles.
VENTRICLES_BELOW_MM = 20.0


@dataclass(frozen=True)
class PairedSubject:
    """A real person with several contrasts on one grid, brain only.

    Attributes
    ----------
    label : str
    person : Acquisition
        Age and sex; nothing else is set.
    images : dict of str to ndarray of float32, shape (X, Y, Z)
        By contrast, on 1 mm voxels; the 98th percentile of the brain is 1.
    mask : ndarray of bool, shape (X, Y, Z)
    voxel_size : tuple of 3 float
        In mm, of the grid that the images came on: what they resolve.
    protocols : dict of str to Acquisition
        By contrast, of the images whose sidecars tell how they were acquired.
    white : ndarray of bool, shape (X, Y, Z), optional
        White matter, where lesions may be put; not known without a T1w.
    ventricle : ndarray of uint8, shape (X, Y, Z), optional
        Distance to the ventricles in mm.
    shares : ndarray of float16, shape (4, X, Y, Z), optional
        Tissues, see :func:`tumsyn_bids.physics.recontrast.tissue_shares`; not known without a
        T1w.
    means : dict of str to ndarray, shape (4,)
        Of each image over these tissues.
    """

    label: str
    person: Acquisition
    images: dict[str, np.ndarray]
    mask: np.ndarray
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    protocols: dict[str, Acquisition] = field(default_factory=dict)
    white: np.ndarray | None = None
    ventricle: np.ndarray | None = None
    shares: np.ndarray | None = None
    means: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def frame(self) -> BrainFrame:
        """Where the brain lies in the volume."""
        return BrainFrame.of(self.mask)

    @cached_property
    def greys(self) -> dict[str, np.ndarray]:
        """How the grey values of each image are distributed (:mod:`tumsyn_bids.greys`)."""
        return {name: grey_levels(image, self.mask) for name, image in self.images.items()}

    def acquisition(self, name: str) -> Acquisition:
        """Return all that is known of an image: its protocol, the person, the voxels."""
        protocol = self.protocols.get(name, Acquisition(contrast=name))
        person = {'age': self.person.age, 'sex': self.person.sex}
        return protocol.replace(**person, voxel_size=self.voxel_size)


def scale_brain(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scale an image so that the 98th percentile inside a mask is 1; negatives become 0."""
    bright = float(np.percentile(image[mask], 98))
    return np.clip(image / max(bright, 1e-6), 0, BRIGHTEST).astype(np.float32)


def load_paired_subjects(
    dataset: str | Path, *, exclude: tuple[str, ...] = (), at_least: int = 2
) -> list[PairedSubject]:
    """Read the people of a derivative dataset whose images of a session share one grid.

    Parameters
    ----------
    dataset : path-like
        BIDS derivatives: ``desc-brain`` images without skull, or ``desc-preproc`` images with a
        ``desc-brain_mask``, as ``tumsyn-bids`` writes them. Synthetic images are not read.
    exclude : tuple of str
        Labels (``sub-19``) that must not be read.
    at_least : int
        Contrasts that a session must have; one with fewer is left out, with a warning.

    Raises
    ------
    UsageError
        If there is no such folder, no session with enough contrasts is left, or the images of one
        lie on different grids or have no brain in their mask.
    """
    dataset = Path(dataset)
    if not dataset.is_dir():
        raise UsageError('is not a folder', path=dataset, field='--pairs', remedy='Check the path')
    subjects = []
    reader, people = MetadataReader(dataset), _people(dataset)
    for folder in _session_folders(dataset, exclude):
        images = _aligned_images(folder, reader)
        if len(images) >= at_least:
            subjects.append(_paired_subject(dataset, folder, images, reader, people))
        else:
            label = '_'.join(folder.relative_to(dataset).parts)
            LOGGER.warning('%s: %d usable contrasts; left out', label, len(images))
    if not subjects:
        needed = 'an image' if at_least == 1 else 'two contrasts on one grid'
        raise UsageError(
            f'holds no subject with {needed}',
            path=dataset,
            remedy='Give a dataset of co-registered images with brain masks, such as an output '
            'directory of tumsyn-bids',
        )
    return subjects


def is_raw(dataset: str | Path) -> bool:
    """Return whether a dataset says that it is raw BIDS and holds no preprocessed image."""
    dataset = Path(dataset)
    try:
        description = json.loads((dataset / 'dataset_description.json').read_text('utf-8-sig'))
        kind = description.get('DatasetType', 'raw')
    except (OSError, ValueError, AttributeError):
        return False
    return kind == 'raw' and not any(map(_candidates, _session_folders(dataset, ())))


def _session_folders(dataset: Path, exclude: tuple[str, ...]) -> list[Path]:
    people = [path for path in sorted(dataset.glob('sub-*/')) if path.name not in exclude]
    return [folder for person in people for folder in sorted(person.glob('ses-*/')) or [person]]


def _aligned_images(folder: Path, reader: MetadataReader) -> dict[str, Path]:
    """Find the images of a session by contrast, which is read as at inference."""
    images: dict[str, Path] = {}
    for path in _candidates(folder):
        acquisition, findings = reader.imaging(path)
        if acquisition.contrast is not None:
            images[acquisition.contrast] = path
            for finding in findings:
                LOGGER.warning('%s: %s; %s', finding.path, finding.problem, finding.action)
    return images


def _candidates(folder: Path) -> list[Path]:
    kinds = ('brain', 'preproc')
    return [path for kind in kinds for path in sorted(folder.rglob(f'*_desc-{kind}_*.nii.gz'))]


def _people(dataset: Path) -> People:
    """Read who took part: from the dataset itself or from the raw one that it links to."""
    if not (dataset / 'participants.tsv').exists():
        try:
            description = json.loads((dataset / 'dataset_description.json').read_text())
            raw = Path(url2pathname(urlsplit(description['DatasetLinks']['raw']).path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return People(dataset)
        return People(raw if raw.is_absolute() else dataset / raw)
    return People(dataset)


def _paired_subject(dataset, folder: Path, paths, reader, people) -> PairedSubject:
    parts = folder.relative_to(dataset).parts
    label = '_'.join(parts)
    images = {name: nb.as_closest_canonical(nb.load(path)) for name, path in paths.items()}
    grids = {(img.shape, img.affine.round(3).tobytes()) for img in images.values()}
    if len(grids) > 1:
        raise UsageError(
            f'the images of {label} lie on different grids',
            path=dataset,
            remedy='Resample them to one grid first, as tumsyn-bids does with a raw dataset',
        )
    grid = Grid.of(next(iter(images.values())))
    fine = grid if np.allclose(grid.zooms, 1, atol=0.01) else grid.with_zooms((1.0, 1.0, 1.0))
    arrays = {name: resample(img, fine) for name, img in images.items()}
    mask = _brain_mask(folder, paths, arrays, fine)
    box = bounding_box(mask, margin=8)
    scaled = {
        name: scale_brain(array[box], mask[box]) * mask[box] for name, array in arrays.items()
    }
    subject, session = (part.partition('-')[2] for part in (*parts, '')[:2])
    age, sex, _ = people.person(subject, session or None)
    person = Acquisition(age=age, sex=sex)
    protocols = {name: reader.imaging(path)[0] for name, path in paths.items()}
    protocols = {
        name: acquisition.replace(contrast=name)
        for name, acquisition in protocols.items()
        if acquisition.repetition_time is not None
    }
    voxel_size = tuple(round(float(zoom), 2) for zoom in grid.zooms)
    white, ventricle = None, None
    if 'T1w' in scaled:
        white, ventricle = white_matter(scaled['T1w'], mask[box])
    shares = tissue_shares(scaled, mask[box])
    means = {}
    if shares is not None:
        means = {name: class_means(array, shares) for name, array in scaled.items()}
    return PairedSubject(
        label,
        person,
        scaled,
        mask[box],
        voxel_size,
        protocols=protocols,
        white=white,
        ventricle=ventricle,
        shares=shares,
        means=means,
    )


def _brain_mask(folder: Path, paths: dict[str, Path], arrays, grid: Grid) -> np.ndarray:
    """Return the brain of a session on a grid: its mask, or where its images are not 0."""
    masks = sorted(folder.rglob('*_desc-brain_mask.nii.gz'))
    if masks:
        drawn = nb.load(masks[0])
        share = nb.Nifti1Image(np.asarray(drawn.dataobj, dtype=np.float32), drawn.affine)
        mask, path = resample(share, grid) > 0.5, masks[0]
    else:
        mask = np.logical_or.reduce([array != 0 for array in arrays.values()])
        path = next(iter(paths.values()))
    if not mask.any():
        raise UsageError(
            'holds no brain',
            path=path,
            field='--pairs',
            remedy='Mend it, or leave the person out with --exclude',
        )
    return mask


def white_matter(t1w: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find white matter, and how far the ventricles are, in a T1w brain of 1 mm.

    White matter is the largest piece of the brightest of three classes, with the rim of partial
    volume that separates it from the ventricles; these are the fluid deep inside the brain.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        White matter; none in an image without contrast.
    ndarray of uint8, shape (X, Y, Z)
        Distance to the ventricles in mm.
    """
    smooth = ndimage.gaussian_filter(t1w, 0.7)
    if np.ptp(smooth[mask]) < 1e-3:
        return np.zeros_like(mask), distance_to_ventricles(np.zeros_like(mask))
    dark, bright = threshold_multiotsu(smooth[mask], classes=3)
    deep = ndimage.distance_transform_edt(mask) > VENTRICLES_BELOW_MM
    fluid = largest_part(deep & (smooth < dark))
    distance = distance_to_ventricles(fluid)
    white = largest_part(ndimage.binary_opening(mask & (smooth > bright)))
    near_white = ndimage.binary_dilation(white, iterations=3)
    return white | (near_white & mask & ~fluid & (distance <= 3)), distance


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the box around the voxels of a mask and so many beside them, within the volume."""
    corners = [
        (np.flatnonzero(mask.any(axis=others))[[0, -1]]) for others in ((1, 2), (0, 2), (0, 1))
    ]
    return tuple(slice(max(first - margin, 0), last + margin + 1) for first, last in corners)
