"""One scan of each contrast, by rule; everything else refused with a reason."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from bids.layout import Query
from bids_builder import SIDECAR, Builder

from tumsyn_bids.bids.layout import index_dataset
from tumsyn_bids.bids.selection import select_scans
from tumsyn_bids.errors import ScanError, UsageError


@pytest.fixture
def dataset(tmp_path):
    return Builder(tmp_path)


def select(dataset, filters=None, session=None):
    layout = index_dataset(dataset.root)
    scans, refused, findings = select_scans(layout, '01', session, filters)
    names = {scan.contrast: Path(scan.path).name for scan in scans}
    return names, {Path(item.path).name: item.reason for item in refused}, findings


def test_one_of_each_contrast(dataset):
    for suffix in ('T1w', 'T2w', 'FLAIR', 'PDw', 'T2starw', 'swi', 'ce-gd_T1w'):
        dataset.image(f'sub-01_{suffix}.nii.gz')
    names, refused, _ = select(dataset)
    assert names == {
        'FLAIR': 'sub-01_FLAIR.nii.gz',
        'PDw': 'sub-01_PDw.nii.gz',
        'SWI': 'sub-01_swi.nii.gz',
        'T1CE': 'sub-01_ce-gd_T1w.nii.gz',
        'T1w': 'sub-01_T1w.nii.gz',
        'T2starw': 'sub-01_T2starw.nii.gz',
        'T2w': 'sub-01_T2w.nii.gz',
    }
    assert refused == {}


def test_scan_record(dataset):
    path = dataset.image('sub-01_acq-x_run-02_T1w.nii.gz', SIDECAR, zooms=(4, 4, 5))
    (scan,), _, _ = select_scans(index_dataset(dataset.root), '01', None)
    assert scan.path == str(path)
    assert (scan.shape, scan.zooms) == ((24, 24, 24), (4, 4, 5))
    assert scan.entities.items() >= {'subject': '01', 'acquisition': 'x', 'run': '02'}.items()
    assert not {'suffix', 'extension'} & set(scan.entities)
    assert scan.acquisition.voxel_size == (4, 4, 5)
    assert scan.acquisition.echo_time == 0.00298


def test_thin_slices_then_small_voxels_then_late_run_then_name(dataset):
    dataset.image('sub-01_acq-thick_T1w.nii.gz', zooms=(3, 3, 6))
    dataset.image('sub-01_acq-coarse_T1w.nii.gz', zooms=(5, 5, 5))
    dataset.image('sub-01_acq-fine_run-1_T1w.nii.gz', zooms=(4, 4, 5))
    dataset.image('sub-01_acq-fine_run-2_T1w.nii.gz', zooms=(4, 4, 5.001))
    dataset.image('sub-01_acq-fine_T1w.nii.gz', zooms=(4, 4, 5))
    names, refused, _ = select(dataset)
    assert names == {'T1w': 'sub-01_acq-fine_run-2_T1w.nii.gz'}
    assert 'slices are thinner (5.001 mm against 6 mm)' in refused['sub-01_acq-thick_T1w.nii.gz']
    assert 'voxels are smaller' in refused['sub-01_acq-coarse_T1w.nii.gz']
    assert 'later run' in refused['sub-01_acq-fine_run-1_T1w.nii.gz']
    assert all(reason.startswith('sub-01_acq-fine_run-2') for reason in refused.values())


def test_equal_scans_are_chosen_by_name(dataset):
    dataset.image('sub-01_acq-a_T1w.nii.gz')
    dataset.image('sub-01_acq-b_T1w.nii.gz')
    names, refused, _ = select(dataset)
    assert names == {'T1w': 'sub-01_acq-b_T1w.nii.gz'}
    assert 'alike' in refused['sub-01_acq-a_T1w.nii.gz']


@pytest.mark.parametrize(
    ('named', 'guessed', 'sidecar'),
    [
        ('sub-01_FLAIR.nii.gz', 'sub-01_acq-FLAIR_T2w.nii.gz', None),
        ('sub-01_ce-gd_T1w.nii.gz', 'sub-01_T1w.nii.gz', {'ContrastBolusIngredient': 'Gd'}),
    ],
)
def test_named_contrasts_go_before_guessed_ones(dataset, named, guessed, sidecar):
    dataset.image(named, zooms=(4, 4, 6))
    dataset.image(guessed, sidecar)
    names, refused, _ = select(dataset)
    assert list(names.values()) == [named]
    assert 'its name says so' in refused[guessed]


def test_echo_nearest_to_the_default_protocol(dataset):
    for number, te in enumerate([0.005, 0.018, 0.035], 1):
        dataset.image(f'sub-01_echo-{number}_T2starw.nii.gz', {'EchoTime': te})
    names, refused, _ = select(dataset)
    assert names == {'T2starw': 'sub-01_echo-2_T2starw.nii.gz'}
    assert 'echo time' in refused['sub-01_echo-1_T2starw.nii.gz']


def test_echoes_without_echo_times(dataset):
    dataset.image('sub-01_echo-1_T1w.nii.gz')
    dataset.image('sub-01_echo-2_T1w.nii.gz')
    assert select(dataset)[0] == {'T1w': 'sub-01_echo-1_T1w.nii.gz'}
    dataset.image('sub-01_T1w.nii.gz')  # the combined image
    assert select(dataset)[0] == {'T1w': 'sub-01_T1w.nii.gz'}


@pytest.mark.parametrize(
    ('shape', 'zooms', 'reason'),
    [
        ((24, 24, 24, 3), (4, 4, 4, 1), 'it has 3 volumes'),
        ((24, 24), (4, 4), 'fewer than 10 slices'),
        ((24, 24, 1), (4, 4, 4), 'fewer than 10 slices'),
        ((24, 24, 9), (4, 4, 9), 'fewer than 10 slices'),
        ((24, 24, 11), (4, 4, 5), 'only 55 mm'),
        ((24, 24, 24), (4, 4, 12), 'voxel size of 4 x 4 x 12 mm'),
    ],
)
def test_headers_that_tell_of_no_brain_volume(dataset, shape, zooms, reason):
    folder = dataset.root / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    spatial = [*zooms, 1][:3]
    img = nb.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*spatial, 1]))
    img.header.set_zooms(zooms)
    img.to_filename(folder / 'sub-01_T1w.nii.gz')
    names, refused, _ = select(dataset)
    assert names == {}
    assert reason in refused['sub-01_T1w.nii.gz']


def test_scan_that_may_not_be_read_is_acquired_all_the_same(dataset, monkeypatch):
    dataset.image('sub-01_T1w.nii.gz')
    path = dataset.image('sub-01_T2w.nii.gz')
    original = Path.open

    def denied(self, *args, **how):
        if self == path:
            raise PermissionError(13, 'Permission denied', str(self))
        return original(self, *args, **how)

    monkeypatch.setattr(Path, 'open', denied)
    _, [refusal], _ = select_scans(index_dataset(dataset.root), '01', None)
    assert (refusal.severity, refusal.acquired) == ('warning', 'T2w')
    assert 'Permission denied' in refusal.reason


def test_one_volume_in_four_dimensions_is_accepted(dataset):
    dataset.image('sub-01_T1w.nii.gz', shape=(24, 24, 24, 1))
    assert select(dataset)[0] == {'T1w': 'sub-01_T1w.nii.gz'}


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('sub-01_UNIT1.nii.gz', 'noise background'),
        ('sub-01_inv-1_MP2RAGE.nii.gz', 'one inversion of an MP2RAGE'),
        ('sub-01_angio.nii.gz', 'none of the contrasts'),
        ('sub-01_echo-1_MESE.nii.gz', 'suffix MESE is none'),
        ('sub-01_T1.nii.gz', 'suffix T1 is none'),
        ('sub-01_part-phase_T2starw.nii.gz', 'phase part'),
        ('sub-01_desc-preproc_T1w.nii.gz', 'derived image'),
        ('sub-01_space-MNI_T1w.nii.gz', 'derived image'),
    ],
)
def test_refused_by_name(dataset, name, reason):
    dataset.image(name)
    names, refused, _ = select(dataset)
    assert names == {}
    assert reason in refused[name]


def test_magnitude_part_and_masks(dataset):
    dataset.image('sub-01_part-mag_T2starw.nii.gz')
    dataset.image('sub-01_mod-T1w_defacemask.nii.gz')
    names, refused, _ = select(dataset)
    assert names == {'T2starw': 'sub-01_part-mag_T2starw.nii.gz'}
    assert refused == {}


def test_unreadable_image_is_refused_and_the_others_used(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    folder = dataset.root / 'sub-01' / 'anat'
    (folder / 'sub-01_T2w.nii.gz').write_bytes(b'\x1f\x8bbroken')
    (folder / 'sub-01_FLAIR.nii.gz').symlink_to('nowhere')
    names, refused, _ = select(dataset)
    assert names == {'T1w': 'sub-01_T1w.nii.gz'}
    assert 'header cannot be read' in refused['sub-01_T2w.nii.gz']
    assert 'datalad get' in refused['sub-01_FLAIR.nii.gz']


@pytest.mark.filterwarnings('ignore:Extension size')
def test_damaged_headers_are_refused_or_read_and_stop_nothing(dataset):
    path = dataset.image('sub-01_T1w.nii')
    img = nb.load(path, mmap=False)
    img.header.extensions.append(nb.nifti1.Nifti1Extension('comment', b'of the scanner'))
    img.to_filename(path)
    sound, random = path.read_bytes(), np.random.default_rng(0)
    layout, seen = index_dataset(dataset.root), []
    for case in range(300):
        content = bytearray(sound)
        for place in random.integers(0, 400, random.integers(1, 12)):
            content[place] = random.integers(256)
        path.write_bytes(content[: random.integers(420)] if case % 5 == 0 else content)
        scans, refused, _ = select_scans(layout, '01', None, images=[path])
        assert len(scans) + len(refused) == 1
        seen += [item.reason for item in refused]
    assert any('its header cannot be read' in reason for reason in seen)
    assert len(seen) < 300


def test_truncated_image_is_not_read_beyond_its_header(dataset):
    path = dataset.image('sub-01_T1w.nii', shape=(64, 64, 64))
    path.write_bytes(path.read_bytes()[:400])
    assert select(dataset)[0] == {'T1w': 'sub-01_T1w.nii'}


def test_findings_of_used_scans_only(dataset):
    dataset.image('sub-01_run-1_T1w.nii.gz', {'RepetitionTime': 2300})
    dataset.image('sub-01_run-2_T1w.nii.gz', {'EchoTime': 3})
    _, _, findings = select(dataset)
    assert [(f.path, f.field) for f in findings] == [
        ('sub-01/anat/sub-01_run-2_T1w.json', 'EchoTime')
    ]


def test_broken_sidecar_stops_the_session(dataset):
    dataset.image('sub-01_T2w.nii.gz')
    dataset.image('sub-01_T1w.nii.gz')
    dataset.text('T1w.json', '{')
    with pytest.raises(ScanError, match=r'T1w\.json: not valid JSON'):
        select(dataset)


def test_broken_sidecar_of_an_image_that_is_not_ours(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    dataset.image('sub-01_angio.nii.gz')
    dataset.text('angio.json', '{')
    assert select(dataset)[0] == {'T1w': 'sub-01_T1w.nii.gz'}


def test_filters(dataset):
    dataset.image('sub-01_acq-a_T1w.nii.gz', zooms=(3, 3, 3))
    dataset.image('sub-01_acq-b_T1w.nii.gz')
    dataset.image('sub-01_T2w.nii.gz')
    names, refused, _ = select(dataset, {'t1w': {'acquisition': 'b', 'suffix': 'T1w'}})
    assert names == {'T1w': 'sub-01_acq-b_T1w.nii.gz', 'T2w': 'sub-01_T2w.nii.gz'}
    assert refused == {'sub-01_acq-a_T1w.nii.gz': 'left out by your filter "t1w"'}
    names, refused, _ = select(
        dataset, {'t1w': {'acquisition': Query.NONE}, 'bold': {'task': 'x'}}
    )
    assert 'which leaves no T1w of this session' in refused['sub-01_acq-a_T1w.nii.gz']
    assert refused['sub-01_acq-b_T1w.nii.gz'] == 'left out by your filter "t1w"'
    assert names == {'T2w': 'sub-01_T2w.nii.gz'}


def test_filter_decides_before_the_header_is_read(dataset):
    dataset.image('sub-01_acq-a_T1w.nii.gz')
    dataset.image('sub-01_acq-b_T1w.nii.gz').write_bytes(b'')
    layout = index_dataset(dataset.root)
    _, [refusal], _ = select_scans(layout, '01', None, {'t1w': {'acquisition': 'a'}})
    assert refusal.reason == 'left out by your filter "t1w"'
    assert refusal.severity == 'info'


def test_unknown_entity_in_a_filter(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    with pytest.raises(UsageError, match='t1w: the filter cannot be used'):
        select(dataset, {'t1w': {'acquisitoin': 'b'}})


def test_sessions_are_kept_apart(dataset):
    dataset.image('sub-01_T1w.nii.gz')
    dataset.image('sub-01_ses-1_T1w.nii.gz')
    assert select(dataset, session='1')[0] == {'T1w': 'sub-01_ses-1_T1w.nii.gz'}
    assert select(dataset, session=None)[0] == {'T1w': 'sub-01_T1w.nii.gz'}


@pytest.mark.parametrize(
    ('folder', 'name'),
    [
        ('sub-01/anat', 'sub-03_T1w.nii.gz'),
        ('sub-01/anat', 'sub-01_ses-1_T1w.nii.gz'),
        ('sub-01/anat', 'T1w.nii.gz'),
        ('sub-01/ses-1/anat', 'sub-01_T1w.nii.gz'),
        ('sub-01/ses-1/anat', 'sub-01_ses-2_T1w.nii.gz'),
        ('', 'sub-01_T1w.nii.gz'),
    ],
)
def test_name_and_folder_that_tell_of_different_people_or_sessions(dataset, folder, name):
    session = '1' if 'ses-' in folder else None
    dataset.image('sub-01_ses-1_T2w.nii.gz' if session else 'sub-01_T2w.nii.gz')
    made = dataset.image('sub-09_T1w.nii.gz')
    made.rename(dataset.root / folder / name)
    scans, [refusal], _ = select_scans(index_dataset(dataset.root), '01', session)
    assert [scan.contrast for scan in scans] == ['T2w']
    assert refusal.path == str(Path(folder, name))
    assert 'rename it' in refusal.reason
    assert (refusal.severity, refusal.acquired) == ('warning', 'T1w')


def test_folders_above_the_dataset_are_no_entities(tmp_path):
    dataset = Builder(tmp_path / 'sub-studies' / 'ses-old_run-3' / 'ds')
    path = dataset.image('sub-01_ses-1_T1w.nii.gz')
    (scan,), _, _ = select_scans(index_dataset(dataset.root), '01', '1')
    assert scan.path == str(path)
    assert scan.entities == {'subject': '01', 'session': '1', 'datatype': 'anat'}
