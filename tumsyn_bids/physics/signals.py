"""Signal equations: what a tissue looks like under a sequence.

All times are in seconds, flip angles in degrees. Properties may be scalars or arrays; results
are magnitudes. Equations: Bernstein, King & Zhou, *Handbook of MRI Pulse Sequences* (2004),
chapters 14 and 16; MPRAGE in closed form after Deichmann et al. (NeuroImage 2000) with alternating
recovery and spoiled read-out; the equivalent echo time of variable-flip-angle trains after Mugler
(JMRI 2014).
"""

from __future__ import annotations

import numpy as np

from ..acquisition import Acquisition
from ..values import LONGEST_ECHO_SPACING
from .tissues import Relaxation

INVERSION_EFFICIENCY = 0.96
#: Relaxivities of a gadolinium chelate at 3 T, 1/(mM s) (Rohrer et al., Invest Radiol 2005).
RELAXIVITY_T1 = 3.7
RELAXIVITY_T2 = 5.0
#: Nominal TE above which a turbo spin echo must be a variable-flip-angle train.
VARIABLE_FLIP_TE = 0.25
#: Seconds of transverse decay before the inversion of a FLAIR with a variable-flip-angle train.
T2_PREPARATION = 0.125
#: What an MPRAGE is taken to have where its metadata do not say: an echo spacing (s) within the 6
#: to 10 ms that GE and Philips state; as many echoes as partitions of 1 mm hold a head (176; 208
#: in UK Biobank); and from TI to the next inversion (s) a time within what protocols have that
#: state both: 1.4 in ADNI, 1.1 in UK Biobank (Alfaro-Almagro et al., NeuroImage 2018), 1.0 in the
#: Brain Tumor Imaging Protocol. None of the three is fitted to images.
_ECHO_SPACING = 7.5e-3
_ECHOES_PER_SHOT = 176
_AFTER_TI = 1.3


def spin_echo(tissue: Relaxation, *, tr: float, te: float):
    """Return the signal of a spin echo."""
    return tissue.pd * -np.expm1(-tr / tissue.t1) * np.exp(-te / tissue.t2)


def effective_echo_time(te: float) -> float:
    """Return the echo time that a plain spin echo of the same T2 weighting would have.

    Trains with variable flip angles (SPACE, CUBE, VISTA) store part of the magnetisation
    longitudinally and are designed for one T2 weighting at any length: nominal 0.4 to 0.56 s weigh
    as 0.09 to 0.11 s do.
    """
    return 0.08 + 0.05 * te if te > VARIABLE_FLIP_TE else te


def turbo_spin_echo(tissue: Relaxation, *, tr: float, te: float):
    """Return the signal of a turbo spin echo with effective echo time ``te``.

    Stimulated echoes lengthen the apparent T2 by about 15 %.
    """
    te = effective_echo_time(te)
    recovery = -np.expm1(-max(tr - 2 * te, 0.1 * tr) / tissue.t1)
    return tissue.pd * recovery * np.exp(-te / (1.15 * tissue.t2))


def inversion_turbo_spin_echo(tissue: Relaxation, *, tr: float, te: float, ti: float):
    """Return the signal of a turbo spin echo after an inversion (FLAIR, T1-TIRM).

    With a variable-flip-angle train the inversion is prepared by T2 (see :func:`inverted_share`),
    without which cortex would be darker than white matter at the short TR of these sequences.
    """
    inverted = inverted_share(tissue.t2, te=te)
    te = effective_echo_time(te)
    recovery_time = max(tr - 2 * te, 1.05 * ti)
    before = -np.expm1(-(recovery_time - ti) / tissue.t1)
    longitudinal = 1 - (1 + inverted * before) * np.exp(-ti / tissue.t1)
    return tissue.pd * np.abs(longitudinal) * np.exp(-te / (1.15 * tissue.t2))


def inverted_share(t2, *, te: float):
    """Return which part of the longitudinal magnetisation an inversion turns over.

    All of it, or, before a variable-flip-angle train, what has not decayed with T2 in the module
    that vendors put in front (Siemens' non-selective T2 IR, GE's T2 Prep): fluid is inverted,
    tissue hardly.

    Parameters
    ----------
    t2 : float or ndarray
        In seconds.
    te : float
        Nominal echo time in seconds.
    """
    return np.exp(-T2_PREPARATION / t2) if te > VARIABLE_FLIP_TE else 1.0


def null_inversion_time(t1: float, t2: float, *, tr: float, te: float) -> float:
    """Return the TI (s) at which a tissue of this T1 and T2 (s) gives no signal in a FLAIR."""
    recovery_time = tr - 2 * effective_echo_time(te)
    inverted = inverted_share(t2, te=te)
    return t1 * (np.log1p(inverted) - np.log1p(inverted * np.exp(-recovery_time / t1)))


def spoiled_gradient_echo(tissue: Relaxation, *, tr: float, te: float, flip_angle: float):
    """Return the signal of a spoiled gradient echo (SPGR, FLASH, T2*-weighted GRE)."""
    alpha = np.deg2rad(flip_angle)
    e1 = np.exp(-tr / tissue.t1)
    steady = np.sin(alpha) * (1 - e1) / (1 - e1 * np.cos(alpha))
    return tissue.pd * steady * np.exp(-te / tissue.t2star)


def mprage(tissue: Relaxation, *, tr: float, te: float, ti: float, flip_angle: float):
    """Return the signal at the centre of k-space of an MPRAGE.

    ``tr`` is the time from one inversion to the next and ``ti`` the time from inversion to the
    centre of the read-out train.
    """
    alpha = np.deg2rad(flip_angle)
    n_echoes = min(_ECHOES_PER_SHOT, int(1.9 * min(ti, tr - ti) / _ECHO_SPACING))
    half_train = n_echoes * _ECHO_SPACING / 2
    e_tau = np.exp(-_ECHO_SPACING / tissue.t1)
    mu = e_tau * np.cos(alpha)
    steady = (1 - e_tau) / (1 - mu)
    train = mu**n_echoes
    e_before = np.exp(-(ti - half_train) / tissue.t1)
    e_after = np.exp(-(tr - ti - half_train) / tissue.t1)
    at_inversion = (1 - e_after + e_after * (steady * (1 - train) + train * (1 - e_before))) / (
        1 + INVERSION_EFFICIENCY * e_before * e_after * train
    )
    at_train = 1 - (1 + INVERSION_EFFICIENCY * at_inversion) * e_before
    centre = steady + (at_train - steady) * mu ** (n_echoes / 2)
    return tissue.pd * np.sin(alpha) * np.abs(centre) * np.exp(-te / tissue.t2star)


def with_contrast_agent(tissue: Relaxation) -> Relaxation:
    """Return the tissue with its relaxation shortened by the agent it takes up."""
    return Relaxation(
        t1=1 / (1 / tissue.t1 + RELAXIVITY_T1 * tissue.uptake),
        t2=1 / (1 / tissue.t2 + RELAXIVITY_T2 * tissue.uptake),
        t2star=1 / (1 / tissue.t2star + RELAXIVITY_T2 * tissue.uptake),
        pd=tissue.pd,
        uptake=tissue.uptake,
    )


def signal(acquisition: Acquisition, tissue: Relaxation):
    """Return the signal of a tissue under an acquisition.

    The sequence follows from the contrast and its parameters:

    ===============  ===================================================================
    T1w, T1CE        TI and flip angle < 60°: MPRAGE; TI and larger: inversion TSE; no TI:
                     spin echo from 60° upwards, else spoiled gradient echo
    T2w, PDw         turbo spin echo; spoiled gradient echo below 45°
    FLAIR            inversion turbo spin echo
    T2starw, SWI     spoiled gradient echo
    ===============  ===================================================================

    GE and Philips write the echo spacing of an MPRAGE into RepetitionTime (some 8 ms). A TR of at
    most :data:`~tumsyn_bids.values.LONGEST_ECHO_SPACING` beside a TI is taken as such, and 1.3 s
    as the time from TI to the next inversion. The spacing itself is taken as 7.5 ms all the same,
    because its effect depends on the number of echoes and on which of them TI ends at, and these
    vendors state neither: between 6 and 10 ms it would change the ratio of cortex to white matter
    by up to 5 % (TI 0.9 s, 176 echoes).

    Parameters
    ----------
    acquisition : Acquisition
        With contrast, repetition time and echo time (s); FLAIR also with inversion time.
    tissue : Relaxation

    Raises
    ------
    ValueError
        If a parameter that the sequence needs is unknown, or no sequence has its value: times
        that are not positive (TE may be 0), a TE or a TI that does not fit into TR, a flip angle
        not above 0° or above 180°.
    """
    contrast = acquisition.contrast
    tr = _required(acquisition, 'repetition_time')
    te = _required(acquisition, 'echo_time')
    ti, flip_angle = acquisition.inversion_time, acquisition.flip_angle
    _check_values(tr, te, ti, flip_angle)
    if contrast in ('T2starw', 'SWI') or (
        contrast in ('T2w', 'PDw') and flip_angle is not None and flip_angle < 45
    ):
        angle = 15.0 if flip_angle is None else flip_angle
        return spoiled_gradient_echo(tissue, tr=tr, te=te, flip_angle=angle)
    if contrast in ('T2w', 'PDw'):
        return turbo_spin_echo(tissue, tr=tr, te=te)
    if contrast == 'FLAIR':
        ti = _required(acquisition, 'inversion_time')
        _check_inversion(ti, tr)
        return inversion_turbo_spin_echo(tissue, tr=tr, te=te, ti=ti)
    if contrast == 'T1CE':
        tissue = with_contrast_agent(tissue)
    elif contrast != 'T1w':
        raise ValueError(f'no sequence is known for contrast {contrast!r}')
    return _t1_weighted(tissue, tr, te, ti, flip_angle)


def _t1_weighted(tissue, tr, te, ti, flip_angle):
    large_angle = flip_angle is not None and flip_angle >= 60
    if ti is None:
        if large_angle:
            return spin_echo(tissue, tr=tr, te=te)
        return spoiled_gradient_echo(
            tissue, tr=tr, te=te, flip_angle=9.0 if flip_angle is None else flip_angle
        )
    if large_angle:
        _check_inversion(ti, tr)
        return inversion_turbo_spin_echo(tissue, tr=tr, te=te, ti=ti)
    shot_interval = ti + _AFTER_TI if tr <= LONGEST_ECHO_SPACING else tr
    _check_inversion(ti, shot_interval)
    return mprage(
        tissue,
        tr=shot_interval,
        te=te,
        ti=ti,
        flip_angle=9.0 if flip_angle is None else flip_angle,
    )


def _required(acquisition: Acquisition, field: str) -> float:
    value = getattr(acquisition, field)
    if value is None:
        raise ValueError(f'{acquisition.contrast} needs {field}, which is unknown')
    return value


def _check_values(tr: float, te: float, ti: float | None, flip_angle: float | None) -> None:
    # Written so that what is not a number is refused, too.
    if not tr > 0:
        raise ValueError(f'a repetition time of {tr:g} s is not above 0 s')
    if not te >= 0:
        raise ValueError(f'an echo time of {te:g} s is below 0 s')
    # Of an echo spacing as well: the echo is read before the next pulse.
    if not te < tr:
        raise ValueError(
            f'an echo time of {te:g} s does not fit into a repetition time of {tr:g} s'
        )
    if ti is not None and not ti > 0:
        raise ValueError(f'an inversion time of {ti:g} s is not above 0 s')
    if flip_angle is not None and not 0 < flip_angle <= 180:
        raise ValueError(f'a flip angle of {flip_angle:g} degrees is not above 0 and at most 180')


def _check_inversion(ti: float, tr: float) -> None:
    if not ti < tr:
        raise ValueError(
            f'an inversion time of {ti:g} s does not fit into a repetition time of {tr:g} s'
        )
