"""Prompts have the published wording, fit the text encoder, and can be read back."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.networks.tokenizer import CONTEXT_LENGTH, get_tokenizer
from tumsyn_bids.prompt import parse_prompt, render_prompt, unread

MPRAGE = Acquisition(
    contrast='T1w',
    age=12,
    sex='M',
    field_strength=3.0,
    manufacturer='Siemens',
    voxel_size=(0.8, 0.8, 0.8),
    repetition_time=2.5,
    echo_time=0.0022,
    inversion_time=1.0,
    flip_angle=8,
)
MPRAGE_PROMPT = (
    'Age: 12; Gender: M; Scanner: 3.0 Siemens; Modality: T1w; Voxel size: (0.8, 0.8, 0.8); '
    'Imaging parameter TR(ms), TE(ms), TI(ms), and FA(degree):  (2500.0, 2.2, 1000.0, 8.0)'
)


def known(low, high):
    return st.none() | st.floats(low, high, allow_nan=False)


acquisitions = st.builds(
    Acquisition,
    contrast=st.none() | st.sampled_from(sorted(CONTRASTS)),
    age=known(0, 120),
    sex=st.sampled_from([None, 'M', 'F']),
    field_strength=known(0.02, 14),
    manufacturer=st.sampled_from([None, 'Siemens', 'GE', 'United Imaging', 'Hyperfine']),
    voxel_size=st.none() | st.tuples(*[st.floats(0.05, 20)] * 3),
    repetition_time=known(0.001, 60),
    echo_time=known(2e-5, 1),
    inversion_time=known(0.001, 10),
    flip_angle=known(0.5, 270),
)


def test_template_to_the_blank():
    assert render_prompt(MPRAGE) == MPRAGE_PROMPT
    assert parse_prompt(MPRAGE_PROMPT) == MPRAGE


def test_unknown_is_none():
    assert render_prompt(Acquisition(contrast='FLAIR', voxel_size=(1, 1, 1))) == (
        'Age: None; Gender: None; Scanner: None; Modality: FLAIR; Voxel size: (1.0, 1.0, 1.0); '
        'Imaging parameter TR(ms), TE(ms), TI(ms), and FA(degree):  (None, None, None, None)'
    )
    assert parse_prompt(render_prompt(Acquisition())) == Acquisition()


@pytest.mark.parametrize(
    ('field_strength', 'manufacturer', 'scanner'),
    [
        (3, None, 'Scanner: 3.0 None;'),
        (None, 'GE', 'Scanner: None GE;'),
        (0.064, 'Hyperfine', 'Scanner: 0.064 Hyperfine;'),
        (1.494, 'United Imaging', 'Scanner: 1.49 United Imaging;'),
    ],
)
def test_scanner(field_strength, manufacturer, scanner):
    acq = Acquisition(field_strength=field_strength, manufacturer=manufacturer)
    text = render_prompt(acq)
    assert scanner in text
    assert parse_prompt(text).manufacturer == manufacturer


@pytest.mark.parametrize('name', CONTRASTS)
def test_every_contrast_has_the_published_name(name):
    text = render_prompt(Acquisition(contrast=name))
    assert f'; Modality: {CONTRASTS[name].prompt_name}; ' in text
    assert parse_prompt(text).contrast == name


def test_four_decimal_voxels_lose_decimals_not_words():
    acq = MPRAGE.replace(
        age=35.8,
        contrast='T2w',
        voxel_size=(0.9375, 0.9375, 1.25),
        repetition_time=8.17834,
        echo_time=0.1,
        inversion_time=None,
        flip_angle=90,
    )
    text = render_prompt(acq)
    assert 'Voxel size: (0.94, 0.94, 1.25)' in text
    assert text.endswith('(8178.34, 100.0, None, 90.0)')


def test_long_foreign_manufacturer_is_left_out_rather_than_cut():
    text = render_prompt(MPRAGE.replace(manufacturer='Some University Hospital, Ward 17 ' * 4))
    assert 'Scanner: 3.0 None;' in text
    assert len(get_tokenizer().encode(text)) <= CONTEXT_LENGTH


def test_published_prompts_are_read_and_written_alike(shared_data):
    path = shared_data.parent / 'parity' / 'token_ids.json'
    if not path.exists():
        pytest.skip(f'no published prompts at {path}')
    prompts = [item['prompt'] for item in json.loads(path.read_text())['items']]
    full = [prompt for prompt in prompts if prompt.startswith('Age: ') and 'degree' in prompt]
    assert len(full) == 18
    for prompt in full:
        if len(get_tokenizer().encode(prompt, None)) <= CONTEXT_LENGTH:
            expected = prompt.replace('T2var', 'None').replace('100+', '100')
            assert render_prompt(parse_prompt(prompt)) == expected


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('T2w', Acquisition(contrast='T2w')),
        ('T2 star', Acquisition(contrast='T2starw')),
        ('T1CE', Acquisition(contrast='T1CE')),
        ('Modality: PD', Acquisition(contrast='PDw')),
        ('', Acquisition()),
        ('anything at all', Acquisition()),
        (
            'age: 12;   GENDER: m;\tscanner: 3.0 siemens\n',
            Acquisition(age=12, sex='M', field_strength=3, manufacturer='siemens'),
        ),
        ('Age: 100+; Gender: F', Acquisition(age=100, sex='F')),
        (
            'Scanner: 1.5 Siemens Avanto',
            Acquisition(field_strength=1.5, manufacturer='Siemens Avanto'),
        ),
    ],
)
def test_parts_of_prompts(text, expected):
    assert parse_prompt(text) == expected


def test_variable_flip_angle_is_no_number():
    acq = parse_prompt(MPRAGE_PROMPT.replace('8.0)', 'T2var)'))
    assert acq == MPRAGE.replace(flip_angle=None)


@settings(max_examples=400, deadline=None)
@given(acquisitions)
def test_always_fits_and_comes_back(acq):
    text = render_prompt(acq)
    assert len(get_tokenizer().encode(text)) <= CONTEXT_LENGTH
    back = parse_prompt(text)
    assert (back.contrast, back.sex) == (acq.contrast, acq.sex)
    for field in fields(Acquisition):
        expected, value = getattr(acq, field.name), getattr(back, field.name)
        assert (value is None) == (expected is None), field.name
    for name in ('field_strength', 'repetition_time', 'echo_time', 'inversion_time', 'flip_angle'):
        if getattr(acq, name) is not None:
            assert getattr(back, name) == pytest.approx(getattr(acq, name), rel=0.5), name
    if acq.age is not None:
        assert back.age == pytest.approx(acq.age, abs=0.51)
    if acq.voxel_size is not None:
        assert back.voxel_size == pytest.approx(acq.voxel_size, rel=0.5)


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        (MPRAGE_PROMPT, []),
        (MPRAGE_PROMPT.replace('8.0)', 'T2var)'), []),
        (render_prompt(Acquisition()), []),
        ('FLAIR', []),
        ('Scanner: 3T Siemens; Modality: T1w', []),
        ('Modality: FLAIR; TR(ms): 9000', ['TR(ms): 9000']),
        ('a bright image of the head', ['a bright image of the head']),
        ('Age: twelve; Modality: T1w; Voxel size: (1, 1)', ['twelve', '1, 1']),
    ],
)
def test_what_a_prompt_says_in_vain_is_found(text, parts):
    assert unread(text) == parts


def test_field_strength_may_be_written_with_its_unit():
    acq = parse_prompt('Scanner: 3T Siemens; Modality: T1w')
    assert (acq.field_strength, acq.manufacturer) == (3.0, 'Siemens')


def test_inversion_time_of_nothing_is_none():
    zero = MPRAGE_PROMPT.replace('1000.0, 8.0)', '0.0, 8.0)')
    assert zero != MPRAGE_PROMPT
    assert parse_prompt(zero).inversion_time is None
