"""How many processors, how much memory and which GPUs this process may really use.

Inside a container or a batch job the host's figures are wrong: the limits of the control group
(cgroup v1 and v2), of SLURM and of the processor affinity are asked, and the tightest one counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from .plan import SessionPlan

GIB = 1024.0**3
_CGROUP_ROOT = Path('/sys/fs/cgroup')
_PROC_CGROUP = Path('/proc/self/cgroup')
# cgroup v1 writes "no limit" as a huge number of bytes.
_NO_LIMIT_BYTES = 2**60


#: What a session may take whose network sees a brain: a clinical one was measured at 1.8 GB.
SESSION_GB = 4.0
#: Per cubic millimetre, where the network sees whole heads (benchmarks/memory.py, a phantom).
_HEAD_GB = 0.5e-6


def session_gb(plan: SessionPlan, skull_strip: str) -> float:
    """Return the memory that a session may take, nearly all of it for the network, in GB.

    Parameters
    ----------
    plan : SessionPlan
    skull_strip : str
        With ``none`` the network may see all of the field of view.
    """
    if skull_strip != 'none':
        return SESSION_GB
    reference = plan.scan(plan.reference)
    return max(SESSION_GB, _HEAD_GB * math.prod(reference.shape[:3]) * math.prod(reference.zooms))


def available_cpus(
    *,
    env: Mapping[str, str] | None = None,
    cgroup_root: Path = _CGROUP_ROOT,
    proc_cgroup: Path = _PROC_CGROUP,
) -> int:
    """Return the number of processors this process may keep busy, at least 1."""
    env = os.environ if env is None else env
    limits = [float(_affinity()), *_cpu_quotas(cgroup_root, proc_cgroup)]
    limits += _numbers(env.get(name) for name in ('SLURM_CPUS_PER_TASK', 'SLURM_CPUS_ON_NODE'))
    return max(1, int(min(limits)))


def available_memory_gb(
    *,
    env: Mapping[str, str] | None = None,
    cgroup_root: Path = _CGROUP_ROOT,
    proc_cgroup: Path = _PROC_CGROUP,
    host_bytes: int | None = None,
) -> float:
    """Return the memory this process may use, in GiB."""
    env = os.environ if env is None else env
    limits = [_host_memory() if host_bytes is None else float(host_bytes)]
    limits += _memory_limits(cgroup_root, proc_cgroup)
    limits += [value * 1024**2 for value in _slurm_memory_mb(env)]
    return min(limits) / GIB


def available_gpus(
    device: str, n_visible: int, *, env: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the GPUs that a run may use, each as the ``CUDA_VISIBLE_DEVICES`` of one process.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` for all of them, or ``cuda:N`` for one, which is returned as
        an empty text: the process keeps what it has and counts on its own.
    n_visible : int
        Devices that CUDA shows to this process; inside a container or a control group those of
        the job.
    env : mapping, optional
        ``CUDA_VISIBLE_DEVICES``, ``SLURM_STEP_GPUS``, ``SLURM_JOB_GPUS`` and
        ``SLURM_GPUS_ON_NODE`` count where CUDA shows more than that.
    """
    env = os.environ if env is None else env
    if device == 'cpu' or n_visible == 0:
        return ()
    if device.startswith('cuda:'):
        return ('',)
    if env.get('CUDA_VISIBLE_DEVICES'):
        return tuple(env['CUDA_VISIBLE_DEVICES'].split(',')[:n_visible])
    for name in ('SLURM_STEP_GPUS', 'SLURM_JOB_GPUS'):
        listed = [part for part in env.get(name, '').split(',') if part.isdigit()]
        if 0 < len(listed) < n_visible:
            return tuple(listed)
    count = min([float(n_visible), *_numbers([env.get('SLURM_GPUS_ON_NODE')])])
    return tuple(map(str, range(max(int(count), 1))))


def _affinity() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _host_memory() -> float:
    import psutil

    return float(psutil.virtual_memory().total)


def _slurm_memory_mb(env: Mapping[str, str]) -> list[float]:
    """SLURM states megabytes, for the node, each processor or GPU; 0 means the whole node."""
    limits = [value for value in _numbers([env.get('SLURM_MEM_PER_NODE')]) if value > 0]
    parts = {
        'SLURM_MEM_PER_CPU': env.get('SLURM_CPUS_ON_NODE') or env.get('SLURM_CPUS_PER_TASK'),
        'SLURM_MEM_PER_GPU': env.get('SLURM_GPUS_ON_NODE'),
    }
    for name, text in parts.items():
        each, count = _numbers([env.get(name)]), _numbers([text])
        if each and count and each[0] > 0:
            limits.append(each[0] * count[0])
    return limits


def _groups(controller: str, root: Path, proc_cgroup: Path) -> list[Path]:
    """Folders of the control groups this process is in, innermost first, up to the root."""
    folders = []
    for line in _read(proc_cgroup).splitlines():
        _, controllers, group = [*line.split(':', 2), '', ''][:3]
        if controllers and controller not in controllers.split(','):
            continue
        base = root / controller if controllers else root
        parts = [part for part in group.split('/') if part and part != '..']
        folders += [base.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
    # Inside a container /proc may name the host's path; the root then holds our own limit.
    return folders or [root, root / controller]


def _memory_limits(root: Path, proc_cgroup: Path) -> list[float]:
    names = ('memory.max', 'memory.limit_in_bytes')
    texts = [
        _read(folder / name) for folder in _groups('memory', root, proc_cgroup) for name in names
    ]
    return [value for value in _numbers(texts) if 0 < value < _NO_LIMIT_BYTES]


def _cpu_quotas(root: Path, proc_cgroup: Path) -> list[float]:
    quotas = []
    for folder in _groups('cpu', root, proc_cgroup):
        pair = _read(folder / 'cpu.max').split() or [
            _read(folder / 'cpu.cfs_quota_us').strip(),
            _read(folder / 'cpu.cfs_period_us').strip(),
        ]
        numbers = _numbers(pair)
        if len(numbers) == 2 and min(numbers) > 0:
            quotas.append(max(1.0, numbers[0] / numbers[1]))
    return quotas


def _numbers(texts) -> list[float]:
    """Keep what is a plain number; cgroup v2 says ``max`` for no limit."""
    kept = []
    for text in texts:
        try:
            kept.append(float(text))
        except (TypeError, ValueError):
            continue
    return kept


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''
