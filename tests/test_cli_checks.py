"""What makes a run impossible is said before it starts, in one line, with exit code 2."""

from __future__ import annotations

import json
import os

import pytest

from tumsyn_bids import __version__
from tumsyn_bids.cli.main import main


@pytest.fixture
def dataset(tmp_path):
    """A BIDS dataset without images, and where outputs may go."""
    root = tmp_path / 'ds'
    (root / 'sub-01' / 'anat').mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture
def refused(capsys, tmp_path):
    """Return a function that runs the command line and returns its single error line."""

    def run(*args):
        args = [str(arg) for arg in args]
        if '-w' not in args:
            args += ['-w', str(tmp_path / 'work')]
        assert main(args) == 2
        captured = capsys.readouterr()
        assert captured.out == ''
        (line,) = captured.err.splitlines()
        assert line.startswith('tumsyn-bids: error: ')
        assert line.endswith('.')
        return line

    return run


def test_no_such_dataset(refused, tmp_path):
    line = refused(tmp_path / 'none', tmp_path / 'out', 'participant')
    assert str(tmp_path / 'none') in line


def test_not_bids(refused, tmp_path):
    (tmp_path / 'empty').mkdir()
    line = refused(tmp_path / 'empty', tmp_path / 'out', 'participant')
    assert 'dataset_description.json' in line


def test_unknown_participant_lists_those_there_are(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '--participant-label', '99')
    assert '99' in line
    assert '01' in line


def test_subjects_directory_without_measures(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '--fs-subjects-dir', tmp_path / 'fs')
    assert '--fs-subjects-dir' in line
    assert 'Add --morphometry volumes' in line


@pytest.mark.parametrize('inside', ['.', 'out', 'derivatives/tumsyn'])
def test_output_inside_the_input(refused, dataset, inside):
    assert 'inside the input' in refused(dataset, dataset / inside, 'participant')


def test_output_inside_the_input_behind_a_link(refused, dataset, tmp_path):
    (tmp_path / 'link').symlink_to(dataset)
    assert 'inside the input' in refused(dataset, tmp_path / 'link' / 'out', 'participant')


def test_work_inside_the_input(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '-w', dataset / 'work')
    assert 'work directory' in line


def test_index_inside_the_input(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '--bids-database-dir', dataset / 'db')
    assert 'index' in line


def test_work_is_the_output(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '-w', tmp_path / 'out')
    assert 'both' in line


def test_output_below_a_file(refused, dataset, tmp_path):
    (tmp_path / 'file').write_text('')
    line = refused(dataset, tmp_path / 'file' / 'out', 'participant')
    assert 'is a file' in line


@pytest.mark.skipif(os.geteuid() == 0, reason='everything is writable for root')
def test_output_not_writable(refused, dataset, tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o555)
    assert 'not writable' in refused(dataset, tmp_path / 'locked' / 'out', 'participant')


def test_output_of_another_version(refused, dataset, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    made_by = {'GeneratedBy': [{'Name': 'tumsyn-bids', 'Version': '77.1.0'}]}
    (out / 'dataset_description.json').write_text(json.dumps(made_by))
    assert '77.1.0' in refused(dataset, out, 'participant')


@pytest.mark.parametrize('name', ['tumsyn-bids', 'fMRIPrep'])
def test_a_dry_run_refuses_an_output_directory_as_a_run_does(refused, dataset, tmp_path, name):
    out = tmp_path / 'out'
    out.mkdir()
    made_by = {'GeneratedBy': [{'Name': name, 'Version': '77.1.0'}]}
    (out / 'dataset_description.json').write_text(json.dumps(made_by))
    assert name in refused(dataset, out, 'participant', '--dry-run')


def test_a_dry_run_refuses_unknown_spaces(refused, dataset, tmp_path, monkeypatch):
    for variable in ('NIPYPE_CONFIG_DIR', 'NIPYPE_NO_ET', 'TEMPLATEFLOW_AUTOUPDATE'):
        monkeypatch.setenv(variable, os.environ.get(variable, 'off'))
    options = ('--dry-run', '--output-spaces', 'Foo')
    assert 'Foo' in refused(dataset, tmp_path / 'out', 'participant', *options)
    assert [path.name for path in tmp_path.iterdir()] == ['ds']


def test_a_dry_run_makes_no_index(dataset, tmp_path, capsys):
    options = ('--dry-run', '--bids-database-dir', str(tmp_path / 'db'))
    assert main([str(dataset), str(tmp_path / 'out'), 'participant', *options]) == 0
    assert '1 session skipped' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['ds']


@pytest.mark.parametrize('option', ['--targets', '--like', '--bids-filter-file', '--use-plugin'])
def test_files_that_are_not_there(refused, dataset, tmp_path, option):
    line = refused(dataset, tmp_path / 'out', 'participant', option, tmp_path / 'none.json')
    assert 'none.json' in line


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        ('[{"suffix": "T2w", "colour": 3}]', 'colour'),
        ('[{"suffix": "T2w", "EchoTime": -1}]', 'EchoTime'),
        ('not: [closed', 'targets'),
    ],
)
def test_targets_that_cannot_be(refused, dataset, tmp_path, content, word):
    path = tmp_path / 'targets.yml'
    path.write_text(content)
    assert word in refused(dataset, tmp_path / 'out', 'participant', '--targets', path)


@pytest.mark.parametrize(
    'content',
    [
        '[1, 2]',
        '{plugin_args: {}}',
        '{plugin: X, other: 1}',
        '{plugin: Debug}',
        '{plugin: SGEGraph}',
        '{',
    ],
)
def test_plugin_files_that_cannot_be(refused, dataset, tmp_path, content):
    path = tmp_path / 'plugin.yml'
    path.write_text(content)
    assert 'plugin' in refused(dataset, tmp_path / 'out', 'participant', '--use-plugin', path)


@pytest.fixture
def slurm_plugin(tmp_path, monkeypatch):
    """A plugin file, and a command `sbatch` that is there."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'sbatch').write_text('')
    (tmp_path / 'bin' / 'sbatch').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    (tmp_path / 'plugin.yml').write_text('plugin: SLURM')
    return ['--use-plugin', tmp_path / 'plugin.yml']


def test_batch_jobs_whose_scripts_a_shell_would_not_find(refused, dataset, tmp_path, slurm_plugin):
    work = tmp_path / 'my work'
    line = refused(dataset, tmp_path / 'out', 'participant', *slurm_plugin, '-w', work)
    assert str(work) in line
    assert 'without blanks' in line


def test_batch_jobs_without_a_batch_system(refused, dataset, tmp_path, slurm_plugin, monkeypatch):
    monkeypatch.setenv('PATH', '')
    line = refused(dataset, tmp_path / 'out', 'participant', *slurm_plugin)
    assert 'sbatch' in line


def test_batch_jobs_may_ask_for_gpus_that_are_not_here(refused, dataset, tmp_path, slurm_plugin):
    args = [dataset, tmp_path / 'out', 'participant', *slurm_plugin, '--device', 'cuda']
    assert '--device' not in refused(*args, '--participant-label', '99')


def test_a_device_that_is_not_there(refused, dataset, tmp_path):
    line = refused(dataset, tmp_path / 'out', 'participant', '--device', 'cuda:99')
    assert '--device' in line


def test_hd_bet_that_is_not_installed(refused, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    line = refused(dataset, tmp_path / 'out', 'participant', '--skull-strip', 'hd-bet')
    assert 'tumsyn-bids[hdbet]' in line


@pytest.mark.parametrize('kind', ['a NIfTI', 'nothing', 'an empty folder'])
def test_models_of_the_wrong_kind(refused, dataset, tmp_path, kind):
    path = tmp_path / 'model.nii'
    if kind == 'a NIfTI':
        path.write_bytes(b'\x5c\x01\x00\x00')
    elif kind == 'an empty folder':
        path.mkdir()
    assert 'model' in refused(dataset, tmp_path / 'out', 'participant', '--model', path)
    assert not (tmp_path / 'out').exists()


def test_group_without_results(refused, dataset, tmp_path):
    assert 'participant level' in refused(dataset, tmp_path / 'out', 'group')


def test_an_error_of_our_own_has_its_own_exit_code(monkeypatch, capsys, dataset, tmp_path):
    def broken(request):
        raise RuntimeError('a bug')

    monkeypatch.setattr('tumsyn_bids.cli.participant.run_participant', broken)
    assert main([str(dataset), str(tmp_path / 'out'), 'participant']) == 70
    assert 'internal error: RuntimeError: a bug' in capsys.readouterr().err


@pytest.mark.parametrize('how', ['writable by all', 'of another user'])
def test_intermediate_results_of_others_are_not_trusted(
    dataset, refused, tmp_path, monkeypatch, how
):
    """Nipype's results are pickles: whoever can write them runs code as us."""
    folder = tmp_path / 'work' / f'tumsyn-{__version__}'
    folder.mkdir(parents=True)
    if how == 'writable by all':
        folder.chmod(0o777)
    else:
        monkeypatch.setattr(os, 'geteuid', lambda: folder.stat().st_uid + 1)
    line = refused(dataset, tmp_path / 'out', 'participant')
    assert str(folder) in line
    assert 'another user' in line
