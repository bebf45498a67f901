"""How well two methods agree on the same quantity, over people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Fewer people than this and agreement is not worth a number.
LEAST_PEOPLE = 3


@dataclass(frozen=True)
class Agreement:
    """Agreement of a second method with a first one.

    Attributes
    ----------
    n : int
        People with both values.
    pearson, pearson_low, pearson_high : float
        Correlation and its 95 % confidence interval (Fisher's z).
    icc, icc_low, icc_high : float
        ICC(2,1) and its 95 % confidence interval.
    bias : float
        Mean of second minus first.
    limit_low, limit_high : float
        Limits of agreement (Bland and Altman, 1986): bias ∓ 1.96 standard deviations.

    All are NaN where they are not defined: fewer people than :data:`LEAST_PEOPLE`, no spread.
    """

    n: int
    pearson: float = np.nan
    pearson_low: float = np.nan
    pearson_high: float = np.nan
    icc: float = np.nan
    icc_low: float = np.nan
    icc_high: float = np.nan
    bias: float = np.nan
    limit_low: float = np.nan
    limit_high: float = np.nan


def agreement(first, second) -> Agreement:
    """Compare two methods on the same people.

    Parameters
    ----------
    first, second : array-like, shape (n,)
        One value a person; people with a NaN in either are left out.
    """
    pairs = np.stack([np.asarray(first, float), np.asarray(second, float)], axis=1)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < LEAST_PEOPLE:
        return Agreement(len(pairs))
    difference = pairs[:, 1] - pairs[:, 0]
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    return Agreement(
        len(pairs),
        *_pearson(pairs),
        *icc_2_1(pairs),
        bias,
        bias - 1.96 * spread,
        bias + 1.96 * spread,
    )


def icc_2_1(ratings, level: float = 0.95) -> tuple[float, float, float]:
    """Return the intraclass correlation ICC(2,1), absolute agreement, and its interval.

    Two-way random effects, single measurement: Shrout and Fleiss (Psychol Bull 1979); the
    interval is that of McGraw and Wong (Psychol Methods 1996, table 7).

    Parameters
    ----------
    ratings : array-like, shape (people, methods)
        At least 2 by 2, finite.
    level : float
        Of confidence.

    Returns
    -------
    tuple of float
        ICC, low and high end; NaN where all people are alike.
    """
    ratings = np.asarray(ratings, float)
    n, k = ratings.shape
    people, methods = ratings.mean(axis=1), ratings.mean(axis=0)
    residual = ratings - people[:, None] - methods + ratings.mean()
    rows = k * people.var(ddof=1)
    columns = n * methods.var(ddof=1)
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    if rows <= 0:
        return (np.nan,) * 3
    icc = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    if error <= 0:
        return float(icc), np.nan, np.nan
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    tail = 1 - (1 - level) / 2
    f_low, f_high = stats.f.ppf(tail, n - 1, freedom), stats.f.ppf(tail, freedom, n - 1)
    between = k * columns + (k * n - k - n) * error
    low = n * (rows - f_low * error) / (f_low * between + n * rows)
    high = n * (f_high * rows - error) / (between + n * f_high * rows)
    return float(icc), float(low), float(high)


def _pearson(pairs: np.ndarray) -> tuple[float, float, float]:
    if (np.ptp(pairs, axis=0) == 0).any():
        return (np.nan,) * 3
    found = stats.pearsonr(*pairs.T)
    interval = found.confidence_interval() if len(pairs) > 3 else (np.nan, np.nan)
    return float(found.statistic), float(interval[0]), float(interval[1])
