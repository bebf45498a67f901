"""How much of each tissue a voxel holds, told by its brightness.

A voxel holds one tissue, or two in any proportion (Santago and Gage, 1993). So the border between
two tissues lies half-way between their brightnesses, however wide or narrow the one or the other
spreads; with one Gaussian for each tissue, voxels at borders widen the darker tissues and draw
the border into the brighter one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from ..anatomy.tissues import Tissues
from ..errors import ScanError
from .labels import CEREBRAL_WHITE, CORTEX_BASE, VENTRICLES

#: How much the places of the tissues count against the brightness, and how much the neighbours.
PLACE_WEIGHT, NEIGHBOUR_WEIGHT = 0.5, 2.0
_ROUNDS = 3
#: Share of grey matter that the prior should promise where the brightness of the cortex is read.
_CORTEX_SHARE = 0.6
#: Grey and white matter that differ by less than this part of the noise cannot be told.
_LEAST_CONTRAST = 0.5
_LEAST_VOXELS = 100
#: No image counts as less noisy than this part of the brightness of white matter.
_LEAST_NOISE = 0.01
_BINS = 1000
#: Each of how many voxels the frequencies of the mixtures are found from, and how often.
_EVERY, _FREQUENCY_ROUNDS = 7, 15
_MAD = 1.4826


@dataclass(frozen=True)
class Levels:
    """Brightness of pure tissue in a T1w image, in its units.

    Attributes
    ----------
    csf, grey, white : float
        Most frequent brightness.
    noise : float
        Standard deviation about them.
    """

    csf: float
    grey: float
    white: float
    noise: float


def brightness_levels(
    brain: np.ndarray, inside: np.ndarray, labels: np.ndarray, priors: Tissues
) -> Levels:
    """Read the brightness of pure tissues where the deformed atlas expects them.

    They are modes, so neither mixed voxels nor an atlas that fits badly here and there count.
    Noise is told by the white matter that is brighter than its mode, where nothing is mixed in.

    Parameters
    ----------
    brain : ndarray
        Intensities.
    inside : ndarray of bool
        Brain mask.
    labels : ndarray of int
        FreeSurfer's numbers, of the deformed atlas.
    priors : Tissues
        Share of each tissue that the atlas expects.

    Raises
    ------
    ScanError
        Where the tissues are missing or do not differ.
    """
    white_values = brain[inside & np.isin(labels, list(CEREBRAL_WHITE.values()))]
    cortex = inside & (labels >= min(CORTEX_BASE.values()))
    if min(len(white_values), cortex.sum()) < _LEAST_VOXELS:
        raise _untold()
    white = _mode(white_values, np.subtract(*np.percentile(white_values, [75, 25])) / 5)
    above = white_values[white_values > white] - white
    noise = max(_LEAST_NOISE * white, float(_MAD * np.median(above)) if len(above) else 0.0)
    # Where the atlas is surest of its cortex, and half of it at least.
    sure = priors.gm >= min(_CORTEX_SHARE, float(np.median(priors.gm[cortex])))
    grey_values = brain[cortex & sure & (brain < white)]
    if len(grey_values) < _LEAST_VOXELS:
        raise _untold()
    grey = _mode(grey_values, noise / 2)
    if white - grey < _LEAST_CONTRAST * noise:
        raise _untold()
    csf = _fluid(brain, inside, labels, grey, noise)
    return Levels(csf, grey, white, noise)


def tissue_shares(
    brain: np.ndarray, inside: np.ndarray, levels: Levels, priors: Tissues
) -> Tissues:
    """Return the expected share of each tissue in each voxel; they add up to 1 inside.

    Each voxel is CSF, grey matter, white matter, or a mixture of CSF and grey or of grey and
    white matter, with a probability that its brightness, its place and its neighbours tell.

    Parameters
    ----------
    brain, inside, priors
        As for :func:`brightness_levels`.
    levels : Levels
    """
    values = brain[inside].astype(float)
    likely = _densities(values, levels)
    places = _places(priors, inside)
    places *= _frequencies(likely, places)[:, None]
    around = 1.0
    for _ in range(_ROUNDS):
        classes = likely * places * around
        classes /= np.maximum(classes.sum(axis=0), 1e-30)
        around = np.exp(NEIGHBOUR_WEIGHT * _neighbours(classes, inside))
    grey_of_fluid = np.clip((values - levels.csf) / (levels.grey - levels.csf), 0, 1)
    white_of_grey = np.clip((values - levels.grey) / (levels.white - levels.grey), 0, 1)
    fluid, fluid_grey, grey, grey_white, white = classes
    return Tissues(
        gm=_placed(fluid_grey * grey_of_fluid + grey + grey_white * (1 - white_of_grey), inside),
        wm=_placed(grey_white * white_of_grey + white, inside),
        csf=_placed(fluid + fluid_grey * (1 - grey_of_fluid), inside),
    )


def _fluid(brain, inside, labels, grey: float, noise: float) -> float:
    """Return the brightness of CSF: in the ventricles, or where these are too small, outside."""
    for places in (np.isin(labels, VENTRICLES), labels == 0):
        values = brain[inside & places]
        values = values[values < grey - 2 * noise]
        if len(values) >= _LEAST_VOXELS:
            return _mode(values, grey / 20)
    raise _untold()


def _mode(values: np.ndarray, width: float) -> float:
    """Return the most frequent value, the histogram blurred by a width."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return low
    counts, edges = np.histogram(values, _BINS, (low, high))
    step = (high - low) / _BINS
    smooth = ndimage.gaussian_filter1d(counts.astype(float), np.clip(width / step, 1, _BINS))
    return float(edges[smooth.argmax()] + step / 2)


def _densities(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Return how probable a brightness is in CSF, mixed, grey, mixed and white, shape (5, n)."""

    def pure(level: float) -> np.ndarray:
        far = (values - level) / levels.noise
        return np.exp(-0.5 * far**2) / (levels.noise * np.sqrt(2 * np.pi))

    def mixed(low: float, high: float) -> np.ndarray:
        below, above = ((values - level) / levels.noise for level in (low, high))
        return (ndtr(below) - ndtr(above)) / (high - low)

    found = [
        pure(levels.csf),
        mixed(levels.csf, levels.grey),
        pure(levels.grey),
        mixed(levels.grey, levels.white),
        pure(levels.white),
    ]
    # What is brighter or darker than any tissue belongs to the nearest one.
    found[0][values < levels.csf] = found[0].max(initial=1e-12)
    found[4][values > levels.white] = found[4].max(initial=1e-12)
    return np.stack(found) + 1e-12


def _places(priors: Tissues, inside: np.ndarray) -> np.ndarray:
    """Return how probable the five classes are by place, shape (5, n)."""
    fluid, grey, white = (
        part[inside].astype(float) ** PLACE_WEIGHT for part in (priors.csf, priors.gm, priors.wm)
    )
    return np.stack([fluid, np.sqrt(fluid * grey), grey, np.sqrt(grey * white), white])


def _frequencies(likely: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return how frequent the classes are, beyond what their places tell (EM), shape (5,)."""
    likely, places = likely[:, ::_EVERY], places[:, ::_EVERY]
    found = np.full(len(likely), 1 / len(likely))
    for _ in range(_FREQUENCY_ROUNDS):
        weighted = places * found[:, None]
        classes = weighted * likely
        classes /= classes.sum(axis=0)
        found = classes.sum(axis=1) / (places / weighted.sum(axis=0)).sum(axis=1)
        found /= found.sum()
    return found


def _neighbours(classes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the mean of each class over the voxels around."""
    return np.stack([ndimage.uniform_filter(_placed(part, inside), 3)[inside] for part in classes])


def _placed(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    image = np.zeros(inside.shape, np.float32)
    image[inside] = values
    return image


def _untold() -> ScanError:
    return ScanError(
        'grey matter, white matter and CSF cannot be told apart',
        remedy='Check that the image is a T1w brain',
    )
