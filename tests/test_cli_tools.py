"""The subcommands of ``tumsyn``."""

from __future__ import annotations

import json
import shutil

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.cli.tools import build_parser, main


def subcommands():
    (action,) = (a for a in build_parser()._actions if a.dest == 'command')
    return action.choices


def test_the_subcommands_are_these():
    assert set(subcommands()) == {'synth', 'phantom', 'train', 'evaluate', 'models'}


@pytest.mark.parametrize('name', subcommands())
def test_every_option_is_explained(name):
    for action in subcommands()[name]._actions:
        assert action.help


def test_models_tells_what_a_model_is(capsys, tiny_model):
    assert main(['models', 'info', str(tiny_model)]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about['name'] == 'tiny'
    assert len(about['sha256']) == 64
    assert about['training'] == 'none, random weights'


def test_models_refuses_a_folder_that_is_none(capsys, tmp_path):
    assert main(['models', 'info', str(tmp_path)]) == 2
    assert 'is not a model folder' in capsys.readouterr().err


def test_phantom(tmp_path, capsys):
    out = tmp_path / 'ds'
    assert main(['phantom', str(out), '--resolution', '6', '--subjects', '01']) == 0
    assert capsys.readouterr().out.startswith('tumsyn phantom: finished: ')
    assert (out / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz').is_file()
    assert not (out / 'sub-02').exists()


def test_train_needs_something_to_train_on(tmp_path, capsys):
    assert main(['train', 'synthesis', str(tmp_path / 'run')]) == 2
    assert '--labelmaps' in capsys.readouterr().err


@pytest.fixture
def head(tmp_path):
    """A ball with a shell, its mask, and a sidecar that tells the field strength."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -62
    index = np.indices((32, 32, 32)).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(index, axis=1).reshape(32, 32, 32)
    rng = np.random.default_rng(0)
    data = np.where(distance < 40, 700, np.where(distance < 48, 300, 0)) + rng.normal(
        0, 5, distance.shape
    )
    path, mask = tmp_path / 'sub-01_T1w.nii.gz', tmp_path / 'mask.nii.gz'
    nb.Nifti1Image(np.abs(data).astype(np.float32), affine).to_filename(path)
    nb.Nifti1Image((distance < 40).astype(np.uint8), affine).to_filename(mask)
    (tmp_path / 'sub-01_T1w.json').write_text('{"MagneticFieldStrength": 1.5}')
    return path, mask


@pytest.fixture
def physics(tiny_model, tmp_path):
    """A model that reads nothing of a prompt but its values, as the embedded one."""
    folder = tmp_path / 'physics'
    shutil.copytree(tiny_model, folder)
    description = json.loads((folder / 'config.json').read_text())
    description['config']['physics_gain'] = 1.0
    (folder / 'config.json').write_text(json.dumps(description))
    return folder


def test_synth(head, tiny_model, tmp_path, capsys):
    path, mask = head
    out = tmp_path / 'made' / 't2.nii.gz'
    code = main([
        'synth', str(path), str(out), '--contrast', 'T2w', '--mask', str(mask), '--model',
        str(tiny_model), '--device', 'cpu', '--voxel-size', '4', '5', '6', '--echo-time', '0.1',
    ])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out.splitlines()[-1] == f'tumsyn synth: finished: {out}'
    img = nb.load(out)
    np.testing.assert_allclose(img.header.get_zooms(), (4, 5, 6))
    sidecar = json.loads((tmp_path / 'made' / 't2.json').read_text())
    assert sidecar['RequestedParameters']['EchoTime'] == 0.1
    assert sidecar['RequestedParameters']['MagneticFieldStrength'] == 1.5
    assert 'Modality: T2w' in sidecar['SynthesisModel']['Prompt']
    assert sidecar['Confidence']['Verdict'] in ('pass', 'warn', 'fail')
    assert -1 <= sidecar['Confidence']['Reconstruction'] <= 1


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        (['{head}', '{out}.nii'], '.nii.gz'),
        (['{head}', '{out}.nii.gz', '--voxel-size', '1', '0', '1'], '--voxel-size'),
        (['{head}', '{out}.nii.gz', '--voxel-size', 'nan', '4', '4'], '--voxel-size'),
        (['{head}', '{out}.nii.gz', '--repetition-time', 'nan'], '--repetition-time'),
        (['{head}', '{out}.nii.gz', '--echo-time', '92'], 'looks like milliseconds'),
        (['{head}', '{out}.nii.gz', '--field-strength', '-3'], '--field-strength'),
        (['{head}', '{out}.nii.gz', '--age', '400'], '--age'),
        (['{head}', '{out}.nii.gz', '--repetition-time', '0.05'], 'echo time of 0.095 s'),
        (['{head}', '{out}.nii.gz', '--device', 'cuda:99'], '--device'),
        (['{head}', '{head}'], 'nothing says that it is synthetic'),
        (['{out}/none.nii.gz', '{out}.nii.gz'], 'none.nii.gz'),
    ],
)
def test_synth_refuses_in_one_line(head, tmp_path, capsys, arguments, word):
    given = [text.format(head=head[0], out=tmp_path / 'x') for text in arguments]
    assert main(['synth', *given, '--contrast', 'T2w']) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('tumsyn: error: ')
    assert word in line


@pytest.mark.parametrize(
    ('prompt', 'word'),
    [
        ('please make a fluid attenuated image', 'names no modality'),
        ('Modality: T2', 'names no modality'),
        ('Modality: T2w; Voxel size: (0, 0, 0)', 'voxel size'),
        ('Modality: T2w; Voxel size: (-4, 4, 4)', 'voxel size'),
        ('Modality: T2w; Scanner: -3.0 Siemens', 'field strength'),
        ('Modality: T2w' + ' and more' * 60, 'tokens'),
    ],
)
def test_synth_refuses_prompts_that_cannot_be_meant(head, physics, tmp_path, capsys, prompt, word):
    path, mask = head
    out = tmp_path / 'made.nii.gz'
    code = main([
        'synth', str(path), str(out), '--prompt', prompt, '--mask', str(mask), '--model',
        str(physics), '--device', 'cpu',
    ])  # fmt: skip
    assert code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'error' in line]
    assert word in line
    assert not out.exists()


def test_synth_tells_what_of_a_prompt_is_not_heeded(head, physics, tmp_path, capsys):
    path, mask = head
    out = tmp_path / 'made.nii.gz'
    prompt = 'Modality: T2w; Voxel size: (6, 6, 6); TE(ms): 120'
    code = main([
        'synth', str(path), str(out), '--prompt', prompt, '--mask', str(mask), '--model',
        str(physics), '--device', 'cpu',
    ])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert 'does not heed: "TE(ms): 120"' in captured.err
    sidecar = json.loads((tmp_path / 'made.json').read_text())
    assert any('TE(ms): 120' in warning for warning in sidecar['Warnings'])


def test_synth_replaces_a_synthetic_image_only(head, tiny_model, tmp_path, capsys):
    path, mask = head
    out = tmp_path / 'sub-01_T2w.nii.gz'
    arguments = [
        'synth', str(path), str(out), '--contrast', 'T2w', '--mask', str(mask), '--model',
        str(tiny_model), '--device', 'cpu', '--voxel-size', '6', '6', '6',
    ]  # fmt: skip
    assert main(arguments) == 0
    assert main(arguments) == 0
    acquired = path.read_bytes()
    out.write_bytes(acquired)
    (tmp_path / 'sub-01_T2w.json').write_text('{"EchoTime": 0.1}')
    assert main(arguments) == 2
    assert 'nothing says that it is synthetic' in capsys.readouterr().err
    assert out.read_bytes() == acquired


def test_synth_wants_a_contrast_or_a_prompt(head, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['synth', str(head[0]), str(tmp_path / 'x.nii.gz')])
    assert stop.value.code == 2
    assert '--contrast' in capsys.readouterr().err
