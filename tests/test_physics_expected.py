"""What the network is told of a prompt follows the sequence equations, gaps filled sensibly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.physics.expected import (
    BRAIN_SHARES,
    at_echo_time,
    expected_signals,
    impossible_timing,
    weighted_quantile,
)
from tumsyn_bids.physics.signals import null_inversion_time
from tumsyn_bids.physics.tissues import relaxation
from tumsyn_bids.protocols import default_protocol

NAMES = list(BRAIN_SHARES)


def signals(acquisition: Acquisition) -> dict[str, float]:
    return dict(zip(NAMES, expected_signals(acquisition), strict=True))


def test_shares_are_those_of_a_whole_brain():
    assert sum(BRAIN_SHARES.values()) == pytest.approx(1, abs=0.01)


def test_fluid_grows_against_white_matter_with_the_echo_time_of_a_t2w():
    ratios = []
    for echo_time in (0.07, 0.09, 0.11, 0.13):
        values = signals(default_protocol('T2w', 3.0).replace(echo_time=echo_time))
        ratios.append(values['csf'] / values['white_matter'])
    assert all(np.diff(ratios) > 0)


def test_fluid_vanishes_at_its_inversion_time():
    fluid = relaxation('csf')
    nulling = null_inversion_time(fluid.t1, fluid.t2, tr=9.0, te=0.12)
    flair = Acquisition(
        contrast='FLAIR',
        field_strength=3.0,
        repetition_time=9.0,
        echo_time=0.12,
        inversion_time=nulling,
    )
    assert signals(flair)['csf'] < 0.01
    assert signals(flair.replace(inversion_time=nulling - 0.3))['csf'] > 0.1


@pytest.mark.parametrize(
    ('tr', 'te', 'ti'),
    [
        (4.8, 0.3, 1.66),  # Philips, 1.5 T
        (6.0, 0.12, 2.0),
        (6.0, 0.126, 1.863),  # GE, 3 T
        (10.0, 0.133, 2.57),
        (5.0, 0.388, 1.8),  # Siemens, 3 T
        (7.0, 0.372, 2.22),
        (11.0, 0.125, 2.8),
    ],
)
def test_inversion_times_of_public_flair_sidecars_null_fluid(tr, te, ti):
    fluid = relaxation('csf')
    assert null_inversion_time(fluid.t1, fluid.t2, tr=tr, te=te) == pytest.approx(ti, rel=0.09)


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_brightest_of_a_brain_is_one_and_all_is_known_without_parameters(contrast):
    values = expected_signals(Acquisition(contrast=contrast))
    assert_array_equal(values, expected_signals(default_protocol(contrast, 3.0)))
    assert weighted_quantile(values, np.array(list(BRAIN_SHARES.values())), 0.98) == pytest.approx(
        1
    )


def test_unknown_contrast_says_nothing():
    assert_array_equal(expected_signals(Acquisition(echo_time=0.1)), 0)


IMPOSSIBLE = [
    (
        {'contrast': 'FLAIR', 'repetition_time': 5.0, 'inversion_time': 9.0},
        'an inversion time of 9 s does not fit into a repetition time of 5 s',
    ),
    (
        {'contrast': 'FLAIR', 'repetition_time': 1.5},
        (
            'an inversion time of 1.8 s does not fit into a repetition time of 1.5 s '
            '(the inversion time is that of the default protocol)'
        ),
    ),
    (
        {'contrast': 'T2w', 'repetition_time': 4.0, 'echo_time': 5.0},
        'an echo time of 5 s does not fit into a repetition time of 4 s',
    ),
    (
        {'contrast': 'SWI', 'flip_angle': 270.0},
        'a flip angle of 270 degrees is not above 0 and at most 180',
    ),
    ({'contrast': 'T2starw', 'flip_angle': 180.0}, 'no tissue gives a signal'),
]


@pytest.mark.parametrize(('stated', 'reason'), IMPOSSIBLE)
def test_what_makes_no_sequence_is_said_and_gives_the_default(stated, reason):
    wrong = Acquisition(**stated)
    assert impossible_timing(wrong) == reason
    assert_array_equal(
        expected_signals(wrong), expected_signals(Acquisition(contrast=wrong.contrast))
    )


def test_other_values_than_the_impossible_ones_are_discarded_with_them():
    flair = Acquisition(contrast='FLAIR', repetition_time=9.0, echo_time=0.15, inversion_time=2.5)
    wrong = flair.replace(inversion_time=10.0)
    assert impossible_timing(flair) is None
    assert_array_equal(expected_signals(wrong), expected_signals(Acquisition(contrast='FLAIR')))


@pytest.mark.parametrize('contrast', [None, *CONTRASTS])
def test_what_is_left_open_is_possible(contrast):
    assert impossible_timing(Acquisition(contrast=contrast)) is None


@pytest.mark.parametrize(
    ('stated', 'less'),
    [
        # The usual repetition time, 27 ms, has no room for it.
        ({'field_strength': 3.0, 'echo_time': 0.04}, {'echo_time': 0.02}),
        # The usual echo time, 40 ms, does not fit into it.
        ({'field_strength': 1.5, 'repetition_time': 0.025}, {'repetition_time': 0.049}),
    ],
)
def test_what_is_left_open_gives_way_to_what_is_stated(stated, less):
    swi = Acquisition(contrast='SWI', **stated)
    assert impossible_timing(swi) is None
    values, others = expected_signals(swi), expected_signals(swi.replace(**less))
    assert np.abs(values - others).max() > 0.02


def test_another_echo_time_changes_nothing_else():
    # The usual echo time of 20 ms does not fit: the longest that does stands for it.
    swi = Acquisition(contrast='SWI', repetition_time=0.018, echo_time=0.009, flip_angle=10)
    other = at_echo_time(swi, 0.02)
    assert 0.009 < other.echo_time < 0.018
    assert (other.repetition_time, other.flip_angle) == (0.018, 10)
    assert at_echo_time(swi, 0.015).echo_time == 0.015
    # Of what cannot be computed, the default protocol is: no change is left over.
    wrong = Acquisition(contrast='SWI', repetition_time=0.03, echo_time=0.05)
    usual = default_protocol('SWI', 3.0)
    assert_array_equal(
        expected_signals(at_echo_time(wrong, usual.echo_time)), expected_signals(wrong)
    )


def test_t1w_without_inversion_time_is_read_from_the_rest():
    mprage = default_protocol('T1w', 3.0)
    forgotten = signals(mprage.replace(inversion_time=None))
    assert_allclose(list(forgotten.values()), expected_signals(mprage), rtol=1e-6)
    spoiled = signals(
        Acquisition(contrast='T1w', repetition_time=0.02, echo_time=0.004, flip_angle=30)
    )
    proton = signals(
        Acquisition(contrast='T1w', repetition_time=0.02, echo_time=0.004, flip_angle=5)
    )
    assert spoiled['cortex'] / spoiled['white_matter'] < proton['cortex'] / proton['white_matter']
    spin_echo = signals(Acquisition(contrast='T1w', flip_angle=90))
    assert spin_echo['white_matter'] > spin_echo['cortex'] > spin_echo['csf']
