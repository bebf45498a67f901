"""Sidecars, file names and headers become acquisitions; what is odd is found and told."""

from __future__ import annotations

import csv
import json
import math

import nibabel as nb
import pytest
from bids_builder import SIDECAR, Builder

from tumsyn_bids.acquisition import BIDS_KEYS, Acquisition
from tumsyn_bids.bids.layout import index_dataset
from tumsyn_bids.bids.metadata import MetadataReader, read_acquisition, read_header
from tumsyn_bids.bids.requests import target_from_file
from tumsyn_bids.bids.selection import select_scans
from tumsyn_bids.bids.sidecars import Sidecars, name_parts
from tumsyn_bids.errors import ScanError
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.values import nominal_field_strength

NUMBERS = ('repetition_time', 'echo_time', 'inversion_time', 'flip_angle', 'field_strength')


@pytest.fixture
def dataset(tmp_path):
    return Builder(tmp_path)


def fields_of(findings):
    return [(finding.path, finding.field) for finding in findings]


def test_full_sidecar(dataset):
    path = dataset.image('sub-01_T1w.nii.gz', SIDECAR, zooms=(4, 4.5, 5))
    dataset.text('participants.tsv', 'participant_id\tage\tsex\nsub-01\t30\tF\n')
    acq, findings = read_acquisition(path, dataset.root)
    assert acq == Acquisition('T1w', 30, 'F', 3, 'Siemens', (4, 4.5, 5), 2.3, 0.00298, 0.9, 9)
    assert findings == []


def test_inheritance_nearest_prevails(dataset):
    dataset.json('T1w.json', {'RepetitionTime': 1, 'EchoTime': 0.003, 'FlipAngle': 8})
    dataset.json('acq-fast_T1w.json', {'FlipAngle': 12})
    dataset.json('sub-01/sub-01_T1w.json', {'RepetitionTime': 2})
    dataset.json('T2w.json', {'EchoTime': 0.1})
    path = dataset.image('sub-01_T1w.nii.gz', {'Manufacturer': 'GE'})
    acq, _ = read_acquisition(path, dataset.root)
    assert (acq.repetition_time, acq.echo_time, acq.flip_angle) == (2, 0.003, 8)
    assert acq.manufacturer == 'GE'
    fast, _ = read_acquisition(dataset.image('sub-01_acq-fast_T1w.nii.gz'), dataset.root)
    assert fast.flip_angle == 12
    assert fast.manufacturer == 'GE'  # sub-01_T1w.json applies to it too


def test_sidecars_of_other_people_do_not_apply(dataset):
    path = dataset.image('sub-01_T1w.nii.gz')
    dataset.json('sub-02_T1w.json', SIDECAR)
    assert Sidecars(dataset.root).metadata(path) == {}


@pytest.mark.parametrize(
    ('key', 'value', 'field', 'words'),
    [
        ('RepetitionTime', 2300, 'repetition_time', 'milliseconds'),
        ('EchoTime', 2.98, 'echo_time', 'milliseconds'),
        ('InversionTime', 900, 'inversion_time', 'milliseconds'),
        ('MagneticFieldStrength', 30000, 'field_strength', 'gauss'),
        ('MagneticFieldStrength', 0.006, 'field_strength', 'outside'),
        ('FlipAngle', -8, 'flip_angle', 'outside'),
        ('FlipAngle', [4, 5], 'flip_angle', 'not a number'),
        ('EchoTime', 'short', 'echo_time', 'not a number'),
        ('Manufacturer', 'Ward 17', 'manufacturer', 'no manufacturer'),
    ],
)
def test_implausible_values_are_found_and_missing(dataset, key, value, field, words):
    path = dataset.image('sub-01_T1w.nii.gz', {**SIDECAR, key: value})
    acq, findings = read_acquisition(path, dataset.root)
    assert getattr(acq, field) is None
    assert fields_of(findings) == [('sub-01/anat/sub-01_T1w.json', key)]
    assert words in findings[0].problem
    assert findings[0].action == 'treated as missing'


@pytest.mark.parametrize(
    ('times', 'dropped'),
    [
        ((8.2, 3.2, None), ['EchoTime', 'RepetitionTime']),
        ((9.9, 4.6, 450), ['EchoTime', 'InversionTime', 'RepetitionTime']),
        ((2.3, 2.98, None), ['EchoTime']),  # no echo comes after the next excitation
        ((2300, 0.00298, 0.9), ['RepetitionTime']),
        ((8.2, 3.2, 0), ['EchoTime', 'RepetitionTime']),
        ((8.2, 0.0032, 0.9), []),
    ],
)
def test_times_in_milliseconds_of_which_some_look_like_seconds(dataset, times, dropped):
    keys = ('RepetitionTime', 'EchoTime', 'InversionTime')
    sidecar = {key: time for key, time in zip(keys, times, strict=True) if time is not None}
    acq, findings = read_acquisition(dataset.image('sub-01_T1w.nii.gz', sidecar), dataset.root)
    assert sorted(finding.field for finding in findings) == dropped
    assert {finding.action for finding in findings} <= {'treated as missing'}
    for field, key, time in zip(NUMBERS, keys, times, strict=False):
        assert getattr(acq, field) == (None if key in dropped else time or None)


def test_times_of_other_files_have_units_of_their_own(dataset):
    dataset.json('T1w.json', {'RepetitionTime': 8.2})
    acq, findings = read_acquisition(
        dataset.image('sub-01_T1w.nii.gz', {'EchoTime': 3.2}), dataset.root
    )
    assert acq.repetition_time == 8.2
    assert fields_of(findings) == [('sub-01/anat/sub-01_T1w.json', 'EchoTime')]


def test_finding_names_the_inherited_file(dataset):
    dataset.json('T1w.json', {'RepetitionTime': 2300})
    _, findings = read_acquisition(dataset.image('sub-01_T1w.nii.gz'), dataset.root)
    assert fields_of(findings) == [('T1w.json', 'RepetitionTime')]


def test_echo_after_the_next_excitation(dataset):
    path = dataset.image('sub-01_T1w.nii.gz', {**SIDECAR, 'RepetitionTime': 0.0023})
    acq, findings = read_acquisition(path, dataset.root)
    assert (acq.repetition_time, acq.echo_time) == (None, None)
    assert [finding.field for finding in findings] == ['RepetitionTime', 'EchoTime']


def test_absent_values_are_no_findings(dataset):
    sidecar = {'RepetitionTime': 'n/a', 'InversionTime': 0, 'Manufacturer': None}
    acq, findings = read_acquisition(dataset.image('sub-01_T1w.nii.gz', sidecar), dataset.root)
    assert acq == Acquisition(contrast='T1w', voxel_size=(4, 4, 4))
    assert findings == []


def test_manufacturer_is_not_guessed_from_the_model(dataset):
    path = dataset.image('sub-01_T1w.nii.gz', {'ManufacturersModelName': 'TrioTim'})
    assert read_acquisition(path, dataset.root)[0].manufacturer is None


def test_voxel_size_of_the_sidecar_goes_first(dataset):
    path = dataset.image('sub-01_T1w.nii.gz', {'AcquisitionVoxelSize': [1, 1, 5]})
    assert read_acquisition(path, dataset.root)[0].voxel_size == (1, 1, 5)
    path = dataset.image('sub-02_T1w.nii.gz', {'AcquisitionVoxelSize': [1000, 1, 1]})
    acq, findings = read_acquisition(path, dataset.root)
    assert acq.voxel_size == (4, 4, 4)
    assert findings[0].field == 'AcquisitionVoxelSize'


@pytest.mark.parametrize('axes', ['LSA', 'PIR', 'SAL', 'RAS'])
def test_voxel_size_is_along_the_head_however_the_image_is_stored(dataset, axes):
    """Targets, prompts and training all speak of left-right, posterior-anterior, and so on."""
    path = dataset.image('sub-01_T1w.nii', zooms=(3, 4, 5))
    img = nb.load(path, mmap=False)
    ornt = nb.orientations.axcodes2ornt(axes)
    stored = img.as_reoriented(nb.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], ornt))
    stored.to_filename(path)
    assert ''.join(nb.aff2axcodes(stored.affine)) == axes
    zooms = read_header(path).zooms
    assert zooms == tuple({'L': 3, 'R': 3, 'P': 4, 'A': 4, 'S': 5, 'I': 5}[axis] for axis in axes)
    assert read_acquisition(path, dataset.root)[0].voxel_size == (3, 4, 5)
    assert target_from_file(path).acquisition.voxel_size == (3, 4, 5)
    (scan,), _, _ = select_scans(index_dataset(dataset.root), '01', None)
    assert (scan.zooms, scan.acquisition.voxel_size) == (zooms, (3, 4, 5))
    # What a sidecar states goes by the stored axes as well.
    dataset.json('T1w.json', {'AcquisitionVoxelSize': [size / 2 for size in zooms]})
    assert read_acquisition(path, dataset.root)[0].voxel_size == (1.5, 2, 2.5)


@pytest.mark.parametrize(
    ('name', 'sidecar', 'contrast', 'found'),
    [
        ('sub-01_T1w.nii.gz', {}, 'T1w', False),
        ('sub-01_T2w.nii.gz', {}, 'T2w', False),
        ('sub-01_PDw.nii.gz', {}, 'PDw', False),
        ('sub-01_FLAIR.nii.gz', {}, 'FLAIR', False),
        ('sub-01_T2starw.nii.gz', {}, 'T2starw', False),
        ('sub-01_swi.nii.gz', {}, 'SWI', False),
        ('sub-01_ce-gadolinium_T1w.nii.gz', {}, 'T1CE', False),
        ('sub-01_ce-none_T1w.nii.gz', {}, 'T1w', False),
        ('sub-01_T1w.nii.gz', {'ContrastBolusIngredient': 'GADOLINIUM'}, 'T1CE', True),
        *[
            ('sub-01_T1w.nii.gz', {'ContrastBolusIngredient': value}, 'T1w', False)
            for value in (False, [], {}, 0, math.nan, True, '', ' ', '0', 'n/a', 'None', 'NO')
        ],
        *[
            ('sub-01_T1w.nii.gz', {'ContrastBolusIngredient': value}, 'T1w', False)
            for value in ('no contrast', 'without', 'not given', '--', ['GADOLINIUM'])
        ],
        ('sub-01_T1w.nii.gz', {'ContrastBolusIngredient': 'Nonionic iodine'}, 'T1CE', True),
        ('sub-01_T1w.nii.gz', {'SeriesDescription': 'SAG T1 3D POST CONTRAST'}, 'T1w', True),
        ('sub-01_T1w.nii.gz', {'SeriesDescription': 'T1_gre_tra_43_3_Gd'}, 'T1w', True),
        ('sub-01_T1w.nii.gz', {'SeriesDescription': 'posterior fossa mprage'}, 'T1w', False),
        ('sub-01_acq-FLAIR_T2w.nii.gz', {}, 'FLAIR', True),
        ('sub-01_T2w.nii.gz', {'InversionTime': 2.8, 'RepetitionTime': 11}, 'FLAIR', True),
        ('sub-01_T2w.nii.gz', {'InversionTime': 0.2, 'RepetitionTime': 6}, 'T2w', False),
        ('sub-01_UNIT1.nii.gz', {}, None, False),
        ('sub-01_angio.nii.gz', {}, None, False),
    ],
)
def test_contrast(dataset, name, sidecar, contrast, found):
    acq, findings = read_acquisition(dataset.image(name, sidecar), dataset.root)
    assert acq.contrast == contrast
    assert bool(findings) == found


@pytest.mark.parametrize('text', ['{"RepetitionTime": 2.3,}', '[1]', '{"a": "GR\\IR"}'])
def test_broken_sidecar_is_named(dataset, text):
    path = dataset.image('sub-01_T1w.nii.gz')
    broken = dataset.text('T1w.json', text)
    with pytest.raises(ScanError, match='JSON') as error:
        read_acquisition(path, dataset.root)
    assert error.value.path == broken
    assert error.value.remedy
    other = dataset.image('sub-01_T2w.nii.gz', {'EchoTime': 0.1})
    assert read_acquisition(other, dataset.root)[0].echo_time == 0.1


def test_numbers_of_thousands_of_digits(dataset):
    path = dataset.image('sub-01_T1w.nii.gz')
    sidecar = dataset.text('sub-01/anat/sub-01_T1w.json', f'{{"EchoTime": {"4" * 400}}}')
    acq, findings = read_acquisition(path, dataset.root)
    assert acq.echo_time is None
    assert fields_of(findings) == [('sub-01/anat/sub-01_T1w.json', 'EchoTime')]
    sidecar.write_text(f'{{"EchoTime": {"4" * 5000}}}')
    with pytest.raises(ScanError, match='cannot be read') as error:
        read_acquisition(path, dataset.root)
    assert error.value.path == sidecar


def test_header_of_absent_and_broken_images(dataset):
    folder = dataset.root / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    link = folder / 'sub-01_T1w.nii.gz'
    link.symlink_to(folder / 'annex' / 'object')
    with pytest.raises(ScanError, match='datalad get'):
        read_header(link)
    broken = folder / 'sub-01_T2w.nii.gz'
    broken.write_bytes(b'\x1f\x8b\x08\x00broken')
    with pytest.raises(ScanError, match='header cannot be read'):
        read_header(broken)
    empty = folder / 'sub-01_FLAIR.nii.gz'
    empty.write_bytes(b'')
    with pytest.raises(ScanError, match='header cannot be read'):
        read_header(empty)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('sub-01_acq-FLAIR_T2w.nii.gz', ({'sub': '01', 'acq': 'FLAIR'}, 'T2w')),
        ('T1w.json', ({}, 'T1w')),
        ('pd_ISO_1.8mm_3_e1.json', ({}, 'e1')),
    ],
)
def test_name_parts(name, expected):
    assert name_parts(name) == expected


def index_rows(shared_data):
    with open(shared_data / 'sidecars' / 'index.tsv', encoding='utf-8') as handle:
        return list(csv.DictReader(handle, delimiter='\t'))


def number(text):
    return None if text == 'n/a' else float(text)


def test_every_public_sidecar(shared_data):
    """80 real sidecars: the index says what is in each file, the reader must agree."""
    rows = index_rows(shared_data)
    assert len(rows) == 80
    root = shared_data / 'sidecars'
    outcome = {'read': 0, 'broken': 0, 'implausible': 0}
    for row in rows:
        path = root / row['file']
        reader = MetadataReader(root / row['dataset'])
        if 'NOT VALID JSON' in row['note']:
            with pytest.raises(ScanError, match='not valid JSON') as error:
                reader.read(path)
            assert error.value.path == path
            outcome['broken'] += 1
            continue
        acq, findings = reader.read(path)
        outcome['read'] += 1
        expected = {field: number(row[key]) for field, key in zip(NUMBERS, COLUMNS, strict=True)}
        expected = inherited(reader, path, expected)
        if expected['field_strength'] == 0.006:
            assert 'MagneticFieldStrength' in [finding.field for finding in findings]
            expected['field_strength'] = None
            outcome['implausible'] += 1
        elif expected['field_strength'] is not None:
            expected['field_strength'] = nominal_field_strength(expected['field_strength'])
        assert {field: getattr(acq, field) for field in NUMBERS} == expected, row['file']
        assert acq.manufacturer == VENDORS[row['manufacturer']], row['file']
        check_contrast(acq, row)
        check_prompt(acq, path)
    assert outcome == {'read': 78, 'broken': 2, 'implausible': 3}


COLUMNS = ('TR', 'TE', 'TI', 'FA', 'field_strength_T')
VENDORS = {
    'Siemens': 'Siemens',
    'SIEMENS': 'Siemens',
    'GE': 'GE',
    'GE MEDICAL SYSTEMS': 'GE',
    'Philips': 'Philips',
    'Hyperfine': 'Hyperfine',
    'UIH': 'United Imaging',
    'n/a': None,
}


def inherited(reader, path, expected):
    """Fill the gaps of the index, which is about the file alone, from the files above it."""
    above = [p for p in Sidecars(reader.root).applying(path) if p != path.absolute()]
    for field in NUMBERS:
        for sidecar in above:
            if expected[field] is None:
                expected[field] = json.loads(sidecar.read_text()).get(BIDS_KEYS[field])
    return expected


def check_contrast(acq, row):
    suffix = row['suffix']
    if not row['file'].split('/')[-1].split('.')[0].endswith(f'_{suffix}'):
        return  # not a BIDS name: the index tells the suffix from the series
    expected = {'swi': 'SWI', 'UNIT1': None, 'angio': None, 'VFA': None, 'MESE': None}
    flair = 'a FLAIR named T2w' in row['note']
    assert acq.contrast == ('FLAIR' if flair else expected.get(suffix, suffix)), row['file']


def check_prompt(acq, path):
    text = render_prompt(acq)
    content = json.loads(path.read_text())
    for key, value in content.items():
        if ('Institution' in key or 'Serial' in key) and isinstance(value, str) and value:
            assert value not in text, (path, key)


def test_ds_openms_has_ages_but_no_parameters(shared_data):
    root = shared_data / 'ds-openms'
    path = root / 'sub-12' / 'ses-1' / 'anat' / 'sub-12_ses-1_T2w.nii.gz'
    acq, findings = read_acquisition(path, root)
    assert acq == Acquisition('T2w', 19, 'M', voxel_size=(0.599, 0.599, 3.3))
    assert findings == []


def test_children_with_messy_ages(shared_data):
    root = shared_data / 'bme-x-children'
    reader = MetadataReader(root)
    six, _, _ = reader.people.person('0001', 'V01')
    assert six == 6
    toddler, _, _ = reader.people.person('0003', 'V01')  # its scans.tsv names another child
    assert toddler is None
    fetus, _, findings = reader.people.person('0009', 'V01')
    assert fetus is None
    assert 'before birth' in findings[0].problem
