"""Limits of control groups, batch systems and affinity are respected."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tumsyn_bids.resources import available_cpus, available_gpus, available_memory_gb

GIB = 1024**3


def write_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path):
    """Return a function that lays out a fake /sys/fs/cgroup and /proc/self/cgroup."""

    def lay_out(proc, files):
        write_tree(tmp_path / 'cgroup', files)
        (tmp_path / 'proc').write_text(proc)
        return {'cgroup_root': tmp_path / 'cgroup', 'proc_cgroup': tmp_path / 'proc'}

    return lay_out


def test_memory_without_limits_is_the_host(machine):
    where = machine('0::/\n', {'memory.max': 'max\n'})
    assert available_memory_gb(env={}, host_bytes=64 * GIB, **where) == 64


def test_memory_cgroup_v2_parent_is_tighter_than_child(machine):
    where = machine(
        '0::/slurm/job1\n',
        {'slurm/memory.max': f'{8 * GIB}\n', 'slurm/job1/memory.max': f'{12 * GIB}\n'},
    )
    assert available_memory_gb(env={}, host_bytes=64 * GIB, **where) == 8


def test_memory_cgroup_v1_and_its_no_limit(machine):
    where = machine(
        '4:memory:/docker/abc\n1:cpu:/\n',
        {
            'memory/docker/abc/memory.limit_in_bytes': f'{4 * GIB}\n',
            'memory/memory.limit_in_bytes': '9223372036854771712\n',
        },
    )
    assert available_memory_gb(env={}, host_bytes=64 * GIB, **where) == 4


def test_memory_in_a_container_whose_proc_names_the_host_path(machine):
    where = machine('0::/system.slice/docker-abc\n', {'memory.max': f'{3 * GIB}\n'})
    assert available_memory_gb(env={}, host_bytes=64 * GIB, **where) == 3


@pytest.mark.parametrize(
    ('env', 'expected'),
    [
        ({'SLURM_MEM_PER_NODE': '16384'}, 16),
        ({'SLURM_MEM_PER_NODE': '0'}, 64),
        ({'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_ON_NODE': '4'}, 8),
        ({'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_PER_TASK': '3'}, 6),
        ({'SLURM_MEM_PER_GPU': '10240', 'SLURM_GPUS_ON_NODE': '2'}, 20),
        ({'SLURM_MEM_PER_CPU': '2048'}, 64),
        ({'SLURM_MEM_PER_NODE': 'rubbish'}, 64),
    ],
)
def test_memory_of_a_slurm_job(machine, env, expected):
    assert available_memory_gb(env=env, host_bytes=64 * GIB, **machine('', {})) == expected


def test_cpus_follow_the_cgroup_v2_quota(machine):
    where = machine('0::/\n', {'cpu.max': '150000 100000\n'})
    assert available_cpus(env={}, **where) == 1


def test_cpus_follow_the_cgroup_v1_quota(machine):
    where = machine(
        '2:cpu,cpuacct:/job\n',
        {'cpu/job/cpu.cfs_quota_us': '100000\n', 'cpu/job/cpu.cfs_period_us': '100000\n'},
    )
    assert available_cpus(env={}, **where) == 1


def test_no_quota_leaves_the_affinity(machine):
    where = machine('0::/\n', {'cpu.max': 'max 100000\n', 'cpu/cpu.cfs_quota_us': '-1\n'})
    assert available_cpus(env={}, **where) == len(os.sched_getaffinity(0))


def test_cpus_of_a_slurm_task(machine):
    assert available_cpus(env={'SLURM_CPUS_PER_TASK': '1'}, **machine('', {})) == 1


def test_the_tightest_memory_limit_counts(machine):
    where = machine(
        '4:memory:/a\n0::/b\n',
        {'memory/a/memory.limit_in_bytes': f'{6 * GIB}\n', 'b/memory.max': f'{5 * GIB}\n'},
    )
    env = {'SLURM_MEM_PER_NODE': '7168'}
    assert available_memory_gb(env=env, host_bytes=64 * GIB, **where) == 5


def test_cpus_cgroup_v2_parent_is_tighter_than_child(machine):
    where = machine(
        '0::/slurm/job1\n',
        {'slurm/cpu.max': '100000 100000\n', 'slurm/job1/cpu.max': '900000 100000\n'},
    )
    assert available_cpus(env={}, **where) == 1


def test_a_quota_below_one_processor_is_one(machine):
    assert available_cpus(env={}, **machine('0::/\n', {'cpu.max': '20000 100000\n'})) == 1


def test_cpus_follow_the_affinity_that_a_batch_system_has_set():
    code = (
        'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});'
        'from tumsyn_bids.resources import available_cpus; print(available_cpus(env={}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == '1\n'


@pytest.mark.parametrize(
    ('device', 'visible', 'env', 'expected'),
    [
        ('auto', 0, {}, ()),
        ('cpu', 4, {}, ()),
        ('auto', 2, {}, ('0', '1')),
        ('cuda', 2, {'CUDA_VISIBLE_DEVICES': '3,GPU-5f'}, ('3', 'GPU-5f')),
        ('cuda', 1, {'CUDA_VISIBLE_DEVICES': '3,99'}, ('3',)),
        ('cuda:1', 2, {'CUDA_VISIBLE_DEVICES': '3,4'}, ('',)),
        ('cuda', 8, {'SLURM_JOB_GPUS': '2,6'}, ('2', '6')),
        ('cuda', 8, {'SLURM_JOB_GPUS': '2,6', 'SLURM_STEP_GPUS': '6'}, ('6',)),
        ('cuda', 2, {'SLURM_JOB_GPUS': '2,6'}, ('0', '1')),
        ('cuda', 8, {'SLURM_GPUS_ON_NODE': '1'}, ('0',)),
        ('cuda', 2, {'SLURM_GPUS_ON_NODE': 'rubbish'}, ('0', '1')),
    ],
)
def test_gpus_are_those_of_the_job(device, visible, env, expected):
    assert available_gpus(device, visible, env=env) == expected
