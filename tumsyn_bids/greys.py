"""How the grey values of a brain are distributed.

Two scans of one contrast can differ more than two contrasts do: in some T1w images cortex is half
as bright as white matter, in others hardly darker. A patch does not tell, the whole brain does.
"""

from __future__ import annotations

import numpy as np

#: Percentiles that the distribution is told with.
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95)


def grey_levels(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the percentiles of a brain.

    Parameters
    ----------
    image : ndarray
        Scaled as it enters the network: the 98th percentile of the brain is 1.
    mask : ndarray of bool
        Of the same shape, one voxel at least.

    Returns
    -------
    ndarray of float32, shape (len(PERCENTILES),)
    """
    return np.percentile(image[mask], PERCENTILES).astype(np.float32)
