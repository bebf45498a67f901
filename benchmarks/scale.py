"""What a very large dataset costs: the start of one participant, and the group level.

    python benchmarks/scale.py WORK [--participants 10000]

Makes, in the folder WORK, a dataset of one session a participant (three images of a few bytes
each: only their headers are read when a run is planned) and the outputs that so many participants
would leave behind, modelled on those of one real run. Printed are time and peak memory of
planning one participant with and without an index database, of the group level, and the number
of files that one session leaves in the work directory. The exit code is 1 where one participant
takes 10 s or 1 GB to start, or the group level two minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np

MODEL_PARTICIPANT = '02'
TEXT = ('.json', '.tsv')
LIMITS = {'start': (10.0, 1.0), 'group': (120.0, 4.0)}


def main(argv=None) -> int:
    """Run everything; 1 if a limit is exceeded."""
    options = _parse(argv)
    work = options.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    labels = [f'{number:05d}' for number in range(1, options.participants + 1)]
    dataset, outputs = work / 'ds', work / 'out'
    # In a process of its own: the peak memory of a child counts that of its parent at the fork.
    one = multiprocessing.get_context('spawn').Process(target=_run_one, args=(work,))
    one.start()
    one.join()
    _make_dataset(dataset, labels)
    _make_outputs(work / 'one-out', outputs, labels)
    n_files = sum(len(files) for _, _, files in os.walk(work / 'one-work'))
    print(f'{len(labels)} participants; files in the work directory of one session: {n_files}')

    start = [dataset, work / 'new', 'participant', '--participant-label', labels[-1], '--dry-run']
    database = ['--bids-database-dir', work / 'db']
    results = [
        ('start', 'one participant, no database', _measure(start)),
        ('', 'the same, database being built', _measure(start + database)),
        ('start', 'the same, database there', _measure(start + database)),
        ('group', 'group level', _measure([dataset, outputs, 'group'])),
    ]
    failed = False
    for limit, name, (seconds, peak_gb) in results:
        print(f'{name:32} {seconds:7.1f} s {peak_gb:6.2f} GB')
        most = LIMITS.get(limit, (float('inf'),) * 2)
        failed |= seconds > most[0] or peak_gb > most[1]
    rows = (outputs / 'group_status.tsv').read_text().count('\n') - 1
    print(f'rows in group_status.tsv: {rows}')
    if not options.keep:
        shutil.rmtree(work)
    return int(failed or rows < len(labels))


def _run_one(work: Path) -> None:
    """Run one participant of the phantom with a tiny model."""
    import torch

    from tumsyn_bids.networks.model import Model, save_model
    from tumsyn_bids.networks.registry import get_config
    from tumsyn_bids.simulation.dataset import write_phantom_dataset

    write_phantom_dataset(work / 'phantom', resolution_mm=3)
    torch.manual_seed(0)
    save_model(Model(get_config('tiny')), work / 'model', version='0', card={})
    (work / 'targets.json').write_text(json.dumps([{'name': 'flat', 'suffix': 'T2w'}]))
    command = [work / 'phantom', work / 'one-out', 'participant', '-w', work / 'one-work']
    command += ['--participant-label', MODEL_PARTICIPANT, '--model', work / 'model']
    command += ['--targets', work / 'targets.json', '--skull-strip', 'none']
    _measure(command)


def _make_dataset(root: Path, labels: list[str]) -> None:
    root.mkdir()
    description = {'Name': 'Scale', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (root / 'dataset_description.json').write_text(json.dumps(description))
    rows = [f'sub-{label}\t{20 + int(label) % 60}\tF' for label in labels]
    (root / 'participants.tsv').write_text('\n'.join(['participant_id\tage\tsex', *rows]) + '\n')
    image = nb.Nifti1Image(np.ones((40, 40, 40), np.uint8), np.diag([4.0, 4, 4, 1]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    nb.save(image, root / 'image.nii.gz')
    content = (root / 'image.nii.gz').read_bytes()
    (root / 'image.nii.gz').unlink()
    sidecar = json.dumps({'MagneticFieldStrength': 3, 'RepetitionTime': 2.3, 'EchoTime': 0.003})
    for label in labels:
        folder = root / f'sub-{label}' / 'ses-1' / 'anat'
        folder.mkdir(parents=True)
        for suffix in ('T1w', 'T2w', 'FLAIR'):
            stem = f'sub-{label}_ses-1_{suffix}'
            (folder / f'{stem}.nii.gz').write_bytes(content)
            (folder / f'{stem}.json').write_text(sidecar)


def _make_outputs(one: Path, outputs: Path, labels: list[str]) -> None:
    """Copy the text files of one participant's outputs under other labels; images are empty."""
    own = re.compile(rf'sub-{MODEL_PARTICIPANT}\b')
    short = re.compile(rf'"{MODEL_PARTICIPANT}"')
    texts, images = {}, []
    for path in one.rglob('*'):
        name = path.relative_to(one).as_posix()
        if path.is_file() and own.search(name):
            if path.suffix in TEXT:
                texts[name] = path.read_text()
            elif name.endswith('.nii.gz'):
                images.append(name)
    for path in one.glob('*'):
        if path.is_file():
            outputs.mkdir(exist_ok=True)
            shutil.copy(path, outputs)
    for label in labels:
        for name, text in texts.items():
            target = outputs / own.sub(f'sub-{label}', name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(short.sub(f'"{label}"', own.sub(f'sub-{label}', text)))
        for name in images:
            target = outputs / own.sub(f'sub-{label}', name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()


def _measure(arguments: list) -> tuple[float, float]:
    """Run the app and return seconds and the peak memory of its process in GB."""
    begun = time.monotonic()
    command = [sys.executable, '-m', 'tumsyn_bids', *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'{" ".join(command)} ended with {process.returncode}:\n{said}')
    return time.monotonic() - begun, usage.ru_maxrss / 1024**2


def _parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work', type=Path, help='folder for everything; removed at the end')
    parser.add_argument('--participants', type=int, default=10_000)
    parser.add_argument('--keep', action='store_true', help='keep the folder')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
