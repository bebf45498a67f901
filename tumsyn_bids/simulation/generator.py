"""Endless pairs of scans of one brain under different protocols, for training.

An anatomy (a label map) is deformed at random, its tissues get properties that vary from sample to
sample and from place to place, and the sequence equations turn them into any number of perfectly
aligned images. The recipe follows SynthSeg and SynthSR (Billot et al. 2023; Iglesias et al. 2023),
with physical signals in the place of random intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from ..acquisition import Acquisition
from ..errors import UsageError
from ..physics.expected import weighted_quantile
from ..physics.signals import signal
from ..physics.tissues import Relaxation, relaxation
from ..place import BrainFrame
from .labelmaps import TISSUE_NAMES, read_labels, tissues_of
from .lesions import distance_to_ventricles, draw_lesions
from .noise import smooth_fields

OUTSIDE_BRAIN = ('air', 'eye', 'fat', 'muscle', 'skin', 'mucosa', 'bone', 'marrow', 'optic_nerve')
#: By which a person is turned at most about each axis, if nothing else is asked.
ROTATION_DEG = 15.0
#: Part of the people that get lesions which their label maps do not have.
LESIONS = 0.3
_FLUID = ('csf', 'vessel')
_LARGEST_DEPTH = 12
#: FreeSurfer numbers, left and right.
_LATERAL_VENTRICLES = (4, 43)


@dataclass(frozen=True)
class TissueVolume:
    """A label map as tissues, cropped around the brain, stored in RAS+ order.

    Attributes
    ----------
    tissue : ndarray of uint8, shape (X, Y, Z)
        Index into :data:`TISSUE_NAMES`.
    distance : ndarray of uint8, shape (X, Y, Z)
        Distance to the parenchyma in mm, at most 12.
    counts : ndarray of int, shape (13, n_tissues)
        Voxels of each tissue at each distance.
    ventricle : ndarray of uint8, shape (X, Y, Z)
        Distance to the lateral ventricles in mm.
    frame : BrainFrame
    """

    name: str
    tissue: np.ndarray
    distance: np.ndarray
    counts: np.ndarray
    ventricle: np.ndarray
    frame: BrainFrame


def load_tissue_volume(path: str | Path) -> TissueVolume:
    """Read a label map with FreeSurfer numbers as tissues.

    Raises
    ------
    UsageError
        If the file holds no label map of a head, or labels without a known tissue; see
        :func:`~tumsyn_bids.simulation.labelmaps.read_labels`.
    """
    labels = read_labels(path)
    tissue = tissues_of(labels)
    parenchyma = ~np.isin(tissue, [TISSUE_NAMES.index(n) for n in (*OUTSIDE_BRAIN, *_FLUID)])
    if not parenchyma.any():
        raise UsageError(
            'no voxel of the label map is brain tissue',
            path=path,
            remedy='Give a map with FreeSurfer numbers, such as 3 and 42 for cortex',
        )
    # The largest piece: stray nerve or cord voxels far from the brain must not widen the crop.
    pieces, _ = ndimage.label(parenchyma)
    parenchyma = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    box = tuple(
        slice(max(part.start - 16, 0), part.stop + 16)
        for part in ndimage.find_objects(parenchyma.astype(np.uint8))[0]
    )
    distance = ndimage.distance_transform_edt(~parenchyma[box])
    distance = np.minimum(distance, _LARGEST_DEPTH).astype(np.uint8)
    n_tissues = len(TISSUE_NAMES)
    pairs = distance.astype(np.int64) * n_tissues + tissue[box]
    counts = np.bincount(pairs.ravel(), minlength=(_LARGEST_DEPTH + 1) * n_tissues)
    ventricle = distance_to_ventricles(np.isin(labels[box], _LATERAL_VENTRICLES))
    return TissueVolume(
        Path(path).name,
        tissue[box],
        distance,
        counts.reshape(-1, n_tissues),
        ventricle,
        # With the fluid that brain extraction leaves around it.
        BrainFrame.of(distance <= 3),
    )


@dataclass(frozen=True)
class Subject:
    """Tissue properties of one simulated person on a patch.

    Attributes
    ----------
    tissue : ndarray of uint8, shape (X, Y, Z)
    mask : ndarray of bool, shape (X, Y, Z)
        What brain extraction would keep.
    factors : dict of str to ndarray, shape (n_tissues,)
        Per-tissue factors on T1, T2, T2* and proton density.
    texture : dict of str to ndarray, shape (X, Y, Z)
        Per-voxel factors on the same properties.
    fractions : ndarray, shape (n_tissues,)
        Share of each tissue in the whole masked brain.
    """

    tissue: np.ndarray
    mask: np.ndarray
    factors: dict[str, np.ndarray]
    texture: dict[str, np.ndarray]
    fractions: np.ndarray


_SPREAD = {'t1': 0.06, 't2': 0.07, 't2star': 0.10, 'pd': 0.025}
#: A solid tissue that is longer in T1 at a place is also longer in T2 and richer in water there.
_FOLLOWS_T1 = {'t1': 1.0, 't2': 0.6, 't2star': 0.5, 'pd': 0.25}


def draw_subject(
    rng: np.random.Generator, volume: TissueVolume, grid: torch.Tensor, *, lesions: float = LESIONS
) -> Subject:
    """Cut a patch out of an anatomy and give it tissue properties.

    Parameters
    ----------
    rng : numpy.random.Generator
    volume : TissueVolume
    grid : Tensor, shape (1, X, Y, Z, 3)
        Sampling positions as ``grid_sample`` takes them, from :func:`draw_grid`.
    lesions : float
        Probability of added white-matter lesions.
    """
    tissue = _sample(volume.tissue, grid, 'nearest').round().astype(np.uint8)
    distance = _sample(volume.distance, grid, 'bilinear')
    reach = rng.uniform(1.0, 6.0)
    outside = [TISSUE_NAMES.index(name) for name in OUTSIDE_BRAIN]
    mask = (distance <= reach) & ~np.isin(tissue, outside)
    fractions = volume.counts[: int(reach) + 1].sum(axis=0).astype(float)
    fractions[outside] = 0
    fractions /= fractions.sum()
    if rng.random() < lesions:
        tissue = _add_lesions(rng, tissue, _sample(volume.ventricle, grid, 'bilinear'))
    factors = {
        key: np.exp(rng.normal(0, spread, len(TISSUE_NAMES))) for key, spread in _SPREAD.items()
    }
    common = _noise(rng, tissue.shape, smooth=rng.uniform(0.01, 0.05), white=rng.uniform(0, 0.03))
    own = {key: _noise(rng, tissue.shape, smooth=0.01, white=0.0) for key in ('t2', 'pd')}
    texture = {
        key: np.exp(weight * common + own.get(key, 0)) for key, weight in _FOLLOWS_T1.items()
    }
    return Subject(tissue, mask, factors, texture, fractions)


def render(subject: Subject, acquisition: Acquisition) -> np.ndarray:
    """Return the noise-free image of a subject under an acquisition.

    Returns
    -------
    ndarray of float32, shape ``subject.tissue.shape``
        Scaled so that the 98th percentile of the whole brain is 1; 0 outside the mask.
    """
    table = _properties(acquisition.field_strength or 3.0)
    maps = {
        key: (values * subject.factors[key]).astype(np.float32)[subject.tissue]
        * subject.texture[key]
        for key, values in table.items()
        if key != 'uptake'
    }
    maps['pd'] = np.minimum(maps['pd'], 1.0)
    uptake = table['uptake'].astype(np.float32)[subject.tissue]
    image = np.asarray(signal(acquisition, Relaxation(**maps, uptake=uptake)), dtype=np.float32)
    _, bright = _class_signals(subject, acquisition)
    return np.where(subject.mask, image / bright, 0).astype(np.float32)


def class_levels(subject: Subject, acquisition: Acquisition) -> np.ndarray:
    """Return the intensity of each of :data:`TISSUE_NAMES` in :func:`render`'s image."""
    signals, bright = _class_signals(subject, acquisition)
    return signals / bright


def random_levels(rng: np.random.Generator) -> np.ndarray:
    """Draw an intensity for each of :data:`TISSUE_NAMES`, which no sequence need produce."""
    return rng.uniform(0.05, 1.0, len(TISSUE_NAMES)).astype(np.float32)


def render_levels(subject: Subject, levels: np.ndarray) -> np.ndarray:
    """Return an image with a given intensity per tissue."""
    image = levels[subject.tissue] * subject.texture['t1']
    return np.where(subject.mask, image, 0).astype(np.float32)


def draw_matrix(
    rng: np.random.Generator,
    *,
    rotation_deg: float = ROTATION_DEG,
    scale: float = 0.12,
) -> np.ndarray:
    """Draw what turns a position in a cube into one in the volume that it is cut out of.

    Left and right are exchanged half of the time.

    Parameters
    ----------
    rng : numpy.random.Generator
    rotation_deg, scale : float
        Largest rotation about each axis, largest relative change of size.

    Returns
    -------
    ndarray, shape (3, 3)
    """
    angles = np.deg2rad(rng.uniform(-rotation_deg, rotation_deg, 3))
    matrix = _rotation(angles) @ np.diag(np.exp(rng.uniform(-scale, scale, 3)))
    if rng.random() < 0.5:
        matrix[:, 0] *= -1
    return matrix


def draw_grid(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    patch: int,
    *,
    centre: np.ndarray,
    matrix: np.ndarray,
    bend_voxels: float = 3.0,
) -> torch.Tensor:
    """Draw the sampling positions of a rotated, scaled and bent cube.

    Parameters
    ----------
    shape : tuple of 3 int
        Of the volume that will be sampled, in the order (X, Y, Z).
    patch : int
        Edge of the cube in voxels.
    centre : ndarray, shape (3,)
        Voxel at the centre of the cube.
    matrix : ndarray, shape (3, 3)
        Of :func:`draw_matrix`.
    bend_voxels : float
        Standard deviation of the smooth displacement.

    Returns
    -------
    Tensor of float32, shape (1, patch, patch, patch, 3)
    """
    axis = torch.arange(patch, dtype=torch.float32) - (patch - 1) / 2
    offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing='ij'), dim=-1)
    points = offsets @ torch.from_numpy(matrix.T.astype(np.float32))
    if bend_voxels > 0:
        knots = max(patch // 16, 2)
        bend = torch.from_numpy(
            rng.normal(0, bend_voxels * rng.random(), (1, 3, knots, knots, knots)).astype('f4')
        )
        bend = F.interpolate(bend, size=(patch,) * 3, mode='trilinear', align_corners=True)
        points = points + bend[0].movedim(0, -1)
    points = points + torch.from_numpy(np.asarray(centre, dtype=np.float32))
    size = torch.tensor(shape, dtype=torch.float32)
    return ((points * 2 + 1) / size - 1).flip(-1)[None]


def sample_image(image: np.ndarray, grid: torch.Tensor) -> np.ndarray:
    """Sample an image linearly at the positions of :func:`draw_grid`; 0 outside."""
    return _sample(image, grid, 'bilinear')


def _sample(array: np.ndarray, grid: torch.Tensor, mode: str) -> np.ndarray:
    # Only the box around the positions is converted to float: a patch is a small part of a head.
    size = torch.tensor(array.shape, dtype=torch.float32)
    voxels = ((grid.flip(-1) + 1) * size - 1) / 2
    flat = voxels.reshape(-1, 3)
    first = (flat.min(dim=0).values.floor().long() - 1).clamp_min(0)
    last = torch.minimum(flat.max(dim=0).values.ceil().long() + 2, size.long())
    last = torch.maximum(last, first + 1)
    part = array[tuple(slice(int(lo), int(hi)) for lo, hi in zip(first, last, strict=True))]
    if part.size == 0:
        return np.zeros(grid.shape[1:4], dtype=np.float32)
    local = ((voxels - first) * 2 + 1) / (last - first) - 1
    tensor = torch.from_numpy(np.ascontiguousarray(part)).float()[None, None]
    return F.grid_sample(tensor, local.flip(-1), mode=mode, align_corners=False)[0, 0].numpy()


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _class_signals(subject: Subject, acquisition: Acquisition) -> tuple[np.ndarray, float]:
    """Return the signal of each tissue, and the 98th percentile of the whole brain's."""
    table = _properties(acquisition.field_strength or 3.0)
    varied = {key: table[key] * factor for key, factor in subject.factors.items()}
    signals = np.asarray(signal(acquisition, Relaxation(**varied, uptake=table['uptake'])))
    return signals, max(weighted_quantile(signals, subject.fractions, 0.98), 1e-6)


def _properties(field_strength: float) -> dict[str, np.ndarray]:
    rows = [relaxation(name, field_strength) for name in TISSUE_NAMES]
    keys = ('t1', 't2', 't2star', 'pd', 'uptake')
    return {key: np.array([getattr(row, key) for row in rows]) for key in keys}


def _noise(rng, shape, *, smooth: float, white: float) -> np.ndarray:
    """Sum of smooth fields of several widths and of white noise, standard deviations given."""
    total = np.zeros(shape, dtype=np.float32)
    for field in smooth_fields(rng, shape, (4, 8, 24)):
        total += smooth * field
    if white > 0:
        total += white * rng.standard_normal(shape, dtype=np.float32)
    return total


def _add_lesions(rng, tissue: np.ndarray, ventricle_mm: np.ndarray) -> np.ndarray:
    lesions = draw_lesions(rng, tissue == TISSUE_NAMES.index('white_matter'), ventricle_mm)
    return np.where(lesions, np.uint8(TISSUE_NAMES.index('white_matter_lesion')), tissue)
