"""A session's measures, from the plan to the files and the figure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.bids.morphometry import measured_image, morphometry_paths
from tumsyn_bids.bids.tables import read_tsv
from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid
from tumsyn_bids.interfaces.morphometry import (
    DrawMorphometry,
    MeasureBrain,
    WriteAgreement,
    WriteMorphometry,
)
from tumsyn_bids.morphometry import segmentation as room
from tumsyn_bids.morphometry.refinement import Tissues
from tumsyn_bids.plan import Scan, SessionPlan, SynthesisTask, Target
from tumsyn_bids.settings import Settings
from tumsyn_bids.workflows.session import init_session_wf


def plan_of(folder: Path, contrast: str, *targets: str) -> SessionPlan:
    path = folder / 'raw' / f'sub-01_{contrast}.nii.gz'
    entities = {'subject': '01'}
    scan = Scan(str(path), Acquisition(contrast=contrast), entities, (30, 30, 30), (1, 1, 1))
    tasks = tuple(
        SynthesisTask(Target('', Acquisition(contrast=name)), scan.path, '', 'missing', '')
        for name in targets
    )
    return SessionPlan('01', None, (scan,), scan.path, '', tasks)


def test_acquired_t1w_goes_before_a_synthetic_one(tmp_path):
    assert measured_image(plan_of(tmp_path, 'T1w', 'T1w')).origin == 'acquired'
    synthetic = measured_image(plan_of(tmp_path, 'FLAIR', 'T2w', 'T1w'))
    assert (synthetic.origin, synthetic.task) == ('synthetic', 1)
    assert measured_image(plan_of(tmp_path, 'FLAIR', 'T2w')) is None


@pytest.mark.parametrize(
    ('plan', 'level', 'expected'),
    [
        (('T1w', 'T2w'), 'volumes', True),
        (('FLAIR', 'T1w'), 'volumes', True),
        (('FLAIR', 'T2w'), 'volumes', False),
        (('T1w', 'T2w'), 'none', False),
    ],
)
def test_sessions_are_measured_where_there_is_a_t1w(tmp_path, plan, level, expected):
    settings = Settings(tmp_path, tmp_path / 'out', tmp_path / 'work', morphometry=level)
    workflow = init_session_wf(plan=plan_of(tmp_path, *plan), settings=settings)
    nodes = workflow.list_node_names()
    assert ('morphometry_wf.measure' in nodes) is expected
    assert ('write_morphometry' in nodes) is expected


@pytest.fixture
def brain(tmp_path, monkeypatch):
    """Return the files of a box of brain; registration is replaced by its known labels."""
    numbers = np.zeros((30, 30, 30), np.int32)
    numbers[4:26, 4:26, 4:26] = 1035
    numbers[7:23, 7:23, 7:23] = 2
    gm, wm = ((numbers == number).astype(np.float32) for number in (1035, 2))
    grid = Grid(numbers.shape, np.eye(4))
    found = room.Segmentation(
        numbers,
        Tissues(gm, wm, (numbers == 0).astype(np.float32)),
        100 * wm + 60 * gm,
        numbers > 0,
        grid,
        np.eye(4),
        1.5e6,
    )
    monkeypatch.setattr(room, 'segment_brain', lambda *images, **options: found)
    monkeypatch.chdir(tmp_path)
    for name, data in {'t1w': found.brain, 'mask': (numbers > 0).astype(np.uint8)}.items():
        nb.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / f'{name}.nii')
    return tmp_path


def test_from_measures_to_files(brain):
    plan = plan_of(brain, 'FLAIR', 'T1w')
    measure = MeasureBrain(in_file=str(brain / 't1w.nii'), mask_file=str(brain / 'mask.nii'))
    found = measure.run().outputs
    assert any('Left-Hippocampus: not found' in note for note in found.warnings)
    common = {
        'plan': plan.to_json(),
        'bids_dir': str(brain / 'raw'),
        'output_dir': str(brain / 'out'),
        'brain_file': found.brain_file,
        'labels_file': found.labels_file,
        'measures_file': found.measures_file,
    }
    written = WriteMorphometry(
        in_file=str(brain / 't1w.nii'), warnings=found.warnings, **common
    ).run()
    assert [Path(name).name for name in written.outputs.out_files] == [
        'sub-01_space-individual_seg-aparcaseg_res-1mm_dseg.nii.gz',
        'sub-01_space-individual_seg-aparcaseg_res-1mm_dseg.tsv',
        'sub-01_seg-aparcaseg_morph.tsv',
    ]
    paths = morphometry_paths(plan)
    rows = {row['name']: row for row in read_tsv(brain / 'out' / paths.table)}
    assert float(rows['ctx-lh-insula']['volume-mm3']) == 22**3 - 16**3
    assert rows['Left-Hippocampus']['volume-mm3'] == 'n/a'
    assert rows['Left-Hippocampus']['flag'] == 'not found'
    assert {row['t1w'] for row in rows.values()} == {'synthetic'}
    sidecar = json.loads((brain / 'out' / paths.table.with_suffix('.json')).read_text())
    assert sidecar['Synthetic'] is True
    assert sidecar['volume-mm3']['Units'] == 'mm^3'
    drawn = DrawMorphometry(**common).run().outputs.figures[0]
    assert 'reason' not in drawn
    assert (brain / 'out' / drawn['path']).stat().st_size > 10_000
    cortex = next(row for row in drawn['table'] if row['structure'] == 'Cortex')
    assert cortex['left'] == f'{(22**3 - 16**3) / 1000:.4g}'


def test_a_brain_that_cannot_be_segmented_leaves_the_rest_alone(brain, monkeypatch):
    def refuse(*images, **options):
        raise ScanError('ANTs could not register the image')

    monkeypatch.setattr(room, 'segment_brain', refuse)
    measure = MeasureBrain(in_file=str(brain / 't1w.nii'), mask_file=str(brain / 'mask.nii'))
    found = measure.run().outputs
    assert [note for note in found.warnings if 'nothing was measured' in note]
    record = json.loads(Path(found.measures_file).read_text())
    assert {row['volume_mm3'] for row in record['structures']} == {None}
    sizes = {name: value for name, value in record['brain'].items() if value is not None}
    assert list(sizes) == ['Mask']
    assert not np.asarray(nb.load(found.labels_file).dataobj).any()


def test_full_measures_the_cortex_too(tmp_path):
    settings = Settings(tmp_path, tmp_path / 'out', tmp_path / 'work', morphometry='full')
    workflow = init_session_wf(plan=plan_of(tmp_path, 'T1w', 'T2w'), settings=settings)
    assert 'morphometry_wf.cortex' in workflow.list_node_names()


def validating_plan(folder: Path) -> SessionPlan:
    plan = plan_of(folder, 'T1w', 'T1w')
    task = dataclasses.replace(plan.tasks[0], purpose='validate')
    return dataclasses.replace(plan, tasks=(task,))


def test_both_t1w_images_are_measured_where_one_is_to_be_validated(tmp_path):
    settings = Settings(tmp_path, tmp_path / 'out', tmp_path / 'work', morphometry='volumes')
    nodes = init_session_wf(plan=validating_plan(tmp_path), settings=settings).list_node_names()
    assert 'morphometry_of_synthetic_wf.measure' in nodes
    assert 'write_agreement' in nodes
    plain = init_session_wf(plan=plan_of(tmp_path, 'T1w', 'T1w'), settings=settings)
    assert 'write_agreement' not in plain.list_node_names()


def test_agreement_of_synthetic_with_acquired(tmp_path):
    labels = np.zeros((20, 20, 20), np.int32)
    labels[4:8, 4:8, 4:8] = 17
    files = {}
    for kind, shift, volume in (('acquired', 0, 64.0), ('synthetic', 1, 70.0)):
        img = nb.Nifti1Image(np.roll(labels, shift, axis=0), np.eye(4))
        files[f'{kind}_labels'] = str(tmp_path / f'{kind}.nii')
        img.to_filename(files[f'{kind}_labels'])
        names = {17: 'Left-Hippocampus', 53: 'Right-Hippocampus'}
        rows = [
            {'number': number, 'name': name, 'volume_mm3': volume if number == 17 else None}
            for number, name in names.items()
        ]
        record = {'structures': rows, 'brain': {'Cortex': volume * 1000, 'BrainSegVol-to-eTIV': 1}}
        record['hemispheres'] = {'lh': {'thickness_mm': volume / 25}}
        files[f'{kind}_measures'] = str(tmp_path / f'{kind}.json')
        Path(files[f'{kind}_measures']).write_text(json.dumps(record))
    plan = validating_plan(tmp_path)
    out = WriteAgreement(
        plan=plan.to_json(),
        bids_dir=str(tmp_path / 'raw'),
        output_dir=str(tmp_path / 'out'),
        task=0,
        **files,
    ).run()
    assert Path(out.outputs.out_file).name == 'sub-01_desc-validation_morph.tsv'
    rows = {row['name']: row for row in read_tsv(out.outputs.out_file)}
    left = rows['Left-Hippocampus']
    assert left['dice'] == '0.7500'
    assert left['volume-difference-mm3'] == '6.0'
    assert rows['Right-Hippocampus']['volume-difference-mm3'] == 'n/a'
    assert rows['Right-Hippocampus']['dice'] == 'n/a'
    assert rows['Cortex']['volume-synthetic-mm3'] == '70000.0'
    assert rows['lhWhiteSurface']['thickness-difference-mm'] == '0.240'
    assert 'BrainSegVol-to-eTIV' not in rows


def test_freesurfer_measures_where_it_is_asked_for(tmp_path, monkeypatch):
    program = tmp_path / 'recon-all'
    program.write_text('#!/bin/sh\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    settings = Settings(
        tmp_path,
        tmp_path / 'out',
        tmp_path / 'work',
        morphometry='full',
        fs_subjects_dir=tmp_path / 'subjects',
        fs_recon=True,
    )
    workflow = init_session_wf(plan=validating_plan(tmp_path), settings=settings)
    nodes = workflow.list_node_names()
    assert 'morphometry_wf.cortex' not in nodes
    subjects = [
        workflow.get_node(f'{name}.recon').inputs.subject
        for name in ('morphometry_wf', 'morphometry_of_synthetic_wf')
    ]
    assert subjects == ['sub-01', 'sub-01_synthetic']
