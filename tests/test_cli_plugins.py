"""Nipype's plugins as the program uses them: deaths of processes, GPU slots, batch jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import networkx as nx
import pytest
from bids_builder import part_of
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits
from nipype.pipeline import engine as pe

from tumsyn_bids.cli import batch
from tumsyn_bids.cli.multiproc import IsolatedMultiProcPlugin
from tumsyn_bids.workflows.config import configure

ORIGIN = 'imported'  # a forked process would see what the test has made of it


class LookInputSpec(BaseInterfaceInputSpec):
    notes = traits.Str(mandatory=True)
    kill = traits.Bool(False, usedefault=True)
    use_cuda = traits.Bool(False, usedefault=True, nohash=True)


class LookOutputSpec(TraitedSpec):
    pid = traits.Int()


class Look(SimpleInterface):
    """Note in which process a step runs, and when; or be killed."""

    input_spec, output_spec = LookInputSpec, LookOutputSpec

    def _run_interface(self, runtime):
        note = {'pid': os.getpid(), 'gpu': os.environ.get('CUDA_VISIBLE_DEVICES')}
        note |= {'origin': ORIGIN, 'begun': time.time()}
        if self.inputs.kill:
            os.kill(os.getpid(), 9)
        time.sleep(0.2)
        with open(self.inputs.notes, 'w') as stream:
            json.dump({**note, 'ended': time.time()}, stream)
        self._results['pid'] = os.getpid()
        return runtime


@pytest.fixture
def look(tmp_path):
    """Return a function that runs steps side by side and returns their notes and crashes."""

    def run(steps, **arguments):
        workflow = pe.Workflow('tumsyn_wf', base_dir=str(tmp_path / 'work'))
        for name, inputs in steps.items():
            interface = Look(notes=str(tmp_path / f'{name}.json'), **inputs)
            workflow.add_nodes([pe.Node(interface, name=name)])
        configure(workflow, crash_dir=tmp_path / 'crashes')
        defaults = {'n_procs': 3, 'memory_gb': 8, 'gpus': (), 'n_threads': 1}
        plugin = IsolatedMultiProcPlugin({**defaults, 'log': tmp_path / 'log', **arguments})
        try:
            workflow.run(plugin=plugin)
        except Exception as error:  # noqa: BLE001 - what Nipype raises at the end of a bad run
            assert 'ended by signal 9' in str(error)  # noqa: PT017
        notes = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}
        return notes, [path.read_text() for path in (tmp_path / 'crashes').glob('*.txt')]

    return run


def test_a_killed_process_of_multiproc_is_named_and_the_others_go_on(look):
    steps = {'correct_bias': {'kill': True}, 'one': {}, 'two': {}, 'three': {}, 'four': {}}
    notes, (crash,) = look(steps)
    assert set(notes) == {'one', 'two', 'three', 'four'}
    assert 'while at "correct bias": its process ended by signal 9' in crash
    assert 'out of memory: raise --mem or lower --nprocs' in crash


def test_steps_on_a_gpu_take_turns_in_one_process_that_is_no_fork(look, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'ORIGIN', 'changed')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    steps = {f'net{n}': {'use_cuda': True} for n in range(3)} | {'n4': {}, 'reg': {}}
    notes, crashes = look(steps, gpus=('5',), n_gpu_procs=1)
    assert crashes == []
    assert {note['origin'] for note in notes.values()} == {'imported'}
    owners = [notes[f'net{n}'] for n in range(3)]
    assert len({note['pid'] for note in owners}) == 1
    assert {note['gpu'] for note in owners} == {'5'}
    owners.sort(key=lambda note: note['begun'])
    assert all(one['ended'] <= two['begun'] for one, two in pairwise(owners))
    others = [notes['n4'], notes['reg']]
    assert owners[0]['pid'] not in {note['pid'] for note in others}
    assert {note['gpu'] for note in others} == {None}


def test_two_gpus_have_two_owners(look):
    steps = {f'net{n}': {'use_cuda': True} for n in range(4)}
    notes, _ = look(steps, gpus=('2', '5'), n_gpu_procs=2, n_procs=4)
    owners = {(note['pid'], note['gpu']) for note in notes.values()}
    assert sorted(gpu for _pid, gpu in owners) == ['2', '5']


def test_the_network_runs_in_the_process_that_owns_the_gpu(phantom_dir, tiny_model, tmp_path):
    """With GPUs that are only said to be there; the network falls back to the processor."""
    from nipype.pipeline.engine.utils import load_resultfile

    dataset = part_of(phantom_dir, tmp_path / 'ds', 'sub-02')
    (tmp_path / 'targets.json').write_text('[{"name": "flat", "suffix": "T2w", "voxel_size": 4}]')
    args = [dataset, tmp_path / 'out', 'participant', '-w', tmp_path / 'work', '--nprocs', 2]
    args += ['--model', tiny_model, '--targets', tmp_path / 'targets.json', '--omp-nthreads', 1]
    args += ['--skull-strip', 'none']
    code = (
        'import sys; from tumsyn_bids.synthesis import synthesizer;'
        'synthesizer.count_devices = lambda: 2;'
        'from tumsyn_bids.cli.main import main; sys.exit(main(sys.argv[1:]))'
    )
    command = [sys.executable, '-c', code, *map(str, args)]
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': 'GPU-a,GPU-b'}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {
        path.stem.removeprefix('result_'): load_resultfile(str(path)).runtime.environ
        for path in (tmp_path / 'work').rglob('result_*.pklz')
    }
    gpus = {name: environ['CUDA_VISIBLE_DEVICES'] for name, environ in seen.items()}
    assert gpus.pop('synthesize') == 'GPU-a'
    assert set(gpus.values()) == {'GPU-a,GPU-b'}
    assert 'Executing "synthesize"' in next(tmp_path.glob('out/logs/2*/sub-02.log')).read_text()


class FakeSlurm:
    """Stands in for squeue, scontrol and scancel."""

    def __init__(self, queue='', jobs=''):
        self.queue, self.jobs, self.calls = queue, jobs, []

    def __call__(self, *command):
        self.calls.append(command)
        return {'squeue': self.queue, 'scontrol': self.jobs, 'scancel': ''}[command[0]]


@pytest.fixture
def slurm(monkeypatch):
    fake = FakeSlurm(queue='11 tumsyn-bids:now\n12 tumsyn-bids:other\n13 (null)\n')
    monkeypatch.setattr(batch, '_ask', fake)
    return fake


def test_the_queue_is_asked_once_for_all_jobs_and_trusted_only_when_it_answers(slurm):
    queue = batch.Queue('now')
    assert queue.waiting() == queue.waiting() == {11}
    assert len(slurm.calls) == 1
    slurm.queue = None  # the controller is busy
    queue.look_again()
    assert queue.waiting() == {11}


def test_interrupted_our_jobs_and_no_others_leave_the_queue(slurm):
    queue = batch.Queue('now')
    with pytest.raises(KeyboardInterrupt), queue.cancelled_if_interrupted():
        raise KeyboardInterrupt
    assert slurm.calls[-1] == ('scancel', '11')


@pytest.mark.parametrize(
    ('says', 'state', 'remedy'),
    [
        ('JobState=OUT_OF_MEMORY ExitCode=0:125', 'OUT_OF_MEMORY', 'Raise --mem'),
        ('JobState=FAILED ExitCode=137:0', 'KILLED', 'most likely out of memory'),
        ('JobState=FAILED ExitCode=0:9', 'KILLED', 'most likely out of memory'),
        ('JobState=TIMEOUT ExitCode=0:15', 'TIMEOUT', 'Raise --time'),
        ('JobState=CANCELLED ExitCode=0:15', 'CANCELLED', 'same command again'),
    ],
)
def test_a_lost_job_is_told_with_its_state_and_a_remedy(slurm, says, state, remedy):
    slurm.jobs = f'JobId=11 JobName=j0_x {says} Comment=tumsyn-bids:now\nJobId=12 {says}\n'
    states = batch.Queue('now').states()
    assert states == {'11': state, 'j0_x': state}
    node = SimpleNamespace(
        fullname='tumsyn_wf.sub_01_wf.brain_wf.extract_brain',
        base_dir='/work',
        _hierarchy='tumsyn_wf.sub_01_wf.brain_wf',
    )
    text = str(batch.lost_job(node, state))
    assert '/work/tumsyn_wf/batch' in text
    assert (
        f'while at "brain: extract brain": its batch job ended without a result ({state})' in text
    )
    assert remedy in text


@pytest.mark.parametrize(
    ('given', 'gpu', 'there', 'absent'),
    [
        ('', False, ['--cpus-per-task=2', '--mem=3072M', '--output='], ['--gres']),
        ('-c 8 --mem-per-cpu=4G', False, ['-c 8'], ['--cpus-per-task', '--mem=']),
        ('-o x', True, ['--gres=gpu:1'], ['--output']),
        ('--gpus=2', True, ['--gpus=2'], ['--gres']),
    ],
)
def test_batch_jobs_ask_for_what_their_steps_declare(given, gpu, there, absent, tmp_path):
    node = pe.Node(Look(use_cuda=True), name='net', n_procs=2, mem_gb=3, base_dir=str(tmp_path))
    node._hierarchy = 'tumsyn_wf.sub_01_wf'
    graph = nx.DiGraph()
    graph.add_node(node)
    batch.prepare(graph, batch.Queue('now'), given=given, gpu=gpu)
    words = node.plugin_args['sbatch_args']
    assert '--comment=tumsyn-bids:now' in words
    assert all(text in words for text in there)
    assert not any(text in words for text in absent)
