"""Spellings and units of single values."""

from __future__ import annotations

import pytest

from tumsyn_bids.values import (
    as_number,
    canonical_manufacturer,
    doubt,
    is_missing,
    nominal_field_strength,
    wrong_unit,
)


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('SIEMENS', 'Siemens'),
        ('Siemens Healthineers', 'Siemens'),
        ('GE MEDICAL SYSTEMS', 'GE'),
        ('General Electric', 'GE'),
        ('Philips Medical Systems', 'Philips'),
        ('UIH', 'United Imaging'),
        ('United Imaging Healthcare', 'United Imaging'),
        ('Hyperfine', 'Hyperfine'),
        ('Queen’s University', None),
        ('General Hospital', None),
        ('', None),
    ],
)
def test_manufacturers(text, name):
    assert canonical_manufacturer(text) == name


@pytest.mark.parametrize(
    ('tesla', 'nominal'),
    [(2.89362, 3.0), (1.494, 1.5), (6.98, 7.0), (3.95064, 4.0), (0.064, 0.064), (2.35, 2.35)],
)
def test_nominal_field_strength(tesla, nominal):
    assert nominal_field_strength(tesla) == nominal


@pytest.mark.parametrize(
    ('field', 'value', 'unit'),
    [
        ('repetition_time', 2300, 'milliseconds'),
        ('echo_time', 2.98, 'milliseconds'),
        ('inversion_time', 900, 'milliseconds'),
        ('field_strength', 30000, 'gauss'),
        ('field_strength', 3000, 'millitesla'),
    ],
)
def test_wrong_units_are_named(field, value, unit):
    assert unit in doubt(field, value)
    assert doubt(field, wrong_unit(field, value)[0]) is None


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('age', -1),
        ('age', 999),
        ('field_strength', 0.006),
        ('flip_angle', 0),
        ('repetition_time', 0),
        ('echo_time', -0.003),
    ],
)
def test_implausible_without_explanation(field, value):
    assert 'outside' in doubt(field, value)
    assert wrong_unit(field, value) is None


def test_numbers_and_gaps():
    assert [as_number(v) for v in (3, '3.0', ' 2 ', True, 'x', [3], float('nan'), None)] == [
        3, 3, 2, None, None, None, None, None,
    ]  # fmt: skip
    assert all(is_missing(v) for v in (None, '', ' n/a ', 'NaN', 'None'))
    assert not any(is_missing(v) for v in (0, '0', 'F', []))
