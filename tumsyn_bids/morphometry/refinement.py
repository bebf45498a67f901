"""Labels of a deformed atlas, corrected by the tissues that the image itself shows."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..anatomy.tissues import Tissues
from .labels import BRAIN_STEM, CEREBELLUM, CEREBRAL_WHITE, CORTEX_BASE, DEEP_GREY

#: How far (mm) the atlas's cortex and its ventricles may move to meet the tissue.
CORTEX_REACH_MM, VENTRICLE_REACH_MM = 4.0, 3.0
#: How far (mm) the third ventricle may move where the atlas has nothing (farther lie the cisterns
#: below it), and the caudate into grey matter beside it.
THIRD_REACH_MM, CAUDATE_REACH_MM = 2.0, 2.0
#: White matter lies deeper than this (mm) below the edge of the brain mask.
EDGE_MM = 2.0
#: Lateral ventricle of each hemisphere and its lower horn.
LATERAL = {'lh': (4, 5), 'rh': (43, 44)}
THIRD_VENTRICLE = 14
CAUDATE = {'lh': 11, 'rh': 50}


def refine(labels: np.ndarray, tissues: Tissues, inside: np.ndarray, zooms) -> np.ndarray:
    """Clip and extend the labels of an atlas by tissue.

    Within the cerebrum, a voxel that is mostly grey matter and lies near the atlas's cortex
    becomes the nearest parcel of its hemisphere, any other one white matter or, where CSF
    prevails, nothing. Where the atlas has nothing, as in its sulci, white matter that hangs
    together with the rest is kept. Lateral ventricles and the third one take up the CSF around
    them; the former give up what is white matter. The caudate takes up the grey matter beside it.
    Other deep grey matter, the brain stem and the cerebellum keep the atlas's shape, less the
    CSF: the folds of the cerebellum are finer than voxels, so its tissues cannot be told by
    brightness.

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
    territory = nearest(labels, labels > 0, zooms)[0]
    deep = ndimage.distance_transform_edt(inside, sampling=zooms) > EDGE_MM
    refined = labels.copy()
    for side, base in CORTEX_BASE.items():
        _refine_cerebrum(
            refined, territory, labels, (grey, white & deep, fluid), side, base, zooms
        )
        _refine_ventricle(refined, labels, (white, fluid), side, zooms)
        _refine_caudate(refined, grey, side, zooms)
    _refine_third_ventricle(refined, fluid, zooms)
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
    parcel, distance = nearest(labels, cortex, zooms)
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
    closest, distance = nearest(labels, ventricle, zooms)
    taken = (
        fluid
        & (distance <= VENTRICLE_REACH_MM)
        & np.isin(labels, (0, CEREBRAL_WHITE[side], *DEEP_GREY))
    )
    taken &= _joined(taken, ventricle & ~white)
    refined[taken] = closest[taken]


def _refine_third_ventricle(refined, fluid, zooms) -> None:
    ventricle = refined == THIRD_VENTRICLE
    if not ventricle.any():
        return
    distance = nearest(refined, ventricle, zooms)[1]
    beside = np.isin(refined, (*DEEP_GREY, *CEREBRAL_WHITE.values()))
    beside |= (refined == 0) & (distance <= THIRD_REACH_MM)
    taken = fluid & beside & (distance <= VENTRICLE_REACH_MM)
    refined[taken & _joined(taken, ventricle)] = THIRD_VENTRICLE


def _refine_caudate(refined, grey, side, zooms) -> None:
    caudate = refined == CAUDATE[side]
    if caudate.any():
        near = nearest(refined, caudate, zooms)[1] <= CAUDATE_REACH_MM
        refined[grey & near & (refined == CEREBRAL_WHITE[side])] = CAUDATE[side]


def _joined(voxels: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Return the voxels, and those of the core, that hang together with the core."""
    parts, _ = ndimage.label(voxels | core)
    return np.isin(parts, np.unique(parts[core & (parts > 0)]))


def _main_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest part whose voxels share faces."""
    parts, count = ndimage.label(mask)
    return parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1 if count else mask


def nearest(labels: np.ndarray, among: np.ndarray, zooms) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each voxel, the label of the nearest of some voxels, and how far it is.

    Parameters
    ----------
    labels : ndarray of int
    among : ndarray of bool
        The voxels; at least one.
    zooms : sequence of 3 float
        Voxel size in mm, of which the distance is.
    """
    distance, places = ndimage.distance_transform_edt(~among, sampling=zooms, return_indices=True)
    return labels[tuple(places)], distance
