"""Are --mem and --nprocs kept to, and do the steps declare what they take?

    python benchmarks/memory.py WORK [--bids-dir DS] --nprocs 2 --mem 8 [-- OPTIONS]

Runs `tumsyn-bids` in the folder WORK on a dataset (a phantom if none is given) and samples its
process tree. Printed are the peak of the resident memory of the tree (pages that processes share
are counted once for each of them), beside --mem; the most processors busy over ten seconds and
the most worker processes, beside --nprocs; and, where one session runs at a time, the peak of its
process in each step beside the `mem_gb` that the step declares. A process keeps memory of former
steps, so that a step's peak is an upper bound. What follows `--` goes to `tumsyn-bids`. The exit
code is 1 where the limits or a declaration are exceeded, or a session failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from pathlib import Path

import psutil

GB = 1024.0**3
STEP = re.compile(r'^\[.*?\] (?P<label>\S+): (?P<step>.+)$')
#: Processors are averaged over so many seconds: the kernel accounts in slices.
WINDOW = 10.0


def main(argv=None) -> int:
    """Run everything; 1 if something is exceeded."""
    options = _parse(argv)
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    dataset = options.bids_dir or _phantom(work, options.resolution)
    arguments = [dataset, work / 'out', 'participant', '-w', work / 'scratch']
    arguments += ['--nprocs', options.nprocs, '--mem', f'{options.mem}G', *options.options]
    command = [sys.executable, '-m', 'tumsyn_bids', *map(str, arguments)]
    with open(work / 'run.err', 'w') as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
    watch = Watch(process.pid)
    reader = threading.Thread(target=_read, args=(process.stdout, watch), daemon=True)
    reader.start()
    while process.poll() is None:
        watch.look()
        time.sleep(options.every)
    reader.join()
    print(watch.last_line)

    print(f'\n{"":24} {"peak":>8} {"limit":>8}')
    print(f'{"memory of the tree, GB":24} {watch.tree / GB:8.2f} {options.mem:8.2f}')
    print(f'{"processors busy":24} {watch.busy:8.2f} {options.nprocs:8d}')
    print(f'{"sessions at a time":24} {watch.workers:8d} {options.nprocs:8d}')
    exceeded = watch.tree / GB > options.mem or watch.busy > options.nprocs + 0.25
    if watch.workers == 1:
        exceeded |= _print_steps(watch, _declared(arguments))
    return int(bool(exceeded or process.returncode))


class Watch:
    """Peaks of a process tree while it runs.

    Attributes
    ----------
    tree, busy, workers
        Peaks of resident memory (bytes), of processors and of worker processes.
    steps : dict of str to int
        Peak of the workers' resident memory while a step ran, bytes.
    """

    def __init__(self, pid: int):
        self._top = psutil.Process(pid)
        self._step, self.last_line = '', ''
        self._spent: deque[tuple[float, float]] = deque()
        self._seconds: dict[int, float] = {}
        self.tree, self.busy, self.workers = 0, 0.0, 0
        self.steps: dict[str, int] = defaultdict(int)

    def hear(self, line: str) -> None:
        """Take note of a line that the program has printed."""
        self.last_line = line.strip()
        match = STEP.match(self.last_line)
        if match:
            self._step = match['step']

    def look(self) -> None:
        """Take a sample."""
        top, workers = 0, {}
        with suppress(psutil.NoSuchProcess):
            for process in [self._top, *self._top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    spent = process.cpu_times()
                    self._seconds[process.pid] = spent.user + spent.system
                    resident = process.memory_info().rss
                    if process == self._top:
                        top = resident
                    else:
                        workers[process.pid] = resident
        self.tree = max(self.tree, top + sum(workers.values()))
        # The process that keeps track of semaphores is small and does no work.
        large = [resident for resident in workers.values() if resident > 0.1 * GB]
        self.workers = max(self.workers, len(large))
        if self._step:
            self.steps[self._step] = max(self.steps[self._step], *large, 0)
        self._count_processors()

    def _count_processors(self) -> None:
        self._spent.append((time.monotonic(), sum(self._seconds.values())))
        while self._spent[-1][0] - self._spent[0][0] > WINDOW:
            (begun, before), (now, after) = self._spent.popleft(), self._spent[-1]
            self.busy = max(self.busy, (after - before) / (now - begun))


def _read(stream, watch: Watch) -> None:
    for line in stream:
        print(line, end='', flush=True)
        watch.hear(line)


def _declared(arguments: list) -> dict[str, float]:
    """Return what the steps of the first session declare, GB by step."""
    from tumsyn_bids.cli.parser import parse
    from tumsyn_bids.cli.participant import make_plans
    from tumsyn_bids.cli.sessions import step_name
    from tumsyn_bids.workflows.session import init_session_wf

    settings = parse(list(map(str, arguments))).settings
    declared = {}
    for plan in make_plans(settings)[0]:
        workflow = init_session_wf(plan=plan, settings=settings)
        for name in workflow.list_node_names():
            node = workflow.get_node(name)
            declared[step_name(f'{workflow.name}.{name}')] = node.mem_gb
    return declared


def _print_steps(watch: Watch, declared: dict[str, float]) -> bool:
    """Print peak beside declaration; true where one is exceeded."""
    print(f'\n{"step":40} {"peak GB":>8} {"mem_gb":>8}')
    exceeded = False
    for step, peak in watch.steps.items():
        if step in declared:
            over = peak / GB > declared[step]
            exceeded |= over
            print(f'{step:40} {peak / GB:8.2f} {declared[step]:8.2f}{"  <" if over else ""}')
    return exceeded


def _parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('work', type=Path, help='folder for everything')
    parser.add_argument('--bids-dir', type=Path, help='dataset (default: a phantom)')
    parser.add_argument('--resolution', type=float, default=1.0, help='of the phantom, mm')
    parser.add_argument('--nprocs', type=int, default=2)
    parser.add_argument('--mem', type=float, default=8.0, help='GB')
    parser.add_argument('--every', type=float, default=0.2, help='seconds between samples')
    argv = list(sys.argv[1:] if argv is None else argv)
    more = argv[argv.index('--') + 1 :] if '--' in argv else []
    options = parser.parse_args(argv[: len(argv) - len(more) - 1] if more else argv)
    options.options = more
    return options


def _phantom(work: Path, resolution: float) -> Path:
    from tumsyn_bids.simulation.dataset import write_phantom_dataset

    if not (work / 'ds').exists():
        write_phantom_dataset(work / 'ds', resolution_mm=resolution)
    return work / 'ds'


if __name__ == '__main__':
    sys.exit(main())
