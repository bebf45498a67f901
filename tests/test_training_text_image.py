"""Stage 1: the image encoder, the loss, batches, splits, retrieval."""

from __future__ import annotations

import csv
import json
import math

import nibabel as nb
import numpy as np
import pytest
import torch
from safetensors.torch import load as load_file_bytes
from safetensors.torch import save_file

from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import ModelError, UsageError
from tumsyn_bids.networks.config import VisionConfig
from tumsyn_bids.networks.registry import get_text_image_config
from tumsyn_bids.networks.vision import (
    ImageEncoder,
    TextImageModel,
    contrastive_loss,
    halve_and_crop,
)
from tumsyn_bids.training.batches import CLASSES, load_people, pick_scans
from tumsyn_bids.training.retrieval import top_k
from tumsyn_bids.training.splits import is_excluded, keep_apart, split_people
from tumsyn_bids.training.text_image import (
    TextImageSettings,
    learning_rate,
    load_text_image,
    train_text_image,
)


@pytest.fixture(scope='module')
def labelmaps(tmp_path_factory):
    """Three heads of nested spheres of different size."""
    folder = tmp_path_factory.mktemp('heads')
    index = np.stack(np.meshgrid(*[np.arange(72)] * 3, indexing='ij'), -1) - 35.5
    radius = np.linalg.norm(index, axis=-1)
    for number, size in enumerate((0.9, 1.0, 1.05)):
        labels = np.zeros((72, 72, 72), dtype=np.int16)
        for limit, label in ((32, 24), (27, 3), (22, 2), (8, 4)):
            labels[radius < limit * size] = label
        nb.save(nb.Nifti1Image(labels, np.eye(4)), folder / f'head{number}.nii.gz')
    return folder


def test_image_encoder_of_the_paper_is_a_vit_b_16_in_3d():
    with torch.device('meta'):
        encoder = ImageEncoder(VisionConfig(), 768)
    assert encoder.positional_embedding.shape == (6**3 + 1, 768)
    # 12 layers of a ViT-B have 85.1 M weights; the 3D patches have 16^3 * 768 = 3.1 M.
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(88.9e6, rel=0.01)


def test_image_that_is_no_whole_number_of_patches_is_refused():
    with pytest.raises(ValueError, match='no whole number'):
        ImageEncoder(VisionConfig(image=20, patch=6), 8)


def test_loss_is_least_for_the_right_pairs_and_chance_for_none():
    assert float(contrastive_loss(torch.zeros(8, 8))) == pytest.approx(math.log(8))
    assert float(contrastive_loss(50 * torch.eye(8))) < 1e-6
    assert float(contrastive_loss(50 * torch.eye(8).roll(1, 0))) > 10
    logits = torch.randn(5, 5)
    torch.testing.assert_close(contrastive_loss(logits), contrastive_loss(logits.T))


def test_volume_is_halved_and_cut_around_what_is_not_background():
    volume = torch.zeros(40, 30, 50)
    volume[20:36, 4:20, 30:46] = 1
    cube = halve_and_crop(volume, 12)
    assert cube.shape == (1, 12, 12, 12)
    assert cube.sum() == 8**3
    assert cube[0, 2:10, 2:10, 2:10].min() == 1


def test_batch_holds_one_item_per_class_and_is_reproducible(labelmaps):
    scans = pick_scans(['head0.nii.gz', 'head1.nii.gz'], labelmaps, [])
    first, shown = scans.draw_batch(np.random.default_rng(3), 12, 14)
    again, _ = scans.draw_batch(np.random.default_rng(3), 12, 14)
    torch.testing.assert_close(first, again)
    assert first.shape == (14, 1, 12, 12, 12)
    assert len({(s.contrast, s.field_strength, s.echo_time) for s in shown}) == 14
    assert len(CLASSES) >= 27


def test_batch_with_more_items_than_classes_is_refused(labelmaps, tmp_path):
    settings = TextImageSettings(config='tiny', batch=len(CLASSES) + 1)
    with pytest.raises(UsageError, match='another class: there are 28'):
        train_text_image(tmp_path / 'run', labelmaps, settings=settings)
    with pytest.raises(UsageError, match='nothing to be told from'):
        TextImageSettings(batch=1)


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('learning_rate', math.nan),
        ('learning_rate', math.inf),
        ('learning_rate', 0.0),
        ('held_out', 1.5),
        ('held_out', 1.0),
        ('held_out', -0.1),
        ('held_out', math.nan),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_their_option(option, value):
    with pytest.raises(UsageError, match='--' + option.replace('_', '-')):
        TextImageSettings(**{option: value})


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    """Four people with one to four scans, with sidecars, one of them with two sessions."""
    root = tmp_path_factory.mktemp('people')
    rng = np.random.default_rng(0)
    sessions = (('01', None), ('02', 'a'), ('02', 'b'), ('03', None), ('04', None))
    for number, (subject, session) in enumerate(sessions):
        stem = f'sub-{subject}' + (f'_ses-{session}' if session else '')
        folder = root.joinpath(*stem.split('_'), 'anat')
        folder.mkdir(parents=True)
        suffixes = ('T1w', 'T2w', 'FLAIR', 'PDw')[: 1 + (number > 0) * 3]
        for suffix in suffixes:
            image = np.pad(rng.uniform(50, 100, (24, 24, 24)).astype('f4'), 3)
            name = folder / f'{stem}_desc-brain_{suffix}'
            nb.save(nb.Nifti1Image(image, np.eye(4)), f'{name}.nii.gz')
            sidecar = {'RepetitionTime': 3.0 + (number > 2), 'EchoTime': 0.05}
            name.with_name(name.name + '.json').write_text(json.dumps(sidecar))
    return root


def test_classes_of_real_people_are_their_protocols(people):
    read = load_people([people])
    assert [len(person.images) for person in read] == [1, 4, 4, 4, 4]
    scans = pick_scans([person.label for person in read], None, read)
    assert len(scans.classes) == 8  # four contrasts with each of two repetition times
    images, shown = scans.draw_batch(np.random.default_rng(0), 12, 8)
    assert images.shape == (8, 1, 12, 12, 12)
    assert images.flatten(1).std(dim=1).min() > 0
    assert len({(item.contrast, item.repetition_time) for item in shown}) == 8


def test_stage_1_is_trained_on_real_people_and_evaluated_on_others(people, tmp_path, capsys):
    run, shared = tmp_path / 'run', ['--pairs', str(people)]
    options = '--config tiny --epochs 1 --steps-per-epoch 2 --warm-up 0 --batch 4 --held-out 0.4'
    assert main(['train', 'text-image', str(run), *shared, *options.split()]) == 0
    manifest = json.loads((run / 'manifest.json').read_text())
    sides = [{label[:6] for label in manifest[side]} for side in ('train', 'held_out')]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {'sub-01', 'sub-02', 'sub-03', 'sub-04'}
    evaluate = ['evaluate', 'retrieval', str(run / 'model'), str(tmp_path / 'report')]
    assert main([*evaluate, *shared, '--groups', '1']) == 0
    rows = list(csv.reader((tmp_path / 'report' / 'prompts.csv').open()))
    assert len(rows[1]) == len(rows) + 1  # as many candidates as images
    capsys.readouterr()
    assert main([*evaluate, '--groups', '1']) == 2
    assert 'not found' in capsys.readouterr().err


def test_excluded_people_and_label_maps_are_on_neither_side(people, labelmaps, tmp_path):
    run = tmp_path / 'run'
    command = ['train', 'text-image', str(run), '--pairs', str(people)]
    command += ['--labelmaps', str(labelmaps), '--exclude', 'sub-02', 'head1.nii.gz']
    options = '--config tiny --epochs 1 --steps-per-epoch 1 --warm-up 0 --batch 4 --held-out 0.4'
    assert main([*command, *options.split()]) == 0
    manifest = json.loads((run / 'manifest.json').read_text())
    seen = manifest['train'] + manifest['held_out']
    assert {label[:6] for label in seen if label.startswith('sub')} == {
        'sub-01',
        'sub-03',
        'sub-04',
    }
    assert 'head0.nii.gz' in seen
    assert 'head1.nii.gz' not in seen
    assert manifest['excluded'] == ['sub-02', 'head1.nii.gz']


def test_excluding_nobody_by_a_wrong_name_is_refused(people, labelmaps, tmp_path, capsys):
    for stage in ('text-image', 'synthesis'):
        command = ['train', stage, str(tmp_path / 'run'), '--pairs', str(people)]
        assert main([*command, '--labelmaps', str(labelmaps), '--exclude', 'sub-02', '03']) == 2
        assert '--exclude: 03 is neither a participant' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_label_maps_of_excluded_people_are_excluded_with_them():
    names = ['sub-01_dseg.nii.gz', 'sub-012_dseg.nii.gz', 'map.nii.gz']
    assert [name for name in names if is_excluded(name, ('sub-01', 'map.nii.gz'))] == names[::2]


def test_stage_1_with_too_few_protocols_for_a_batch_is_refused(people, tmp_path, capsys):
    command = ['train', 'text-image', str(tmp_path), '--pairs', str(people), '--config', 'tiny']
    assert main(command) == 2
    message = capsys.readouterr().err
    assert '--batch: 27 items cannot all be of another class' in message


def test_learning_rate_rises_for_twenty_epochs_and_falls_after():
    settings = TextImageSettings()
    rates = [learning_rate(settings, 139 * epoch) for epoch in range(100)]
    assert int(np.argmax(rates)) == 20
    assert rates[20] == pytest.approx(5e-5)
    assert rates[10] == pytest.approx(2.5e-5, rel=0.01)
    assert rates[99] < 1e-7


def test_people_are_divided_and_their_sessions_stay_together():
    labels = [f'sub-{i:02}_ses-{j}' for i in range(20) for j in (1, 2)]
    train, test = split_people(labels, held_out=0.2)
    assert len(test) == 8
    assert sorted(train + test) == sorted(labels)
    assert not {x[:6] for x in train} & {x[:6] for x in test}
    assert split_people(labels[::-1], held_out=0.2)[1] == test[::-1]


def test_label_map_of_a_person_stays_with_the_images_of_that_person():
    images = [f'sub-{i:02}' for i in range(10)]
    maps = [f'sub-{i:02}_space-T1w_dseg.nii.gz' for i in range(10, 0, -1)]
    train, test = split_people(images + maps, held_out=0.4)
    assert not {name[:6] for name in train} & {name[:6] for name in test}
    for seed in range(5):
        kept = keep_apart([images, maps], held_out=0.2, seed=seed)
        left = {*images, *maps} - kept
        assert len(kept) >= 4
        assert not {name[:6] for name in kept} & {name[:6] for name in left}
    assert keep_apart([images, ['one map.nii.gz']], held_out=0) == set()


def test_a_single_person_is_not_divided():
    with pytest.raises(UsageError, match='one person'):
        split_people(['sub-01_ses-1', 'sub-01_ses-2'], held_out=0.1)
    assert split_people(['sub-01'], held_out=0) == (['sub-01'], [])


def test_top_k():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    own = np.array([0, 2])
    assert top_k(probabilities, own, 1) == 0.5
    assert top_k(probabilities, own, 2) == 1


def test_stage_1_is_trained_and_evaluated_on_other_people(labelmaps, tmp_path, capsys):
    run, report = tmp_path / 'run', tmp_path / 'report'
    shared = ['--labelmaps', str(labelmaps)]
    options = '--config tiny --epochs 1 --steps-per-epoch 2 --warm-up 0 --batch 3 --held-out 0.3'
    assert main(['train', 'text-image', str(run), *shared, *options.split()]) == 0
    manifest = json.loads((run / 'manifest.json').read_text())
    assert len(manifest['held_out']) == 1
    assert not set(manifest['held_out']) & set(manifest['train'])
    model = str(run / 'model')
    assert main(['evaluate', 'retrieval', model, str(report), *shared, '--groups', '1']) == 0
    scores = json.loads((report / 'scores.json').read_text())
    assert set(scores) == {'prompt_top1', 'prompt_top5', 'modality_top1', 'modality_top5'}
    rows = list(csv.reader((report / 'modalities.csv').open()))
    assert len(rows) == 11
    assert sum(float(value) for value in rows[1][2:]) == pytest.approx(1, abs=1e-3)
    assert (report / 'retrieval.png').read_bytes().startswith(b'\x89PNG')


def test_empty_training_set_is_refused(tmp_path):
    with pytest.raises(UsageError, match='nothing to train on'):
        train_text_image(tmp_path / 'run', tmp_path)


def test_weights_that_are_not_finite_and_other_folders_are_refused(tmp_path):
    from tumsyn_bids.training.text_image import _save

    with pytest.raises(ModelError, match='not a model of stage 1'):
        load_text_image(tmp_path)
    model = TextImageModel(get_text_image_config('tiny'))
    with torch.no_grad():
        model.vision.proj[0, 0] = float('nan')
    _save(model, tmp_path / 'model', {})
    with pytest.raises(ModelError, match=r'not finite.*vision\.proj'):
        load_text_image(tmp_path / 'model')


def test_stage_1_that_is_cut_off_or_of_other_keys_is_refused(tmp_path):
    from tumsyn_bids.training.text_image import _save

    model = TextImageModel(get_text_image_config('tiny'))
    _save(model, tmp_path, {})
    weights = tmp_path / 'model.safetensors'
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match='not a model of stage 1'):
        load_text_image(tmp_path)
    state = load_file_bytes(whole)
    state['vision.extra'] = state.pop('vision.proj')
    save_file(state, weights)
    with pytest.raises(ModelError, match=r'1 missing: vision\.proj; 1 unexpected: vision\.extra'):
        load_text_image(tmp_path)
