"""Use the builders of tumsyn-bids inside one's own Nipype workflow.

Corrects the bias field of one scan, finds the brain and synthesizes another contrast. In a
workflow of your own, connect the ``inputnode`` to what precedes and the ``outputnode`` to what
follows.

    python workflows/embed_in_nipype.py sub-01_FLAIR.nii.gz FLAIR T1w work_dir
"""

from __future__ import annotations

import sys
from pathlib import Path

from nipype.pipeline import engine as pe

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.plan import SynthesisTask, Target
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.workflows.anatomy import init_brain_wf, init_preproc_wf
from tumsyn_bids.workflows.synthesis import init_synthesis_wf


def build(scan: str, contrast: str, wanted: str, work_dir: str) -> pe.Workflow:
    """Wire three of our workflows together."""
    acquisition = default_protocol(wanted, field_strength=3.0)
    task = SynthesisTask(
        target=Target(name='', acquisition=acquisition),
        source=scan,
        prompt=render_prompt(acquisition),
        purpose='requested',
        reason='the only scan',
    )
    preproc_wf = init_preproc_wf()
    preproc_wf.inputs.inputnode.scan = scan
    brain_wf = init_brain_wf(contrast=contrast)
    brain_wf.inputs.inputnode.scan = scan
    synthesis_wf = init_synthesis_wf(tasks=(task,), source=Acquisition(contrast=contrast))
    synthesis_wf.inputs.inputnode.scan = scan

    workflow = pe.Workflow(name='embedding', base_dir=work_dir)
    workflow.connect([
        (preproc_wf, brain_wf, [('outputnode.corrected', 'inputnode.corrected')]),
        (preproc_wf, synthesis_wf, [('outputnode.corrected', 'inputnode.corrected')]),
        (brain_wf, synthesis_wf, [('outputnode.mask', 'inputnode.mask')]),
    ])  # fmt: skip
    return workflow


def main(scan: str, contrast: str, wanted: str, work_dir: str) -> None:
    """Run, and say where the synthetic image is."""
    scan, work_dir = str(Path(scan).absolute()), str(Path(work_dir).absolute())
    graph = build(scan, contrast, wanted, work_dir).run()
    (synthesize,) = [node for node in graph.nodes() if node.name == 'synthesize']
    print(*synthesize.result.outputs.out_files)


if __name__ == '__main__':
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
