"""Nipype's settings for our workflows, set on the workflow and never globally."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path


def configure(workflow, *, crash_dir: Path, stop_on_first_crash: bool = False) -> None:
    """Give a workflow and all nodes in it our execution settings.

    Crash reports are text, steps are recognised by the content of their inputs rather than by
    time stamps, and nothing is drawn or looked up on the network.
    """
    execution = {
        'crashdump_dir': str(crash_dir),
        'crashfile_format': 'txt',
        'hash_method': 'content',
        'stop_on_first_crash': str(stop_on_first_crash).lower(),
        'create_report': 'false',
        'check_version': 'false',
        'poll_sleep_duration': '0.1',
        # Seconds that a file server may take to show the result of a batch job.
        'job_finished_timeout': '15',
    }
    workflow.config['execution'] = execution
    for name in workflow.list_node_names():
        workflow.get_node(name).config = {'execution': deepcopy(execution)}
