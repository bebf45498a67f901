"""The brightest part of an image, which regression draws too dark.

What a network is unsure of it draws near the mean, most of all what is small and bright; scaled by
its brightest voxels, as images are looked at and compared, such an image is too bright everywhere
else. How much is missing was measured on people of the training data, contrast by contrast, as a
function of the brightness that the network gives under the default protocol; it is added before
another protocol changes the image.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

#: Percentiles of the brain between which a curve is drawn; nothing is added below the first.
PERCENTILES = (70.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9)


def fit_tail(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float]]:
    """Measure what is missing from the brightest part of images.

    Parameters
    ----------
    pairs : iterable of (made, true)
        Values of a synthetic and of the acquired image inside the brain, 1D, each on the scale
        on which the 98th percentile of an acquired image is 1.

    Returns
    -------
    list of (float, float)
        Brightness and what to add there, both rising; means over the pairs.
    """
    quantiles = [
        [np.percentile(values, PERCENTILES) for values in (made, true)] for made, true in pairs
    ]
    made, true = np.mean(quantiles, axis=0)
    missing = true - made
    # Rising, so that the order of grey values stays, and from 0, so that there is no step.
    missing = np.maximum.accumulate(np.maximum(missing - missing[0], 0))
    return [(round(float(x), 4), round(float(y), 4)) for x, y in zip(made, missing, strict=True)]


def restore_tail(image: np.ndarray, curve: Iterable[tuple[float, float]]) -> np.ndarray:
    """Add to the brightest part of an image what :func:`fit_tail` found missing.

    Parameters
    ----------
    image : ndarray of float32
        On the scale of the curve.
    curve : iterable of (float, float)
    """
    brightness, missing = np.array(list(curve), dtype=np.float32).T
    return image + np.interp(image, brightness, missing).astype(np.float32)
