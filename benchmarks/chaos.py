"""Kill a run at random, start it again, and compare the outputs with those of a quiet run.

    python benchmarks/chaos.py WORK --kills 20 [--skull-strip none]

Everything is made in the folder WORK: a small phantom, a tiny model with random weights, a quiet
run, and a run whose whole process tree is killed (SIGKILL) after random times. Compared byte for
byte are all files of the two output directories. Left out are logs (times, process numbers) and,
in other files, what is a time or a path of the run. The exit code is 1 where files differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

#: Times and durations of a run; its folders are replaced as well.
TIMES = re.compile(
    rb'<td class="number">[\d.]+</td><td style="width: 20rem">.*?</td>'  # steps in the report
    rb'|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z| UTC)?'
    rb'|\d{8}-\d{6}_[0-9a-f]{6}|\b\d+(\.\d+)? (s|min)\b( \d\d s)?'
)
TARGETS = [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]


def main(argv=None) -> int:
    options = _parse(argv)
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    _make_inputs(work, options.participant_label)
    rng = random.Random(options.seed)

    seconds = _run(work, 'quiet', options)
    print(f'quiet run: {seconds:.0f} s', flush=True)
    for name in ('chaos-out', 'chaos-work'):
        shutil.rmtree(work / name, ignore_errors=True)
    # A run that is killed at once comes to nothing; the longest waits end most of a session.
    survived, starts, differing = 0, 0, set()
    while survived < options.kills:
        starts += 1
        after = rng.uniform(options.soonest, max(seconds, options.soonest + 1))
        if _run(work, 'chaos', options, kill_after=after) is None:
            survived += 1
            print(f'kill {survived}: after {after:.1f} s', flush=True)
        else:  # it was done before; begin anew so that every kill meets work
            differing |= _compare(work)
            shutil.rmtree(work / 'chaos-out')
            shutil.rmtree(work / 'chaos-work')
    _run(work, 'chaos', options)
    differing |= _compare(work)
    left = [path for path in (work / 'chaos-out').rglob('.*') if path.name != '.bidsignore']
    locks = list((work / 'chaos-out').rglob('*.lock'))
    print(f'starts: {starts + 1}, kills survived: {survived}')
    print(f'files compared: {len(_contents(work, "quiet"))}, differing: {len(differing)}')
    for name in sorted(differing):
        print(f'  {name}')
    print(f'half-written files left: {len(left)}, locks left: {len(locks)}')
    if not options.keep and not differing:
        shutil.rmtree(work)
    return int(bool(differing or left or locks))


def _parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('work', type=Path, help='folder for everything')
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--participant-label', nargs='+', default=['02'])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--soonest', type=float, default=5.0, metavar='S', help='no kill before so many seconds'
    )
    parser.add_argument('--skull-strip', default='ants', help='none is quicker')
    parser.add_argument('--keep', action='store_true', help='keep the folder if nothing differs')
    return parser.parse_args(argv)


def _make_inputs(work: Path, subjects: list[str]) -> None:
    import torch

    from tumsyn_bids.networks.model import Model, save_model
    from tumsyn_bids.networks.registry import get_config
    from tumsyn_bids.simulation.dataset import write_phantom_dataset

    if not (work / 'ds').exists():
        write_phantom_dataset(work / 'whole', resolution_mm=3)
        for folder in (work / 'whole').glob('sub-*'):
            if folder.name.removeprefix('sub-') not in subjects:
                shutil.rmtree(folder)
        (work / 'whole').rename(work / 'ds')
    torch.manual_seed(0)
    save_model(Model(get_config('tiny')), work / 'model', version='0', card={})
    (work / 'targets.json').write_text(json.dumps(TARGETS))


def _run(work: Path, name: str, options, *, kill_after: float | None = None) -> float | None:
    """Run to the end and return the seconds, or kill the process tree and return None."""
    command = [sys.executable, '-m', 'tumsyn_bids', work / 'ds', work / f'{name}-out']
    command += ['participant', '-w', work / f'{name}-work', '--model', work / 'model']
    command += ['--targets', work / 'targets.json', '--nprocs', 1, '--omp-nthreads', 1]
    command += ['--skull-strip', options.skull_strip]
    begun = time.monotonic()
    log = open(work / f'{name}.log', 'a')  # noqa: SIM115 - closed below
    process = subprocess.Popen(
        [str(part) for part in command], stdout=log, stderr=log, env=_environment()
    )
    log.close()
    try:
        code = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        _kill_tree(process.pid)
        process.wait()
        return None
    if code:
        raise SystemExit(f'the {name} run ended with exit code {code}; see {work / name}.log')
    return time.monotonic() - begun


def _environment() -> dict[str, str]:
    # One thread: ITK with several may differ in the last digits.
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS': '1'}


def _kill_tree(pid: int) -> None:
    """Kill children and parent in random order: the kernel keeps to none either."""
    top = psutil.Process(pid)
    tree = [top, *top.children(recursive=True)]
    random.shuffle(tree)
    for process in tree:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=30)


def _compare(work: Path) -> set[str]:
    quiet, chaos = _contents(work, 'quiet'), _contents(work, 'chaos')
    return {name for name in quiet.keys() | chaos.keys() if quiet.get(name) != chaos.get(name)}


def _contents(work: Path, name: str) -> dict[str, bytes]:
    out = work / f'{name}-out'
    own = (f'{name}-out'.encode(), f'{name}-work'.encode())
    contents = {}
    for path in sorted(out.rglob('*')):
        relative = path.relative_to(out)
        if path.is_file() and relative.parts[0] != 'logs':
            content = path.read_bytes()
            if path.suffix in ('.html', '.json', '.tsv', '.md', '.svg'):
                for part in own:
                    content = content.replace(part, b'')
                content = TIMES.sub(b'', content)
            contents[str(relative)] = content
    return contents


if __name__ == '__main__':
    sys.exit(main())
