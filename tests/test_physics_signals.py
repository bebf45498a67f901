"""The sequence equations against their limits and against what scans look like."""

from __future__ import annotations

import numpy as np
import pytest

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.errors import UsageError
from tumsyn_bids.physics import signals
from tumsyn_bids.physics.signals import signal
from tumsyn_bids.physics.tissues import Relaxation, relaxation, tissue_of_label
from tumsyn_bids.protocols import PROTOCOLS
from tumsyn_bids.simulation.draw import draw_acquisition
from tumsyn_bids.targets import load_targets_file
from tumsyn_bids.values import LONGEST_ECHO_SPACING

WATER = Relaxation(t1=4.0, t2=1.5, t2star=0.4, pd=1.0)
MPRAGE = Acquisition('T1w', repetition_time=2.3, echo_time=0.003, inversion_time=0.9, flip_angle=9)
TSE = Acquisition('T2w', repetition_time=6.0, echo_time=0.09, flip_angle=150)
FLAIR = Acquisition(
    'FLAIR', repetition_time=9.0, echo_time=0.09, inversion_time=2.5, flip_angle=150
)


def test_spin_echo_recovers_fully_without_decay():
    assert signals.spin_echo(WATER, tr=1e3, te=0) == pytest.approx(1.0)


def test_spin_echo_at_one_t1_and_one_t2():
    expected = (1 - np.exp(-1)) * np.exp(-1)
    assert signals.spin_echo(WATER, tr=4.0, te=1.5) == pytest.approx(expected)


def test_spoiled_gradient_echo_peaks_at_the_ernst_angle():
    tr = 0.02
    ernst = np.rad2deg(np.arccos(np.exp(-tr / WATER.t1)))
    angles = np.linspace(0.5, 60, 400)
    values = [signals.spoiled_gradient_echo(WATER, tr=tr, te=0.0, flip_angle=a) for a in angles]
    assert angles[np.argmax(values)] == pytest.approx(ernst, abs=0.2)


@pytest.mark.parametrize(('tr', 'te'), [(9.0, 0.1), (5.0, 0.388)])
def test_flair_nulls_the_fluid_whose_inversion_time_is_set(tr, te):
    ti = signals.null_inversion_time(4.0, WATER.t2, tr=tr, te=te)
    fluid = signals.inversion_turbo_spin_echo(WATER, tr=tr, te=te, ti=ti)
    white = signals.inversion_turbo_spin_echo(relaxation('white_matter'), tr=tr, te=te, ti=ti)
    assert fluid < 1e-9
    assert white > 0.1


@pytest.mark.parametrize('protocol', [(9.0, 0.1, 2.5), (5.0, 0.388, 1.8), (4.8, 0.34, 1.65)])
def test_cortex_is_brighter_than_white_matter_in_every_usual_flair(protocol):
    tr, te, ti = protocol
    cortex, white, csf = (
        signals.inversion_turbo_spin_echo(relaxation(name), tr=tr, te=te, ti=ti)
        for name in ('cortex', 'white_matter', 'csf')
    )
    assert 1.02 < cortex / white < 1.5
    assert csf < 0.5 * white


def test_variable_flip_trains_weigh_like_shorter_echo_times():
    assert signals.effective_echo_time(0.1) == 0.1
    assert 0.09 < signals.effective_echo_time(0.563) < 0.13


def test_mprage_equals_the_simulated_magnetisation():
    """Closed form against a shot-by-shot simulation run into its steady state."""
    tissue, tau, n = relaxation('white_matter'), 7.5e-3, 176
    tr, ti, alpha = 2.3, 0.9, np.deg2rad(9)
    before, after = ti - n * tau / 2, tr - ti - n * tau / 2
    m, centre = 1.0, None
    for _ in range(30):
        m = -signals.INVERSION_EFFICIENCY * m
        m = 1 - (1 - m) * np.exp(-before / tissue.t1)
        for echo in range(n):
            if echo == n // 2:
                centre = m
            m = 1 - (1 - m * np.cos(alpha)) * np.exp(-tau / tissue.t1)
        m = 1 - (1 - m) * np.exp(-after / tissue.t1)
    value = signals.mprage(tissue, tr=tr, te=0.0, ti=ti, flip_angle=9)
    assert value == pytest.approx(tissue.pd * np.sin(alpha) * abs(centre), rel=1e-6)


def _ratio(acquisition, tissue):
    b0 = acquisition.field_strength or 3.0
    return signal(acquisition, relaxation(tissue, b0)) / signal(
        acquisition, relaxation('white_matter', b0)
    )


def test_order_of_tissues_in_each_contrast():
    assert _ratio(MPRAGE, 'csf') < _ratio(MPRAGE, 'cortex') < _ratio(MPRAGE, 'thalamus') < 1
    assert _ratio(TSE, 'csf') > _ratio(TSE, 'cortex') > 1
    assert _ratio(FLAIR, 'csf') < 0.1
    assert _ratio(FLAIR, 'white_matter_lesion') > 1.3
    assert _ratio(TSE, 'pallidum') < 1


def test_csf_to_white_matter_grows_with_echo_time_in_t2w():
    ratios = [_ratio(TSE.replace(echo_time=te), 'csf') for te in (0.03, 0.06, 0.09, 0.12)]
    assert np.all(np.diff(ratios) > 0)


def test_contrast_agent_lights_up_what_takes_it_up():
    plain = Acquisition('T1w', repetition_time=0.5, echo_time=0.01, flip_angle=90)
    enhanced = plain.replace(contrast='T1CE')
    assert _ratio(enhanced, 'choroid_plexus') > 2 * _ratio(plain, 'choroid_plexus')
    assert _ratio(enhanced, 'cortex') == pytest.approx(_ratio(plain, 'cortex'), rel=0.25)


def test_higher_field_means_longer_t1_and_shorter_t2star():
    low, high = relaxation('cortex', 1.5), relaxation('cortex', 7.0)
    assert low.t1 < high.t1
    assert low.t2star > high.t2star
    assert relaxation('csf', 1.5) == relaxation('csf', 7.0)


@pytest.mark.parametrize('tr', [0.0081, 2.3])
def test_echo_spacing_in_the_repetition_time_is_understood(tr):
    acquisition = MPRAGE.replace(repetition_time=tr)
    assert _ratio(acquisition, 'csf') < _ratio(acquisition, 'cortex') < 1


def test_repetition_times_up_to_a_tenth_of_a_second_are_echo_spacings(tmp_path):
    """The equations and the check of a targets file draw the same line."""
    line = LONGEST_ECHO_SPACING
    shot = MPRAGE.replace(repetition_time=MPRAGE.inversion_time + 1.3)
    assert signal(MPRAGE.replace(repetition_time=line), WATER) == signal(shot, WATER)
    with pytest.raises(ValueError, match='inversion'):
        signal(MPRAGE.replace(repetition_time=line + 1e-3), WATER)
    path = tmp_path / 'targets.yaml'
    path.write_text(f'- {{contrast: T1w, RepetitionTime: {line}, InversionTime: 0.9}}')
    assert load_targets_file(path)[0].acquisition.repetition_time == line
    path.write_text(f'- {{contrast: T1w, RepetitionTime: {line + 1e-3}, InversionTime: 0.9}}')
    with pytest.raises(UsageError, match='InversionTime'):
        load_targets_file(path)


SPIN_ECHO = Acquisition('T1w', repetition_time=0.5, echo_time=0.012, flip_angle=90)
GRADIENT_ECHO = Acquisition('T2starw', repetition_time=0.7, echo_time=0.02, flip_angle=20)


@pytest.mark.parametrize(
    ('acquisition', 'said'),
    [
        (TSE.replace(repetition_time=-1.0), 'repetition time of -1 s'),
        (MPRAGE.replace(repetition_time=0.0), 'repetition time of 0 s'),
        (TSE.replace(repetition_time=float('nan')), 'repetition time of nan s'),
        (TSE.replace(echo_time=-0.01), 'echo time of -0.01 s'),
        (
            TSE.replace(echo_time=6.0),
            'echo time of 6 s does not fit into a repetition time of 6 s',
        ),
        (SPIN_ECHO.replace(echo_time=0.6), 'echo time of 0.6 s does not fit'),
        (GRADIENT_ECHO.replace(echo_time=0.8), 'echo time of 0.8 s does not fit'),
        # Of an echo spacing, too.
        (MPRAGE.replace(repetition_time=0.008, echo_time=0.009), 'echo time of 0.009 s'),
        (MPRAGE.replace(inversion_time=0.0), 'inversion time of 0 s'),
        (MPRAGE.replace(inversion_time=2.4), 'inversion time of 2.4 s does not fit into a repet'),
        (MPRAGE.replace(inversion_time=2.4, flip_angle=120), 'inversion time of 2.4 s does not'),
        (FLAIR.replace(inversion_time=-1.0), 'inversion time of -1 s'),
        (
            FLAIR.replace(inversion_time=9.5),
            'inversion time of 9.5 s does not fit into a repetiti',
        ),
        (GRADIENT_ECHO.replace(flip_angle=270), 'flip angle of 270 degrees'),
        (MPRAGE.replace(flip_angle=-9), 'flip angle of -9 degrees'),
        (SPIN_ECHO.replace(flip_angle=0), 'flip angle of 0 degrees'),
    ],
)
def test_values_that_no_sequence_has_are_refused(acquisition, said):
    with pytest.raises(ValueError, match=said):
        signal(acquisition, WATER)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_default_protocols_can_be_computed(protocol):
    assert signal(protocol.acquisition, relaxation('cortex')) > 0


def test_missing_parameter_is_named():
    with pytest.raises(ValueError, match='echo_time'):
        signal(TSE.replace(echo_time=None), WATER)


@pytest.mark.parametrize('contrast', list(CONTRASTS))
def test_drawn_protocols_can_be_simulated(contrast):
    rng = np.random.default_rng(1)
    for _ in range(200):
        acquisition = draw_acquisition(rng, contrast)
        value = signal(acquisition, relaxation('cortex', acquisition.field_strength))
        assert 0 < value < 1
        assert acquisition.echo_time < acquisition.repetition_time


def test_cortical_parcels_are_cortex():
    assert tissue_of_label(1024) == tissue_of_label(2035) == tissue_of_label(42) == 'cortex'
    assert tissue_of_label(41) == 'white_matter'


def test_unknown_label_is_named():
    with pytest.raises(KeyError, match='777'):
        tissue_of_label(777)
