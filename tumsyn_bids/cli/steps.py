"""Single steps of a session's graph in other processes than the one that walks the graph."""

from __future__ import annotations

import os
from copy import deepcopy
from functools import partial
from pathlib import Path

from nipype.pipeline.plugins import LinearPlugin

from ..errors import SessionError
from .sessions import step_name
from .workers import Job, Line, WorkerDied


class GpuElsewherePlugin(LinearPlugin):
    """Linear, but steps that use a GPU are done by the process that owns it.

    Parameters
    ----------
    plugin_args : dict
        Of Linear, and further ``line`` (:class:`Line` to the process that knows the owner) and
        ``log`` (path of the log that the step speaks into).
    """

    def run(self, graph, config, updatehash: bool = False) -> None:
        """Walk through the graph."""
        for node in graph.nodes():
            if node.is_gpu_node():
                # An attribute of this one node hides the method of its class.
                node.run = partial(self._ask, deepcopy(node))
        super().run(graph, config, updatehash=updatehash)

    def _ask(self, node, updatehash: bool = False) -> None:
        line, log = self.plugin_args['line'], self.plugin_args['log']
        try:
            line.ask(Job(run_step, (node, updatehash, log), node.fullname))
        except WorkerDied as error:
            raise died_at(node, error) from None


def run_step(node, updatehash: bool, log: Path, tell: Line) -> None:
    """Run a node; later steps find its result in the work directory."""
    redirect(log)
    node.run(updatehash=updatehash)


def redirect(log: Path) -> None:
    """Send what this process says from now on to a log."""
    with open(log, 'a') as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def died_at(node, error: WorkerDied) -> SessionError:
    """Word the death of the process that was at a step."""
    return SessionError(f'while at "{step_name(node.fullname)}": {error}')
