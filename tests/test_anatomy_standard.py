"""Standard spaces and tissues, against the truth of the phantom; spaces without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.anatomy.averages import embedded_average, embedded_grid
from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.conversion import write_itk
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.anatomy.standard import carry, normalize_brain, volume_change
from tumsyn_bids.anatomy.tissues import map_tissues
from tumsyn_bids.bids.spaces import StandardSpace, standard_path
from tumsyn_bids.cli.environment import prepare_environment
from tumsyn_bids.errors import UsageError
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.interfaces.standard import check_space
from tumsyn_bids.verdicts import worst

WHITE, CORTEX = (2, 41), 1000


@pytest.fixture(scope='module')
def person(repository):
    """T1w of a person of the phantom, brain mask, true labels."""
    dataset = repository / 'data' / 'ds-phantom'
    truth = dataset / 'derivatives' / 'truth' / 'sub-01' / 'anat' / 'sub-01_space-individual_desc-'
    t1w = correct_bias(sanitize(dataset / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz').img)
    return t1w, nb.load(f'{truth}brain_mask.nii.gz'), nb.load(f'{truth}truth_dseg.nii.gz')


@pytest.fixture(scope='module')
def normalized(person, tmp_path_factory):
    t1w, mask, _ = person
    folder = tmp_path_factory.mktemp('normalized')
    return normalize_brain(t1w, mask, *embedded_average(), folder, threads=1, zoom=3.0)


def dice(ours, theirs):
    return 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())


def test_a_brain_lies_on_the_average(person, normalized):
    t1w, mask, _ = person
    average, average_mask = embedded_average()
    grid = Grid.of(average).with_zooms((3, 3, 3))
    there = np.asarray(carry(mask, [normalized.forward], grid, interpolation='linear').dataobj)
    expected = resample(average_mask, grid) > 0.5
    assert dice(there > 0.5, expected) > 0.95
    brain = np.asarray(carry(t1w, [normalized.forward], grid).dataobj)
    wanted = resample(average, grid)
    inside = expected & (there > 0.5)
    assert np.corrcoef(brain[inside], wanted[inside])[0, 1] > 0.8
    assert worst(check.result for check in normalized.checks) == 'pass', normalized.checks


def test_there_and_back_is_where_it_began(person, normalized):
    _, mask, _ = person
    grid = Grid.of(mask).canonical().with_zooms((3, 3, 3))
    chain = [normalized.inverse, normalized.forward]
    back = np.asarray(carry(mask, chain, grid, interpolation='linear').dataobj) > 0.5
    begun = resample(nb.Nifti1Image(mask.get_fdata(dtype=np.float32), mask.affine), grid) > 0.5
    assert dice(back, begun) > 0.98


def test_change_of_volume_of_a_known_transform(tmp_path):
    grid = Grid((12, 10, 9), np.diag([3.0, 3, 3, 1]))
    scale = write_itk(np.diag([1.2, 1.0, 0.9, 1]), tmp_path / 'scale.txt')
    np.testing.assert_allclose(volume_change([scale], grid), 1.2 * 0.9, rtol=1e-3)
    mirror = write_itk(np.diag([-1.0, 1, 1, 1]), tmp_path / 'mirror.txt')
    assert (volume_change([mirror], grid) < 0).all()


def test_tissues_are_the_true_ones(person):
    t1w, mask, labels = person
    found = map_tissues(t1w, mask, threads=1, zoom=2.0)
    total = found.tissues.gm + found.tissues.wm + found.tissues.csf
    inside = found.labels > 0
    np.testing.assert_allclose(total[inside], 1, atol=0.02)
    truth = np.rint(resample(labels, found.grid, order=0)).astype(int)
    grey = (truth >= CORTEX) | np.isin(truth, (3, 42))
    white = np.isin(truth, WHITE)
    cerebrum = grey | white
    assert dice((found.labels == 2) & cerebrum, white) > 0.85
    assert dice((found.labels == 1) & cerebrum, grey) > 0.8  # cortex of one or two voxels


def test_grids_of_the_embedded_space():
    np.testing.assert_allclose(embedded_grid('1').affine, embedded_average()[0].affine)
    assert embedded_grid('1').shape == embedded_average()[0].shape
    assert embedded_grid('2').shape == (97, 115, 97)


@pytest.mark.parametrize(
    ('words', 'name'),
    [
        ('MNI152NLin2009cAsym:res-2', 'sub-1_space-MNI152NLin2009cAsym_res-2_desc-synth_T2w'),
        (
            'MNIPediatricAsym:cohort-3:res-native',
            'sub-1_space-MNIPediatricAsym_cohort-3_res-1mm_desc-synth_T2w',
        ),
    ],
)
def test_names_in_standard_spaces(words, name):
    space = StandardSpace.of(words)
    assert space.words == words
    image = Path('sub-1/anat/sub-1_space-individual_res-1mm_desc-synth_T2w.nii.gz')
    assert standard_path(image, space).name == f'{name}.nii.gz'


def test_a_resolution_that_the_embedded_space_lacks_is_refused():
    with pytest.raises(UsageError, match='no resolution 9'):
        check_space(StandardSpace('MNI152NLin2009cAsym', resolution='9'))
    check_space(StandardSpace('MNI152NLin2009cAsym'))


def test_templates_that_the_user_has_already_are_found(tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    monkeypatch.setenv('XDG_CACHE_HOME', str(cache))
    for name in ('MPLCONFIGDIR', 'NIPYPE_CONFIG_DIR', 'TEMPLATEFLOW_AUTOUPDATE'):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv('TEMPLATEFLOW_HOME', '/chosen')
    prepare_environment(tmp_path / 'work')
    assert os.environ['TEMPLATEFLOW_HOME'] == '/chosen'
    monkeypatch.delenv('TEMPLATEFLOW_HOME')
    prepare_environment(tmp_path / 'work')
    assert os.environ['TEMPLATEFLOW_HOME'] == str(tmp_path / 'work' / 'caches' / 'templateflow')
    monkeypatch.delenv('TEMPLATEFLOW_HOME')
    (cache / 'templateflow' / 'tpl-MNI152NLin6Asym').mkdir(parents=True)
    prepare_environment(tmp_path / 'work')
    assert os.environ['TEMPLATEFLOW_HOME'] == str(cache / 'templateflow')


def in_its_own_process(code, home, **variables):
    """Run code without a network and with a home that cannot be written to."""
    nowhere = 'http://127.0.0.1:9'
    env = {**os.environ, 'HOME': '/nonexistent', 'http_proxy': nowhere, 'https_proxy': nowhere}
    env = {**env, 'TEMPLATEFLOW_HOME': str(home), 'TEMPLATEFLOW_AUTOUPDATE': 'off', **variables}
    env.pop('XDG_CACHE_HOME', None)
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=env, timeout=300
    )


def test_words_are_read_without_network_and_home(tmp_path):
    code = """
from tumsyn_bids.bids.spaces import parse_spaces
words = ['MNI152NLin2009cAsym:res-2', 'individual', 'MNIPediatricAsym:cohort-1', 'MNI152NLin6Asym']
print(*(space.words for space in parse_spaces(words)))
for wrong in ('fsaverage', 'NoSuchSpace', 'func'):
    try:
        parse_spaces([wrong])
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = in_its_own_process(code, tmp_path / 'templateflow')
    assert done.returncode == 0, done.stderr
    first, *refused = done.stdout.splitlines()
    assert first == (
        'MNI152NLin2009cAsym:res-2 MNIPediatricAsym:cohort-1:res-native MNI152NLin6Asym:res-native'
    )
    assert len(refused) == 3
    assert all(line.startswith('UsageError --output-spaces') for line in refused), refused


def test_a_template_that_is_not_here_is_refused_with_a_remedy(tmp_path):
    code = """
from tumsyn_bids.bids.spaces import parse_spaces
from tumsyn_bids.interfaces.standard import check_space
for space in parse_spaces(['MNI152NLin6Asym:res-2']):
    check_space(space)
"""
    home = tmp_path / 'templateflow'
    done = in_its_own_process(code, home)
    last = done.stderr.splitlines()[-1]
    assert 'UsageError' in last
    assert str(home) in last
    assert 'set TEMPLATEFLOW_HOME to a folder and run `python -c "from templateflow' in last
    assert "api.get('MNI152NLin6Asym')" in last


def test_a_populated_templateflow_is_used(tmp_path):
    folder = tmp_path / 'templateflow' / 'tpl-MNI152NLin6Asym'
    folder.mkdir(parents=True)
    names = ('res-01_T1w', 'res-01_desc-brain_mask', 'res-01_desc-brain_T1w', 'res-02_T1w')
    for value, name in enumerate(names):
        img = nb.Nifti1Image(np.full((5, 5, 5), value, np.uint8), np.eye(4))
        img.to_filename(folder / f'tpl-MNI152NLin6Asym_{name}.nii.gz')
    code = """
from tumsyn_bids.bids.spaces import StandardSpace, average_files, grid_file
space = StandardSpace('MNI152NLin6Asym', resolution='2')
print(*(path.name for path in (*average_files(space), grid_file(space))))
from tumsyn_bids.interfaces.standard import average_brain, check_space
check_space(space)
print(*(int(img.get_fdata().mean()) for img in average_brain(space.words)))
"""
    done = in_its_own_process(code, tmp_path / 'templateflow')
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        'tpl-MNI152NLin6Asym_res-01_T1w.nii.gz',
        'tpl-MNI152NLin6Asym_res-01_desc-brain_mask.nii.gz',
        'tpl-MNI152NLin6Asym_res-02_T1w.nii.gz',
        *('0', '1'),  # what the images hold: the average is the head, its mask the brain's
    ]
