"""The recipes in ``workflows/`` keep up with the package."""

from __future__ import annotations

import importlib.util
import os
import subprocess

from tumsyn_bids.cli.tools import build_parser


def test_builders_can_be_embedded_in_another_workflow(repository, tmp_path):
    spec = importlib.util.spec_from_file_location(
        'embed_in_nipype', repository / 'workflows' / 'embed_in_nipype.py'
    )
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    workflow = recipe.build(str(tmp_path / 'scan.nii.gz'), 'FLAIR', 'T1w', str(tmp_path))
    order = [node.name for node in workflow._create_flat_graph().nodes()]
    assert {'sanitize', 'correct_bias', 'extract_brain', 'synthesize'} <= set(order)
    (synthesize,) = [n for n in workflow._get_all_nodes() if n.name == 'synthesize']
    assert 'Modality: T1w' in synthesize.inputs.prompts[0]


def test_docker_recipe_mounts_what_it_was_given(repository, tmp_path):
    fake = tmp_path / 'bin' / 'docker'
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    bids = tmp_path / 'my bids'
    bids.mkdir()
    command = [
        'bash',
        repository / 'workflows' / 'run_docker.sh',
        bids,
        'out',
        'work',
        '--dry-run',
    ]
    env = {**os.environ, 'PATH': f'{fake.parent}:{os.environ["PATH"]}'}
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    arguments = done.stdout.splitlines()
    assert f'{bids}:/data:ro' in arguments
    assert f'{tmp_path / "out"}:/out' in arguments
    assert arguments[-6:] == ['/data', '/out', 'participant', '-w', '/work', '--dry-run']
    assert (tmp_path / 'work').is_dir()


def test_docker_recipe_explains_itself(repository):
    done = subprocess.run(
        ['bash', repository / 'workflows' / 'run_docker.sh'], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert 'BIDS_DIR OUTPUT_DIR WORK_DIR' in done.stderr


def test_training_recipe_asks_for_the_processes_of_the_job(repository, tmp_path):
    fake = tmp_path / 'bin' / 'srun'
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    env = {
        **os.environ,
        'PATH': f'{fake.parent}:{os.environ["PATH"]}',
        'SLURM_NNODES': '2',
        'SLURM_NTASKS_PER_NODE': '4',
    }
    recipe = repository / 'workflows' / 'slurm' / 'train.sh'
    command = ['bash', recipe, 'text-image', 'out', '--labelmaps', 'maps']
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    program, *arguments = done.stdout.split()
    assert program == 'tumsyn'
    args = build_parser().parse_args(arguments)
    assert (args.nodes, args.devices, args.accelerator) == (2, 4, 'cuda')
    assert subprocess.run(['bash', recipe], capture_output=True).returncode == 2
