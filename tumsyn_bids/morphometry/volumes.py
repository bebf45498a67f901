"""Volumes of structures and of the brain's parts, and whether they can be right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .labels import (
    BRAIN_STEM,
    CEREBELLUM,
    CEREBRAL_WHITE,
    CORPUS_CALLOSUM,
    CORTEX_BASE,
    DEEP_GREY,
    VENTRICLES,
    Structure,
    structures,
)
from .refinement import Tissues
from .segmentation import Segmentation

#: Volumes (mm³) outside which an adult's structure is called implausible: far wider than what
#: healthy and ill adults show; they are there to catch failures.
PLAUSIBLE_MM3: dict[str, tuple[float, float]] = {
    'Lateral-Ventricle': (500, 120000),
    'Thalamus-Proper': (2500, 14000),
    'Caudate': (1000, 8000),
    'Putamen': (1800, 10000),
    'Pallidum': (500, 4000),
    'Hippocampus': (1200, 7500),
    'Amygdala': (400, 4000),
    'Accumbens-area': (100, 2000),
    'Cerebellum-Cortex': (20000, 110000),
    'Brain-Stem': (8000, 45000),
    'Cerebral-White-Matter': (90000, 400000),
}
#: Fewer voxels than this and a structure counts as vanished: its volume is unknown, not small.
_LEAST_VOXELS = 3


@dataclass(frozen=True)
class Measure:
    """What was measured of a structure.

    Attributes
    ----------
    structure : Structure
    voxels : int
    volume_mm3 : float
        NaN where the structure was not found.
    mean, sd, low, high : float
        Of the image's intensities inside; NaN where it was not found.
    flag : str
        Why the volume should not be trusted; empty where nothing speaks against it.
    """

    structure: Structure
    voxels: int
    volume_mm3: float
    mean: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    flag: str = ''


def measure_structures(segmentation: Segmentation) -> list[Measure]:
    """Measure each structure of the atlas, in the order of their numbers."""
    shares = soft_volumes(segmentation.labels, segmentation.tissues, segmentation.grid.zooms)
    return [
        _measure(structure, segmentation, shares.get(number, 0.0))
        for number, structure in sorted(structures().items())
    ]


def soft_volumes(labels: np.ndarray, tissues: Tissues, zooms) -> dict[int, float]:
    """Return the volume (mm³) of each label, voxels at its edge weighted by tissue.

    A voxel of the cortex, of the ventricles or of the white matter counts with the probability of
    that tissue. What is missing to 1 goes to the nearest structure of the other tissue, if one
    touches it; grey and white matter that no such structure touches stay with the voxel's own
    structure, CSF outside of the ventricles is nobody's. A voxel beyond the edge that holds less
    than half of a tissue counts with that. Deep grey matter and the brain stem are mixtures:
    their voxels count in full.
    """
    size = float(np.prod(zooms))
    known = structures()
    groups = {kind: np.zeros(labels.shape, bool) for kind in ('GM', 'WM', 'CSF')}
    for number in np.unique(labels[labels > 0]):
        if number in known and _is_soft(known[number]):
            groups[known[number].tissue] |= labels == number
    shares = {'GM': tissues.gm, 'WM': tissues.wm, 'CSF': tissues.csf}
    soft = groups['GM'] | groups['WM'] | groups['CSF']
    volumes = _summed(labels, np.where(soft, 0.0, labels > 0), size)
    stray = np.zeros(labels.shape)
    for kind, share in shares.items():
        edge = soft | ((labels == 0) & (share < 0.5))
        around = ndimage.binary_dilation(groups[kind], np.ones((3, 3, 3))) & edge
        if kind != 'CSF':
            stray += share * (soft & ~around)
        if not around.any():
            continue
        places = ndimage.distance_transform_edt(
            ~groups[kind], return_distances=False, return_indices=True
        )
        owner = np.where(around, labels[tuple(places)], 0)
        _add(volumes, _summed(owner, share * around, size))
    _add(volumes, _summed(labels, stray, size))
    return volumes


def brain_volumes(segmentation: Segmentation, measures: list[Measure]) -> dict[str, float]:
    """Return FreeSurfer's volumes of the brain's parts, by FreeSurfer's names, in mm³.

    They are sums over the structures; see ``docs/morphometry.md`` for what differs.
    """
    volumes = {item.structure.number: item.volume_mm3 for item in measures}

    def total(numbers) -> float:
        known = [volumes[number] for number in numbers if math.isfinite(volumes[number])]
        return float(sum(known)) if known else math.nan

    cortex = {
        side: [number for number in volumes if base < number < base + 1000]
        for side, base in CORTEX_BASE.items()
    }
    callosum = np.nan_to_num(total(CORPUS_CALLOSUM))
    white = {side: total([number]) + callosum / 2 for side, number in CEREBRAL_WHITE.items()}
    both = [*cortex['lh'], *cortex['rh']]
    brain = [number for number in volumes if number not in (BRAIN_STEM, 85)]
    above = [number for number in brain if number not in CEREBELLUM]
    mask = float(segmentation.mask.sum() * segmentation.grid.zooms.prod())
    etiv = segmentation.intracranial_mm3
    return {
        'BrainSeg': total(brain),
        'BrainSegNotVent': total(set(brain) - set(VENTRICLES)),
        'VentricleChoroidVol': total(VENTRICLES),
        'lhCortex': total(cortex['lh']),
        'rhCortex': total(cortex['rh']),
        'Cortex': total(both),
        'lhCerebralWhiteMatter': white['lh'],
        'rhCerebralWhiteMatter': white['rh'],
        'CerebralWhiteMatter': total((*CEREBRAL_WHITE.values(), *CORPUS_CALLOSUM)),
        'SubCortGray': total(DEEP_GREY),
        'TotalGray': total((*both, *DEEP_GREY, 8, 47)),
        'SupraTentorial': total(above),
        'SupraTentorialNotVent': total(set(above) - set(VENTRICLES)),
        'Mask': mask,
        'BrainSegVol-to-eTIV': total(brain) / etiv,
        'MaskVol-to-eTIV': mask / etiv,
        'EstimatedTotalIntraCranialVol': etiv,
    }


def doubts(measures: list[Measure], etiv: float) -> list[str]:
    """Word what looks wrong about a segmentation, for the log and the report."""
    notes = [f'{item.structure.name}: {item.flag}' for item in measures if item.flag]
    if math.isfinite(etiv) and not 900e3 <= etiv <= 2300e3:
        notes.append(f'an intracranial volume of {etiv / 1000:.0f} ml is implausible for an adult')
    volumes = {item.structure.name: item.volume_mm3 for item in measures}
    for name in PLAUSIBLE_MM3:
        pair = [volumes.get(f'{side}-{name}', math.nan) for side in ('Left', 'Right')]
        if max(pair) > 2 * min(pair):
            notes.append(f'{name}: left and right differ by more than twice')
    return notes


def _measure(structure: Structure, segmentation: Segmentation, volume: float) -> Measure:
    values = segmentation.brain[segmentation.labels == structure.number]
    if len(values) < _LEAST_VOXELS:
        return Measure(structure, len(values), math.nan, flag='not found')
    numbers = (values.mean(), values.std(), values.min(), values.max())
    low, high = PLAUSIBLE_MM3.get(
        structure.name.removeprefix('Left-').removeprefix('Right-'), (0.0, math.inf)
    )
    reasons = {
        f'{volume:.0f} mm³ is implausible for an adult': not low <= volume <= high,
        'cut off by the end of the image': structure.number in segmentation.cut,
    }
    flag = '; '.join(reason for reason, holds in reasons.items() if holds)
    return Measure(structure, len(values), volume, *map(float, numbers), flag)


def _is_soft(structure: Structure) -> bool:
    number = structure.number
    return structure.is_cortex or number in (*CEREBRAL_WHITE.values(), 4, 43)


def _add(volumes: dict[int, float], more: dict[int, float]) -> None:
    for number, volume in more.items():
        volumes[number] = volumes.get(number, 0.0) + volume


def _summed(labels: np.ndarray, weights: np.ndarray, size: float) -> dict[int, float]:
    sums = np.bincount(labels.ravel(), weights=np.asarray(weights, float).ravel())
    return {int(number): float(sums[number] * size) for number in np.flatnonzero(sums)}
