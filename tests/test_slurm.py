"""The recipes for SLURM: with stand-ins for its commands, and on a real one-node cluster."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from bids_builder import part_of

FAKE_SBATCH = r"""#!/usr/bin/env bash
# Runs jobs at once; an array task after the other. Prints the job number like --parsable.
echo "$*" >> "$CALLS"
array= options=()
while [ $# -gt 0 ]; do
    case $1 in
        --array=*) array=${1#--array=} ;;
        --output=*|--parsable|--dependency=*) ;;
        --partition) shift ;;
        *) options+=("$1") ;;
    esac
    shift
done
spool=$(mktemp -d) # SLURM runs a copy of the script from elsewhere
cp "${options[0]}" "$spool/slurm_script"
if [ -n "$array" ]; then
    last=${array#1-}; last=${last%\%*}
    for task in $(seq "$last"); do
        SLURM_ARRAY_TASK_ID=$task bash "$spool/slurm_script" > /dev/null 2>> "$CALLS.err" || true
    done
else
    bash "$spool/slurm_script" > "$CALLS.group" 2>&1 || echo "group failed" >> "$CALLS"
fi
echo "4711;cluster"
"""
# Stands for the program: participant 02 fails, 03 is killed without a record.
FAKE_PROGRAM = r"""#!/usr/bin/env bash
printf '%s|' "$@" >> "$CALLS"; echo >> "$CALLS"
out=$TUMSYN_OUT
[ -f "$out/logs/status.tsv" ] || printf 'participant\tstate\terror\n' > "$out/logs/status.tsv"
case "$*" in
    *"label sub-01"*) printf '01\tcomplete\tn/a\n' >> "$out/logs/status.tsv" ;;
    *"label sub-02"*) printf '02\tfailed\tis truncated\n' >> "$out/logs/status.tsv"; exit 1 ;;
    *"label sub-03"*) exit 137 ;;
esac
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins on the PATH, and a dataset of three participants with a blank in its path."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    fakes = {'sbatch': FAKE_SBATCH, 'srun': '#!/bin/sh\nshift\nexec "$@"\n'}
    fakes |= {'tumsyn-bids': FAKE_PROGRAM, 'apptainer': FAKE_PROGRAM}
    for name, text in fakes.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for subject in ('sub-01', 'sub-02', 'sub-03'):
        (tmp_path / 'the bids' / subject).mkdir(parents=True)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setenv('CALLS', str(tmp_path / 'calls'))
    monkeypatch.setenv('TUMSYN_IMAGE', '/images/my tumsyn.sif')
    monkeypatch.setenv('TUMSYN_OPTIONS', '--contrasts all')
    return tmp_path


def submit(repository, cluster, recipe, *options, **how):
    folder = repository / 'workflows' / 'slurm'
    command = ['bash', folder / 'submit.sh', folder / recipe, cluster / 'the bids']
    command += [cluster / 'the out', cluster / 'work', *options]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cluster, **how
    )


@pytest.mark.parametrize('recipe', ['array_apptainer.sh', 'array_environment.sh', 'array_gpu.sh'])
def test_a_task_for_each_participant_then_the_group(repository, cluster, recipe):
    done = submit(repository, cluster, recipe, '--partition', 'long')
    assert done.returncode == 0, done.stderr
    assert 'array 4711 with 3 participants' in done.stdout
    calls = (cluster / 'calls').read_text().splitlines()
    arrays = [call for call in calls if '--array=1-3%100' in call]
    assert len(arrays) == 1
    assert '--partition long' in arrays[0]
    assert any('--dependency=afterany:4711' in call for call in calls)
    runs = [call for call in calls if '|participant|' in call]
    assert [f'|--participant-label|sub-0{n}|' in run for n, run in enumerate(runs, 1)] == [
        True
    ] * 3
    assert all('|--contrasts|all|' in run for run in runs)
    assert any('|group|' in call for call in calls)
    if recipe != 'array_environment.sh':
        assert all(f'{cluster / "the bids"}:/data:ro,' in run for run in runs)
        assert all('|/images/my tumsyn.sif|' in run for run in runs)
    if recipe == 'array_gpu.sh':
        assert all('|--nv|' in run and '|--device|cuda|' in run for run in runs)


def test_failures_are_collected_the_killed_among_them(repository, cluster):
    submit(repository, cluster, 'array_environment.sh')
    with open(cluster / 'the out' / 'logs' / 'slurm' / 'failures.tsv', newline='') as stream:
        rows = list(csv.reader(stream, delimiter='\t'))
    assert rows == [
        ['sub-02', 'is truncated'],
        ['sub-03', 'no record: killed or not begun'],
    ]
    assert '2 participants of 3 are not complete' in (cluster / 'calls.group').read_text()
    assert 'group failed' in (cluster / 'calls').read_text()


def test_wrong_use_is_explained(repository, cluster):
    done = subprocess.run(
        ['bash', repository / 'workflows' / 'slurm' / 'submit.sh', 'x'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert 'RECIPE BIDS_DIR OUTPUT_DIR WORK_DIR' in done.stderr
    for path in (cluster / 'the bids').iterdir():
        path.rmdir()
    done = submit(repository, cluster, 'array_environment.sh')
    assert done.returncode == 2
    assert 'no sub-*' in done.stderr


def test_recipes_are_sound(repository):
    scripts = sorted((repository / 'workflows' / 'slurm').glob('*.sh'))
    assert {'submit.sh', 'group.sh', 'train.sh'} < {script.name for script in scripts}
    for script in scripts:
        subprocess.run(['bash', '-n', script], check=True)
    if shutil.which('shellcheck') is None:
        pytest.skip('shellcheck is not installed')
    subprocess.run(['shellcheck', *scripts], check=True)


SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=20
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=20000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of this machine alone, started here and stopped afterwards."""
    missing = [x for x in ('munged', 'slurmctld', 'slurmd', 'sbatch') if shutil.which(x) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f'needs root and slurm-wlm with munge (missing: {missing})')
    folder = tmp_path / 'slurm'
    for name in ('state', 'spool', 'munge'):
        (folder / name).mkdir(parents=True)
    (folder / 'munge').chmod(0o700)
    (folder / 'munge' / 'key').write_bytes(os.urandom(128))
    (folder / 'munge' / 'key').chmod(0o400)
    conf = folder / 'slurm.conf'
    conf.write_text(
        SLURM_CONF.format(
            host=socket.gethostname().split('.')[0],
            port=_free_port(),
            node_port=_free_port(),
            folder=folder,
            cpus=os.cpu_count(),
        )
        + f'AuthInfo=socket={folder}/munge/socket\n'
    )
    monkeypatch.setenv('SLURM_CONF', str(conf))
    munge = folder / 'munge'
    places = [('socket', 'socket'), ('key-file', 'key'), ('pid-file', 'pid')]
    places += [('log-file', 'log'), ('seed-file', 'seed')]
    commands = [
        ['munged', '-F', '--force', *(f'--{name}={munge}/{file}' for name, file in places)],
        ['slurmctld', '-D', '-f', conf],
        ['slurmd', '-D', '-f', conf, '-N', socket.gethostname().split('.')[0]],
    ]
    running = []
    try:
        for command in commands:
            with open(folder / f'{command[0]}.out', 'w') as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(2)
        wait_for(lambda: 'idle' in tell('sinfo', '-h', '-o', '%T'), 60, folder)
        yield folder
        tell('scancel', '--full', '-u', 'root')
        time.sleep(2)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            process.wait(30)


def tell(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(condition, seconds, folder):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = ''.join(path.read_text()[-2000:] for path in folder.glob('*.log'))
            pytest.fail(f'nothing after {seconds} s\n{tell("squeue")}\n{logs}')
        time.sleep(0.5)


@pytest.mark.slurm
def test_an_array_with_a_cancelled_task_is_complete_after_the_next(
    repository, slurm, phantom_dir, tiny_model, tmp_path, monkeypatch
):
    import json

    shutil.copytree(phantom_dir, tmp_path / 'the bids')
    shutil.rmtree(tmp_path / 'the bids' / 'sub-03')
    coarse = [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]
    (tmp_path / 'targets.json').write_text(json.dumps(coarse))
    program = tmp_path / 'env' / 'bin' / 'tumsyn-bids'
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tumsyn_bids "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv('TUMSYN_ENV', str(tmp_path / 'env'))
    monkeypatch.setenv(
        'TUMSYN_OPTIONS',
        f'--model {tiny_model} --targets {tmp_path / "targets.json"} --skull-strip none',
    )
    options = ('--cpus-per-task', '1')
    status, logs = tmp_path / 'the out' / 'logs' / 'status.tsv', tmp_path / 'the out' / 'logs'

    done = submit(repository, tmp_path, 'array_environment.sh', *options)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1]

    def at_work():
        return any('correct_bias' in path.read_text() for path in logs.glob('2*/sub-01.log'))

    wait_for(at_work, 240, slurm)
    tell('scancel', f'{job}_1')
    wait_for(lambda: not tell('squeue', '-h').strip(), 600, slurm)
    said = (logs / 'slurm' / f'{job}_1.log').read_text()
    assert '1 not finished' in said
    assert 'interrupted. Start the same command again' in said
    assert (logs / 'slurm' / 'failures.tsv').read_text().startswith('sub-01\tno record')

    done = submit(repository, tmp_path, 'array_environment.sh', *options)
    wait_for(lambda: not tell('squeue', '-h').strip(), 600, slurm)
    with open(status, newline='') as stream:
        rows = {row['participant']: row for row in csv.DictReader(stream, delimiter='\t')}
    assert {name: row['state'] for name, row in rows.items()} == {
        '01': 'complete',
        '02': 'complete',
    }
    assert (logs / 'slurm' / 'failures.tsv').read_text() == ''
    assert (tmp_path / 'the out' / 'group_synthesis.tsv').is_file()
    second = (logs / 'slurm' / f'{done.stdout.split()[1]}_2.log').read_text()
    assert '1 of them before' in second


@pytest.fixture
def one_by_plugin(slurm, phantom_dir, tiny_model, tmp_path):
    """Return a function that words the command line of a participant under a plugin."""
    import json

    part_of(phantom_dir, tmp_path / 'the bids', 'sub-02')
    coarse = [{'name': 'flat', 'suffix': 'T2w', 'voxel_size': 4}]
    (tmp_path / 'targets.json').write_text(json.dumps(coarse))

    def words(plugin):
        (tmp_path / 'plugin.yml').write_text(
            f'{{plugin: {plugin}, plugin_args: {{sbatch_args: "--cpus-per-task=1"}}}}'
        )
        args = [tmp_path / 'the bids', tmp_path / 'out', 'participant', '-w', tmp_path / 'work']
        args += ['--model', tiny_model, '--targets', tmp_path / 'targets.json']
        args += ['--skull-strip', 'none', '--use-plugin', tmp_path / 'plugin.yml']
        return [sys.executable, '-m', 'tumsyn_bids', *map(str, args)]

    return words


def end(process, seconds):
    out, err = process.communicate(timeout=seconds)
    print(out, err)  # noqa: T201 - shown by pytest -s and where the test fails
    return out, err


@pytest.mark.slurm
@pytest.mark.parametrize('plugin', ['SLURM', 'SLURMGraph'])
def test_a_participant_by_a_plugin_of_nipype_with_a_lost_job(one_by_plugin, slurm, plugin):
    """A job is cancelled from outside; the next run does what is missing."""
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    first = subprocess.Popen(one_by_plugin(plugin), **pipes)

    def lost():
        rows = [line.split() for line in tell('squeue', '-h', '-o', '%i %j').splitlines()]
        found = [number for number, name in rows if 'correct_bias' in name]
        return found and not tell('scancel', found[0])

    wait_for(lost, 240, slurm)
    out, err = end(first, 300)
    assert first.returncode == 1
    assert 'while at "preproc FLAIR: correct bias": its batch job ended without a result' in err
    assert '(CANCELLED)' in err
    assert out.splitlines()[-1].startswith('tumsyn-bids: finished with failures: 0 of 1')
    assert not tell('squeue', '-h').strip()

    second = subprocess.Popen(one_by_plugin(plugin), **pipes)
    out, err = end(second, 600)
    assert second.returncode == 0, err
    assert '1 of 1 session complete' in out.splitlines()[-1]


@pytest.mark.slurm
def test_an_interrupted_plugin_leaves_no_job_behind(one_by_plugin, slurm):
    process = subprocess.Popen(
        one_by_plugin('SLURMGraph'), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: 'summarize' in tell('squeue', '-h', '-o', '%j'), 240, slurm)
    process.terminate()
    out, _err = end(process, 20)
    assert process.returncode == 130
    assert '1 not finished' in out.splitlines()[-1]
    wait_for(lambda: not tell('squeue', '-h').strip(), 60, slurm)
