"""Whole runs of ``tumsyn-bids`` on simulated heads, as a user starts them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from bids_builder import part_of

from tumsyn_bids.grids import Grid

WITHOUT_HOME = {'HOME': '/nonexistent', 'http_proxy': 'http://127.0.0.1:9'}
WITHOUT_HOME['https_proxy'] = WITHOUT_HOME['http_proxy']
OWN_FOLDERS = ('MPLCONFIGDIR', 'TEMPLATEFLOW_HOME', 'XDG_CACHE_HOME')


SECRET = 'Creutzfeldt'


def run(*args, expect):
    """Start ``tumsyn-bids`` without home and network; return its output."""
    env = {name: value for name, value in os.environ.items() if name not in OWN_FOLDERS}
    command = [sys.executable, '-m', 'tumsyn_bids', *map(str, args)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**env, **WITHOUT_HOME}
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def contents(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def status(out):
    with open(out / 'logs' / 'status.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    return {(row['participant'], row['session']): row for row in rows}


@pytest.fixture(scope='module')
def first_run(phantom_dir, tiny_model, tmp_path_factory):
    """One subject with a FLAIR alone, and one whose only file is truncated."""
    folder = tmp_path_factory.mktemp('first')
    dataset = part_of(phantom_dir, folder / 'ds', 'sub-01', 'sub-02')
    broken = dataset / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz'
    broken.write_bytes(broken.read_bytes()[:-3000])
    table = dataset / 'participants.tsv'
    header, *rows = table.read_text().splitlines()
    rows = [f'{row}\t{SECRET}' for row in [*rows, 'sub-99\t23\tM\tR']]
    table.write_text('\n'.join([f'{header}\tdiagnosis', *rows]) + '\n')
    before = contents(dataset)
    args = [dataset, folder / 'out', 'participant', '-w', folder / 'work', '--model', tiny_model]
    done = run(*args, expect=1)
    return {'args': args, 'out': folder / 'out', 'ds': dataset, 'before': before, 'done': done}


def test_one_failure_does_not_stop_the_others(first_run):
    out = first_run['out']
    rows = status(out)
    assert rows['01', 'n/a']['state'] == 'failed'
    assert rows['02', 'n/a']['state'] == 'complete'
    assert 'sub-01_T1w.nii.gz' in rows['01', 'n/a']['error']


def test_missing_contrasts_are_there_and_marked(first_run):
    anat = first_run['out'] / 'sub-02' / 'anat'
    for contrast in ('T1w', 'T2w'):
        path = anat / f'sub-02_space-individual_res-1mm_desc-synth_{contrast}.nii.gz'
        img = nb.load(path)
        np.testing.assert_allclose(img.header.get_zooms(), (1, 1, 1), rtol=1e-5)
        assert img.header['descrip'].item().startswith(b'SYNTHETIC')
        sidecar = json.loads(path.with_name(path.name[:-7] + '.json').read_text())
        assert sidecar['Synthetic'] is True
        assert 'RepetitionTime' not in sidecar
        assert f'Modality: {contrast}' in sidecar['SynthesisModel']['Prompt']
    assert (anat / 'sub-02_space-individual_desc-preproc_FLAIR.nii.gz').is_file()


def test_synthetic_images_cover_the_field_of_view_of_the_reference(first_run):
    anat = first_run['out'] / 'sub-02' / 'anat'
    reference = nb.load(anat / 'sub-02_space-individual_desc-preproc_FLAIR.nii.gz')
    synthetic = nb.load(anat / 'sub-02_space-individual_res-1mm_desc-synth_T1w.nii.gz')

    def corners(img):
        grid = Grid.of(img).canonical()
        ends = np.array([[-0.5] * 3, np.array(grid.shape) - 0.5])
        return nb.affines.apply_affine(grid.affine, ends)

    first, last = corners(synthetic) - corners(reference)
    np.testing.assert_allclose(first, 0, atol=1e-3)
    # Rounded up to whole voxels of 1 mm.
    assert np.linalg.norm(last) < np.sqrt(3)


def test_the_last_line_is_the_verdict(first_run):
    last = first_run['done'].stdout.splitlines()[-1]
    assert last.startswith('tumsyn-bids: finished with failures: 1 of 2 sessions complete')
    assert '1 FAILED (sub-01)' in last


def test_the_failure_is_one_line_that_names_file_and_remedy(first_run):
    (line,) = [x for x in first_run['done'].stderr.splitlines() if 'error' in x]
    assert line.startswith('tumsyn-bids: error: sub-01: ')
    assert 'sub-01_T1w.nii.gz' in line
    crash = Path(line.split('details: ')[1].rstrip(')'))
    assert 'sub-01_T1w.nii.gz' in crash.read_text().splitlines()[0]


def test_there_is_a_log_for_each_subject_and_the_settings(first_run):
    (folder,) = [path for path in (first_run['out'] / 'logs').iterdir() if path.name[0] == '2']
    assert {'sub-01.log', 'sub-02.log', 'config.toml'} <= {path.name for path in folder.iterdir()}
    assert 'synthesize' in (folder / 'sub-02.log').read_text()


def test_what_the_prompt_does_not_need_stays_in_the_dataset(first_run):
    """Other columns of participants.tsv and other people's rows are written nowhere."""
    out = first_run['out']
    kept = (path for path in out.rglob('*') if path.is_file() and path.suffix != '.gz')
    told = [path.read_bytes() for path in kept]
    told += [first_run['done'].stdout.encode(), first_run['done'].stderr.encode()]
    assert any(b'sub-02' in text for text in told)
    for secret in (SECRET, 'sub-99'):
        assert not any(secret.encode() in text for text in told)


def test_reports_are_written_for_good_and_bad(first_run):
    assert 'SYNTHETIC' in (first_run['out'] / 'sub-02.html').read_text()
    failed = (first_run['out'] / 'sub-01.html').read_text()
    assert 'sub-01_T1w.nii.gz' in failed
    assert 'Copy it again' in failed


def test_inputs_are_untouched(first_run):
    assert contents(first_run['ds']) == first_run['before']


def test_the_terminal_says_what_runs(first_run):
    lines = first_run['done'].stdout.splitlines()
    assert any('sub-02: brain: extract brain' in line for line in lines)
    assert any(line.startswith('[2/2 sessions done]') for line in lines)
    assert not [line for line in lines if 'nipype' in line]


def test_the_work_directory_holds_few_files(first_run):
    work = first_run['args'][4]
    assert len(contents(work)) < 150


def test_a_second_run_does_only_what_is_not_done(first_run):
    before = contents(first_run['out'] / 'sub-02')
    begun = time.monotonic()
    done = run(*first_run['args'], expect=1)
    assert time.monotonic() - begun < 120  # most of it for the subject that fails again
    assert '1 of 2 sessions complete (1 of them before)' in done.stdout.splitlines()[-1]
    assert 'sub-02' not in ''.join(done.stdout.splitlines()[:-1])
    assert contents(first_run['out'] / 'sub-02') == before


def test_damaged_outputs_are_made_again(first_run):
    out = first_run['out']
    path = out / 'sub-02' / 'anat' / 'sub-02_space-individual_desc-brain_mask.nii.gz'
    shape = nb.load(path).shape
    path.unlink()
    done = run(*first_run['args'], '--participant-label', '02', expect=0)
    assert done.stdout.splitlines()[-1].startswith('tumsyn-bids: finished: 1 of 1 session')
    assert nb.load(path).shape == shape


def test_dry_run_writes_nothing(phantom_dir, tmp_path):
    args = [phantom_dir, tmp_path / 'out', 'participant', '-w', tmp_path / 'work', '--dry-run']
    done = run(*args, expect=0)
    assert list(tmp_path.iterdir()) == []
    for words in ('sub-02_FLAIR.nii.gz', 'desc-synth_T1w', 'prompt    Age:', 'reference'):
        assert words in done.stdout


def test_group_after_participants(first_run):
    args = first_run['args']
    done = run(*args[:2], 'group', expect=0)
    assert done.stdout.splitlines()[-1].startswith('tumsyn-bids: finished: ')
    with open(first_run['out'] / 'group_synthesis.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert {row['contrast'] for row in rows} == {'T1w', 'T2w'}


@pytest.fixture(scope='module')
def bright_model(tiny_model, tmp_path_factory):
    """The tiny model with an offset, because random weights alone may yield nothing but zeros."""
    from tumsyn_bids.networks.model import load_model, save_model

    network = load_model(tiny_model).network
    state = network.state_dict()
    *_, last = (name for name in state if '.imnet.' in name and name.endswith('.bias'))
    state[last] += 0.5
    folder = tmp_path_factory.mktemp('models') / 'bright'
    return save_model(network, folder, version='0', card={})


@pytest.fixture(scope='module')
def second_run(phantom_dir, bright_model, tmp_path_factory):
    """One session with two scans under a plugin of Nipype, validated, on coarse voxels."""
    folder = tmp_path_factory.mktemp('second')
    dataset = part_of(phantom_dir, folder / 'ds', 'sub-03')
    plugin, targets = folder / 'plugin.yml', folder / 'targets.yml'
    plugin.write_text('{plugin: MultiProc, plugin_args: {n_procs: 2, memory_gb: 8}}')
    wanted = [{'name': 'coarse', 'suffix': 'FLAIR', 'voxel_size': [3, 3, 4]}]
    wanted += [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]
    targets.write_text(json.dumps(wanted))
    args = [dataset, folder / 'out', 'participant', '-w', folder / 'work']
    args += ['--model', bright_model, '--session-label', '1', '--targets', targets]
    args += ['--validate', '--omp-nthreads', '1']
    args += ['--skull-strip', 'none', '--use-plugin', plugin]
    return {'out': folder / 'out', 'done': run(*args, expect=0), 'args': args}


def test_a_plugin_of_nipype_does_the_same(second_run):
    lines = second_run['done'].stdout.splitlines()
    assert lines[-1].startswith('tumsyn-bids: finished: 1 of 1 session complete')
    assert not [line for line in lines if 'nipype' in line]
    assert status(second_run['out'])['03', '1']['state'] == 'complete'


def test_validation_scores_every_acquired_contrast_asked_for(second_run):
    anat = second_run['out'] / 'sub-03' / 'ses-1' / 'anat'
    with open(anat / 'sub-03_ses-1_desc-validation_scores.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert {row['contrast'] for row in rows} == {'T2w'}
    assert all(0 < float(row['psnr_brain']) < 60 for row in rows)
    acquired = 'bids:raw:sub-03/ses-1/anat/sub-03_ses-1_T2w.nii.gz'
    assert [row['acquired'] for row in rows] == [acquired]
    about = json.loads((anat / 'sub-03_ses-1_desc-validation_scores.json').read_text())
    assert about.keys() == rows[0].keys()


def test_units_and_transforms_are_in_the_sidecars(second_run):
    anat = second_run['out'] / 'sub-03' / 'ses-1' / 'anat'
    about = json.loads((anat / 'sub-03_ses-1_desc-anatomy_qc.json').read_text())
    assert about['measure']['Levels']['volume'] == 'Volume of the brain mask (ml)'
    scan = anat / 'sub-03_ses-1_space-individual_desc-preproc_T2w.json'
    _raw, transform = json.loads(scan.read_text())['Sources']
    assert (second_run['out'] / transform.removeprefix('bids::')).is_file()
    assert transform.endswith('from-T2w_to-individual_mode-image_xfm.txt')


def test_named_targets_come_in_the_voxels_asked_for(second_run):
    anat = second_run['out'] / 'sub-03' / 'ses-1' / 'anat'
    (path,) = anat.glob('*_desc-synthcoarse_FLAIR.nii.gz')
    np.testing.assert_allclose(nb.load(path).header.get_zooms(), (3, 3, 4), rtol=1e-5)


def test_aligned_scans_share_the_grid_of_the_reference(second_run):
    anat = second_run['out'] / 'sub-03' / 'ses-1' / 'anat'
    reference = nb.load(anat / 'sub-03_ses-1_space-individual_desc-preproc_T1w.nii.gz')
    other = nb.load(anat / 'sub-03_ses-1_space-individual_desc-preproc_T2w.nii.gz')
    assert reference.shape == other.shape
    np.testing.assert_allclose(reference.affine, other.affine, atol=1e-4)
    assert len(list(anat.glob('*_to-individual_mode-image_xfm.txt'))) == 1
    assert len(list(anat.glob('*_from-individual_*_xfm.txt'))) == 1


def test_the_pool_takes_up_what_a_plugin_has_done(second_run, tmp_path):
    args = [arg for arg in second_run['args'] if arg != '--use-plugin']
    args = [arg for arg in args if not str(arg).endswith('plugin.yml')]
    args[1] = tmp_path / 'out'
    done = run(*args, '--clean-workdir', 'on-success', expect=0)
    log = next((tmp_path / 'out' / 'logs').glob('2*/sub-03.log')).read_text()
    assert '[Node] Executing "synthesize"' not in log
    assert not (args[4] / 'tumsyn_wf' / 'sub_03_ses_1_wf').exists()
    assert '1 of 1 session complete' in done.stdout.splitlines()[-1]
