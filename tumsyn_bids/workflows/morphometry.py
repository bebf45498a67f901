"""Builder for what is measured of a brain."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..interfaces.morphometry import MeasureBrain, MeasureCortex


def init_morphometry_wf(
    *,
    level: str = 'volumes',
    seed: int = 2025,
    n_threads: int = 1,
    mem_gb: float = 3.0,
    name: str = 'morphometry_wf',
):
    """Segment the structures of a brain by FreeSurfer's numbers and measure them.

    Parameters
    ----------
    level : {'volumes', 'full'}
        ``full`` also measures the cortex: thickness, surfaces, area, curvature.
    seed : int
    n_threads : int
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file, for messages.
    t1w
        T1w image in the individual space, acquired or synthetic.
    mask
        Brain mask of the reference.

    Outputs
    -------
    labels
        Label image, 1 mm.
    brain
        The T1w inside the mask, on the same grid.
    measures
        Measures, JSON.
    surfaces
        Files of the hemispheres' surfaces; none with ``volumes``.
    warnings
        Structures that should not be trusted.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Structures were segmented on the T1w by registration (ANTs SyN; Avants et al., 2008) of the
MNI152NLin2009cAsym average with the Desikan-Killiany labels (Desikan et al., 2006) of FreeSurfer,
corrected by tissue probabilities (Atropos; Avants et al., 2011). FreeSurfer itself was not run.
"""
    if level == 'full':
        workflow.__desc__ += """\
The thickness of the cortex was measured with DiReCT (Das et al., 2009); white and pial surfaces
were built by marching cubes (scikit-image; van der Walt et al., 2014) and smoothed (trimesh).
"""
    inputnode = pe.Node(IdentityInterface(fields=['scan', 't1w', 'mask']), name='inputnode')
    outputnode = pe.Node(
        IdentityInterface(fields=['labels', 'brain', 'measures', 'surfaces', 'warnings']),
        name='outputnode',
    )
    measure = pe.Node(
        MeasureBrain(seed=seed or 1), name='measure', n_procs=n_threads, mem_gb=mem_gb
    )
    workflow.connect([
        (inputnode, measure, [
            ('scan', 'scan'),
            ('t1w', 'in_file'),
            ('mask', 'mask_file'),
        ]),
        (measure, outputnode, [
            ('labels_file', 'labels'),
            ('brain_file', 'brain'),
        ]),
    ])  # fmt: skip
    last = measure
    if level == 'full':
        last = pe.Node(MeasureCortex(), name='cortex', n_procs=n_threads, mem_gb=mem_gb)
        workflow.connect([
            (inputnode, last, [('scan', 'scan')]),
            (measure, last, [
                ('labels_file', 'labels_file'),
                ('tissues_file', 'tissues_file'),
                ('measures_file', 'measures_file'),
                ('warnings', 'warnings'),
            ]),
            (last, outputnode, [('surface_files', 'surfaces')]),
        ])  # fmt: skip
    workflow.connect([
        (last, outputnode, [('measures_file', 'measures'), ('warnings', 'warnings')]),
    ])  # fmt: skip
    return workflow
