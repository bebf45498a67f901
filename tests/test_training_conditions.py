"""Stand-ins for the text encoder: labels, and embeddings that another encoder has made."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import ModelError, UsageError
from tumsyn_bids.grids import Grid
from tumsyn_bids.networks.config import TextConfig
from tumsyn_bids.networks.embeddings import read_embeddings
from tumsyn_bids.networks.importing import add_embeddings
from tumsyn_bids.networks.model import load_model
from tumsyn_bids.networks.readers import LabelReader, prompt_reader
from tumsyn_bids.networks.store import embedded_model
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.synthesis.conditioning import prompt_tensors
from tumsyn_bids.synthesis.synthesizer import Synthesizer

SIEMENS = Acquisition('T2w', field_strength=3.0, manufacturer='Siemens', repetition_time=3.2)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """Two people with T1w and T2w on one grid, and sidecars."""
    root = tmp_path_factory.mktemp('pairs')
    (root / 'participants.tsv').write_text('participant_id\tage\tsex\nsub-01\t40\tF\n')
    rng = np.random.default_rng(0)
    protocol = {'MagneticFieldStrength': 3, 'Manufacturer': 'Hitachi', 'EchoTime': 0.09}
    for subject in ('sub-01', 'sub-02'):
        folder = root / subject / 'anat'
        folder.mkdir(parents=True)
        brain = np.pad(rng.uniform(50, 100, (30, 30, 30)).astype('f4'), 5)
        for suffix, image in (('T1w', brain), ('T2w', np.where(brain > 0, 150 - brain, 0))):
            stem = folder / f'{subject}_desc-brain_{suffix}'
            nb.save(nb.Nifti1Image(image.astype('f4'), np.eye(4)), f'{stem}.nii.gz')
            stem.with_name(stem.name + '.json').write_text(
                json.dumps({**protocol, 'RepetitionTime': 2.0 if suffix == 'T1w' else 5.0})
            )
    return root


def train(out, pairs, text_encoder, *options):
    command = ['train', 'synthesis', str(out), '--pairs', str(pairs), '--recipe', 'paper']
    command += ['--config', 'tiny', '--steps', '2', '--batch', '2', '--points', '50']
    command += ['--precision', '32-true', '--log-every', '1']
    return main([*command, '--text-encoder', str(text_encoder), *options])


def prompts_of(pairs, capsys) -> list[str]:
    capsys.readouterr()
    assert main(['train', 'prompts', '--pairs', str(pairs)]) == 0
    return capsys.readouterr().out.splitlines()


def write_table(path, prompts, size=6):
    rng = np.random.default_rng(len(prompts))
    save_file({prompt: rng.standard_normal(size).astype('f4') for prompt in prompts}, path)
    return path


def test_labels_are_one_hot_and_unknown_is_nothing():
    text = TextConfig(reader='labels', scanners=('1.5 GE', '3.0 Siemens'))
    other = SIEMENS.replace(manufacturer='Hitachi')
    ids, _ = prompt_tensors([render_prompt(a) for a in (SIEMENS, other, Acquisition())], text)
    labels = LabelReader(text)(ids)
    assert labels.shape == (3, len(CONTRASTS) + 2)
    expected = np.zeros((3, len(CONTRASTS) + 2))
    expected[:2, list(CONTRASTS).index('T2w')] = 1
    expected[0, -1] = 1
    np.testing.assert_array_equal(labels, expected)


def test_network_that_is_told_labels_is_trained_and_used(pairs, tmp_path):
    assert train(tmp_path, pairs, 'one-hot') == 0
    synthesizer = Synthesizer.load(tmp_path / 'model', 'cpu', 'float32')
    text = synthesizer.config.text
    assert '3.0 Hitachi' in text.scanners
    assert text.embed_dim == len(CONTRASTS) + len(text.scanners)
    first, second = (
        image(synthesizer, render_prompt(SIEMENS.replace(repetition_time=t))) for t in (3.0, 6.0)
    )
    np.testing.assert_array_equal(first, second)  # labels say nothing about the repetition time
    assert not np.array_equal(
        first, image(synthesizer, render_prompt(SIEMENS.replace(contrast='T1w')))
    )
    unseen = SIEMENS.replace(manufacturer='Toshiba')
    assert 'no label for the scanner 3.0 Toshiba' in synthesizer.in_range(unseen)[0]
    assert not [text for text in synthesizer.in_range(SIEMENS) if 'label' in text]


def image(synthesizer, prompt):
    rng = np.random.default_rng(0)
    affine = np.diag([3.0, 3, 3, 1])
    scan = nb.Nifti1Image(rng.uniform(10, 100, (12, 12, 12)).astype('f4'), affine)
    mask = nb.Nifti1Image(np.pad(np.ones((8, 8, 8), np.uint8), 2), affine)
    encoded = synthesizer.encode(scan, mask=mask, acquisition=SIEMENS)
    return synthesizer.decode(encoded, prompt, Grid.of(scan))


def test_network_that_is_told_embeddings_is_trained_used_and_given_more(
    pairs, tmp_path, capsys, monkeypatch
):
    prompts = prompts_of(pairs, capsys)
    assert len(prompts) == 4
    assert '(5000.0, 90.0, None, None)' in ''.join(prompts)
    table = write_table(tmp_path / 'table.safetensors', prompts)
    assert train(tmp_path / 'run', pairs, table) == 0
    loaded = load_model(tmp_path / 'run' / 'model')
    _, vectors = read_embeddings(table)
    kept = loaded.network.prompt.text.embeddings
    order = [read_embeddings(table)[0].index(p) for p in loaded.network.config.text.prompts]
    np.testing.assert_allclose(kept, vectors[order], atol=2e-3)

    synthesizer = Synthesizer.load(tmp_path / 'run' / 'model', 'cpu', 'auto')
    image(synthesizer, f'"{prompts[0]}"')  # quotation marks do not count
    new = render_prompt(SIEMENS)
    with pytest.raises(UsageError, match='no embedding of 1 of the prompts'):
        image(synthesizer, new)
    monkeypatch.setenv('TUMSYN_HOME', str(tmp_path / 'home'))
    more = write_table(tmp_path / 'more.safetensors', [new, prompts[0]])
    command = ['models', 'embed', 'larger', '--model', str(tmp_path / 'run' / 'model')]
    assert main([*command, '--embeddings', str(more)]) == 0
    larger = Synthesizer.load(tmp_path / 'home' / 'models' / 'larger', 'cpu', 'float32')
    assert image(larger, new).any()
    np.testing.assert_allclose(
        image(larger, prompts[0]), image(synthesizer, prompts[0]), atol=1e-3 * 1000
    )
    other = write_table(tmp_path / 'other.safetensors', [new], size=7)
    capsys.readouterr()
    assert main(['models', 'embed', 'x', *command[3:], '--embeddings', str(other)]) == 2
    assert 'vectors of 7 numbers, the model takes 6' in capsys.readouterr().err
    with pytest.raises(ModelError, match='not trained with a table'):
        add_embeddings('x', embedded_model(), more, tmp_path)


def test_prompts_that_differ_from_the_images_are_refused_before_training(pairs, tmp_path, capsys):
    prompts = prompts_of(pairs, capsys)
    table = write_table(tmp_path / 'table.safetensors', prompts[1:])
    assert train(tmp_path / 'run', pairs, table) == 2
    message = capsys.readouterr().err
    assert 'no embedding of 1 prompts' in message
    assert prompts[0] in message
    assert not (tmp_path / 'run' / 'checkpoint.pt').exists()


def test_prompts_of_people_with_a_single_image_are_listed_too(tmp_path, capsys):
    """Stage 1 learns from them, and so may another text encoder."""
    folder = tmp_path / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    image = np.pad(np.random.default_rng(0).random((12, 12, 12), 'f4'), 2)
    nb.save(nb.Nifti1Image(image, np.eye(4)), folder / 'sub-01_desc-brain_FLAIR.nii.gz')
    (prompt,) = prompts_of(tmp_path, capsys)
    assert 'Modality: FLAIR' in prompt


def test_prompts_of_a_raw_dataset_are_refused_as_the_help_says(tmp_path, capsys):
    folder = tmp_path / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    (tmp_path / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.11.0"}')
    nb.save(nb.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)), folder / 'sub-01_T1w.nii.gz')
    assert main(['train', 'prompts', '--pairs', str(tmp_path)]) == 2
    assert 'Give a dataset of co-registered images' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['train', 'prompts', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert 'raw BIDS, whose scans are aligned' not in text
    assert 'preprocessed/ of its folder' in text


def test_table_does_not_go_with_prompts_that_are_drawn(pairs, tmp_path, capsys):
    table = write_table(tmp_path / 'table.safetensors', prompts_of(pairs, capsys))
    command = ['train', 'synthesis', str(tmp_path / 'run'), '--pairs', str(pairs)]
    assert main([*command, '--config', 'tiny', '--text-encoder', str(table)]) == 2
    assert 'goes with --recipe paper and --pairs alone' in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz', '.json', '.tsv'])
def test_tables_of_all_formats_say_the_same(tmp_path, suffix):
    rows = {'Modality: T1w': [1.0, 2.0, 3.0], 'Modality: "T2w"': [4.0, 5.0, 6.5]}
    path = tmp_path / f'table{suffix}'
    if suffix == '.safetensors':
        save_file({key: np.asarray(value, 'f4') for key, value in rows.items()}, path)
    elif suffix == '.npz':
        np.savez(path, prompts=list(rows), embeddings=np.array(list(rows.values())))
    elif suffix == '.json':
        path.write_text(json.dumps(rows))
    else:
        lines = ('\t'.join([key, *map(str, value)]) for key, value in rows.items())
        path.write_text('\n'.join(lines) + '\n')
    prompts, vectors = read_embeddings(path)
    found = dict(zip(prompts, vectors.tolist(), strict=True))
    assert found == {'Modality: T1w': [1, 2, 3], 'Modality: T2w': [4, 5, 6.5]}


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.json', '{}', 'holds no embeddings'),
        ('a.json', '{"x": [1, 2], "y": [1]}', 'different or no lengths'),
        ('a.json', '{"x": [1, NaN]}', 'not finite'),
        ('a.json', '{"x": [1], "\\"x\\"": [2]}', 'two different vectors'),
        ('a.json', '[1, 2]', 'no readable table'),
        ('a.tsv', 'x\tone\n', 'no readable table'),
        ('a.safetensors', 'cut off', 'no readable table'),
        ('a.npz', 'cut off', 'no readable table'),
        ('a.pkl', '', 'is no table of embeddings'),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_embeddings(path)


def test_table_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / 'table.npz'
    np.savez(path, prompts=np.array([print], dtype=object), embeddings=np.ones((1, 2)))
    with pytest.raises(UsageError, match='no readable table'):
        read_embeddings(path)


def test_reader_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match='known: transformer, labels, table'):
        prompt_reader(TextConfig(reader='oracle'))


def test_ids_of_stand_ins_reach_the_network_on_any_batch():
    text = TextConfig(reader='table', prompts=('a', 'b'), embed_dim=2)
    reader = prompt_reader(text)
    reader.embeddings.copy_(torch.tensor([[1.0, 2], [3, 4]]))
    ids, numbers = prompt_tensors(['b', 'a', 'b'], text)
    assert reader(ids).tolist() == [[3, 4], [1, 2], [3, 4]]
    assert len(numbers) == 3
