"""FreeSurfer's programs in place of our own measures; stand-ins on the PATH write its files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.errors import UsageError
from tumsyn_bids.interfaces.freesurfer import ReconBrain, find_program
from tumsyn_bids.morphometry.labels import structures
from tumsyn_bids.morphometry.tables import morph_rows
from tumsyn_bids.settings import Settings

ASEG = """\
# Title Segmentation Statistics
# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1150000.000000, mm^3
# Measure lhCortex, lhCortexVol, Left hemisphere cortical gray matter volume, 231000.0, mm^3
# Measure Cortex, CortexVol, Total cortical gray matter volume, 462000.000000, mm^3
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1500000.0, mm^3
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax
  1   4  7012  7102.5  Left-Lateral-Ventricle  30.1 12.2 10.0 80.0
  2  10  7512  7600.5  Left-Thalamus           85.1  9.2 40.0 110.0
  3  17  4012  4100.5  Left-Hippocampus        70.1  9.2 40.0 110.0
"""
APARC = """\
# hemi lh
# Measure Cortex, NumVert, Number of Vertices, 120000, unitless
# Measure Cortex, WhiteSurfArea, White Surface Total Area, 85000.5, mm^2
# Measure Cortex, MeanThickness, Mean Thickness, 2.45000, mm
# Measure Cortex, CortexVol Total cortical gray matter volume, 462000.0, mm^3
# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv
bankssts  1500  1010  2500  2.512  0.400  0.110  0.022
insula    3300  2200  6800  2.987  0.800  0.120  0.042
"""
SYNTHSEG = 'subject,total intracranial,left hippocampus,left thalamus,ctx-lh-insula\n'
SYNTHSEG += 't1w.nii,1490000.5,4011.5,7411.25,6511.5\n'

#: Each writes what the real program writes, and its arguments into ``called``.
STUBS = {
    'recon-all': """\
while [ $# -gt 0 ]; do case $1 in -subjid|-s) id=$2;; -sd) sd=$2;; esac; shift; done
mkdir -p $sd/$id/stats $sd/$id/mri $sd/$id/scripts
cp $HERE/aseg.stats $sd/$id/stats/aseg.stats
cp $HERE/lh.aparc.stats $sd/$id/stats/lh.aparc.stats
cp $HERE/labels.mgz $sd/$id/mri/aparc+aseg.mgz
""",
    'recon-all-clinical.sh': """\
mkdir -p $4/$2/stats
cp $HERE/vol.csv $4/$2/stats/synthseg.vol.csv
cp $HERE/lh.aparc.stats $4/$2/stats/lh.aparc.stats
""",
    'mri_synthseg': """\
while [ $# -gt 0 ]; do case $1 in --vol) vol=$2;; --o) out=$2;; esac; shift; done
cp $HERE/vol.csv "$vol"; cp $HERE/labels.mgz "$out"
""",
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a folder that is first on the PATH, with what the stand-ins copy."""
    here = tmp_path / 'bin'
    here.mkdir()
    for name, text in {'aseg.stats': ASEG, 'lh.aparc.stats': APARC, 'vol.csv': SYNTHSEG}.items():
        (here / name).write_text(text)
    labels = np.zeros((10, 10, 10), np.int32)
    labels[2:5], labels[7:9] = 17, 9999
    nb.MGHImage(labels, np.eye(4)).to_filename(here / 'labels.mgz')
    monkeypatch.setenv('PATH', f'{here}:/usr/bin:/bin')
    monkeypatch.setenv('HERE', str(here))
    monkeypatch.chdir(tmp_path)
    return here


def install(path: Path, name: str, text: str | None = None) -> None:
    called = 'echo "$@" > $HERE/called\n'
    (path / name).write_text('#!/bin/bash\nset -e\n' + called + (text or STUBS[name]))
    (path / name).chmod(0o755)


def recon(tmp_path: Path, program: str):
    """Run the step; return its outputs and its record."""
    names = ('BrainSeg', 'lhCortex', 'Cortex', 'EstimatedTotalIntraCranialVol')
    rows = [
        {'number': number, 'name': item.name, 'hemisphere': item.hemisphere, 'voxels': 5}
        | {'volume_mm3': 1.0, 'flag': '', 'mean': 1.0, 'sd': 1.0, 'low': 1.0, 'high': 1.0}
        for number, item in sorted(structures().items())
    ]
    own = {'structures': rows, 'brain': dict.fromkeys(names, 2.0), 'affine': np.eye(4).tolist()}
    (tmp_path / 'own.json').write_text(json.dumps(own))
    for name, kind in {'t1w': np.float32, 'labels': np.int32}.items():
        img = nb.Nifti1Image(np.ones((10, 10, 10), kind), np.eye(4))
        img.to_filename(tmp_path / f'{name}.nii')
    outputs = (
        ReconBrain(
            in_file=str(tmp_path / 't1w.nii'),
            program=program,
            subject='sub-01',
            subjects_dir=str(tmp_path / 'subjects'),
            labels_file=str(tmp_path / 'labels.nii'),
            measures_file=str(tmp_path / 'own.json'),
            warnings=['about our own'],
        )
        .run()
        .outputs
    )
    return outputs, json.loads(Path(outputs.measures_file).read_text())


def test_the_best_program_is_taken(path):
    assert find_program() is None
    install(path, 'mri_synthseg')
    assert find_program() == 'mri_synthseg'
    install(path, 'recon-all')
    assert find_program() == 'recon-all'


def test_tables_of_recon_all_are_taken(path, tmp_path):
    install(path, 'recon-all')
    outputs, record = recon(tmp_path, 'recon-all')
    rows = {row['name']: row for row in morph_rows(record)}
    assert rows['Left-Hippocampus']['volume-mm3'] == '4100.5'
    assert rows['Left-Thalamus-Proper']['volume-mm3'] == '7600.5'
    assert rows['ctx-lh-insula']['thickness-avg-mm'] == '2.987'
    assert rows['ctx-lh-insula']['area-mm2'] == '2200.0'
    assert rows['Cortex']['volume-mm3'] == '462000.0'
    assert rows['lhWhiteSurface']['thickness-avg-mm'] == '2.450'
    # What FreeSurfer did not find is unknown, never our own number and never 0.
    assert rows['Right-Hippocampus']['volume-mm3'] is None
    assert rows['Right-Hippocampus']['flag'] == 'not found'
    assert {row['software'] for row in rows.values()} == {'FreeSurfer recon-all'}
    assert outputs.warnings == []
    labels = np.asarray(nb.load(outputs.labels_file).dataobj)
    assert set(np.unique(labels)) == {0, 17}
    assert '-all' in (path / 'called').read_text().split()


def test_tables_of_recon_all_clinical_are_taken(path, tmp_path):
    install(path, 'recon-all-clinical.sh')
    outputs, record = recon(tmp_path, 'recon-all-clinical.sh')
    rows = {row['name']: row for row in morph_rows(record)}
    assert rows['Left-Hippocampus']['volume-mm3'] == '4011.5'
    assert rows['ctx-lh-insula']['thickness-avg-mm'] == '2.987'
    assert rows['EstimatedTotalIntraCranialVol']['volume-mm3'] == '1490000.5'
    assert rows['BrainSeg']['volume-mm3'] is None
    assert outputs.labels_file == str(tmp_path / 'labels.nii')


def test_tables_of_synthseg_are_taken(path, tmp_path):
    install(path, 'mri_synthseg')
    _, record = recon(tmp_path, 'mri_synthseg')
    rows = {row['name']: row for row in morph_rows(record)}
    assert rows['Left-Thalamus-Proper']['volume-mm3'] == '7411.2'
    assert rows['ctx-lh-insula']['volume-mm3'] == '6511.5'
    assert rows['ctx-lh-insula']['thickness-avg-mm'] is None
    assert not (tmp_path / 'subjects' / 'sub-01').exists()


@pytest.mark.parametrize('text', ['exit 3', 'true'])
def test_a_program_that_fails_leaves_our_own_measures(path, tmp_path, text):
    install(path, 'recon-all-clinical.sh', text)
    outputs, record = recon(tmp_path, 'recon-all-clinical.sh')
    assert record['brain']['BrainSeg'] == 2.0
    assert {row['software'] for row in morph_rows(record)} == {'tumsyn-bids'}
    assert outputs.warnings[0] == 'about our own'
    assert 'recon-all-clinical.sh failed' in outputs.warnings[1]


def test_asking_for_freesurfer_where_there_is_none_is_refused(path, tmp_path):
    from tumsyn_bids.cli.checks import _check_morphometry

    settings = Settings(
        tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work', morphometry='volumes', fs_recon=True
    )
    with pytest.raises(UsageError, match='Add --fs-subjects-dir'):
        _check_morphometry(settings, dry_run=True)
    with_folder = settings.replace(fs_subjects_dir=tmp_path / 'subjects')
    with pytest.raises(UsageError, match='none of recon-all'):
        _check_morphometry(with_folder, dry_run=True)
    install(path, 'recon-all')
    _check_morphometry(with_folder, dry_run=True)
