"""What the brightest part of synthetic images lacks, and that it is added."""

from __future__ import annotations

import json

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import ModelError
from tumsyn_bids.networks.model import Model, save_model
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.synthesis.synthesizer import BRIGHT, Synthesizer
from tumsyn_bids.synthesis.tails import fit_tail, restore_tail
from tumsyn_bids.training.beginning import training_config
from tumsyn_bids.training.tails import measure_tails


def _values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(4, 0.12, 50_000).astype(np.float32)


def test_flattened_tail_is_restored_and_all_else_left_alone():
    true = _values(0)
    made = np.where(true > 0.6, 0.6 + 0.5 * (true - 0.6), true)
    curve = fit_tail([(made, true)])
    again = restore_tail(made, curve)
    for percentile in (90, 98, 99.5):
        wanted = np.percentile(true, percentile)
        assert np.percentile(again, percentile) == pytest.approx(wanted, rel=0.02)
    dark = made < curve[0][0]
    np.testing.assert_array_equal(again[dark], made[dark])
    assert (np.diff(again[np.argsort(made)]) >= 0).all()


def test_tail_that_is_too_bright_is_left_alone():
    true = _values(1)
    assert all(missing == 0 for _, missing in fit_tail([(1.5 * true, true)]))


@pytest.fixture
def dataset(tmp_path):
    """One person, whose two contrasts have bright spots."""
    folder = tmp_path / 'pairs' / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ball = ndimage.distance_transform_edt(np.pad(np.ones((26, 26, 26)), 3)) > 1
    for suffix in ('T1w', 'T2w'):
        image = ball * ndimage.gaussian_filter(rng.gamma(2, 50, ball.shape), 1)
        name = folder / f'sub-01_desc-brain_{suffix}.nii.gz'
        nb.save(nb.Nifti1Image(image.astype('f4'), np.eye(4)), name)
    return tmp_path / 'pairs'


@pytest.fixture
def model(tmp_path):
    """Folder of a model that has a curve which spoils its images."""
    card = {'a': 1, 'tails': {'T2w': [[-10, 5.0], [10, 5.0]]}}
    return save_model(Model(training_config('tiny')), tmp_path / 'm', version='1', card=card)


def test_measuring_that_fails_leaves_the_model_as_it_was(dataset, model, tmp_path, capsys):
    before = (model / 'config.json').read_bytes()
    (tmp_path / 'nobody').mkdir()
    command = ['train', 'tails', str(model), '--pairs']
    # The second dataset, after people of the first have been looked at.
    assert main([*command, str(dataset), str(tmp_path / 'nobody')]) == 2
    assert 'holds no subject' in capsys.readouterr().err
    assert (model / 'config.json').read_bytes() == before


def test_images_are_measured_without_the_curves_that_the_model_has(dataset, model):
    first = measure_tails(model, [dataset], device='cpu')
    assert first['T2w'] != [[-10, 5.0], [10, 5.0]]
    description = json.loads((model / 'config.json').read_text())
    description['card']['tails'] = {name: [[-10, 5.0], [10, 5.0]] for name in first}
    (model / 'config.json').write_text(json.dumps(description))
    assert measure_tails(model, [dataset], device='cpu') == first


def test_a_folder_that_is_no_model_is_refused(dataset, tmp_path, capsys):
    command = ['train', 'tails', str(tmp_path / 'absent'), '--pairs', str(dataset)]
    assert main(command) == 2
    assert 'absent: is not a model folder' in capsys.readouterr().err
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    for text in ('{"architectures": ["other"]}', 'no JSON'):
        (foreign / 'config.json').write_text(text)
        with pytest.raises(ModelError, match=r'foreign/config\.json'):
            measure_tails(foreign, [dataset], device='cpu')
        assert (foreign / 'config.json').read_text() == text


def test_command_measures_and_images_of_these_contrasts_get_it(dataset, tmp_path, capsys):
    model = save_model(Model(training_config('tiny')), tmp_path / 'm', version='1', card={'a': 1})
    assert main(['train', 'tails', str(model), '--pairs', str(dataset)]) == 0
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == ['T1w', 'T2w']
    card = json.loads((model / 'config.json').read_text())['card']
    assert card['a'] == 1
    assert sorted(card['tails']) == ['T1w', 'T2w']
    image = nb.load(dataset / 'sub-01' / 'anat' / 'sub-01_desc-brain_T1w.nii.gz')
    mask = nb.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), np.eye(4))

    def made(contrast: str) -> np.ndarray:
        synthesizer = Synthesizer.load(model, device='cpu')
        encoded = synthesizer.encode(image, mask=mask)
        prompt = render_prompt(default_protocol(contrast, 3.0))
        return synthesizer.decode(encoded, prompt, encoded.grid)

    def with_tails(tails: dict) -> None:
        path = model / 'config.json'
        description = json.loads(path.read_text())
        description['card']['tails'] = tails
        path.write_text(json.dumps(description))

    with_tails({})
    plain = {name: made(name) for name in ('T2w', 'FLAIR')}
    with_tails({'T2w': [[-10, 0.25], [10, 0.25]]})
    np.testing.assert_array_equal(made('FLAIR'), plain['FLAIR'])
    inside = plain['T2w'] > 0
    difference = made('T2w')[inside] - plain['T2w'][inside]
    np.testing.assert_allclose(difference, 0.25 * BRIGHT, rtol=1e-4)
