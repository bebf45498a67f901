"""Tables over the whole dataset, from good and from damaged sessions."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest

from tumsyn_bids.bids import group
from tumsyn_bids.bids.status import SessionRecord, describe_outputs, write_record
from tumsyn_bids.bids.tables import read_tsv, to_tsv
from tumsyn_bids.cli.group import run_group
from tumsyn_bids.cli.main import main
from tumsyn_bids.cli.parser import Request
from tumsyn_bids.errors import UsageError
from tumsyn_bids.settings import Settings

SIDECAR = {
    'Synthetic': True,
    'Sources': ['bids:raw:sub-01/anat/sub-01_T1w.nii.gz'],
    'Purpose': 'missing',
    'SynthesisModel': {'Name': 'embedded', 'Version': '1', 'SHA256': 'ab', 'Prompt': 'Age: 4'},
    'RequestedParameters': {'Contrast': 'T2w'},
}


def synthetic(out, stem, sidecar=SIDECAR, image=True):
    path = out / f'{stem}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sidecar if isinstance(sidecar, str) else json.dumps(sidecar))
    if image:
        path.with_suffix('.nii.gz').write_bytes(b'')


def scores(out, stem, text):
    path = out / f'{stem}_desc-validation_scores.tsv'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def list_outputs(out):
    """Write records of complete sessions that list all that lies in their folders."""
    for folder in out.rglob('anat'):
        labels = dict(part.split('-') for part in folder.relative_to(out).parts[:-1])
        outputs = describe_outputs(out, folder.iterdir())
        record = SessionRecord(labels['sub'], labels.get('ses'), 'complete', 'now', 1.0)
        write_record(out, replace(record, outputs=outputs))


def merge_group(out):
    """Merge what lies there, all of it outputs of complete sessions."""
    list_outputs(out)
    return group.merge_group(out)


@pytest.fixture
def out(tmp_path):
    write_record(tmp_path, SessionRecord('03', None, 'failed', 'now', 1.0, error='x: bad'))
    synthetic(tmp_path, 'sub-01/anat/sub-01_space-individual_desc-synth_T2w')
    synthetic(tmp_path, 'sub-02/ses-a/anat/sub-02_ses-a_desc-synthfine_T2w')
    scores(tmp_path, 'sub-01/anat/sub-01', 'contrast\tpsnr\nT2w\t21.5\nPDw\t20\n')
    scores(tmp_path, 'sub-02/ses-a/anat/sub-02_ses-a', 'contrast\tssim\nFLAIR\t0.9\n')
    return tmp_path


def test_what_describes_a_table_is_no_damaged_image(out):
    path = out / 'sub-01/anat/sub-01_desc-synth_qc'
    path.with_suffix('.json').write_text('{"verdict": {"Description": "of the image"}}')
    path.with_suffix('.tsv').write_text('contrast\tverdict\nT2w\tpass\n')
    merge_group(out)
    assert len(read_tsv(out / 'group_synthesis.tsv')) == 2
    assert not (out / 'group_problems.tsv').exists()


def test_checks_of_all_sessions_are_put_under_one_another(out):
    for place, result in (
        ('sub-01/anat/sub-01', 'pass'),
        ('sub-02/ses-a/anat/sub-02_ses-a', 'fail'),
    ):
        path = out / f'{place}_desc-anatomy_qc.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'measure\tresult\nvolume\t{result}\n')
    merge_group(out)
    rows = read_tsv(out / 'group_checks.tsv')
    assert [(row['participant'], row['session'], row['result']) for row in rows] == [
        ('01', 'n/a', 'pass'),
        ('02', 'a', 'fail'),
    ]


def test_merge(out):
    written = merge_group(out)
    assert [path.name for path in written] == [
        'group_status.tsv',
        'group_synthesis.tsv',
        'group_validation.tsv',
    ]
    status = read_tsv(out / 'group_status.tsv')
    assert [(row['participant'], row['state']) for row in status] == [
        ('01', 'complete'),
        ('02', 'complete'),
        ('03', 'failed'),
    ]
    images = read_tsv(out / 'group_synthesis.tsv')
    assert images[0] == {
        'participant': '01',
        'session': 'n/a',
        'contrast': 'T2w',
        'target': 'n/a',
        'purpose': 'missing',
        'source': 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz',
        'model': 'embedded',
        'model_version': '1',
        'model_sha256': 'ab',
        'prompt': 'Age: 4',
        'path': 'sub-01/anat/sub-01_space-individual_desc-synth_T2w.nii.gz',
    }
    assert images[1]['session'] == 'a'
    agreement = read_tsv(out / 'group_validation.tsv')
    assert [(row['participant'], row['psnr'], row['ssim']) for row in agreement] == [
        ('01', '21.5', 'n/a'),
        ('01', '20', 'n/a'),
        ('02', 'n/a', '0.9'),
    ]


def test_merging_again_changes_nothing(out):
    first = {path: path.read_bytes() for path in merge_group(out)}
    assert {path: path.read_bytes() for path in merge_group(out)} == first


def test_damaged_files_are_told_and_left_out(out, caplog):
    synthetic(out, 'sub-03/anat/sub-03_desc-synth_T2w', '{"Synthetic": true')
    synthetic(out, 'sub-03/anat/sub-03_desc-synth_PDw', {**SIDECAR, 'SynthesisModel': {}})
    synthetic(out, 'sub-03/anat/sub-03_desc-synth_FLAIR', image=False)
    scores(out, 'sub-03/anat/sub-03', 'contrast\tpsnr\nT2w\n')
    scores(out, 'sub-04/anat/sub-04', '')
    (out / 'logs' / 'sessions' / 'sub-05.json').write_text('')
    written = merge_group(out)
    assert written[-1].name == 'group_problems.tsv'
    problems = {row['path']: row['problem'] for row in read_tsv(written[-1])}
    assert {path.split('/')[-1] for path in problems} == {
        'sub-03_desc-synth_T2w.json',
        'sub-03_desc-synth_PDw.json',
        'sub-03_desc-synth_FLAIR.json',
        'sub-03_desc-validation_scores.tsv',
        'sub-04_desc-validation_scores.tsv',
        'sub-05.json',
    }
    assert 'line 2 has 1 values' in problems['sub-03/anat/sub-03_desc-validation_scores.tsv']
    assert len(read_tsv(out / 'group_synthesis.tsv')) == 2
    assert len(read_tsv(out / 'group_validation.tsv')) == 3
    assert 'sub-05.json' in caplog.text


def test_what_no_complete_session_lists_is_told_and_left_out(out):
    list_outputs(out)
    synthetic(out, 'sub-01/anat/sub-01_space-individual_desc-synthold_T2w')
    scores(out, 'sub-04/anat/sub-04', 'contrast\tpsnr\nT2w\t21.5\n')
    record = SessionRecord('02', 'a', 'failed', 'now', 1.0, error='x: bad')
    write_record(out, record)
    group.merge_group(out)
    rows = read_tsv(out / 'group_synthesis.tsv')
    assert [row['path'] for row in rows] == [
        'sub-01/anat/sub-01_space-individual_desc-synth_T2w.nii.gz'
    ]
    rows = read_tsv(out / 'group_validation.tsv')
    assert {row['participant'] for row in rows} == {'01'}
    problems = read_tsv(out / 'group_problems.tsv')
    assert {row['path'].split('/')[-1] for row in problems} == {
        'sub-01_space-individual_desc-synthold_T2w.json',
        'sub-02_ses-a_desc-synthfine_T2w.json',
        'sub-02_ses-a_desc-validation_scores.tsv',
        'sub-04_desc-validation_scores.tsv',
    }
    assert all('left by an earlier plan' in row['problem'] for row in problems)


def test_mended_files_end_the_complaint(out):
    broken = out / 'logs' / 'sessions' / 'sub-05.json'
    broken.write_text('')
    merge_group(out)
    broken.unlink()
    merge_group(out)
    assert not (out / 'group_problems.tsv').exists()


def test_tables_that_no_session_has_any_more_are_removed(out):
    merge_group(out)
    for path in out.rglob('*_scores.tsv'):
        path.unlink()
    merge_group(out)
    assert not (out / 'group_validation.tsv').exists()


def test_nothing_to_merge(tmp_path):
    with pytest.raises(UsageError, match='Run the participant level first'):
        merge_group(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_told(out, tmp_path, monkeypatch, capsys):
    list_outputs(out)

    def refuse(path, text):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(group, 'write_text', refuse)
    assert main([str(tmp_path), str(out), 'group']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f'{out}: cannot be written (Permission denied). Check permissions' in line


def test_tables_are_escaped(tmp_path):
    path = tmp_path / 'x.tsv'
    path.write_text(to_tsv([{'a': 'x\ty\nz', 'b': None}, {'c': float('inf'), 'a': '"q'}], ('b',)))
    assert read_tsv(path) == [
        {'b': 'n/a', 'a': 'x y z', 'c': 'n/a'},
        {'b': 'n/a', 'a': '"q', 'c': 'n/a'},
    ]


def measures(out, stem, **volumes):
    path = out / f'{stem}_seg-aparcaseg_morph.tsv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {'index': None, 'name': name, 'volume-mm3': value, 't1w': 'acquired'}
        for name, value in volumes.items()
    ]
    path.write_text(to_tsv(rows, ('index', 'name', 'volume-mm3', 't1w')))


def test_measures_of_all_sessions(out):
    for person, volume in enumerate([4000.0, 4100.0, 3900.0, 4050.0, 3950.0, 9000.0]):
        names = {'Left-Hippocampus': volume, 'ctx-lh-insula': None if person else 7000.0}
        names['EstimatedTotalIntraCranialVol'] = 1.5e6
        measures(out, f'sub-{person:02d}/anat/sub-{person:02d}', **names)
    written = {path.name for path in merge_group(out)}
    assert written > {'group_aseg_volume.tsv', 'group_aparc_lh_volume.tsv'}
    wide = read_tsv(out / 'group_aseg_volume.tsv')
    assert list(wide[0])[:4] == ['participant', 'session', 't1w', 'Left-Hippocampus']
    assert [row['Left-Hippocampus'] for row in wide][-1] == '9000.0'
    assert wide[0]['EstimatedTotalIntraCranialVol'] == '1500000.0'
    parcels = read_tsv(out / 'group_aparc_lh_volume.tsv')
    assert [row['lh_insula_volume'] for row in parcels] == ['7000.0'] + ['n/a'] * 5
    tidy = read_tsv(out / 'group_morphometry.tsv')
    outliers = [row['participant'] for row in tidy if row['outlier'] == 'yes']
    assert outliers == ['05']


def test_thickness_has_tables_of_its_own(out):
    rows = [
        {'index': 1035, 'name': 'ctx-lh-insula', 'volume-mm3': 7000.0, 'area-mm2': 2300.0},
        {'index': None, 'name': 'lhWhiteSurface', 'area-mm2': 90000.0, 'thickness-avg-mm': 2.5},
    ]
    columns = ('index', 'name', 'volume-mm3', 'thickness-avg-mm', 'area-mm2', 't1w')
    for person, thickness in enumerate([2.5, 2.6, 2.4, 2.45, 2.55, 4.5, None]):
        rows[0]['thickness-avg-mm'] = thickness
        path = out / f'sub-{person:02d}/anat/sub-{person:02d}_seg-aparcaseg_morph.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_tsv(rows, columns))
    merge_group(out)
    wide = read_tsv(out / 'group_aparc_lh_thickness.tsv')
    assert wide[0]['lh_insula_thickness'] == '2.500'
    assert wide[0]['lh_MeanThickness_thickness'] == '2.500'
    assert wide[-1]['lh_insula_thickness'] == 'n/a'
    area = read_tsv(out / 'group_aparc_lh_area.tsv')[0]
    assert (area['lh_insula_area'], area['lh_WhiteSurfArea_area']) == ('2300.0', '90000.0')
    assert 'lhWhiteSurface' not in (out / 'group_aseg_volume.tsv').read_text()
    tidy = [row for row in read_tsv(out / 'group_morphometry.tsv') if row['index'] == '1035']
    assert [row['participant'] for row in tidy if row['outlier'] == 'yes'] == ['05']
    assert not (out / 'group_aparc_lh_meancurv.tsv').exists()


def agreement_of(out, person, session, acquired, synthetic):
    columns = {'index': 17, 'name': 'Left-Hippocampus', 'dice': '0.9'}
    columns |= {'volume-acquired-mm3': acquired, 'volume-synthetic-mm3': synthetic}
    right = {**columns, 'index': 53, 'name': 'Right-Hippocampus'}
    path = out / f'sub-{person}/ses-{session}/anat/sub-{person}_desc-validation_morph.tsv'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_tsv([columns, right], tuple(columns)))


def test_agreement_over_people(out, tmp_path):
    for person, volume in enumerate([3000.0, 3500.0, 4000.0, 4500.0]):
        agreement_of(out, f'{person:02d}', 1, volume, volume + 100 + person)
    # A second session of one person is no fifth person.
    agreement_of(out, '00', 2, 3200.0, 3300.0)
    request = Request('group', Settings(tmp_path, out, tmp_path / 'work'))
    list_outputs(out)
    assert run_group(request) == 0
    rows = {row['name']: row for row in read_tsv(out / 'group_agreement.tsv')}
    found = rows['Left-Hippocampus']
    assert (found['measure'], found['n'], found['dice']) == ('volume', '4', '0.9000')
    assert float(found['bias']) == pytest.approx((100 + 101 + 102 + 103) / 4)
    assert float(found['icc-low']) < float(found['icc']) < float(found['icc-high'])
    assert float(found['pearson']) > 0.99
    assert len(read_tsv(out / 'group_agreement_sessions.tsv')) == 10
    figure = (out / 'group_agreement.svg').read_text()
    assert '<svg' in figure
    for path in out.rglob('*_desc-validation_morph.tsv'):
        path.unlink()
    run_group(request)
    assert not (out / 'group_agreement.tsv').exists()
    assert not (out / 'group_agreement.svg').exists()


def test_few_sessions_have_no_outliers(out):
    for person, volume in enumerate([1.0, 2.0, 90.0]):
        measures(out, f'sub-{person:02d}/anat/sub-{person:02d}', CSF=volume)
    merge_group(out)
    assert {row['outlier'] for row in read_tsv(out / 'group_morphometry.tsv')} == {'n/a'}


def test_tables_of_former_measures_go(out):
    (out / 'group_aseg_volume.tsv').write_text('old\n')
    merge_group(out)
    assert not (out / 'group_aseg_volume.tsv').exists()
