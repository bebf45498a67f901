"""How alike two images are: the figures of the paper, on plain arrays.

All figures are taken after :func:`scale_to_percentile`, as in the paper (section "Evaluation
metrics": min-max normalisation at the 99.5th percentile), so they do not depend on the units of
either image. The paper averages SSIM over 2D slices; here the window is three-dimensional, so the
figure does not depend on which way the slices lie. On real 1 mm brains both differ by less
than .005. A whole-volume figure counts the empty background, which both images agree upon: it is
what papers report, and always the kinder one. The brain figures count brain voxels only.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from .baselines import fit_lut

#: Width of the SSIM window in voxels: a Gaussian of 1.5 voxels cut off at 3.5 deviations.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def scale_to_percentile(image: np.ndarray, q: float = 99.5) -> np.ndarray:
    """Scale an image to [0, 1], with its ``q``-th percentile at 1 and what is brighter cut off.

    The lower end is the minimum of the image, but not less than 0: negative values in magnitude
    images are ringing of an interpolation. The percentile is taken over the whole array,
    background included.

    Parameters
    ----------
    image : ndarray
        Any real type, any shape, finite.
    q : float
        Percentile, in percent.

    Returns
    -------
    ndarray of float32

    Raises
    ------
    ValueError
        If the image holds NaN or infinite values, or nothing above its lower end at this
        percentile.
    """
    image = np.asarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        raise ValueError('the image holds NaN or infinite values')
    low = max(float(image.min()), 0.0)
    high = float(np.percentile(image, q))
    if high <= low:
        raise ValueError(f'the image has no intensities to scale: percentile {q} is {high}')
    return np.clip((image - low) / (high - low), 0, 1)


def mae(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the mean absolute difference, over all voxels or those of a mask."""
    return float(np.abs(_within(a, mask) - _within(b, mask)).mean())


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB of images scaled to [0, 1].

    Parameters
    ----------
    a, b : ndarray
        Same shape. The peak is 1.
    mask : ndarray, optional
        Voxels to count; all if not given.

    Returns
    -------
    float
        ``inf`` for equal images.
    """
    error = float(np.square(_within(a, mask) - _within(b, mask)).mean())
    return float('inf') if error == 0 else float(-10 * np.log10(error))


def pearson(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the correlation of the intensities; NaN where one image is constant."""
    a, b = _within(a, mask), _within(b, mask)
    if a.std() == 0 or b.std() == 0:
        return float('nan')
    return float(np.corrcoef(a, b)[0, 1])


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity around every voxel of images scaled to [0, 1].

    Wang et al. 2004: Gaussian window of 11 voxels and sigma 1.5 along every axis, K1 = .01,
    K2 = .03, population covariance, data range 1.

    Raises
    ------
    ValueError
        If an axis is shorter than the window.
    """
    _, full = structural_similarity(
        np.asarray(a, dtype=np.float32),
        np.asarray(b, dtype=np.float32),
        data_range=1.0,
        gaussian_weights=True,
        sigma=_SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return full


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the mean structural similarity of images scaled to [0, 1].

    Parameters
    ----------
    a, b : ndarray
        Same shape, 2D or 3D, at least :data:`SSIM_WINDOW` voxels along every axis.
    mask : ndarray, optional
        Voxels whose similarity is averaged; their windows may reach beyond the mask. If not given,
        all voxels whose window lies within the array (scikit-image's convention).
    """
    return _mean_similarity(ssim_map(a, b), mask)


def prepare(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Set an image to 0 outside a mask and scale it by :func:`scale_to_percentile`.

    Raises
    ------
    ValueError
        If shapes differ or the image has no usable intensities.
    """
    image = np.asarray(image)
    if image.shape != mask.shape:
        raise ValueError(f'shapes differ: image {image.shape}, mask {mask.shape}')
    return scale_to_percentile(np.where(mask, image, 0))


def score_prepared(image: np.ndarray, answer: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return the figures of :func:`score_pair` for an image already scaled to [0, 1]."""
    similarity = None if min(mask.shape) < SSIM_WINDOW else ssim_map(image, answer)
    nothing = float('nan')
    return {
        'psnr_whole': psnr(image, answer),
        'psnr_brain': psnr(image, answer, mask),
        'ssim_whole': nothing if similarity is None else _mean_similarity(similarity, None),
        'ssim_brain': nothing if similarity is None else _mean_similarity(similarity, mask),
        'pearson': pearson(image, answer, mask),
        'mae': mae(image, answer, mask),
    }


def score_pair(
    synthetic: np.ndarray,
    acquired: np.ndarray,
    mask: np.ndarray,
    *,
    source: np.ndarray | None = None,
) -> dict[str, float]:
    """Score a synthetic image against the acquired one.

    Both are set to 0 outside the brain and scaled by :func:`scale_to_percentile` first.

    Parameters
    ----------
    synthetic, acquired : ndarray, shape (i, j, k)
        On one grid, in any units.
    mask : ndarray, shape (i, j, k)
        Brain.
    source : ndarray, shape (i, j, k), optional
        The image that the synthetic one was made from, on the same grid. With it the dictionary
        also says how the best look-up table fitted on the answer does (``lut_…``). A
        synthetic image that is not better than that has learned nothing but grey values.

    Returns
    -------
    dict of str to float
        ``psnr_whole``, ``psnr_brain`` (dB), ``ssim_whole``, ``ssim_brain``, ``pearson`` and
        ``mae`` (both within the brain), and each again as ``lut_<name>`` if ``source`` is given.
        SSIM is NaN where the volume is thinner than its window.

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, or an image has no usable intensities.
    """
    mask = np.asarray(mask) > 0
    if not mask.any():
        raise ValueError('the mask is empty')
    answer = prepare(acquired, mask)
    scores = score_prepared(prepare(synthetic, mask), answer, mask)
    if source is not None:
        prepared = prepare(source, mask)
        predicted = fit_lut(prepared, answer, mask).apply(prepared, mask)
        beside = score_prepared(predicted, answer, mask)
        scores.update({f'lut_{name}': value for name, value in beside.items()})
    return scores


def gain_intervals(
    image: np.ndarray,
    other: np.ndarray,
    answer: np.ndarray,
    mask: np.ndarray,
    *,
    edge: int = 24,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Return how much better an image is than another one, with intervals over the brain.

    Cubes of the brain are drawn with replacement, the same for both images: the interval says how
    much a gain depends on which parts of this brain are looked at, and nothing of other people.

    Parameters
    ----------
    image, other, answer : ndarray, shape (i, j, k)
        Scaled to [0, 1]; equal to the answer outside the mask.
    mask : ndarray of bool, shape (i, j, k)
    edge : int
        Of a cube, in voxels.
    level : float
        Confidence level.
    resamples : int
    seed : int

    Returns
    -------
    dict of str to (float, float, float)
        Gain and interval in ``psnr`` (dB; the same over the brain and over the whole volume),
        ``ssim_whole`` and ``ssim_brain``.
    """
    mask = np.asarray(mask) > 0
    index = np.indices(mask.shape) // edge
    blocks = np.ravel_multi_index(index, [-(-n // edge) for n in mask.shape])
    inner = np.zeros_like(mask)
    margin = SSIM_WINDOW // 2
    inner[margin:-margin, margin:-margin, margin:-margin] = True
    sums = {}
    for name, volume in (('image', image), ('other', other)):
        squared = np.square(np.asarray(volume, dtype=np.float64) - answer)
        lack = 1.0 - ssim_map(volume, answer)
        sums[name] = np.stack(
            [
                np.bincount(blocks[part], weights=values[part], minlength=blocks.max() + 1)
                for values, part in ((squared, mask), (lack, inner), (lack, mask))
            ]
        )
    counts = np.bincount(blocks[mask], minlength=blocks.max() + 1)
    kept = counts > 0
    counts, sums = counts[kept], {name: values[:, kept] for name, values in sums.items()}
    # What lies around the brain is the same whichever cubes of it are drawn.
    whole = inner.sum() / counts.sum()

    def gains(chosen) -> np.ndarray:
        means = {
            name: values[:, chosen].sum(axis=1) / counts[chosen].sum()
            for name, values in sums.items()
        }
        decibels = 10 * np.log10(means['other'][0] / means['image'][0])
        lacking = means['other'] - means['image']
        return np.array([decibels, lacking[1] / whole, lacking[2]])

    rng = np.random.default_rng(seed)
    drawn = [gains(rng.integers(0, len(counts), len(counts))) for _ in range(resamples)]
    tails = (50 * (1 - level), 50 * (1 + level))
    low, high = np.percentile(drawn, tails, axis=0)
    found = zip(gains(np.arange(len(counts))), low, high, strict=True)
    names = ('psnr', 'ssim_whole', 'ssim_brain')
    return {name: tuple(map(float, row)) for name, row in zip(names, found, strict=True)}


def _within(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    image = np.asarray(image, dtype=np.float64)
    return image.ravel() if mask is None else image[np.asarray(mask) > 0]


def _mean_similarity(similarity: np.ndarray, mask: np.ndarray | None) -> float:
    if mask is not None:
        return float(similarity[np.asarray(mask) > 0].mean())
    inner = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    return float(similarity[(inner,) * similarity.ndim].mean(dtype=np.float64))
