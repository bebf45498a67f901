"""What the tissues of a brain look like under an acquisition, as a vector for the network."""

from __future__ import annotations

import numpy as np

from ..acquisition import Acquisition
from ..networks.config import N_SIGNALS
from ..protocols import default_protocol
from .signals import signal
from .tissues import Relaxation, relaxation

#: Tissues whose signal the network is told, and the share of each in a brain as brain extraction
#: leaves it: rounded means over label maps of SynthSeg's training set, up to 3 mm outside the
#: parenchyma.
BRAIN_SHARES: dict[str, float] = {
    'white_matter': 0.311,
    'cortex': 0.386,
    'csf': 0.238,
    'caudate': 0.006,
    'putamen': 0.007,
    'pallidum': 0.002,
    'thalamus': 0.010,
    'hippocampus': 0.007,
    'brain_stem': 0.020,
    'white_matter_lesion': 0.002,
    'choroid_plexus': 0.002,
    'vessel': 0.009,
}
#: Structures that are counted with another one, which they look like.
SIMILAR: dict[str, str] = {
    'cerebellar_white_matter': 'white_matter',
    'cerebellar_cortex': 'cortex',
    'accumbens': 'caudate',
    'ventral_dc': 'brain_stem',
    'amygdala': 'hippocampus',
}
#: Brightest value that is handed to the network.
_LARGEST = 3.0
#: An inversion recovery takes longer than this; a T1w of a shorter TR (s) without a TI has none,
#: also where that TR may be the echo spacing that some vendors write.
_SHORTEST_INVERSION_TR = 1.2
#: Signal, relative to the equilibrium of water, below which there is none.
_FAINTEST = 1e-6
#: Part of the repetition time that an echo time takes at most that nobody has stated.
_LONGEST_ECHO = 0.9
_STATED = ('repetition_time', 'echo_time', 'inversion_time', 'flip_angle')


def expected_signals(acquisition: Acquisition) -> np.ndarray:
    """Return the signal of each tissue under an acquisition, by the sequence equations.

    Parameters that are unknown are those of the default protocol of the contrast. Where those that
    are known do not make a sequence (:func:`impossible_timing`), all of them are discarded, also
    those that would fit, and the signals are those of the default protocol.

    Parameters
    ----------
    acquisition : Acquisition

    Returns
    -------
    ndarray of float32, shape (N_SIGNALS,)
        In the order of :data:`BRAIN_SHARES`; the 98th percentile of a brain with these shares
        is 1. Zeros if the contrast is unknown.
    """
    if acquisition.contrast is None:
        return np.zeros(N_SIGNALS, dtype=np.float32)
    _, values, _ = _computed(acquisition)
    shares = np.array(list(BRAIN_SHARES.values()))
    bright = weighted_quantile(values, shares, 0.98)
    return np.clip(values / max(bright, _FAINTEST), 0, _LARGEST).astype(np.float32)


def impossible_timing(acquisition: Acquisition) -> str | None:
    """Say why no sequence has the parameters of an acquisition, or return ``None``.

    Values that are left open are those of the default protocol of the contrast; the sentence says
    so of those that it names.

    Parameters
    ----------
    acquisition : Acquisition

    Returns
    -------
    str or None
        Such as ``'an inversion time of 9 s does not fit into a repetition time of 5 s'``; ``None``
        if :func:`expected_signals` computes what is stated, or if the contrast is unknown.
    """
    if acquisition.contrast is None:
        return None
    return _computed(acquisition)[2]


def at_echo_time(acquisition: Acquisition, echo_time: float) -> Acquisition:
    """Return what is computed of an acquisition, as if it had another echo time.

    Parameters
    ----------
    acquisition : Acquisition
        Of known contrast.
    echo_time : float
        In seconds; what fits into the repetition time, if that is shorter.
    """
    computed, _, _ = _computed(acquisition)
    if echo_time >= computed.repetition_time:
        echo_time = _LONGEST_ECHO * computed.repetition_time
    return computed.replace(echo_time=echo_time)


def share_of(tissue: str) -> int:
    """Return where in :data:`BRAIN_SHARES` a tissue is counted; behind its end if nowhere."""
    names = list(BRAIN_SHARES)
    tissue = SIMILAR.get(tissue, tissue)
    return names.index(tissue) if tissue in names else len(names)


def tissue_signals(acquisition: Acquisition) -> np.ndarray:
    """Return the signal of each tissue of :data:`BRAIN_SHARES`, not scaled.

    Raises
    ------
    ValueError
        If a parameter that the sequence needs is unknown or the timing is impossible.
    """
    rows = [relaxation(name, acquisition.field_strength or 3.0) for name in BRAIN_SHARES]
    keys = ('t1', 't2', 't2star', 'pd', 'uptake')
    table = {key: np.array([getattr(row, key) for row in rows]) for key in keys}
    return np.asarray(signal(acquisition, Relaxation(**table)))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """Return the smallest value below or at which a part ``quantile`` of the weight lies."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, quantile * cumulative[-1])])


def _computed(acquisition: Acquisition) -> tuple[Acquisition, np.ndarray, str | None]:
    """Return what the equations are given, the signals, and what was impossible otherwise."""
    default = default_protocol(acquisition.contrast, acquisition.field_strength)
    completed = _completed(acquisition, default)
    try:
        values = tissue_signals(completed)
        if np.isfinite(values).all() and values.max() > _FAINTEST:
            return completed, values, None
        problem = 'no tissue gives a signal'
    except (ValueError, ArithmeticError) as error:
        problem = str(error)
    names = [name.replace('_', ' ') for name in _STATED if getattr(acquisition, name) is None]
    ours = [f'the {name}' for name in names if name in problem]
    if ours:
        verb = 'is that' if len(ours) == 1 else 'are those'
        problem += f' ({" and ".join(ours)} {verb} of the default protocol)'
    return default, tissue_signals(default), problem


def _completed(acquisition: Acquisition, default: Acquisition) -> Acquisition:
    tr, angle = acquisition.repetition_time, acquisition.flip_angle
    may_invert = tr is None or tr > _SHORTEST_INVERSION_TR
    if acquisition.contrast in ('T1w', 'T1CE') and acquisition.inversion_time is None:
        if tr is None and angle is not None and angle >= 60:
            # A spin echo of which nothing else is known.
            default = default.replace(inversion_time=None, repetition_time=0.5, echo_time=0.012)
        elif not may_invert:
            default = default.replace(inversion_time=None)
    return _with_room_for_the_echo(acquisition, acquisition.filled_from(default))


def _with_room_for_the_echo(stated: Acquisition, completed: Acquisition) -> Acquisition:
    """Let what nobody has stated give way: of an SWI with a long TE, TR is not the usual one."""
    tr, te = completed.repetition_time, completed.echo_time
    if te < tr:
        return completed
    if stated.echo_time is None:
        return completed.replace(echo_time=_LONGEST_ECHO * tr)
    if stated.repetition_time is None:
        return completed.replace(repetition_time=te / _LONGEST_ECHO)
    return completed
