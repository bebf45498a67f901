"""Tissues of a brain, told by their brightness and by where the deformed atlas expects them.

K-means alone fails on scans of low contrast: where the cortex is only some percent darker than
the white matter, it draws the line between the two through the cortex.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..anatomy.tissues import Tissues, segment_tissues
from .labels import CORTEX_BASE, structures
from .refinement import CORTEX_REACH_MM

#: How far (mm, standard deviation) the atlas's borders are blurred, and the least share of each
#: tissue: none is impossible anywhere.
BLUR_MM, LEAST_SHARE = 2.0, 0.02


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


def guided_tissues(brain: np.ndarray, inside: np.ndarray, labels: np.ndarray, zooms) -> Tissues:
    """Return the tissue probabilities of a T1w brain (Atropos; Avants et al., 2011).

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
        If Atropos fails.
    """
    return segment_tissues(brain, inside, tissue_priors(labels, inside, zooms), zooms)
