"""Ages and sexes in the spellings that public datasets have."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
from bids_builder import Builder

from tumsyn_bids.bids.participants import People, read_person
from tumsyn_bids.errors import ScanError, UsageError


@pytest.fixture
def dataset(tmp_path):
    return Builder(tmp_path)


def person(dataset, header, row, about=None, session=None):
    dataset.text('participants.tsv', f'participant_id\t{header}\nsub-01\t{row}\n')
    if about is not None:
        dataset.json('participants.json', about)
    return read_person(dataset.root, '01', session)


@pytest.mark.parametrize(
    ('header', 'value', 'about', 'years'),
    [
        ('age', '30', None, 30),
        (' Age ', ' 30.5 ', None, 30.5),
        ('age', '89+', None, 89),
        ('age', '>89', None, 89),
        ('age', '067Y', None, 67),
        ('age', '6 years', None, 6),
        ('age', '18 months', None, 1.5),
        ('age', '34,5', None, 34.5),
        ('age', '30,', None, 30),
        ('age', '20-25', None, 22.5),
        ('age (5-year bins)', '70-75', None, 72.5),
        ('age_months', '18', None, 1.5),
        ('age', '18', {'age': {'Units': 'months'}}, 1.5),
        ('age', '52', {'age': {'Units': 'weeks'}}, 1.0),
        ('age', '730', {'age': {'Units': 'day'}}, 2.0),
        ('age', '18', {'age': {'Description': 'Age in months at scan'}}, 1.5),
        ('age', '20', {'age': {'Units': 'Years, with one quantile precision'}}, 20),
        ('age_scan', '5', {'age_scan': {'Levels': {'5': '21-25 years'}}}, 23),
        ('age_at_scan', '40', None, 40),
        ('age', '90 or older', None, 90),
        ('age', 'over 89', None, 89),
        ('age', '34 y/o', None, 34),
        ('age', '18', {'Age': {'units': 'months'}}, 1.5),
        ('age', '18', {'age': {'Description': 'Age at scan (months)'}}, 1.5),
        ('age', '18', {'age': {'Description': 'Age, months'}}, 1.5),
        ('age\tage_at_scan', 'n/a\t31', None, 31),
        ('patient_age', '31', None, 31),
        ('age', 'n/a', None, None),
        ('age', '', None, None),
        ('age_at_stroke', '40', None, None),
        ('age_of_onset', '40', None, None),
        ('AgeGroup', 'Young', None, None),
    ],
)
def test_age(dataset, header, value, about, years):
    assert person(dataset, header, value, about)[0] == pytest.approx(years, abs=0.01)


@pytest.mark.parametrize(
    ('value', 'about', 'problem'),
    [
        ('-3', None, 'outside'),
        ('999', None, 'outside'),
        ('old', None, 'not an age'),
        ('20-60', None, 'too wide'),
        ('30 gestational_weeks', None, 'before birth'),
        ('30', {'age': {'Units': 'gestational_weeks'}}, 'before birth'),
        ('41', {'age': {'Units': 'weeks', 'Description': 'Postmenstrual age'}}, 'before birth'),
        ('30', {'age': {'Units': 'hours'}}, 'is in hours'),
    ],
)
def test_implausible_age_is_found(dataset, value, about, problem):
    age, _, findings = person(dataset, 'age', value, about)
    assert age is None
    assert [(f.path, f.field, f.value) for f in findings] == [('participants.tsv', 'age', value)]
    assert problem in findings[0].problem


@pytest.mark.parametrize(
    ('header', 'value', 'about', 'sex'),
    [
        ('sex', 'M', None, 'M'),
        ('sex', 'M,', None, 'M'),
        ('Sex', 'f', None, 'F'),
        ('gender', 'female', None, 'F'),
        (' sex', ' Male ', None, 'M'),
        ('sex', 'n/a', None, None),
        ('sex', 'Other', None, None),
        ('sex', '1', None, None),
        ('sex', '1', {'sex': {'Levels': {'1': 'male', '2': 'female'}}}, 'M'),
        ('sex', '1', {'sex': {'Levels': {'0': 'male', '1': 'female'}}}, 'F'),
        ('sex', '2', {'sex': {'Description': '1 = male, 2 = female'}}, 'F'),
        ('sex', '1', {'sex': {'Description': 'male: 1; female: 2'}}, 'M'),
        ('sex', '1', {'sex': {'Description': 'sex of the participant'}}, None),
        ('sex', '2', {'sex': {'Levels': {'1': 'M', '2': 'F'}}}, 'F'),
        ('sex', '1', {'sex': {'Levels': {'1': 'Man', '2': 'Woman'}}}, 'M'),
        ('sex', '2.0', {'Sex': {'Levels': {'1': 'male', '2': 'female'}}}, 'F'),
        ('sex', '1', {'sex': {'Description': 'sex (0=M, 1=F)'}}, 'F'),
        ('sex', '2', {'sex': {'Description': 'female (1), male (2)'}}, 'M'),
        ('sex', '1', {'sex': {'Levels': {'1': 'male (M)', '2': 'female (F)'}}}, 'M'),
        ('sex', '1', {'sex': {'Description': '1 is male and 2 is female'}}, 'M'),
        ('sex', '2', {'sex': {'Description': 'male=1, female=2'}}, 'F'),
        ('sex', '3', {'sex': {'Levels': {'3': 'other (neither M nor F)'}}}, None),
        ('sex', '3', {'sex': {'Levels': {'3': 'neither male nor female'}}}, None),
        ('sex', '3', {'sex': {'Levels': {'3': 'not male or female / undisclosed'}}}, None),
        ('sex', '3', {'sex': {'Levels': {'3': 'not male'}}}, None),
        ('sex', '3', {'sex': {'Levels': {'3': 'M/F'}}}, None),
        ('sex', '3', {'sex': {'Levels': {'3': 'not male'}, 'Description': '3 = M'}}, None),
        ('sex', '1', {'sex': {'Description': 'M=1 - F=2'}}, None),
        ('sex', '1', {'sex': {'Description': 'male is 1: female is 2'}}, None),
        ('sex', '3', {'sex': {'Description': '1 = M, 2 = F, 3 = not male or female'}}, None),
        ('sex', '3', {'sex': {'Description': 'neither male nor female: 3'}}, None),
        ('sex', '3', {'sex': {'Description': '3 = male or female'}}, None),
        ('sex', '-1', {'sex': {'Description': '1 = male, 2 = female'}}, None),
        ('sex', '?', {'sex': {'Description': 'sex - male or female'}}, None),
        ('sex\tgender', 'n/a\tF', None, 'F'),
        ('sex_assigned_at_birth', 'F', None, 'F'),
        ('Sex (M/F)', 'M', None, 'M'),
    ],
)
def test_sex(dataset, header, value, about, sex):
    assert person(dataset, header, value, about)[1] == sex


def test_unexplained_code_is_found(dataset):
    _, _, findings = person(dataset, 'sex', '1')
    assert (findings[0].field, findings[0].value, findings[0].severity) == ('sex', '1', 'warning')
    _, _, findings = person(dataset, 'sex', '1', {'sex': {'Description': 'M=1 - F=2'}})
    assert (findings[0].field, findings[0].value, findings[0].severity) == ('sex', '1', 'warning')


def test_byte_order_mark_line_ends_and_bare_ids(dataset):
    (dataset.root / 'participants.tsv').write_bytes(
        b'\xef\xbb\xbfparticipant_id\tage\tsex\r\n01\t"41"\tF\r\n\r\n02\t7\tM\r\n'
    )
    people = People(dataset.root)
    assert people.person('01', None)[:2] == (41, 'F')
    assert people.person('02', None)[:2] == (7, 'M')
    assert people.person('03', None)[:2] == (None, None)


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'cp1252'])
def test_tables_of_spreadsheets(dataset, encoding):
    text = 'participant_id\tname\tage\tsex\nsub-01\tJosé\t41\tF\n'
    (dataset.root / 'participants.tsv').write_bytes(text.encode(encoding))
    assert People(dataset.root).person('01', None) == (41, 'F', [])


def test_cells_may_hold_odd_line_separators(dataset):
    assert person(dataset, 'note\tage\tsex', 'a\x0bb\u2028c\t41\tF')[:2] == (41, 'F')


def test_participant_without_a_line_is_told(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\tsex\n1\t41\tF\n')
    age, sex, [finding] = People(dataset.root).person('01', None)
    assert (age, sex) == (None, None)
    assert (finding.path, finding.value) == ('participants.tsv', 'sub-01')
    assert 'no line' in finding.problem


def test_sessions_json_that_is_invalid_concerns_one_participant(dataset):
    dataset.text('sub-01/sub-01_sessions.tsv', 'session_id\tage\nses-1\t41\n')
    dataset.text('sub-01/sub-01_sessions.json', '{bad')
    people = People(dataset.root)
    with pytest.raises(ScanError, match='not valid JSON'):
        people.person('01', '1')
    assert people.person('02', None) == (None, None, [])


@pytest.mark.parametrize(
    ('session', 'age'), [('T1', 10), ('T2', 12), ('02', 21), ('2', 21), ('wave3', 33), ('x', 9)]
)
def test_age_of_the_session(dataset, session, age):
    header = 'age\tage_ses-T1\tage_ses-T2\tage_ses02\tAgeCog_W3\tAgeMRI_W3'
    assert person(dataset, header, '9\t10\t12\t21\t99\t33', session=session)[0] == age


def test_rows_of_sessions(dataset):
    dataset.text(
        'participants.tsv',
        'participant_id\tsession_id\tage\tsex\nsub-01\tses-a\t20\tF\nsub-01\tses-b\t25\tF\n',
    )
    people = People(dataset.root)
    assert people.person('01', 'a')[:2] == (20, 'F')
    assert people.person('01', 'b')[:2] == (25, 'F')
    age, sex, findings = people.person('01', 'c')
    assert (age, sex) == (None, 'F')
    assert 'disagree' in findings[0].problem


def test_nearer_tables_prevail(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\tsex\nsub-01\t30\tM\n')
    dataset.text('sub-01/sub-01_sessions.tsv', 'session_id\tage\nses-1\t31\nses-2\t32\n')
    dataset.text(
        'sub-01/ses-2/sub-01_ses-2_scans.tsv', 'filename\tage\nanat/sub-01_ses-2_T1w.nii.gz\t33\n'
    )
    people = People(dataset.root)
    assert people.person('01', '1')[:2] == (31, 'M')
    assert people.person('01', '2')[:2] == (33, 'M')
    assert people.person('01', '3')[:2] == (30, 'M')


def test_units_of_sessions_json_at_the_root(dataset):
    dataset.text('sub-01/sub-01_sessions.tsv', 'session_id\tage\nses-1\t24\n')
    dataset.json('sessions.json', {'age': {'Units': 'months'}})
    assert read_person(dataset.root, '01', '1')[0] == 2


def test_wrong_separator_is_found(dataset):
    dataset.text('participants.tsv', 'participant_id,age\nsub-01,30\n')
    age, _, findings = read_person(dataset.root, '01', None)
    assert age is None
    assert 'tab-separated' in findings[0].problem


@pytest.mark.parametrize(
    ('age', 'levels'), [('1', {'1': 25}), ('1', {'1': {'Description': 25}}), ('25', {'25': None})]
)
def test_levels_that_are_no_text(dataset, age, levels):
    assert person(dataset, 'age', age, {'age': {'Levels': levels}})[0] == 25


@pytest.mark.parametrize('meaning', [['male', 'man'], {'Description': ['male']}])
def test_levels_that_are_lists(dataset, meaning):
    assert person(dataset, 'sex', '1', {'sex': {'Levels': {'1': meaning}}})[1] == 'M'
    age, _, findings = person(dataset, 'age', '1', {'age': {'Levels': {'1': meaning}}})
    assert (age, findings[0].field) == (None, 'age')


@pytest.mark.parametrize('age', ['4' * 400, f'1-{"4" * 400}', '4' * 5000])
def test_age_of_hundreds_of_digits(dataset, age):
    found, _, findings = person(dataset, 'age', age)
    assert (found, findings[0].field) == (None, 'age')


@pytest.mark.parametrize(
    ('name', 'error'), [('participants', UsageError), ('sub-01/sub-01_sessions', ScanError)]
)
def test_table_that_may_not_be_read_is_named(dataset, monkeypatch, name, error):
    path = dataset.text(f'{name}.tsv', 'participant_id\tage\nsub-01\t30\n')

    def denied(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(type(path), 'read_bytes', denied)
    with pytest.raises(error, match='cannot be read') as caught:
        read_person(dataset.root, '01', '1')
    assert caught.value.path == path


@pytest.mark.parametrize(
    ('name', 'error'),
    [
        ('participants.tsv', UsageError),
        ('participants.json', UsageError),
        ('sub-01/sub-01_sessions.tsv', ScanError),
        ('sub-01/sub-01_sessions.json', ScanError),
    ],
)
def test_table_whose_content_was_not_fetched_is_told(dataset, name, error):
    dataset.text('participants.tsv', 'participant_id\tage\nsub-01\t30\n')
    dataset.text('sub-01/sub-01_sessions.tsv', 'session_id\tage\nses-1\t30\n')
    path = dataset.root / name
    path.unlink(missing_ok=True)
    path.symlink_to('.git/annex/objects/absent')
    with pytest.raises(error, match='datalad get') as caught:
        read_person(dataset.root, '01', '1')
    assert caught.value.path == path


def test_broken_participants_json_is_named(dataset):
    dataset.text('participants.tsv', 'participant_id\tage\nsub-01\t30\n')
    dataset.text('participants.json', '{')
    with pytest.raises(UsageError, match=r'participants\.json: not valid JSON'):
        read_person(dataset.root, '01', None)


def test_no_table(dataset):
    assert read_person(dataset.root, '01', None) == (None, None, [])


# What the index of the public tables cannot tell: ages that are coded, binned, or not of the scan.
AGES = {
    'ds000221': (22.5, 77.5),
    'ds003592': (18, 89),
    'ds004169': (12, 30),
    'ds004199': (13, 63),
    'ds004884': None,
    'ds004889': (16, 89),
    'ds004146': (8, 14),
    'ds000201': None,
    'ds004856': (21, 97),
    'ds002424': (8.59, 14.23),
}
SESSIONS = {'ds004856': ('wave1', 'wave2', 'wave3'), 'ds002424': ('T1', 'T2')}


def sexes(text):
    """Make ``'M x9, F x7, n/a x1'`` into counts of M and F."""
    counts = Counter()
    for item in text.replace('M, x', 'M x').split(', '):
        value, _, count = item.rpartition(' x')
        if value[:1].lower() in ('m', 'f'):
            counts[value[:1].upper()] += int(count)
    return counts


CODED = {'ds002424': {'M': 65, 'F': 14}, 'ds004796': {'M': 89, 'F': 103}}


def test_every_public_table(shared_data):
    """41 real participants.tsv: counts of sexes and range of ages as the index has them."""
    with open(shared_data / 'sidecars' / 'participants_index.tsv', encoding='utf-8') as handle:
        rows = [row for row in csv.DictReader(handle, delimiter='\t') if row['file'] != 'none']
    assert len(rows) == 41
    for row in rows:
        check_table(shared_data / 'sidecars' / row['file'], row)


def check_table(path, row):
    people = People(path.parent)
    with open(path, encoding='utf-8-sig', newline='') as handle:
        lines = [line.split('\t') for line in handle.read().splitlines() if line.strip()]
    header = [name.strip() for name in lines[0]]
    assert len(lines) - 1 == int(row['rows'])
    counts, ages = Counter(), []
    for line in lines[1:]:
        subject = line[0].strip().removeprefix('sub-')
        own = line[header.index('session_id')] if 'session_id' in header else None
        for session in SESSIONS.get(row['dataset'], (own and own.removeprefix('ses-'),)):
            age, sex, _ = people.person(subject, session)
            ages += [] if age is None else [age]
        counts[sex] += 1
    expected = CODED.get(row['dataset'], sexes(row['sex_values']))
    assert {key: counts[key] for key in 'MF' if counts[key]} == dict(expected), row['dataset']
    default = None if row['age_min'] == 'n/a' else (float(row['age_min']), float(row['age_max']))
    expected_range = AGES.get(row['dataset'], default)
    assert ((min(ages), max(ages)) if ages else None) == expected_range, row['dataset']
