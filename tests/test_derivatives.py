"""Names, headers and sidecars of the outputs, and the validator's word on a whole tree."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.bids import derivatives, description, naming
from tumsyn_bids.errors import SessionError, UsageError
from tumsyn_bids.files import staged, write_text
from tumsyn_bids.plan import Scan, SessionPlan, SynthesisTask, Target

MODEL = derivatives.ModelRecord('embedded', '1', 'ab' * 32)
RAW = Path('/data/raw set')


def scan(contrast: str, name: str = '', *, session='1', **entities) -> Scan:
    name = name or f'sub-01_ses-1_{contrast}.nii.gz'
    return Scan(
        path=str(RAW / 'sub-01' / 'ses-1' / 'anat' / name),
        acquisition=Acquisition(contrast, 45.0, 'F', 3.0, 'Siemens', (1.0, 1.0, 3.0), 2.0, 0.03),
        entities={'subject': '01', 'session': session, **entities},
        shape=(10, 11, 12),
        zooms=(1.0, 1.0, 3.0),
    )


def task(contrast: str, source: Scan, name='', purpose='missing', voxel_size=None):
    target = Target(
        name,
        Acquisition(contrast, sex='F', field_strength=3.0, voxel_size=voxel_size, echo_time=0.1),
        {'echo_time': 'default protocol', 'contrast': '--contrasts'},
    )
    return SynthesisTask(target, source.path, f'Modality: {contrast}', purpose, 'it is sharpest')


def session_plan(scans, tasks, session='1') -> SessionPlan:
    return SessionPlan('01', session, tuple(scans), scans[0].path, 'a T1w', tuple(tasks))


@pytest.fixture
def plan() -> SessionPlan:
    t1w = scan('T1w', acquisition='mprage', run='1')
    flair = scan('FLAIR')
    t1ce = scan('T1CE', 'sub-01_ses-1_ce-gadolinium_T1w.nii.gz', ceagent='gadolinium')
    tasks = [
        task('T2w', t1w),
        task('T2w', t1w, 'fine', 'requested', (0.8, 0.8, 1.2)),
        task('FLAIR', t1w, purpose='validate'),
        task('T1CE', flair, purpose='requested'),
        task('SWI', flair),
        task('PDw', flair),
        task('T2starw', flair),
    ]
    return session_plan([t1w, flair, t1ce], tasks)


def all_paths(paths: naming.SessionPaths) -> list[Path]:
    images = [paths.mask, *paths.preproc.values(), *paths.transforms.values(), *paths.synthetic]
    images += paths.inverse_transforms.values()
    return [*images, paths.scores, *(figure.path for figure in paths.figures)]


def image(shape=(6, 7, 8), affine=None) -> nb.Nifti1Image:
    data = np.linspace(-5, 1500.4, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return nb.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)


def test_names_of_a_session(plan):
    paths = naming.session_paths(plan)
    assert {path.parent.as_posix() for path in paths.synthetic} == {
        'sub-01/ses-1/anat',
        'sub-01/ses-1/swi',
    }
    assert [path.name for path in paths.synthetic] == [
        'sub-01_ses-1_run-1_space-individual_res-1mm_desc-synth_T2w.nii.gz',
        'sub-01_ses-1_run-1_space-individual_res-0p8x0p8x1p2mm_desc-synthfine_T2w.nii.gz',
        'sub-01_ses-1_run-1_space-individual_res-1mm_desc-synthval_FLAIR.nii.gz',
        'sub-01_ses-1_ce-gadolinium_space-individual_res-1mm_desc-synth_T1w.nii.gz',
        'sub-01_ses-1_space-individual_res-1mm_desc-synth_swi.nii.gz',
        'sub-01_ses-1_space-individual_res-1mm_desc-synth_PDw.nii.gz',
        'sub-01_ses-1_space-individual_res-1mm_desc-synth_T2starw.nii.gz',
    ]
    assert paths.mask.name == 'sub-01_ses-1_space-individual_desc-brain_mask.nii.gz'
    assert [path.name for path in paths.preproc.values()] == [
        'sub-01_ses-1_acq-mprage_run-1_space-individual_desc-preproc_T1w.nii.gz',
        'sub-01_ses-1_space-individual_desc-preproc_FLAIR.nii.gz',
        'sub-01_ses-1_ce-gadolinium_space-individual_desc-preproc_T1w.nii.gz',
    ]
    assert [path.name for path in paths.transforms.values()] == [
        'sub-01_ses-1_from-FLAIR_to-individual_mode-image_xfm.txt',
        'sub-01_ses-1_ce-gadolinium_from-T1CE_to-individual_mode-image_xfm.txt',
    ]
    assert paths.validation_figures.keys() == {2}
    assert len(paths.figures) == 1 + 2 + 7 + 1


def test_names_without_sessions():
    t1w = scan('T1w', session=None)
    paths = naming.session_paths(session_plan([t1w], [task('T2w', t1w)], session=None))
    assert str(paths.synthetic[0]) == (
        'sub-01/anat/sub-01_space-individual_res-1mm_desc-synth_T2w.nii.gz'
    )
    assert str(paths.scores) == 'sub-01/anat/sub-01_desc-validation_scores.tsv'


def test_names_are_read_back_by_pybids(plan):
    from bids.layout import parse_file_entities

    for path in naming.session_paths(plan).synthetic:
        found = parse_file_entities(str(Path('/') / path), config=['bids', 'derivatives'])
        assert found['subject'] == '01'
        assert found['session'] == '1'
        assert found['space'] == 'individual'
        assert found['desc'].startswith('synth')
        assert found['suffix'] in {contrast.suffix for contrast in CONTRASTS.values()}


def test_equal_requests_get_different_names():
    t1w, other = scan('T1w', space='MNI', desc='brain'), scan('T1w', 'sub-01_ses-1_x_T1w.nii.gz')
    tasks = [
        task('T2w', t1w),
        task('T2w', t1w),
        task('T2w', t1w, '2'),
        task('T2w', t1w, 'Fast'),
        task('T2w', t1w, 'fast'),
    ]
    paths = all_paths(naming.session_paths(session_plan([t1w, other], tasks)))
    assert len({str(path).casefold() for path in paths}) == len(paths)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.text(min_size=1, max_size=8)
                for name in ('acquisition', 'run', 'space', 'desc', 'nonsense')
            },
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.text(max_size=6), max_size=4),
)
def test_no_label_leads_out_of_the_output_directory(entities, names):
    scans = [scan('T1w', f'{index}.nii.gz', **more) for index, more in enumerate(entities)]
    tasks = [task('T2w', scans[0], name) for name in names]
    try:
        paths = all_paths(naming.session_paths(session_plan(scans, tasks)))
    except SessionError:
        return  # nothing was left of a label
    assert len({str(path).casefold() for path in paths}) == len(paths)
    for path in paths:
        assert path.parts[0] == 'sub-01'
        assert '..' not in path.parts
        assert path.name.isascii()
        assert set(path.name) <= set(
            'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+'
        )


def test_labels_with_a_plus_sign_stay_apart():
    assert naming.clean_label('A+B') == 'A+B'
    t1w = scan('T1w', session=None, acquisition='a+b')
    names = set()
    for subject in ('AB', 'A+B'):
        plan = replace(session_plan([t1w], [task('T2w', t1w)], session=None), subject=subject)
        paths = naming.session_paths(plan)
        names |= {str(path) for path in all_paths(paths)}
        assert paths.mask.parts[0] == f'sub-{subject}'
        assert '_acq-a+b_' in paths.preproc[t1w.path].name
    assert len(names) == 2 * len(all_paths(paths))


def test_hostile_labels():
    assert naming.clean_label('../../etc/passwd') == 'etcpasswd'
    with pytest.raises(SessionError, match='no file name'):
        naming.clean_label('../..')


def test_synthetic_image_says_so_and_keeps_its_geometry(tmp_path, plan):
    affine = nb.affines.from_matvec(
        nb.eulerangles.euler2mat(0.1, 0.2, -0.3) @ np.diag([0.8, 0.8, 1.2]), [10, -20, 30]
    )
    sidecar = derivatives.synthetic_sidecar(
        plan, plan.tasks[1], bids_dir=RAW, model=MODEL, mask=Path('m.nii.gz'), warnings=['odd']
    )
    path = derivatives.save_synthetic(image(affine=affine), tmp_path / 'x_T2w.nii.gz', sidecar)
    img = nb.load(path)
    assert bytes(img.header['descrip']).startswith(b'SYNTHETIC T2w')
    assert img.get_data_dtype() == np.int16
    np.testing.assert_allclose(img.get_fdata(), np.rint(image().get_fdata()), atol=1)
    np.testing.assert_allclose(img.affine, affine, atol=1e-6)
    np.testing.assert_allclose(img.get_qform(), affine, atol=1e-5)
    assert (img.header['sform_code'], img.header['qform_code']) == (2, 2)
    assert img.header.get_xyzt_units()[0] == 'mm'


def test_sidecar_of_a_validated_image_tells_the_voxel_size_of_its_prompt(plan):
    asked = replace(plan.tasks[2], stated_size=(0.9, 0.9, 3.0))
    about = {'bids_dir': RAW, 'model': MODEL, 'mask': Path('m.nii.gz')}
    sidecar = derivatives.synthetic_sidecar(plan, asked, **about)
    assert sidecar['RequestedParameters']['AcquisitionVoxelSize'] == [0.9, 0.9, 3.0]
    assert 'compared' in sidecar['RequestedParametersOrigin']['AcquisitionVoxelSize']
    assert sidecar['Resolution'].startswith('1 x 1 x 1 mm')


def test_confidence_goes_to_the_sidecar_and_to_a_table(plan, tmp_path):
    figures = {'reconstruction': 0.987654, 'cycle': 0.9, 'verdict': 'pass'}
    sidecar = derivatives.synthetic_sidecar(
        plan, plan.tasks[1], bids_dir=RAW, model=MODEL, mask=Path('m.nii.gz'), confidence=figures
    )
    assert sidecar['Confidence'] == {'Reconstruction': 0.9877, 'Cycle': 0.9, 'Verdict': 'pass'}
    path = tmp_path / 'sub-01_desc-synth_qc.tsv'
    derivatives.save_confidence([{'synthetic': 'bids::x', 'contrast': 'T2w', **figures}], path)
    header, row = (line.split('\t') for line in path.read_text().splitlines())
    values = dict(zip(header, row, strict=True))
    assert values['reconstruction'] == '0.9877'
    assert values['prompt_deviation'] == values['source'] == 'n/a'
    assert set(json.loads(path.with_suffix('.json').read_text())) == set(header)


def test_synthetic_sidecar_separates_request_from_fact(plan):
    sidecar = derivatives.synthetic_sidecar(
        plan, plan.tasks[1], bids_dir=RAW, model=MODEL, mask=Path('sub-01/m.nii.gz')
    )
    assert sidecar['Synthetic'] is True
    assert sidecar['Sources'] == [
        'bids:raw:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz',
        'bids::sub-01/m.nii.gz',
    ]
    assert sidecar['SynthesisModel']['SHA256'] == MODEL.sha256
    assert sidecar['SynthesisModel']['Prompt'] == 'Modality: T2w'
    assert sidecar['RequestedParameters'] == {
        'Contrast': 'T2w',
        'Sex': 'F',
        'MagneticFieldStrength': 3.0,
        'AcquisitionVoxelSize': [0.8, 0.8, 1.2],
        'EchoTime': 0.1,
    }
    assert sidecar['RequestedParametersOrigin'] == {
        'Contrast': '--contrasts',
        'EchoTime': 'default protocol',
    }
    acquired = {'RepetitionTime', 'EchoTime', 'InversionTime', 'FlipAngle', 'Manufacturer'}
    assert not acquired & sidecar.keys()


def test_acquired_image_keeps_its_acquisition(plan):
    sidecar = derivatives.preproc_sidecar(plan, plan.scans[1], bids_dir=RAW)
    assert (sidecar['EchoTime'], sidecar['Manufacturer']) == (0.03, 'Siemens')
    assert 'InversionTime' not in sidecar
    assert sidecar['SkullStripped'] is False


def test_a_resampled_scan_names_its_transform(plan):
    flair, path = plan.scans[1], Path('sub-01/anat/sub-01_xfm.txt')
    sources = derivatives.preproc_sidecar(plan, flair, bids_dir=RAW, transform=path)['Sources']
    assert sources == [derivatives.raw_uri(flair.path, RAW), 'bids::sub-01/anat/sub-01_xfm.txt']


def test_the_table_of_agreement_is_explained(tmp_path):
    row = {'synthetic': 'bids::x', 'contrast': 'FLAIR', 'source': 'T1w', 'acquired': 'bids:raw:y'}
    names = ('psnr_whole', 'psnr_brain', 'ssim_whole', 'ssim_brain', 'pearson', 'mae')
    row |= dict.fromkeys([*names, *(f'lut_{name}' for name in names)], 0.5)
    path = derivatives.save_scores([row], tmp_path / 'x_desc-validation_scores.tsv')
    about = json.loads(path.with_suffix('.json').read_text())
    assert list(about) == list(row) == path.read_text().splitlines()[0].split('\t')
    assert all(len(item['Description']) > 10 for item in about.values())
    assert {name for name in about if about[name].get('Units') == 'dB'} == {
        name for name in row if 'psnr' in name
    }
    assert 'look-up table' in about['lut_mae']['Description']


def test_uris_quote_and_leave_the_dataset_honestly():
    assert derivatives.raw_uri(RAW / 'a b.nii', RAW) == 'bids:raw:a%20b.nii'
    assert derivatives.raw_uri('/else/a.nii', RAW) == 'file:///else/a.nii'


def test_integers_are_clipped_and_sheared_affines_have_no_qform(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    data = np.array([-1e9, np.nan, 3.6, 1e9], dtype=np.float32).reshape(4, 1, 1)
    path = derivatives.save_image(
        nb.Nifti1Image(data, affine), tmp_path / 'a_T1w.nii.gz', {}, dtype=np.int16, code=1
    )
    img = nb.load(path)
    assert np.asarray(img.dataobj).ravel().tolist() == [-32768, 0, 4, 32767]
    assert (img.header['sform_code'], img.header['qform_code']) == (1, 0)
    np.testing.assert_allclose(img.affine, affine)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    written = []
    for name in ('a', 'b'):
        path = derivatives.save_synthetic(image(), tmp_path / name / 'x_T1w.nii.gz', {'k': 'ü'})
        written.append(path.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize('where', ['image', 'sidecar'])
def test_failed_writing_leaves_nothing_half_done(tmp_path, monkeypatch, where):
    path = tmp_path / 'x_T1w.nii.gz'

    def full_disk(*args, **kwargs):
        Path(args[1] if where == 'image' else args[0]).write_bytes(b'half')
        raise OSError('no space left on device')

    if where == 'image':
        monkeypatch.setattr(nb.Nifti1Image, 'to_filename', full_disk)
    else:
        monkeypatch.setattr(derivatives, 'write_sidecar', lambda *args: full_disk(tmp_path / 'h'))
    with pytest.raises(OSError, match='no space'):
        derivatives.save_image(image(), path, {})
    assert not path.exists()
    assert not list(tmp_path.glob('.*'))


def test_staged_file_is_hidden_until_it_is_complete(tmp_path):
    with staged(tmp_path / 'new' / 'x.nii.gz') as temporary:
        temporary.write_bytes(b'x')
        assert temporary.name.startswith('.')
        assert temporary.name.endswith('.nii.gz')
        assert not (tmp_path / 'new' / 'x.nii.gz').exists()
    assert [item.name for item in (tmp_path / 'new').iterdir()] == ['x.nii.gz']


def write_tree(out: Path, plan: SessionPlan, raw: Path) -> None:
    paths = naming.session_paths(plan)
    description.write_dataset_files(
        out, raw, version='0.1.0', descriptions=naming.describe_labels([plan])
    )
    sidecar = derivatives.mask_sidecar(plan, bids_dir=raw, method='ants', volume_ml=1400)
    derivatives.save_image(image(), out / paths.mask, sidecar, dtype=np.uint8, code=1)
    for item in plan.scans:
        sidecar = derivatives.preproc_sidecar(plan, item, bids_dir=raw)
        derivatives.save_image(image(), out / paths.preproc[item.path], sidecar)
    matrix = out / 'm.txt'
    matrix.write_text('#Insight Transform File V1.0\n')
    for path, goal in paths.transforms.items():
        sidecar = derivatives.transform_sidecar(plan, plan.scan(path), bids_dir=raw, cost_after=1)
        derivatives.save_copy(matrix, out / goal, sidecar)
    matrix.unlink()
    for item, path in zip(plan.tasks, paths.synthetic, strict=True):
        sidecar = derivatives.synthetic_sidecar(
            plan, item, bids_dir=raw, model=MODEL, mask=paths.mask
        )
        derivatives.save_synthetic(image(), out / path, sidecar)
    rows = [{'synthetic': 'bids::x', 'contrast': 'FLAIR', 'psnr': 20.0, 'ssim': float('nan')}]
    derivatives.save_scores(rows, out / paths.scores)
    judged = [{'synthetic': 'bids::x', 'contrast': 'FLAIR', 'cycle': 0.9, 'verdict': 'pass'}]
    derivatives.save_confidence(judged, out / paths.confidence)
    for figure in paths.figures:
        write_text(out / figure.path, '<svg/>')
    write_text(out / 'sub-01.html', '<html></html>')
    write_text(out / 'logs' / 'status.tsv', 'a\n')
    write_text(out / 'group_status.tsv', 'a\n')


def validate(folder: Path) -> list[dict]:
    program = Path(sys.executable).with_name('bids-validator-deno')
    program = program if program.is_file() else shutil.which('bids-validator-deno')
    if not program:
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run(
        [program, '--format', 'json', str(folder)], capture_output=True, text=True, timeout=300
    )
    return json.loads(done.stdout)['issues']['issues']


def test_validator_finds_no_error_in_a_complete_tree(tmp_path, plan):
    raw = tmp_path / 'raw set'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "Ünder test", "License": "CC0"}')
    write_tree(tmp_path / 'out', plan, raw)
    issues = validate(tmp_path / 'out')
    assert [issue for issue in issues if issue['severity'] == 'error'] == []
    # The check can fail: without its ignore file the same tree has errors.
    (tmp_path / 'out' / '.bidsignore').unlink()
    assert 'error' in {issue['severity'] for issue in validate(tmp_path / 'out')}


def test_root_files_say_where_things_come_from(tmp_path, plan):
    raw = tmp_path / 'raw'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "N", "DatasetDOI": "doi:10.1/x"}')
    labels = naming.describe_labels([plan])
    description.write_dataset_files(tmp_path / 'out', raw, version='0.1.0', descriptions=labels)
    content = json.loads((tmp_path / 'out' / 'dataset_description.json').read_text())
    assert content['DatasetType'] == 'derivative'
    assert content['GeneratedBy'] == [{'Name': 'tumsyn-bids', 'Version': '0.1.0'}]
    assert content['DatasetLinks'] == {'raw': raw.as_uri()}
    assert content['SourceDatasets'] == [{'URL': raw.as_uri(), 'DOI': 'doi:10.1/x'}]
    rows = (tmp_path / 'out' / 'descriptions.tsv').read_text().splitlines()
    ids = {row.split('\t')[0] for row in rows[1:]}
    used = {path.name.split('_desc-')[1].split('_')[0] for path in _desc_paths(plan)}
    assert {f'desc-{label}' for label in used} <= ids


def _desc_paths(plan):
    paths = naming.session_paths(plan)
    return [paths.mask, *paths.preproc.values(), *paths.synthetic, paths.scores]


def test_raw_description_that_is_no_json_does_no_harm(tmp_path):
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw' / 'dataset_description.json').write_text('{')
    content = description.dataset_description(tmp_path / 'raw', version='1.0')
    assert content['Name'] == 'Synthetic contrasts of raw'


def _start(out, raw, number):
    for _ in range(20):
        description.write_dataset_files(
            out, raw, version='0.1.0', descriptions={'synth': 's', f'synth{number}': f't{number}'}
        )


def test_processes_that_start_together_lose_nothing(tmp_path):
    (tmp_path / 'raw').mkdir()
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_start, args=(tmp_path / 'out', tmp_path / 'raw', number))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    rows = (tmp_path / 'out' / 'descriptions.tsv').read_text().splitlines()
    assert rows[0] == 'desc_id\tdescription'
    assert {row.split('\t')[0] for row in rows[1:]} == {
        'desc-synth',
        *(f'desc-synth{n}' for n in range(4)),
    }
    assert not list((tmp_path / 'out').glob('.*-*'))


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        ('{"GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.0"}]}', 'fMRIPrep'),
        ('{"Name": "raw", "BIDSVersion": "1.9.0"}', 'unknown origin'),
        ('{"GeneratedBy": "me"}', 'unknown origin'),
        ('no json', 'unknown origin'),
        ('{"GeneratedBy": [{"Name": "tumsyn-bids", "Version": "0.2.0"}]}', '0.2.0'),
        ('{"GeneratedBy": [{"Name": "tumsyn-bids"}]}', 'this is version 0.1.3'),
    ],
)
def test_foreign_output_directories_are_refused(tmp_path, content, problem):
    (tmp_path / 'dataset_description.json').write_text(content)
    with pytest.raises(UsageError, match=problem) as caught:
        description.check_output_dir(tmp_path, '0.1.3')
    assert caught.value.exit_code == 2
    assert 'Choose' in str(caught.value)


def test_own_and_empty_output_directories_are_accepted(tmp_path):
    description.check_output_dir(tmp_path / 'absent', '0.1.3')
    description.check_output_dir(tmp_path, '0.1.3')
    (tmp_path / 'raw').mkdir()
    description.write_dataset_files(tmp_path, tmp_path / 'raw', version='0.1.0', descriptions={})
    description.check_output_dir(tmp_path, '0.1.3')


def test_subjects_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / 'sub-07').mkdir()
    with pytest.raises(UsageError, match='sub-07'):
        description.check_output_dir(tmp_path, '0.1.3')
