"""The phantom dataset is valid, complete, true to its truth and the same each time."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tumsyn_bids.acquisition import BIDS_KEYS
from tumsyn_bids.errors import UsageError
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.simulation.cohort import COHORT
from tumsyn_bids.simulation.dataset import write_phantom_dataset

SESSIONS = {
    'sub-01': ('T1w',),
    'sub-02': ('FLAIR',),
    'sub-03/ses-1': ('T1w', 'T2w'),
    'sub-03/ses-2': ('T1w', 'T2w'),
}
CSF_SPACES = (4, 43)
CEREBRAL_WHITE = (2, 41)


def _scan(root: Path, session: str, contrast: str) -> Path:
    return root / session / 'anat' / f'{session.replace("/", "_")}_{contrast}.nii.gz'


def _truth(root: Path, session: str, name: str) -> Path:
    stem = session.replace('/', '_')
    return root / 'derivatives/truth' / session / 'anat' / f'{stem}_{name}'


def _labels(root: Path, session: str) -> nb.Nifti1Image:
    return nb.load(_truth(root, session, 'space-individual_desc-truth_dseg.nii.gz'))


def _rows(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text().splitlines()
    return [dict(zip(header.split('\t'), line.split('\t'), strict=True)) for line in lines]


def _matrix(path: Path) -> np.ndarray:
    """Read an ITK text file as a RAS+ matrix, independently of what wrote it."""
    lines = dict(line.split(':', 1) for line in path.read_text().splitlines() if ':' in line)
    values = np.array(lines['Parameters'].split(), dtype=float)
    assert not np.array(lines['FixedParameters'].split(), dtype=float).any()
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = values[:9].reshape(3, 3), values[9:]
    flip = np.diag([-1.0, -1, 1, 1])
    return flip @ lps @ flip


def _contents(root: Path) -> dict[str, bytes]:
    """Return what each file holds; archives unpacked, as other zlibs pack differently."""
    found = {}
    for path in sorted(root.rglob('*')):
        if path.is_file():
            raw = path.read_bytes()
            name = path.relative_to(root).as_posix()
            found[name] = gzip.decompress(raw) if name.endswith('.gz') else raw
    return found


def test_each_session_has_its_scans_and_the_truth_about_the_others(phantom_dir):
    scans = {path.relative_to(phantom_dir) for path in phantom_dir.glob('sub-*/**/*.nii.gz')}
    wanted = {
        _scan(phantom_dir, session, contrast).relative_to(phantom_dir)
        for session, contrasts in SESSIONS.items()
        for contrast in contrasts
    }
    assert scans == wanted
    for session, contrasts in SESSIONS.items():
        for contrast in ('T1w', 'T2w', 'FLAIR'):
            name = f'space-individual_desc-truth_{contrast}.nii.gz'
            assert _truth(phantom_dir, session, name).exists() == (contrast not in contrasts)
        for contrast in contrasts[1:]:
            name = f'from-{contrast}_to-individual_mode-image_xfm.txt'
            assert _truth(phantom_dir, session, name).exists()


def test_sidecars_hold_what_a_prompt_asks_for(phantom_dir):
    for session, contrasts in SESSIONS.items():
        for contrast in contrasts:
            path = _scan(phantom_dir, session, contrast)
            sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
            wanted = set(BIDS_KEYS.values()) - ({'InversionTime'} if contrast == 'T2w' else set())
            assert wanted <= set(sidecar)
            assert sidecar['RepetitionTime'] < 20
            zooms = nb.load(path).header.get_zooms()
            if sidecar['MRAcquisitionType'] == '2D':
                assert sidecar['SpacingBetweenSlices'] == pytest.approx(zooms[2])
            assert sidecar['SliceThickness'] <= zooms[2] + 1e-6


def test_people_have_age_and_sex(phantom_dir):
    people = _rows(phantom_dir / 'participants.tsv')
    assert [row['participant_id'] for row in people] == ['sub-01', 'sub-02', 'sub-03']
    assert {row['sex'] for row in people} == {'F', 'M'}
    ages = [row['age'] for row in _rows(phantom_dir / 'sub-03' / 'sub-03_sessions.tsv')]
    assert ages == ['52', '54']


def test_whole_heads_fit_into_the_field_of_view(phantom_dir):
    for session, contrasts in SESSIONS.items():
        for contrast in contrasts:
            img = nb.as_closest_canonical(nb.load(_scan(phantom_dir, session, contrast)))
            data = np.asarray(img.dataobj)
            body = data > 0.3 * data[data > 15].mean()
            edges = [body[0], body[-1], body[:, 0], body[:, -1], body[..., -1]]
            assert max(edge.mean() for edge in edges) < 0.02, (session, contrast)
            assert body[..., 0].mean() > 0.05  # the neck or the face goes on below


def test_the_flair_is_oblique_with_thick_slices(phantom_dir):
    img = nb.load(_scan(phantom_dir, 'sub-02', 'FLAIR'))
    assert img.header.get_zooms()[2] == 5
    assert np.rad2deg(nb.affines.obliquity(img.affine)).max() > 10


@pytest.mark.parametrize('session', ['sub-03/ses-1', 'sub-03/ses-2'])
def test_the_true_transform_lays_the_scans_on_each_other(phantom_dir, session):
    labels = _labels(phantom_dir, session)
    grid, names = Grid.of(labels), np.asarray(labels.dataobj)
    scan = nb.load(_scan(phantom_dir, session, 'T2w'))
    name = 'from-T2w_to-individual_mode-image_xfm.txt'
    world = _matrix(_truth(phantom_dir, session, name))

    def contrast(matrix):
        image = resample(scan, grid, world=matrix)
        ventricles = image[np.isin(names, CSF_SPACES)].mean()
        return ventricles / image[np.isin(names, CEREBRAL_WHITE)].mean()

    assert contrast(world) > 1.5
    assert contrast(world) > contrast(np.eye(4)) + 0.05
    assert contrast(world) > contrast(np.linalg.inv(world)) + 0.1


def test_the_transform_is_the_difference_of_the_poses(phantom_dir):
    for member in COHORT:
        for session in member.sessions:
            first, *others = session.takes
            for take in others:
                folder = f'sub-{member.label}/ses-{session.label}'
                name = f'from-{take.contrast}_to-individual_mode-image_xfm.txt'
                stored = _matrix(_truth(phantom_dir, folder, name))
                assert_allclose(stored, np.linalg.inv(take.pose) @ first.pose, atol=1e-4)
                assert np.abs(stored[:3, 3]).max() > 1


def test_the_reference_needs_no_transform(phantom_dir):
    for session in ('sub-01', 'sub-03/ses-1', 'sub-03/ses-2'):
        labels = _labels(phantom_dir, session)
        names = np.asarray(labels.dataobj)
        image = resample(nb.load(_scan(phantom_dir, session, 'T1w')), Grid.of(labels))
        white = image[np.isin(names, CEREBRAL_WHITE)].mean()
        assert white > 1.8 * image[np.isin(names, CSF_SPACES)].mean()


def test_true_contrasts_lie_on_the_labels(phantom_dir):
    names = np.asarray(_labels(phantom_dir, 'sub-02').dataobj)
    for contrast, brighter in (('T1w', False), ('T2w', True)):
        name = f'space-individual_desc-truth_{contrast}.nii.gz'
        image = np.asarray(nb.load(_truth(phantom_dir, 'sub-02', name)).dataobj)
        fluid = image[np.isin(names, CSF_SPACES)].mean()
        assert (fluid > image[np.isin(names, CEREBRAL_WHITE)].mean()) == brighter
        assert not image[names == 0].any()


def test_lesions_shine_in_the_flair(phantom_dir):
    labels = _labels(phantom_dir, 'sub-02')
    names = np.asarray(labels.dataobj)
    image = resample(nb.load(_scan(phantom_dir, 'sub-02', 'FLAIR')), Grid.of(labels))
    lesions = image[names == 77]
    assert lesions.size > 20
    assert lesions.mean() > 1.1 * image[np.isin(names, CEREBRAL_WHITE)].mean()
    assert not (np.asarray(_labels(phantom_dir, 'sub-01').dataobj) == 77).any()


def test_tables_of_volumes_describe_the_images(phantom_dir):
    for session in SESSIONS:
        labels = _labels(phantom_dir, session)
        names = np.asarray(labels.dataobj)
        voxel = float(np.prod(labels.header.get_zooms()))
        rows = _rows(_truth(phantom_dir, session, 'desc-labels_morph.tsv'))
        assert {int(row['index']) for row in rows} == set(np.unique(names)) - {0}
        row = next(row for row in rows if row['index'] == '16')
        assert float(row['volume_mm3']) == pytest.approx((names == 16).sum() * voxel)
        middle = nb.affines.apply_affine(labels.affine, np.argwhere(names == 16).mean(axis=0))
        assert_allclose([float(row[key]) for key in 'xyz'], middle, atol=0.01)
        tissues = _rows(_truth(phantom_dir, session, 'desc-tissues_morph.tsv'))
        total = sum(float(row['volume_mm3']) for row in tissues)
        mask = nb.load(_truth(phantom_dir, session, 'space-individual_desc-brain_mask.nii.gz'))
        assert total == pytest.approx(np.asarray(mask.dataobj).sum() * voxel, rel=0.01)
        assert 1.1e6 < total < 1.7e6


def test_two_visits_show_one_brain(phantom_dir):
    first, second = (
        _rows(_truth(phantom_dir, f'sub-03/ses-{visit}', 'desc-tissues_morph.tsv'))
        for visit in (1, 2)
    )
    for one, other in zip(first, second, strict=True):
        assert float(one['volume_mm3']) == pytest.approx(float(other['volume_mm3']), rel=0.01)


@pytest.fixture(scope='module')
def coarse(tmp_path_factory):
    out = tmp_path_factory.mktemp('coarse') / 'all'
    return write_phantom_dataset(out, resolution_mm=6, subjects=['01', '02'])


def test_files_are_the_same_bit_for_bit(coarse, tmp_path):
    again = write_phantom_dataset(tmp_path / 'again', resolution_mm=6, subjects=['sub-02'])
    names = [path.relative_to(again) for path in again.rglob('sub-02*/**/*') if path.is_file()]
    assert len(names) > 10
    for name in names:
        assert (again / name).read_bytes() == (coarse / name).read_bytes(), name


def test_another_seed_gives_another_person(coarse, tmp_path):
    other = write_phantom_dataset(tmp_path / 'x', resolution_mm=6, subjects=['02'], seed=1)
    one, two = (_labels(root, 'sub-02') for root in (coarse, other))
    assert one.shape != two.shape or (np.asarray(one.dataobj) != np.asarray(two.dataobj)).any()


def test_archives_carry_no_date_and_no_name(phantom_dir):
    head = _scan(phantom_dir, 'sub-01', 'T1w').read_bytes()[:10]
    assert head[3:8] == b'\0\0\0\0\0'


def test_requests_that_cannot_be_met_are_refused(tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    with pytest.raises(UsageError, match='not an empty folder'):
        write_phantom_dataset(tmp_path / 'full')
    with pytest.raises(UsageError, match='01, 02, 03'):
        write_phantom_dataset(tmp_path / 'new', subjects=['09'])
    with pytest.raises(UsageError, match='resolution'):
        write_phantom_dataset(tmp_path / 'new', resolution_mm=0)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('part', ['.', 'derivatives/truth'])
def test_the_bids_validator_has_no_errors(phantom_dir, part):
    found = _validator()
    if found is None:
        pytest.skip('bids-validator-deno is not installed')
    command = [found, str(phantom_dir / part), '--format', 'json']
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(answer.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []


def _validator() -> str | None:
    import sys

    beside = Path(sys.executable).parent / 'bids-validator-deno'
    return str(beside) if beside.exists() else shutil.which('bids-validator-deno')


@pytest.mark.slow
def test_the_dataset_of_the_repository_comes_out_again(repository, tmp_path):
    made = _contents(write_phantom_dataset(tmp_path / 'ds-phantom'))
    kept = _contents(repository / 'data' / 'ds-phantom')
    assert sorted(made) == sorted(kept)
    assert [name for name in made if made[name] != kept[name]] == []


def test_the_dataset_of_the_repository_is_small(repository):
    files = [path for path in (repository / 'data' / 'ds-phantom').rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
