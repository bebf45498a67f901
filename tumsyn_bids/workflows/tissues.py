"""Tissue segmentation: its builder, and its wiring into the graph of a session."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..bids.morphometry import measured_image
from ..interfaces.tissues import DrawTissues, MapTissues, WriteTissues


def init_tissues_wf(
    *, seed: int = 2025, n_threads: int = 1, mem_gb: float = 2.5, name: str = 'tissues_wf'
):
    """Segment grey matter, white matter and CSF.

    Parameters
    ----------
    seed : int
    n_threads : int
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file, for messages.
    t1w
        T1w in the individual space, acquired or synthetic.
    mask
        Brain mask of the reference.

    Outputs
    -------
    labels
        Most probable tissue, 1 mm.
    probabilities
        One file for each tissue.
    checks
        Checks of the tissues, as dictionaries.
    warnings
        Doubts about them.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Grey matter, white matter and CSF were segmented on the T1w by Atropos (Avants et al., 2011), with
the deformed tissue maps of the MNI152NLin2009aSym average as priors.
"""
    inputnode = pe.Node(IdentityInterface(fields=['scan', 't1w', 'mask']), name='inputnode')
    outputnode = pe.Node(
        IdentityInterface(fields=['labels', 'probabilities', 'checks', 'warnings']),
        name='outputnode',
    )
    segment = pe.Node(MapTissues(seed=seed or 1), name='segment', n_procs=n_threads, mem_gb=mem_gb)
    workflow.connect([
        (inputnode, segment, [('scan', 'scan'), ('t1w', 'in_file'), ('mask', 'mask_file')]),
        (segment, outputnode, [
            ('labels', 'labels'),
            ('probabilities', 'probabilities'),
            ('checks', 'checks'),
            ('warnings', 'warnings'),
        ]),
    ])  # fmt: skip
    return workflow


class TissueSegmentation:
    """The part of a session's wiring that segments its tissues."""

    def add_tissues(self) -> None:
        measured = measured_image(self.plan)
        if not self.settings.tissues or measured is None:
            return
        tissues = init_tissues_wf(
            seed=self.settings.random_seed, n_threads=self.settings.omp_nthreads
        )
        tissues.inputs.inputnode.scan = measured.scan
        write = self._writer(WriteTissues, 'write_tissues', 'out_files', measured.scan)
        draw = self._drawer(DrawTissues, 'draw_tissues', measured.scan)
        source, image = self._measured(measured)
        self.workflow.connect([
            (source, tissues, [(image, 'inputnode.t1w')]),
            (source, draw, [(image, 'in_file')]),
            (self.brain, tissues, [('outputnode.mask', 'inputnode.mask')]),
            (tissues, draw, [('outputnode.labels', 'labels')]),
            (tissues, write, [
                ('outputnode.labels', 'labels'),
                ('outputnode.probabilities', 'probabilities'),
            ]),
        ])  # fmt: skip
        self.doubting.append(tissues)
        self.checked.append(tissues)
