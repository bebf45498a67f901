"""Every builder keeps the same contract; sessions are wired from their plans without gaps."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from copy import deepcopy
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline.engine.utils import generate_expanded_graph

import tumsyn_bids.workflows as room
from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.plan import Scan, SessionPlan, SynthesisTask, Target
from tumsyn_bids.settings import Settings
from tumsyn_bids.workflows.config import configure
from tumsyn_bids.workflows.session import init_session_wf, init_tumsyn_wf, session_name


def task(contrast, source, purpose='missing', name=''):
    target = Target(name, Acquisition(contrast=contrast, voxel_size=(1.0, 1.0, 1.0)))
    return SynthesisTask(target, source, f'Modality: {contrast}', purpose, 'it is there')


@pytest.fixture
def make_plan(tmp_path):
    """Return a function that plans a session with these contrasts; files exist."""

    def plan(*contrasts, missing=(), validate=False, session='1'):
        scans = []
        for contrast in contrasts:
            path = tmp_path / f'sub-01_ses-{session}_{contrast}.nii.gz'
            nb.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_filename(path)
            entities = {'subject': '01', 'session': session}
            acq = Acquisition(contrast=contrast)
            scans.append(Scan(str(path), acq, entities, (3, 3, 3), (1, 1, 1)))
        first, last = scans[0].path, scans[-1].path
        tasks = [task(contrast, first) for contrast in missing]
        if validate:
            tasks += [task(contrasts[0], last, 'validate', 'v')]
            tasks += [task(contrast, first, 'validate', 'v') for contrast in contrasts[1:]]
        return SessionPlan('01', session, tuple(scans), first, 'first', tuple(tasks))

    return plan


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, tmp_path / 'out', tmp_path / 'work', omp_nthreads=2)


def builders():
    found = {}
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):
        for name, item in inspect.getmembers(importlib.import_module(module.name)):
            if re.fullmatch('init_.*_wf', name) and inspect.isfunction(item):
                found[name] = item
    return found


def build(name, builder, plan, settings):
    """Call a builder with what it needs and nothing more."""
    possible = {
        'contrast': 'T1w',
        'tasks': plan.tasks,
        'source': plan.scans[0].acquisition,
        'index': 0,
        'plan': plan,
        'plans': [plan],
        'settings': settings,
    }
    parameters = inspect.signature(builder).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    return builder(**{parameter: possible[parameter] for parameter in needed})


@pytest.mark.parametrize(('name', 'builder'), builders().items(), ids=builders())
class TestEveryBuilder:
    def test_takes_keywords_only(self, name, builder):
        kinds = {p.kind for p in inspect.signature(builder).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}

    def test_is_documented(self, name, builder):
        documentation = inspect.getdoc(builder)
        for parameter in inspect.signature(builder).parameters:
            assert re.search(rf'\b{parameter}\b', documentation), parameter

    def test_ends_are_in_the_documentation(self, name, builder, make_plan, settings):
        workflow = build(name, builder, make_plan('T1w', missing=['T2w']), settings)
        documentation = inspect.getdoc(builder)
        for end in ('inputnode', 'outputnode'):
            node = workflow.get_node(end)
            if node is None:
                continue
            section = documentation.split(f'{end[:-4].capitalize()}s\n---')[1].split('\n---')[0]
            for field in node.outputs.copyable_trait_names():
                assert re.search(rf'\b{field}\b', section), field

    def test_is_named_after_its_builder(self, name, builder, make_plan, settings):
        plan = make_plan('T1w', missing=['T2w'])
        expected = session_name(plan) if name == 'init_session_wf' else name.removeprefix('init_')
        assert build(name, builder, plan, settings).name == expected

    def test_every_node_states_its_needs(self, name, builder, make_plan, settings):
        workflow = build(name, builder, make_plan('T1w', missing=['T2w']), settings)
        for full_name in workflow.list_node_names():
            node = workflow.get_node(full_name)
            assert 0 < node.mem_gb <= 8
            assert node.n_procs <= 2


def expanded(workflow):
    return generate_expanded_graph(deepcopy(workflow._create_flat_graph()))


def open_inputs(graph):
    """Return the mandatory inputs that are neither set nor connected."""
    gaps = []
    for node in graph.nodes():
        connected = {
            field for _, _, data in graph.in_edges(node, data=True) for _, field in data['connect']
        }
        for name in node.inputs.traits(mandatory=True):
            if name not in connected and not isdefined(getattr(node.inputs, name)):
                gaps.append(f'{node.fullname}.{name}')
    return gaps


@pytest.mark.parametrize(
    ('contrasts', 'missing', 'validate'),
    [
        (['FLAIR'], ['T1w', 'T2w'], False),
        (['T1w'], [], False),
        (['T1w', 'T2w'], ['FLAIR'], False),
        (['T1w', 'T2w', 'FLAIR'], [], True),
        (['T1w', 'FLAIR'], ['T2w', 'PDw'], True),
        (['T1w', 'T1w'], ['T2w'], False),
    ],
)
def test_sessions_of_all_shapes_have_no_open_ends(
    make_plan, settings, contrasts, missing, validate
):
    plan = make_plan(*contrasts, missing=missing, validate=validate)
    graph = expanded(init_session_wf(plan=plan, settings=settings))
    assert open_inputs(graph) == []
    assert len(graph.nodes()) <= 13 + 10 * len(contrasts) + 3 * len(plan.tasks)


@pytest.mark.parametrize('coreg', ['rigid', 'affine', 'syn'])
def test_tissues_and_standard_spaces_have_no_open_ends(make_plan, settings, coreg):
    plan = make_plan('T2w', 'FLAIR', missing=['T1w'])
    spaces = (
        'MNI152NLin2009cAsym:res-2',
        'MNI152NLin2009cAsym:res-native',
        'MNI152NLin6Asym:res-1',
    )
    asked = settings.replace(tissues=True, output_spaces=spaces, coreg=coreg)
    graph = expanded(init_session_wf(plan=plan, settings=asked))
    assert open_inputs(graph) == []
    names = [node.name for node in graph.nodes()]
    # Mask, two scans and one synthetic image in each space; one registration for each average.
    assert sum('native' in name for name in names if name.startswith('write_MNI')) == 4
    assert sum(name.startswith('write_MNI') for name in names) == 12
    assert names.count('normalize') == 2
    (segment,) = [node for node in graph.nodes() if node.name == 'segment']
    sources = {edge[0].name for edge in graph.in_edges(segment)}
    assert 'synthesize' in sources


def test_each_source_is_encoded_once(make_plan, settings):
    plan = make_plan('T1w', 'T2w', missing=['FLAIR', 'PDw'], validate=True)
    graph = expanded(init_session_wf(plan=plan, settings=settings))
    nodes = [node for node in graph.nodes() if node.name == 'synthesize']
    assert sorted(len(node.inputs.prompts) for node in nodes) == [1, 3]


def test_the_reference_is_neither_registered_nor_resampled(make_plan, settings):
    plan = make_plan('T2w', 'FLAIR', missing=['T1w'])
    names = init_session_wf(plan=plan, settings=settings).list_node_names()
    assert 'coreg_FLAIR_wf.register' in names
    assert not [name for name in names if 'coreg_T2w' in name]


def test_another_model_is_another_step(make_plan, settings):
    plan = make_plan('T1w', missing=['T2w'])

    def digest(sha256):
        workflow = init_session_wf(plan=plan, settings=settings, model_sha256=sha256)
        node = workflow.get_node('synthesis_from_T1w_wf.synthesize')
        return node.inputs.get_hashval()[1]

    assert digest('a') != digest('b')


def test_device_and_threads_do_not_change_the_steps(make_plan, settings):
    plan = make_plan('T1w', missing=['T2w'])

    def digest(settings):
        node = init_session_wf(plan=plan, settings=settings).get_node(
            'synthesis_from_T1w_wf.synthesize'
        )
        return node.inputs.get_hashval()[1]

    assert digest(settings) == digest(settings.replace(device='cpu', omp_nthreads=1))


def test_synthesis_keeps_all_threads_to_itself(make_plan, settings):
    workflow = init_session_wf(plan=make_plan('T1w', missing=['T2w']), settings=settings)
    assert workflow.get_node('synthesis_from_T1w_wf.synthesize').n_procs == 2


def test_methods_are_told_once(make_plan, settings):
    plan = make_plan('T1w', 'T2w', 'FLAIR', missing=['PDw'], validate=True)
    text = init_session_wf(plan=plan, settings=settings).visit_desc()
    assert text.count('N4') == 1
    assert text.count('TUMSyn') == 1
    assert 'not measurements' in text


def test_labels_with_a_plus_sign_have_folders_of_their_own(make_plan):
    plan = make_plan('T1w', missing=['T2w'])
    labels = [('A', 'B'), ('A+ses', 'B'), ('A+ses+B', None), ('AB', None), ('A+B', None)]
    plans = [replace(plan, subject=subject, session=session) for subject, session in labels]
    names = {session_name(plan) for plan in plans}
    assert len(names) == len(plans)
    assert all(name.isidentifier() for name in names)


def test_many_sessions_in_one_graph(make_plan, settings):
    plans = [make_plan('T1w', missing=['T2w'], session=label) for label in ('1', '2')]
    graph = expanded(init_tumsyn_wf(plans=plans, settings=settings))
    assert open_inputs(graph) == []
    sessions = {node.fullname.split('.')[1] for node in graph.nodes()}
    assert sessions == {'sub_01_ses_1_wf', 'sub_01_ses_2_wf'}


def test_settings_of_nipype_stay_with_the_workflow(make_plan, settings, tmp_path):
    from nipype import config

    before = config.get('execution', 'hash_method')
    workflow = init_session_wf(plan=make_plan('T1w', missing=['T2w']), settings=settings)
    configure(workflow, crash_dir=tmp_path / 'crashes')
    assert config.get('execution', 'hash_method') == before
    node = workflow.get_node('preproc_T1w_wf.correct_bias')
    assert node.config['execution']['crashdump_dir'] == str(tmp_path / 'crashes')
    assert node.config['execution']['crashfile_format'] == 'txt'
