"""Crash reports say on their first line which file failed and why."""

from __future__ import annotations

import pytest

from tumsyn_bids.cli.crashes import collect_crashes, write_crash

NIPYPE = """\
Node: sub_01_wf.preproc_T1w_wf.sanitize
Working directory: /w

Node inputs:

scan = /ds/sub-01_T1w.nii.gz

Traceback (most recent call last):
  File "linear.py", line 45, in run
    node.run(updatehash=updatehash)
nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node sanitize.

Traceback:
\tTraceback (most recent call last):
\t  File "base.py", line 33, in _run_interface
\t{last}

"""


@pytest.mark.parametrize(
    ('last', 'reason'),
    [
        (
            'tumsyn_bids.errors.ScanError: /ds/sub-01_T1w.nii.gz: is truncated. Copy it again.',
            '/ds/sub-01_T1w.nii.gz: is truncated. Copy it again.',
        ),
        ('ValueError: no good', 'ValueError: no good'),
        ('numpy.linalg.LinAlgError: singular', 'numpy.linalg.LinAlgError: singular'),
    ],
)
def test_reports_of_nipype_are_settled(tmp_path, last, reason):
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw' / 'crash-x-sanitize-1.txt').write_text(NIPYPE.replace('{last}', last))
    (crash,) = collect_crashes(tmp_path / 'raw', tmp_path, 'sub-01')
    assert crash.path == tmp_path / 'crash-sub-01-sanitize.txt'
    assert crash.reason == reason
    first, *rest = crash.path.read_text().splitlines()
    assert first == f'sub-01: sanitize: {reason}'
    assert 'Working directory: /w' in rest
    assert list((tmp_path / 'raw').iterdir()) == []


def test_two_reports_of_one_step_do_not_overwrite_each_other(tmp_path):
    one = write_crash(tmp_path, 'sub-01', 'plan', 'first')
    two = write_crash(tmp_path, 'sub-01', 'plan', 'second\nline')
    assert one != two
    assert two.read_text().splitlines()[0] == 'sub-01: plan: second line'
