"""Targets files, imitation of scans, and where each value of a target came from."""

from __future__ import annotations

import json

import pytest

from tumsyn_bids.acquisition import FIELDS, Acquisition
from tumsyn_bids.errors import UsageError
from tumsyn_bids.plan import Target
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.targets import (
    check_unique,
    default_target,
    load_targets_file,
    modal_protocol,
    resolve_target,
    target_like,
)

MPRAGE = Acquisition('T1w', None, None, 3, 'Siemens', None, 2.3, 0.00298, 0.9, 9)
TFE = Acquisition('T1w', None, None, 3, 'Philips', None, 0.0081, 0.0037, None, 8)
PERSON = Acquisition('T1w', age=30, sex='F', field_strength=1.5, manufacturer='GE')


@pytest.fixture
def load(tmp_path):
    def write(text, name='targets.yaml'):
        path = tmp_path / name
        path.write_text(text)
        return load_targets_file(path)

    return write


def resolve(target, modal=None, source=PERSON):
    return resolve_target(target, subject=PERSON, modal=modal, source=source)


def test_yaml_and_json(load):
    text = """
    - name: T2fse
      contrast: T2w
      voxel_size: [0.8, 0.8, 1.2]
      RepetitionTime: 5
      EchoTime: 0.1
      FlipAngle: 150
      MagneticFieldStrength: 3
      Manufacturer: SIEMENS
    - suffix: FLAIR
      voxel_size: 2
    """
    first, second = load(text)
    assert first.name == 'T2fse'
    assert first.acquisition == Acquisition(
        'T2w', None, None, 3, 'Siemens', (0.8, 0.8, 1.2), 5, 0.1, None, 150
    )
    assert set(first.provenance.values()) == {'targets file targets.yaml'}
    assert 'inversion_time' not in first.provenance
    assert (second.name, second.contrast) == ('', 'FLAIR')
    assert second.acquisition.voxel_size == (2, 2, 2)
    content = {'targets': [{'contrast': 't1ce', 'InversionTime': None}]}
    (third,) = load(json.dumps(content), 'targets.json')
    assert third.contrast == 'T1CE'
    assert 'inversion_time' in third.provenance


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        ({'contrast': 'T2w', 'TE': 0.1}, ['entry 1, TE', 'unknown field', 'EchoTime']),
        ({'contrast': 'CT'}, ['contrast', '"CT" is no contrast', 'T2starw']),
        ({'name': 'x'}, ['entry 1 (x), suffix', 'missing']),
        ({'contrast': 'T2w', 'RepetitionTime': 5000}, ['RepetitionTime', 'seconds', ': 5.']),
        ({'contrast': 'T2w', 'EchoTime': '90 ms'}, ['EchoTime', '"90 ms" is no number']),
        ({'contrast': 'T2w', 'EchoTime': True}, ['EchoTime', 'is no number']),
        ({'contrast': 'T2w', 'FlipAngle': 900}, ['FlipAngle', 'degrees']),
        ({'contrast': 'T2w', 'MagneticFieldStrength': 30000}, ['gauss', ': 3.']),
        ({'contrast': 'T2w', 'voxel_size': 0}, ['voxel_size', '0.2 to 10 mm']),
        ({'contrast': 'T2w', 'voxel_size': [1, 1]}, ['voxel_size', 'one number or three']),
        ({'contrast': 'T2w', 'voxel_size': [1, 1, -1]}, ['voxel_size', '0.2 to 10 mm']),
        ({'contrast': 'T2w', 'name': 'a-b'}, ['name', 'BIDS file name', 'letters']),
        ({'contrast': 'T2w', 'name': '../x'}, ['name', 'BIDS file name']),
        ({'contrast': 'T2w', 'name': 'Val2'}, ['name', '--validate']),
        ({'contrast': 'T2w', 'Manufacturer': 'Acme'}, ['Manufacturer', 'Acme']),
        ({'contrast': 'T2w', 'RepetitionTime': 1, 'EchoTime': 1}, ['EchoTime', 'not shorter']),
        (
            {'contrast': 'FLAIR', 'RepetitionTime': 2, 'InversionTime': 2.5},
            ['InversionTime', 'not shorter'],
        ),
        ({'contrast': 'T2w', 'suffix': 'T1w'}, ['suffix', '"T1w" is not the suffix of T2w']),
        ('T2w', ['entry 1', 'no mapping']),
    ],
)
def test_impossible_entries(load, entry, words):
    with pytest.raises(UsageError) as error:
        load(json.dumps([entry]), 'targets.json')
    for word in ['targets.json', *words]:
        assert word in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'no list'),
        ('contrast: T2w', 'no list'),
        ('- contrast: [', 'not valid YAML'),
        ('- {contrast: T2w}\n- {contrast: T2w}', 'two T2w targets are without a name'),
        ('- {contrast: T2w, name: a}\n- {contrast: T2w, name: A}', 'named "a"'),
        ('- !!python/object/apply:os.getcwd []', 'not valid YAML'),
        ('- contrast: T2w\n  EchoTime: 0.1\n  contrast: FLAIR', 'contrast stands twice'),
        ('- {contrast: T2w, EchoTime: 2001-99-99}', 'not valid YAML'),
        ('[' * 5000, 'not valid YAML'),
    ],
)
def test_unusable_files(load, text, words):
    with pytest.raises(UsageError, match=words):
        load(text)


def test_a_field_that_stands_twice_in_json(load):
    with pytest.raises(UsageError, match='EchoTime stands twice'):
        load('[{"contrast": "T2w", "EchoTime": 0.1, "EchoTime": 0.2}]', 'targets.json')


def test_suffix_beside_the_contrast(load):
    (target,) = load('- {contrast: T1CE, suffix: T1w}')
    assert target.contrast == 'T1CE'


def test_absent_file(tmp_path):
    with pytest.raises(UsageError, match='cannot be read'):
        load_targets_file(tmp_path / 'none.yaml')


def test_numbers_in_scientific_notation(load):
    (target,) = load('- {contrast: T1w, EchoTime: 3e-3}')
    assert target.acquisition.echo_time == 0.003


def test_echo_spacing_may_be_shorter_than_inversion(load):
    (target,) = load('- {contrast: T1w, RepetitionTime: 0.0064, InversionTime: 0.45}')
    assert target.acquisition.inversion_time == 0.45


def test_same_name_for_different_contrasts_is_fine():
    check_unique([default_target('T1w'), default_target('T1CE'), default_target('T2w')])


def test_default_target_takes_the_default_protocol_at_the_sources_field():
    target = resolve(default_target('T2w'))
    expected = default_protocol('T2w', 1.5).replace(age=30, sex='F', manufacturer='GE')
    assert target.acquisition == expected
    assert set(target.provenance) == set(FIELDS)
    assert target.provenance['echo_time'] == 'default protocol at 1.5 T'
    assert target.provenance['field_strength'] == "the source's scanner"
    assert target.provenance['voxel_size'] == 'default: 1 mm isotropic'
    assert target.provenance['age'] == 'the participant'


def test_unknown_field_strength_is_said():
    source = PERSON.replace(field_strength=None)
    target = resolve(default_target('T2w'), source=source)
    assert target.acquisition.field_strength == 3
    assert 'unknown, 3 T assumed' in target.provenance['field_strength']


def test_odd_field_strength_stays_the_sources():
    target = resolve(default_target('T2w'), source=PERSON.replace(field_strength=7))
    assert target.acquisition.field_strength == 7
    assert target.acquisition.echo_time == default_protocol('T2w', 3).echo_time
    assert target.provenance['echo_time'] == 'default protocol at 3 T'


def test_modal_protocol_goes_before_the_default_and_is_not_mixed_with_it():
    target = resolve(default_target('T1w'), modal=TFE)
    assert target.acquisition.repetition_time == 0.0081
    assert target.acquisition.inversion_time is None
    assert 'most frequent T1w protocol' in target.provenance['repetition_time']
    assert target.provenance['inversion_time'].startswith('unknown')
    assert target.acquisition.manufacturer == 'GE'


def test_stated_values_stay_and_null_stays_unknown(load):
    (target,) = load('- {contrast: T1w, EchoTime: 0.004, InversionTime: null, voxel_size: 0.7}')
    resolved = resolve(target, modal=MPRAGE)
    assert resolved.acquisition.echo_time == 0.004
    assert resolved.acquisition.inversion_time is None
    assert resolved.acquisition.repetition_time == 2.3
    assert resolved.acquisition.voxel_size == (0.7, 0.7, 0.7)
    assert resolved.provenance['echo_time'] == 'targets file targets.yaml'
    assert 'most frequent' in resolved.provenance['repetition_time']


def test_asked_field_strength_chooses_the_default_protocol(load):
    (target,) = load('- {contrast: T2w, MagneticFieldStrength: 3}')
    assert resolve(target).acquisition.echo_time == default_protocol('T2w', 3).echo_time


def test_like_takes_protocol_and_scanner_but_not_the_person():
    scan = MPRAGE.replace(age=70, sex='M', voxel_size=(0.8, 0.8, 0.8))
    target = resolve(target_like(scan, '/data/sub-9_T1w.json'))
    assert target.acquisition == scan.replace(age=30, sex='F')
    assert target.provenance['echo_time'] == 'like sub-9_T1w.json'
    assert target.name == 'Like'


def test_like_a_complete_protocol_keeps_its_gaps():
    assert resolve(target_like(TFE, 'x_T1w.json')).acquisition.inversion_time is None


def test_like_an_incomplete_sidecar_is_filled():
    scan = Acquisition('T1w', flip_angle=5)
    target = resolve(target_like(scan, 'x_T1w.json'))
    assert target.acquisition.flip_angle == 5
    assert target.acquisition.inversion_time == default_protocol('T1w', 1.5).inversion_time


def test_like_without_contrast():
    with pytest.raises(UsageError, match='does not tell the contrast'):
        target_like(Acquisition(), '/data/protocol.json')


def test_modal_protocol():
    scans = [MPRAGE, TFE, TFE.replace(repetition_time=0.0082), MPRAGE, MPRAGE]
    modal = modal_protocol(scans)
    assert modal == MPRAGE.replace(manufacturer=None)
    assert modal_protocol(reversed(scans)) == modal


def test_modal_protocol_joins_small_differences():
    near = [TFE.replace(repetition_time=0.0081 + 1e-6 * n) for n in range(3)]
    modal = modal_protocol([MPRAGE, MPRAGE.replace(flip_angle=20), *near])
    assert modal.flip_angle == 8
    assert modal.repetition_time == 0.0081


def test_modal_protocol_needs_times():
    assert modal_protocol([]) is None
    assert (
        modal_protocol([Acquisition('T1w', flip_angle=9), MPRAGE.replace(echo_time=None)]) is None
    )


def test_modal_field_strength_is_used_when_the_source_has_none():
    source = PERSON.replace(field_strength=None)
    assert resolve(default_target('T1w'), MPRAGE, source).acquisition.field_strength == 3
    unknown = resolve(default_target('T1w'), MPRAGE.replace(field_strength=None), source)
    assert unknown.acquisition.field_strength is None


def test_resolving_twice_changes_nothing():
    once = resolve(default_target('FLAIR'))
    assert isinstance(once, Target)
    assert resolve(once, modal=MPRAGE) == once
