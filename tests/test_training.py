"""Training: samples with known truth, learning, resuming, and no look at excluded subjects."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import UsageError
from tumsyn_bids.networks.model import Model, load_model, save_model
from tumsyn_bids.networks.tokenizer import get_tokenizer
from tumsyn_bids.physics.expected import expected_signals
from tumsyn_bids.physics.recontrast import class_means, recontrast, tissue_shares
from tumsyn_bids.prompt import parse_prompt, render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.draw import draw_acquisition, scanners, training_ranges
from tumsyn_bids.simulation.generator import (
    TISSUE_NAMES,
    draw_grid,
    draw_matrix,
    draw_subject,
    load_tissue_volume,
    render,
)
from tumsyn_bids.synthesis.conditioning import prompt_tensors
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.training.beginning import prompt_vocabulary, training_config
from tumsyn_bids.training.corruption import corrupt_source, motion_ghosts, thick_slices
from tumsyn_bids.training.engine import Engine, EngineSettings
from tumsyn_bids.training.losses import (
    relative_difference,
    structural_dissimilarity,
    synthesis_loss,
    tail_difference,
)
from tumsyn_bids.training.paper import PaperRecipe
from tumsyn_bids.training.people import load_paired_subjects, white_matter
from tumsyn_bids.training.ranges import merged, ranges_of
from tumsyn_bids.training.samples import off_grid, real_sample, simulated_sample
from tumsyn_bids.training.synthesis import TrainingSettings, train_synthesis
from tumsyn_bids.values import canonical_manufacturer

SMALL = TrainingSettings(
    config='tiny', steps=40, patch=24, large_share=0.0, learning_rate=3e-3, warm_up=5
)


@pytest.fixture(scope='module')
def labelmaps(tmp_path_factory):
    """A folder with one head of nested spheres: ventricle, WM, cortex, CSF, skull."""
    index = np.stack(np.meshgrid(*[np.arange(72)] * 3, indexing='ij'), -1) - 35.5
    radius = np.linalg.norm(index, axis=-1)
    labels = np.zeros((72, 72, 72), dtype=np.int16)
    for limit, label in ((34, 515), (30, 24), (27, 3), (22, 2), (8, 4)):
        labels[radius < limit] = label
    folder = tmp_path_factory.mktemp('labelmaps')
    nb.save(nb.Nifti1Image(labels, np.eye(4)), folder / 'spheres.nii.gz')
    return folder


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """Two people with T1w and T2w on one grid."""
    root = tmp_path_factory.mktemp('pairs')
    (root / 'participants.tsv').write_text('participant_id\tage\tsex\nsub-01\t40\tF\n')
    rng = np.random.default_rng(0)
    for subject in ('sub-01', 'sub-02'):
        folder = root / subject / 'anat'
        folder.mkdir(parents=True)
        brain = np.pad(rng.uniform(50, 100, (40, 40, 40)).astype('f4'), 6)
        for suffix, image in (('T1w', brain), ('T2w', np.where(brain > 0, 150 - brain, 0))):
            nb.save(
                nb.Nifti1Image(image.astype('f4'), np.eye(4)),
                folder / f'{subject}_space-MNI_desc-brain_{suffix}.nii.gz',
            )
    return root


def test_tissue_volume_is_cropped_around_the_brain(labelmaps):
    volume = load_tissue_volume(labelmaps / 'spheres.nii.gz')
    assert volume.tissue.shape[0] < 72 + 1
    parenchyma = volume.distance == 0
    assert parenchyma.sum() == pytest.approx(4 / 3 * np.pi * (27**3 - 8**3), rel=0.02)
    csf = TISSUE_NAMES.index('csf')
    assert (volume.tissue[~parenchyma] == csf).any()


def test_rendered_subject_has_the_contrast_of_the_sequence(labelmaps):
    rng = np.random.default_rng(0)
    volume = load_tissue_volume(labelmaps / 'spheres.nii.gz')
    centre = (np.array(volume.tissue.shape) - 1) / 2
    grid = draw_grid(
        rng, volume.tissue.shape, 56, centre=centre, matrix=draw_matrix(rng), bend_voxels=0
    )
    subject = draw_subject(rng, volume, grid, lesions=0)
    t1w = render(
        subject,
        Acquisition('T1w', repetition_time=2.3, echo_time=0.003, inversion_time=0.9, flip_angle=9),
    )
    t2w = render(subject, Acquisition('T2w', repetition_time=6, echo_time=0.1, flip_angle=150))
    mean = {
        name: [
            image[(subject.tissue == TISSUE_NAMES.index(name)) & subject.mask].mean()
            for image in (t1w, t2w)
        ]
        for name in ('white_matter', 'cortex', 'csf')
    }
    assert mean['white_matter'][0] > mean['cortex'][0] > mean['csf'][0]
    assert mean['csf'][1] > mean['cortex'][1] > mean['white_matter'][1]
    assert not t1w[~subject.mask].any()


def test_samples_are_reproducible_and_prompts_say_what_the_targets_are(labelmaps):
    volumes = [load_tissue_volume(labelmaps / 'spheres.nii.gz')]
    first, second = (
        simulated_sample(np.random.default_rng(5), volumes, patch=24, n_targets=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.targets, second.targets)
    np.testing.assert_array_equal(first.source, second.source)
    assert first.prompts == second.prompts
    assert len({parse_prompt(prompt).contrast for prompt in first.prompts}) == 3
    assert first.targets.shape == (3, 24, 24, 24)


def test_off_grid_targets_are_moved_by_the_offset(labelmaps):
    volumes = [load_tissue_volume(labelmaps / 'spheres.nii.gz')]
    rng = np.random.default_rng(2)
    sample = simulated_sample(rng, volumes, patch=24, n_targets=1)
    ramp = np.broadcast_to(np.arange(24, dtype='f4')[:, None, None], (24, 24, 24))
    sample = replace(sample, targets=ramp[None].copy(), mask=np.ones_like(sample.mask))
    moved, offset = off_grid(rng, sample)
    np.testing.assert_allclose(moved.targets[0, 12], 12 + offset[0], atol=0.02)


def test_thick_slices_keep_the_mean_and_lose_the_detail():
    rng = np.random.default_rng(0)
    image = rng.random((24, 24, 24), dtype='f4')
    thick = thick_slices(rng, image, 4, axis=2)
    assert thick.shape == image.shape
    assert thick.mean() == pytest.approx(image.mean(), rel=0.02)
    assert np.abs(np.diff(thick, axis=2)).mean() < 0.5 * np.abs(np.diff(image, axis=2)).mean()


@pytest.mark.parametrize('size', [1, 2, 5])
@pytest.mark.parametrize('gap', [0, 1])
def test_image_thinner_than_a_slice_is_one_slice(size, gap):
    rng = np.random.default_rng(0)
    image = rng.random((6, size, 7), dtype='f4')
    thick = thick_slices(rng, image, 6, axis=1, gap=gap)
    assert thick.shape == image.shape
    assert np.ptp(thick, axis=1).max() < 1e-6
    assert image.min() <= thick.min()
    assert thick.max() <= image.max()
    if not gap:
        np.testing.assert_allclose(thick[:, 0], image.mean(axis=1), rtol=1e-5)


def test_thin_images_can_be_corrupted():
    image, mask = np.ones((30, 30, 3), 'f4'), np.ones((30, 30, 3), bool)
    for seed in range(40):
        assert np.isfinite(corrupt_source(np.random.default_rng(seed), image, mask)).all()


def test_gap_between_slices_is_not_seen():
    image = np.zeros((8, 8, 32), dtype='f4')
    image[..., 3::4] = 1.0
    for seed in range(4):
        whole, gapped = (
            thick_slices(np.random.default_rng(seed), image, 4, 2, gap) for gap in (0, 1)
        )
        first = int(np.random.default_rng(seed).integers(4))
        # Slices of three voxels after `first` meet the bright plane unless it is the fourth.
        assert whole[..., 4:-4] == pytest.approx(0.25)
        assert gapped[..., 4:-4] == pytest.approx(0.0 if first == 0 else 1 / 3)


def test_ghosts_repeat_the_head_along_the_phase_axis_only():
    image = np.zeros((64, 32, 8), dtype='f4')
    image[24:40, 8:24, 2:6] = 1.0
    rng = np.random.default_rng(3)
    still, moved = (motion_ghosts(rng, image, 0, strength) for strength in (0.0, 1.0))
    np.testing.assert_allclose(still, image, atol=1e-5)
    assert moved[:20, 8:24, 2:6].max() > 0.02
    assert moved[:, :8].max() < 1e-5
    assert moved[..., :2].max() < 1e-5


def test_corruption_stays_inside_the_mask():
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 24, 24), bool)
    mask[6:18, 6:18, 6:18] = True
    source = corrupt_source(rng, rng.random(mask.shape, dtype='f4'), mask)
    assert not source[~mask].any()
    assert np.isfinite(source).all()


def test_loss_is_zero_for_the_truth_and_grows_with_error():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.random((1, 2, 16, 16, 16), dtype='f4'))
    mask = torch.ones(1, 1, 16, 16, 16)
    assert float(synthesis_loss(target, target, mask)) == pytest.approx(0, abs=1e-4)
    small, large = (float(synthesis_loss(target + d, target, mask)) for d in (0.05, 0.2))
    assert 0 < small < large
    assert float(structural_dissimilarity(target, 1 - target)) > 0.5


def test_excluded_people_are_not_read(pairs):
    people = load_paired_subjects(pairs, exclude=('sub-02',))
    assert [person.label for person in people] == ['sub-01']
    assert people[0].person.age == 40
    assert people[0].person.sex == 'F'


def test_derivatives_of_the_app_are_read_by_session_without_synthetic_images(tmp_path):
    folder = tmp_path / 'sub-01' / 'ses-2' / 'anat'
    folder.mkdir(parents=True)
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    rng = np.random.default_rng(0)
    inside = np.zeros((24, 24, 12), np.uint8)
    inside[4:20, 4:20, 2:10] = 1
    stem = 'sub-01_ses-2_space-individual_'
    for name in ('desc-preproc_T1w', 'desc-preproc_FLAIR', 'res-1mm_desc-synth_T2w'):
        data = rng.uniform(50, 100, inside.shape).astype('f4')
        nb.save(nb.Nifti1Image(data, affine), folder / f'{stem}{name}.nii.gz')
    nb.save(nb.Nifti1Image(inside, affine), folder / f'{stem}desc-brain_mask.nii.gz')
    (person,) = load_paired_subjects(tmp_path)
    assert person.label == 'sub-01_ses-2'
    assert set(person.images) == {'T1w', 'FLAIR'}
    assert person.voxel_size == (1.5, 1.5, 3.0)
    assert person.mask.sum() == pytest.approx(inside.sum() * 6.75, rel=0.1)
    assert not person.images['T1w'][~person.mask].any()
    sample = real_sample(rng, [person], patch=16, n_targets=1)
    assert parse_prompt(sample.prompts[0]).voxel_size == (1.5, 1.5, 3.0)


def test_the_tail_is_a_matter_of_values_not_of_places():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.random((1, 1, 16, 16, 16), dtype='f4'))
    mask = torch.ones(1, 1, 16, 16, 16)
    assert float(tail_difference(target.flip(-1), target, mask)) == 0
    assert float(tail_difference(0.9 * target, target, mask)) == pytest.approx(0.1, rel=0.02)


def test_relative_difference_sees_proportions_not_brightness():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.random((1, 1, 16, 16, 16), dtype='f4'))
    mask = torch.ones(1, 1, 16, 16, 16)
    assert float(relative_difference(0.5 * target, target, mask)) == pytest.approx(0, abs=1e-9)
    flat_top = target.clamp(max=0.8)
    # Divided by its own brightest voxels, an image without the brightest ones is too bright.
    assert float(relative_difference(flat_top, target, mask)) > 0.003


def test_real_targets_are_those_of_the_prompt(pairs):
    people = load_paired_subjects(pairs, exclude=('sub-02',))
    as_acquired = [replace(person, shares=None) for person in people]
    for seed in range(6):
        sample = real_sample(np.random.default_rng(seed), as_acquired, patch=24, n_targets=1)
        contrast = parse_prompt(sample.prompts[0]).contrast
        inner = people[0].images[contrast]
        assert sample.targets.max() <= inner.max() + 1e-3
        assert contrast in ('T1w', 'T2w')


def test_prompts_of_real_scans_say_what_sidecars_and_tables_say(tmp_path):
    raw, derived = tmp_path / 'raw data', tmp_path / 'derived'
    raw.mkdir()
    (raw / 'participants.tsv').write_text('participant_id\tage\tsex\nsub-01\t34\tF\n')
    folder = derived / 'sub-01' / 'ses-a' / 'anat'
    folder.mkdir(parents=True)
    (derived / 'dataset_description.json').write_text(
        json.dumps({'Name': 'x', 'BIDSVersion': '1.11.0', 'DatasetLinks': {'raw': raw.as_uri()}})
    )
    values = np.random.default_rng(0).random((24, 24, 24), 'f4')
    for suffix in ('T2w', 'FLAIR'):
        stem = folder / f'sub-01_ses-a_desc-brain_{suffix}'
        nb.save(nb.Nifti1Image(values, np.eye(4)), f'{stem}.nii.gz')
    stem = folder / 'sub-01_ses-a_desc-brain_T2w.json'
    stem.write_text(json.dumps({'RepetitionTime': 4.0, 'EchoTime': 0.1, 'Manufacturer': 'GE'}))
    (person,) = load_paired_subjects(derived)
    assert (person.person.age, person.person.sex) == (34, 'F')
    assert list(person.protocols) == ['T2w']
    prompts = set()
    for seed in range(8):
        sample = real_sample(np.random.default_rng(seed), [person], patch=16, n_targets=1)
        prompts.add(sample.prompts[0].split('Modality')[1])
    documented = [prompt for prompt in prompts if 'T2w' in prompt]
    assert any('(4000.0, 100.0, None, None)' in prompt for prompt in documented)
    assert not any('(4010.0' in prompt for prompt in documented)


def test_looks_of_few_people_are_not_told_apart_by_age(pairs):
    (person,) = load_paired_subjects(pairs, exclude=('sub-02',))
    person = replace(person, person=Acquisition(age=34.0, sex='F'))

    def ages(people):
        samples = [
            real_sample(np.random.default_rng(seed), people, patch=8, n_targets=1)
            for seed in range(20)
        ]
        return {parse_prompt(sample.prompts[0]).age for sample in samples} - {None}

    assert len(ages([person])) > 10
    many = [replace(person, label=f'sub-{number}') for number in range(5000)]
    assert ages(many) == {34}


def test_recontrasted_scan_has_the_signals_of_its_protocol_and_its_own_texture():
    rng = np.random.default_rng(0)
    white, cortex, fluid = (np.zeros((24, 24, 24), bool) for _ in range(3))
    white[2:10], cortex[10:18], fluid[18:22] = True, True, True
    mask = white | cortex | fluid
    t1w = white * 1.0 + cortex * 0.7 + fluid * 0.2
    t2w = (white * 0.4 + cortex * 0.55 + fluid * 1.0) * (
        1 + 0.03 * rng.standard_normal(mask.shape)
    )
    shares = tissue_shares({'T1w': t1w.astype('f4'), 'T2w': t2w.astype('f4')}, mask)
    for region, share in zip((white, cortex, fluid), shares, strict=False):
        np.testing.assert_array_equal(share > 0.5, region)
    short, long = (
        default_protocol('T2w', 3.0).replace(echo_time=time, repetition_time=4.0)
        for time in (0.07, 0.13)
    )
    means = class_means(t2w, shares)
    images = [recontrast(t2w, shares.astype('f4'), means, acq) for acq in (short, long)]
    for image, acquisition in zip(images, (short, long), strict=True):
        expected = expected_signals(acquisition)[:3]
        found = [image[region].mean() for region in (white, cortex, fluid)]
        np.testing.assert_allclose(found, expected, rtol=0.02)
    ratio = images[0][white] / t2w[white]
    assert ratio.std() / ratio.mean() < 1e-3


def test_people_without_a_t1w_are_not_recontrasted():
    mask = np.ones((8, 8, 8), bool)
    assert tissue_shares({'T2w': np.random.default_rng(0).random((8, 8, 8), 'f4')}, mask) is None
    assert tissue_shares({'T1w': np.ones((8, 8, 8), 'f4')}, mask) is None


def test_nobody_has_tissues_in_an_empty_mask():
    image = np.random.default_rng(0).random((8, 8, 8), 'f4')
    assert tissue_shares({'T1w': image}, np.zeros(image.shape, bool)) is None


@pytest.mark.parametrize('masked', [True, False])
def test_person_without_a_brain_is_refused_and_the_file_named(tmp_path, masked):
    folder = tmp_path / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    for suffix in ('T1w', 'T2w'):
        image = nb.Nifti1Image(np.full((12, 12, 12), float(masked)), np.eye(4))
        nb.save(image, folder / f'sub-01_desc-preproc_{suffix}.nii.gz')
    name = 'sub-01_desc-preproc_T1w'
    if masked:
        name = 'sub-01_desc-brain_mask'
        empty = np.zeros((12, 12, 12), np.uint8)
        nb.save(nb.Nifti1Image(empty, np.eye(4)), folder / f'{name}.nii.gz')
    with pytest.raises(UsageError, match=rf'{name}\.nii\.gz: --pairs: holds no brain.*--exclude'):
        load_paired_subjects(tmp_path)


def test_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(UsageError, match='no subject with two contrasts'):
        load_paired_subjects(tmp_path)
    with pytest.raises(UsageError, match='is not a folder'):
        load_paired_subjects(tmp_path / 'absent')


def test_person_with_one_scan_is_passed_over_and_alone_refused(tmp_path, caplog):
    def write(label, *suffixes):
        folder = tmp_path / label / 'anat'
        folder.mkdir(parents=True)
        for suffix in suffixes:
            image = nb.Nifti1Image(np.random.default_rng(0).random((12, 12, 12), 'f4'), np.eye(4))
            nb.save(image, folder / f'{label}_desc-brain_{suffix}.nii.gz')

    write('sub-01', 'T1w')
    with pytest.raises(UsageError, match='no subject with two contrasts'):
        load_paired_subjects(tmp_path)
    write('sub-02', 'T1w', 'T2w')
    with caplog.at_level('WARNING'):
        assert [person.label for person in load_paired_subjects(tmp_path)] == ['sub-02']
    assert 'sub-01: 1 usable contrasts; left out' in caplog.text


def test_contrast_is_what_the_sidecar_says_as_at_inference(tmp_path, caplog):
    folder = tmp_path / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    image = nb.Nifti1Image(np.full((20, 20, 20), 5, np.float32), np.eye(4))
    for name in ('T1w', 'T2w', 'acq-flair_T2w', 'swi'):
        *entities, suffix = name.split('_')
        stem = '_'.join(['sub-01', *entities, 'desc-brain', suffix])
        nb.save(image, folder / f'{stem}.nii.gz')
    (folder / 'sub-01_desc-brain_T1w.json').write_text('{"ContrastBolusIngredient": "GADOLINIUM"}')
    with caplog.at_level('WARNING'):
        (person,) = load_paired_subjects(tmp_path)
    assert set(person.images) == {'T1CE', 'T2w', 'FLAIR', 'SWI'}
    assert 'sub-01_desc-brain_T1w.json: a contrast agent was given' in caplog.text
    assert 'this is a FLAIR named T2w' in caplog.text


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(UsageError, match='nothing to train on'):
        train_synthesis(tmp_path, settings=SMALL)
    with pytest.raises(UsageError, match=r'empty: there is nothing to train on'):
        train_synthesis(tmp_path, labelmaps=tmp_path / 'empty', settings=SMALL)


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('--learning-rate', 'nan'),
        ('--learning-rate', 'inf'),
        ('--learning-rate', '0'),
        ('--learning-rate', '-0.001'),
        ('--real-share', '5'),
        ('--real-share', '-0.1'),
        ('--real-share', 'nan'),
        ('--held-out', '1.5'),
        ('--held-out', '1'),
        ('--held-out', '-0.1'),
        ('--held-out', 'nan'),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_read(
    option, value, pairs, tmp_path, capsys
):
    command = ['train', 'synthesis', str(tmp_path / 'run'), '--pairs', str(pairs)]
    assert main([*command, '--config', 'tiny', f'{option}={value}']) == 2
    assert f'{option}: {float(value):g} is' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'wrong',
    [{'steps': 0}, {'validation_samples': 0}, {'large_share': 1.1}, {'off_grid_share': -1.0}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=name):
        TrainingSettings(**wrong)


@pytest.mark.parametrize('rate', [float('nan'), 0.0, float('inf')])
def test_the_recipe_of_the_paper_refuses_what_is_no_learning_rate(rate):
    with pytest.raises(UsageError, match='--learning-rate'):
        PaperRecipe(learning_rate=rate)


def test_vocabulary_is_small_and_complete():
    vocabulary = prompt_vocabulary(200)
    assert vocabulary == prompt_vocabulary(200)
    assert 49406 in vocabulary
    assert 49407 in vocabulary
    assert len(vocabulary) < 200


def test_drawn_scanners_are_called_what_sidecars_call_them():
    """What a prompt was learned with is what a prompt says."""
    rng = np.random.default_rng(0)
    drawn = {draw_acquisition(rng, 'T1w').manufacturer for _ in range(200)}
    assert drawn == {name for _, name in scanners()}
    assert len(drawn) == 4
    vocabulary = set(prompt_vocabulary(200))
    for name in drawn:
        assert canonical_manufacturer(name) == name
        assert vocabulary.issuperset(get_tokenizer().encode(name))


def test_the_embedded_model_keeps_the_vocabulary_that_it_was_trained_with():
    known = set(load_model('embedded').network.config.text.vocabulary)
    assert known.issuperset(get_tokenizer().encode('3.0 UIH'))


def test_training_learns_and_writes_a_usable_model(labelmaps, pairs, tmp_path):
    folder = train_synthesis(
        tmp_path,
        labelmaps=labelmaps,
        pairs=[pairs],
        exclude=('sub-02',),
        settings=replace(SMALL, steps=120),
    )
    loaded = load_model(folder)
    assert loaded.version == 'step 120 of 120'
    assert loaded.card['training']['people'] == {'sub-01': ['T1w', 'T2w']}
    assert loaded.card['ranges']['T2w']['echo_time'][0] == pytest.approx(0.07)
    volumes = [load_tissue_volume(labelmaps / 'spheres.nii.gz')]
    before, after = (_mean_loss(weights, volumes) for weights in (None, loaded.network))
    assert after < 0.9 * before


def test_best_weights_on_people_held_out_are_kept(pairs, tmp_path):
    settings = replace(SMALL, held_out=0.5, validation_samples=2, real_share=1.0)
    engine = EngineSettings(accelerator='cpu', validate_every=10)
    folder = train_synthesis(tmp_path, pairs=[pairs], settings=settings, engine_settings=engine)
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert len(manifest['held_out']) == 1
    assert set(manifest['people']) | set(manifest['held_out']) == {'sub-01', 'sub-02'}
    lines = (tmp_path / 'validation.csv').read_text().splitlines()[1:]
    losses = {int(step): float(loss) for step, loss in (line.split(',') for line in lines)}
    assert list(losses) == [10, 20, 30, 40]
    best = torch.load(tmp_path / 'best.pt', weights_only=True)
    assert best['step'] == min(losses, key=losses.get)
    written = load_model(folder).network.state_dict()
    for key, value in best['weights'].items():
        torch.testing.assert_close(written[key], value.half().float())


def test_a_later_look_that_is_worse_does_not_replace_the_best(tmp_path):
    engine = Engine(tmp_path, EngineSettings(accelerator='cpu', validate_every=1))
    model = torch.nn.Linear(1, 1)
    engine.setup(model, torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    losses = iter((3.0, 1.0, 2.0))
    engine.train(
        3,
        lambda rng: (torch.ones(1, 1),),
        lambda module, x: module(x).mean(),
        seed=0,
        learning_rate=lambda step: 0.1,
        validate=lambda: next(losses),
    )
    assert torch.load(tmp_path / 'best.pt', weights_only=True)['step'] == 2
    assert not torch.equal(engine.best()['weight'], model.weight)


def _mean_loss(network, volumes) -> float:
    from tumsyn_bids.training.samples import to_tensors

    if network is None:
        torch.manual_seed(0)
        network = Model(training_config('tiny'))
    losses = []
    for seed in range(8):
        rng = np.random.default_rng([99, seed])
        sample = simulated_sample(rng, volumes, patch=24, n_targets=1)
        source, targets, mask = to_tensors(sample)
        with torch.inference_mode():
            text = network.prompt(*prompt_tensors([*sample.prompts, sample.source_prompt]))
            text, source_text = text[:-1], text[-1:]
            features = network.synthesis.encoder(source, source_text)
            image = network.synthesis.imnet.on_grid(network.synthesis.fusion(features, text), text)
            losses.append(float(synthesis_loss(image[:, None], targets, mask)))
    return float(np.mean(losses))


def test_interrupted_run_ends_like_an_undisturbed_one(labelmaps, tmp_path):
    settings = TrainingSettings(config='tiny', steps=3, patch=24, large_share=0.0)
    whole = train_synthesis(tmp_path / 'whole', labelmaps=labelmaps, settings=settings)
    for _ in range(3):  # each call stops after one step
        parts = train_synthesis(
            tmp_path / 'parts', labelmaps=labelmaps, settings=settings, max_minutes=0
        )
    expected, result = load_model(whole), load_model(parts)
    for key, value in expected.network.state_dict().items():
        torch.testing.assert_close(result.network.state_dict()[key], value)
    manifest = json.loads((tmp_path / 'parts' / 'manifest.json').read_text())
    assert manifest['labelmaps'] == ['spheres.nii.gz']


def test_run_does_not_go_on_with_other_options(labelmaps, pairs, tmp_path):
    settings = TrainingSettings(config='tiny', steps=2, patch=24, large_share=0.0)
    shared = {'labelmaps': labelmaps, 'max_minutes': 0}
    train_synthesis(tmp_path, settings=settings, **shared)
    other = replace(settings, learning_rate=1e-3)
    with pytest.raises(UsageError, match=r'options: learning_rate was 0\.0005 and is 0\.001'):
        train_synthesis(tmp_path, settings=other, **shared)
    with pytest.raises(UsageError, match='people'):
        train_synthesis(tmp_path, settings=settings, pairs=[pairs], **shared)
    with pytest.raises(UsageError, match='recipe was'):
        train_synthesis(tmp_path, settings=settings, recipe=PaperRecipe(), **shared)


def test_run_begins_with_the_weights_of_a_model(labelmaps, pairs, tmp_path, capsys):
    settings = TrainingSettings(config='tiny', steps=2, patch=24, large_share=0.0, seed=1)
    first = train_synthesis(tmp_path / 'first', labelmaps=labelmaps, settings=settings)
    begun = train_synthesis(tmp_path / 'begun', pairs=[pairs], start=first, max_minutes=0)
    models = [load_model(folder) for folder in (first, begun)]
    assert models[0].network.config == models[1].network.config
    for old, new in zip(*(model.network.parameters() for model in models), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=2e-3)
    origin = models[1].card['training']['start']
    assert origin['sha256'] == models[0].sha256
    # What a model has learned from is not lost with what it was trained on last.
    assert origin['training'] == models[0].card['training']
    command = ['train', 'synthesis', str(tmp_path / 'x'), '--pairs', str(pairs)]
    assert main([*command, '--from', str(first), '--config', 'tiny']) == 2
    assert '--config: the model to begin with' in capsys.readouterr().err
    assert main([*command, '--from', str(first), '--text-encoder', 'one-hot']) == 2
    assert '--text-encoder: the model to begin with' in capsys.readouterr().err


def test_a_model_warns_of_contrasts_that_it_was_not_trained_on(pairs, tmp_path):
    settings = replace(SMALL, steps=1)
    folder = train_synthesis(tmp_path, pairs=[pairs], settings=settings)
    synthesizer = Synthesizer.load(folder, 'cpu', 'float32')
    warning = 'the model was not trained on FLAIR images'
    assert synthesizer.in_range(default_protocol('FLAIR', 3.0)) == [warning]
    # Of these nothing is documented, so that no value is unusual.
    for name in ('T1w', 'T2w'):
        assert synthesizer.in_range(default_protocol(name, 3.0)) == []


def test_ranges_of_people_are_those_of_their_sidecars(pairs):
    people = [
        replace(person, protocols={'T2w': Acquisition('T2w', repetition_time=tr, echo_time=te)})
        for person, tr, te in zip(
            load_paired_subjects(pairs), (3.0, 5.0), (0.1, None), strict=True
        )
    ]
    limits = {'repetition_time': (3.0, 5.0), 'echo_time': (0.1, 0.1)}
    assert ranges_of(people) == {'T1w': {}, 'T2w': limits}


def test_ranges_of_two_trainings_are_those_of_both():
    simulated, person = training_ranges(), {'T1w': {}, 'FLAIR': {'inversion_time': (1.8, 1.8)}}
    known = merged({'SWI': {'echo_time': [0.02, 0.03]}, 'T2w': {'echo_time': [0.6, 0.8]}}, person)
    assert known['SWI'] == {'echo_time': [0.02, 0.03]}
    assert known['FLAIR'] == person['FLAIR']
    assert known['T1w'] == {}
    together = merged(known, simulated)
    assert together.keys() == simulated.keys()
    # Who documents nothing narrows nothing.
    assert together['T1w'] == simulated['T1w']
    assert together['T2w']['echo_time'] == (0.07, 0.8)
    assert together['SWI']['echo_time'] == (0.013, 0.04)
    # Of what one leaves open it may have seen anything.
    assert together['SWI'].keys() == {'echo_time'}
    assert together['FLAIR'].keys() == {'inversion_time'}


def test_a_model_that_was_begun_with_another_keeps_what_that_was_trained_on(pairs, tmp_path):
    options = {'pairs': [pairs], 'max_minutes': 0}
    known = {'FLAIR': {'echo_time': [0.1, 0.2]}}
    network = Model(training_config('tiny'))
    for name, card in (('known', {'ranges': known}), ('unknown', {})):
        start = save_model(network, tmp_path / f'{name} start', version='0', card=card)
        train_synthesis(tmp_path / name, start=start, **options)
    ranges = load_model(tmp_path / 'known' / 'model').card['ranges']
    assert ranges == {**known, 'T1w': {}, 'T2w': {}}
    # Nobody can say what a model has not seen that does not tell what it has.
    synthesizer = Synthesizer.load(tmp_path / 'unknown' / 'model', 'cpu', 'float32')
    warning = 'what the model was trained on is not recorded'
    assert synthesizer.in_range(default_protocol('FLAIR', 3.0)) == [warning]


def test_prompts_of_the_paper_recipe_say_what_the_sidecars_say(pairs):
    protocol = Acquisition('T2w', repetition_time=3.2, echo_time=0.4, field_strength=3.0)
    people = [
        replace(person, protocols={'T2w': protocol}) for person in load_paired_subjects(pairs)[:1]
    ]
    recipe = PaperRecipe(low=8, largest_factor=1, points=1, batch=2)
    _, ids, *_ = recipe.draw(np.random.default_rng(0), [], people)
    expected, _ = prompt_tensors(
        [render_prompt(people[0].acquisition(name)) for name in ('T1w', 'T2w')]
    )
    assert {tuple(row) for row in ids.tolist()} == {tuple(row) for row in expected.tolist()}
    assert people[0].acquisition('T2w').echo_time == 0.4
    assert people[0].acquisition('T1w').echo_time is None


def test_white_matter_and_ventricle_of_a_t1w():
    axis = np.arange(80) - 39.5
    radius = np.sqrt(np.add.outer(np.add.outer(axis**2, axis**2), axis**2))
    levels = np.select([radius < 8, radius < 25, radius < 32, radius < 36], [0.2, 0.9, 0.65, 0.2])
    noisy = levels + 0.03 * np.random.default_rng(0).standard_normal(levels.shape)
    white, ventricle_mm = white_matter(noisy.astype(np.float32), radius < 36)
    truth = (radius >= 8) & (radius < 25)
    assert 2 * (white & truth).sum() / (white.sum() + truth.sum()) > 0.95
    assert ventricle_mm[40, 40, 40] == 0
    assert abs(int(ventricle_mm[60, 40, 40]) - (20 - 8)) <= 2


def test_an_image_without_contrast_has_no_white_matter():
    flat = np.ones((12, 12, 12), np.float32)
    white, ventricle_mm = white_matter(flat, np.pad(np.ones((8, 8, 8), bool), 2))
    assert not white.any()
    assert (ventricle_mm == 255).all()


def test_recipe_of_the_paper_learns_both_directions_with_a_frozen_text(labelmaps, pairs, tmp_path):
    from tumsyn_bids.networks.registry import get_text_image_config
    from tumsyn_bids.networks.vision import TextImageModel
    from tumsyn_bids.training.text_image import _save

    torch.manual_seed(0)
    stage1 = TextImageModel(get_text_image_config('tiny'))
    _save(stage1, tmp_path / 'stage1', {})
    recipe = PaperRecipe(low=10, largest_factor=2, points=200, batch=2, learning_rate=3e-3)
    folder = train_synthesis(
        tmp_path / 'run',
        labelmaps=labelmaps,
        pairs=[pairs],
        settings=TrainingSettings(config='tiny', steps=120),
        engine_settings=EngineSettings('cpu', precision='32-true', log_every=40),
        recipe=recipe,
        text_encoder=tmp_path / 'stage1',
    )
    lines = (tmp_path / 'run' / 'log.csv').read_text().splitlines()[1:]
    losses = [float(line.split(',')[1]) for line in lines]
    assert losses[-1] < 0.9 * losses[0]
    kept = load_model(folder).network.prompt.text.token_embedding.weight
    torch.testing.assert_close(kept, stage1.text.token_embedding.weight, atol=1e-3, rtol=1e-3)


def test_batches_of_the_paper_hold_the_fine_image_at_the_points(labelmaps):
    volumes = [load_tissue_volume(labelmaps / 'spheres.nii.gz')]
    recipe = PaperRecipe(low=12, largest_factor=1, points=12**3, batch=2)
    sources, ids, _, coord, values, cell = recipe.draw(np.random.default_rng(0), volumes, [])
    assert sources.shape == (2, 2, 1, 12, 12, 12)
    assert ids.shape[0] == 4
    assert cell.tolist() == [1, 1, 1]
    torch.testing.assert_close(values.reshape(sources.shape), sources)
    torch.testing.assert_close(coord[0, 0], torch.full((3,), 1 / 12 - 1))


def test_learning_rate_of_the_paper_is_halved_four_times():
    recipe = PaperRecipe()
    rates = [recipe.rate(step, 300) for step in (0, 99, 100, 150, 200, 250, 299)]
    expected = [1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]
    assert rates == pytest.approx([1e-4 * part for part in expected])
