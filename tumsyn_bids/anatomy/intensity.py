"""Where the head is, by intensity alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .geometry import winsorize


def head_mask(data: np.ndarray) -> np.ndarray:
    """Return the filled region that holds signal.

    Otsu's threshold between air and tissue (halved, since dark tissue belongs to the head as
    well), the largest connected part, closed and filled.

    Parameters
    ----------
    data : ndarray, 3D
        Best of roughly isotropic voxels.

    Returns
    -------
    ndarray of bool
    """
    from skimage.filters import threshold_otsu

    data = np.maximum(winsorize(data), 0)
    inside = data > 0.5 * threshold_otsu(data[data > 0] if (data == 0).mean() > 0.5 else data)
    inside = ndimage.binary_opening(inside, iterations=1)
    labels, count = ndimage.label(inside)
    if count == 0:
        return data > 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    inside = np.pad(labels == sizes.argmax(), 3)
    inside = ndimage.binary_closing(inside, iterations=3)
    return ndimage.binary_fill_holes(inside)[3:-3, 3:-3, 3:-3]
