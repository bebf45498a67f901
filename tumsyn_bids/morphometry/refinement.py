"""Labels of a deformed atlas, corrected by the tissues that the image itself shows."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..anatomy.tissues import Tissues
from .labels import BRAIN_STEM, CEREBELLUM, CEREBRAL_WHITE, CORTEX_BASE, DEEP_GREY

#: How far (mm) the atlas's cortex and its ventricles may move to meet the tissue.
CORTEX_REACH_MM, VENTRICLE_REACH_MM = 4.0, 3.0
#: White matter lies deeper than this (mm) below the edge of the brain mask.
EDGE_MM = 2.0
#: Lateral ventricle of each hemisphere and its lower horn.
LATERAL = {'lh': (4, 5), 'rh': (43, 44)}


def refine(labels: np.ndarray, tissues: Tissues, inside: np.ndarray, zooms) -> np.ndarray:
    """Clip and extend the labels of an atlas by tissue.

    Within the cerebrum, a voxel that is mostly grey matter and lies near the atlas's cortex
    becomes the nearest parcel of its hemisphere, any other one white matter or, where CSF
    prevails, nothing. Where the atlas has nothing, as in its sulci, white matter that hangs
    together with the rest is kept. Lateral ventricles take up the CSF around them and give up
    what is white matter. Deep grey matter, the brain stem and the cerebellum keep the atlas's
    shape, less the CSF: the folds of the cerebellum are finer than voxels, so its tissues cannot
    be told by brightness.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers, of the deformed atlas.
    tissues : Tissues
    inside : ndarray of bool
        Brain mask.
    zooms : sequence of 3 float
        Voxel size in mm.

    Returns
    -------
    ndarray of int32
    """
    labels = np.where(inside, labels, 0).astype(np.int32)
    winner = np.argmax([tissues.gm, tissues.wm, tissues.csf], axis=0)
    grey, white, fluid = (inside & (winner == number) for number in range(3))
    territory = _nearest(labels, labels > 0, zooms)[0]
    deep = ndimage.distance_transform_edt(inside, sampling=zooms) > EDGE_MM
    refined = labels.copy()
    for side, base in CORTEX_BASE.items():
        _refine_cerebrum(
            refined, territory, labels, (grey, white & deep, fluid), side, base, zooms
        )
        _refine_ventricle(refined, labels, (white, fluid), side, zooms)
    firm = np.isin(refined, (*DEEP_GREY, *CEREBELLUM, BRAIN_STEM))
    refined[firm & fluid & (tissues.csf > 0.8)] = 0
    return np.where(inside, refined, 0)


def _refine_cerebrum(refined, territory, labels, tissue, side, base, zooms) -> None:
    grey, white, fluid = tissue
    white_label = CEREBRAL_WHITE[side]
    cortex = (labels > base) & (labels < base + 1000)
    if not cortex.any():
        return
    of_cortex = (territory > base) & (territory < base + 1000)
    domain = (of_cortex | (territory == white_label)) & ((labels == 0) | (labels == territory))
    parcel, distance = _nearest(labels, cortex, zooms)
    is_cortex = domain & grey & (distance <= CORTEX_REACH_MM)
    refined[domain] = white_label
    refined[is_cortex] = parcel[is_cortex]
    refined[domain & fluid] = 0
    # Where the atlas has nothing, as in its sulci, is white matter only if it hangs together with
    # the rest of it: scalp and dura that a mask left over are bright as well.
    added = domain & (labels == 0) & ~is_cortex
    refined[added] = 0
    candidates = (refined == white_label) | (added & white & (distance <= CORTEX_REACH_MM))
    refined[_main_part(candidates) & added] = white_label


def _refine_ventricle(refined, labels, tissue, side, zooms) -> None:
    white, fluid = tissue
    ventricle = np.isin(labels, LATERAL[side])
    if not ventricle.any():
        return
    refined[ventricle & white] = CEREBRAL_WHITE[side]
    nearest, distance = _nearest(labels, ventricle, zooms)
    taken = (
        fluid
        & (distance <= VENTRICLE_REACH_MM)
        & np.isin(labels, (0, CEREBRAL_WHITE[side], *DEEP_GREY))
    )
    parts, _ = ndimage.label(taken | (ventricle & ~white))
    joined = np.isin(parts, np.unique(parts[ventricle & ~white & (parts > 0)]))
    taken &= joined
    refined[taken] = nearest[taken]


def _main_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest part whose voxels share faces."""
    parts, count = ndimage.label(mask)
    return parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1 if count else mask


def _nearest(labels: np.ndarray, among: np.ndarray, zooms) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each voxel, the label of the nearest of some voxels, and how far it is."""
    distance, places = ndimage.distance_transform_edt(~among, sampling=zooms, return_indices=True)
    return labels[tuple(places)], distance
