"""Nodes that write, and the joining of many results into one list."""

from __future__ import annotations

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from ..plan import SessionPlan
from ..settings import Settings


def write_node(interface, *, plan: SessionPlan, settings: Settings, name: str, scan: str = ''):
    """Return a node of one of the writing steps, with the inputs that they all need."""
    return pe.Node(
        interface(
            plan=plan.to_json(),
            scan=scan or plan.reference,
            bids_dir=str(settings.bids_dir),
            output_dir=str(settings.output_dir),
        ),
        name=name,
        mem_gb=0.5,
    )


def join(workflow, ends: list[tuple], node, field: str) -> None:
    """Connect many outputs to one list input, in order; lists among them are strung together.

    Parameters
    ----------
    workflow : Workflow
    ends : list of (node, output name)
        Nothing is connected where it is empty.
    node : Node
    field : str
        Input of ``node``.
    """
    if not ends:
        return
    # Nipype tells files by their content: equal files elsewhere would not be new inputs to it.
    merge = pe.Node(
        Merge(len(ends)),
        name=f'join_{node.name}_{field}',
        overwrite=True,
        run_without_submitting=True,
    )
    for number, (source, output) in enumerate(ends, start=1):
        workflow.connect(source, output, merge, f'in{number}')
    workflow.connect(merge, 'out', node, field)


def pick(items: list, position: int):
    """Return one item; for use on a connection."""
    return items[position]
