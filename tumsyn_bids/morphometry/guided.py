"""Tissues of a brain, told by their brightness and by where the deformed atlas expects them.

K-means alone fails on scans of low contrast: where the cortex is only some percent darker than
the white matter, it draws the line between the two through the cortex.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..anatomy.tissues import Tissues
from .labels import CORTEX_BASE, structures
from .mixtures import brightness_levels, tissue_shares
from .refinement import CORTEX_REACH_MM, LATERAL, VENTRICLE_REACH_MM

#: How far (mm, standard deviation) the atlas's borders are blurred, and the least share of each
#: tissue: none is impossible anywhere.
BLUR_MM, LEAST_SHARE = 2.0, 0.02
#: Behind the wall of a ventricle lies what is this near (mm, standard deviation) and dry.
BEHIND_MM, _DRY = 1.5, 0.2


def tissue_priors(labels: np.ndarray, inside: np.ndarray, zooms) -> Tissues:
    """Return the share of each tissue that a deformed atlas expects; they add up to 1.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers, of the deformed atlas. What has none counts as CSF, but near the
        cortex as cortex and CSF alike: the atlas's cortex is thinner than that of people.
    inside : ndarray of bool
        Brain mask; all shares are 0 outside.
    zooms : sequence of 3 float
        Voxel size in mm.
    """
    numbers = {kind: [] for kind in ('GM', 'WM', 'CSF')}
    for number, item in structures().items():
        numbers[item.tissue].append(number)
    places = {kind: np.isin(labels, found).astype(np.float32) for kind, found in numbers.items()}
    nameless = inside & (labels == 0)
    cortex = labels >= min(CORTEX_BASE.values())
    distance = ndimage.distance_transform_edt(~cortex, sampling=zooms)
    near = nameless & cortex.any() & (distance <= CORTEX_REACH_MM)
    places['CSF'][nameless] = 1
    places['CSF'][near] = places['GM'][near] = 0.5
    sigma = BLUR_MM / np.asarray(zooms, float)
    shares = {
        kind: ndimage.gaussian_filter(place, sigma) + LEAST_SHARE for kind, place in places.items()
    }
    total = sum(shares.values())
    gm, wm, csf = (shares[kind] / total * inside for kind in ('GM', 'WM', 'CSF'))
    return Tissues(gm=gm, wm=wm, csf=csf)


def with_walls(
    tissues: Tissues, brain: np.ndarray, inside: np.ndarray, labels: np.ndarray, levels, zooms
) -> Tissues:
    """Return tissues whose shares in the walls of the lateral ventricles are told anew.

    A voxel half of CSF and half of white matter is as bright as grey matter. Where fluid of a
    ventricle touches, its share of CSF is reckoned against the tissue behind the wall instead.

    Parameters
    ----------
    tissues : Tissues
    brain, inside, labels, zooms
        As for :func:`guided_tissues`.
    levels : Levels
    """
    zooms = np.asarray(zooms, float)
    ventricles = np.isin(labels, [number for pair in LATERAL.values() for number in pair])
    if not ventricles.any():
        return tissues
    near = ndimage.distance_transform_edt(~ventricles, sampling=zooms) <= VENTRICLE_REACH_MM
    parts, _ = ndimage.label(near & inside & (tissues.csf > 0.5))
    fluid = np.isin(parts, np.setdiff1d(parts[ventricles], 0))
    wall = ndimage.binary_dilation(fluid, np.ones((3, 3, 3))) & near & inside & ~fluid
    behind = inside & ~fluid & ~wall & (tissues.csf < _DRY)
    sigma = BEHIND_MM / zooms
    weight = ndimage.gaussian_filter(behind.astype(np.float32), sigma)
    level = ndimage.gaussian_filter(brain * behind, sigma) / np.maximum(weight, 1e-3)
    wall &= level > levels.grey
    share = np.clip((level - brain) / np.maximum(level - levels.csf, 1e-3), 0, 1)
    csf = np.where(wall, np.maximum(share, tissues.csf), tissues.csf)
    white = level > (levels.grey + levels.white) / 2
    wm = np.where(wall, (1 - csf) * white, tissues.wm)
    return Tissues(gm=np.where(wall, 1 - csf - wm, tissues.gm), wm=wm, csf=csf)


def guided_tissues(brain: np.ndarray, inside: np.ndarray, labels: np.ndarray, zooms) -> Tissues:
    """Return how much of each tissue the voxels of a T1w brain hold.

    Parameters
    ----------
    brain : ndarray
        Intensities.
    inside : ndarray of bool
        Brain mask.
    labels : ndarray of int
        FreeSurfer's numbers, of the deformed atlas.
    zooms : sequence of 3 float
        Voxel size in mm.

    Raises
    ------
    ScanError
        If the tissues are missing or do not differ.
    """
    priors = tissue_priors(labels, inside, zooms)
    levels = brightness_levels(brain, inside, labels, priors)
    tissues = tissue_shares(brain, inside, levels, priors)
    return with_walls(tissues, brain, inside, labels, levels, zooms)
