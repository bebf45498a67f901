"""Several label images of one brain, made one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .labels import CORTEX_BASE, structures
from .refinement import nearest

#: How far (mm, standard deviation) votes are blurred: where label images disagree, the one that is
#: nearer to its own border gives way. With 1 mm, the third ventricle gets thinner.
BLUR_MM = 0.7
_SIDES = {'Left-': 'Right-', 'ctx-lh-': 'ctx-rh-'}
_SIDES |= {right: left for left, right in _SIDES.items()}


def other_side(labels: np.ndarray) -> np.ndarray:
    """Return labels with left and right exchanged; what lies in the middle keeps its label.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers.
    """
    by_name = {item.name: number for number, item in structures().items()}
    table = np.arange(max(int(labels.max(initial=0)), *by_name.values()) + 1)
    for name, number in by_name.items():
        for side, opposite in _SIDES.items():
            if name.startswith(side):
                table[number] = by_name[opposite + name[len(side) :]]
    return table[labels]


def fuse_mirrored(carried: np.ndarray, mirrored: np.ndarray, zooms) -> np.ndarray:
    """Return the labels of an atlas and of its mirror image, fused.

    Parcels of the cortex are those of the atlas itself: they are not alike on both sides, and a
    study of their sides must not find them made so.

    Parameters
    ----------
    carried, mirrored : ndarray of int, of one shape
        FreeSurfer's numbers; sides are those of the brain in both.
    zooms : sequence of 3 float
        Voxel size in mm.

    Returns
    -------
    ndarray of int32
    """
    whole = []
    for labels in (carried, mirrored):
        cortex = labels >= min(CORTEX_BASE.values())
        whole.append(np.where(cortex, labels // 1000 * 1000, labels))
    fused = fuse(whole, zooms)
    for base in CORTEX_BASE.values():
        parcels = (carried > base) & (carried < base + 1000)
        if parcels.any():
            here = fused == base
            fused[here] = nearest(carried, parcels, zooms)[0][here]
    return fused


def fuse(images: Sequence[np.ndarray], zooms) -> np.ndarray:
    """Return the label with the most votes in and around each voxel.

    Each image votes for its labels, blurred by :data:`BLUR_MM`, so that shapes rather than voxels
    are averaged (compare Rohlfing and Maurer, IEEE Transactions on Image Processing 2007;16:153).

    Parameters
    ----------
    images : sequence of ndarray of int, all of one shape
    zooms : sequence of 3 float
        Voxel size in mm.

    Returns
    -------
    ndarray of int32
    """
    sigma = BLUR_MM / np.asarray(zooms, float)
    margin = np.ceil(4 * sigma).astype(int)
    boxes: dict[int, list] = {}
    for image in images:
        for index, box in enumerate(ndimage.find_objects(image + 1)):
            if box is not None:
                boxes.setdefault(index, []).append(box)
    best = np.zeros(images[0].shape, np.float32)
    fused = np.zeros(images[0].shape, np.int32)
    for label, found in boxes.items():
        start = np.min([[part.start for part in box] for box in found], axis=0) - margin
        stop = np.max([[part.stop for part in box] for box in found], axis=0) + margin
        box = tuple(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))
        votes = sum(
            ndimage.gaussian_filter((image[box] == label).astype(np.float32), sigma)
            for image in images
        )
        more = votes > best[box]
        best[box][more] = votes[more]
        fused[box][more] = label
    return fused
