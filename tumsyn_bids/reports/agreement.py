"""Bland-Altman figures: what a second method measures more than a first one, over the mean."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import staged

_COLUMNS = 3


def bland_altman_svg(panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> bytes:
    """Draw one panel for each quantity (Bland and Altman, 1986).

    Parameters
    ----------
    panels : mapping of str to tuple
        Title to values of the first and of the second method, one a person; not empty.

    Returns
    -------
    bytes
        An SVG file; the same for the same values.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.2 * rows), layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis, (title, (first, second)) in zip(axes, panels.items(), strict=False):
        _panel(axis, title, np.asarray(first, float), np.asarray(second, float))
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    out = io.BytesIO()
    with mpl.rc_context({'svg.hashsalt': 'tumsyn-bids'}):
        figure.savefig(out, format='svg', metadata={'Date': None})
    return out.getvalue()


def save_bland_altman(panels: Mapping[str, tuple], out: str | Path) -> Path:
    """Write :func:`bland_altman_svg` to a file."""
    with staged(out) as temporary:
        temporary.write_bytes(bland_altman_svg(panels))
    return Path(out)


def _panel(axis, title: str, first: np.ndarray, second: np.ndarray) -> None:
    difference = second - first
    bias = difference.mean()
    axis.scatter((first + second) / 2, difference, s=18, color='#1f5fa8')
    axis.axhline(0, color='0.7', linewidth=0.8)
    axis.axhline(bias, color='#b03a2e', linewidth=1.2)
    if len(difference) > 2:
        for limit in (-1.96, 1.96):
            place = bias + limit * difference.std(ddof=1)
            axis.axhline(place, color='#b03a2e', linewidth=0.9, linestyle='--')
    axis.set_title(f'{title} (n = {len(first)})', fontsize=10)
    axis.set_xlabel('mean of acquired and synthetic', fontsize=8)
    axis.set_ylabel('synthetic − acquired', fontsize=8)
    axis.tick_params(labelsize=7)
