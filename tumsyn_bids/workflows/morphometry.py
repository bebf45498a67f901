"""Builder for what is measured of a brain."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..interfaces.freesurfer import ReconBrain
from ..interfaces.morphometry import MeasureBrain, MeasureCortex


@dataclass(frozen=True)
class Recon:
    """A run of FreeSurfer.

    Attributes
    ----------
    program : str
        Of :data:`tumsyn_bids.interfaces.freesurfer.PROGRAMS`.
    subject, subjects_dir : str
        Where it writes.
    """

    program: str
    subject: str
    subjects_dir: str


def init_morphometry_wf(
    *,
    level: str = 'volumes',
    recon: Recon | None = None,
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
    recon : Recon, optional
        Which program of FreeSurfer measures instead. ``recon-all`` and ``recon-all-clinical.sh``
        measure the cortex themselves.
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
corrected by tissue probabilities (Atropos; Avants et al., 2011).
"""
    if level == 'full':
        workflow.__desc__ += """\
The thickness of the cortex was measured with DiReCT (Das et al., 2009); white and pial surfaces
were built by marching cubes (scikit-image; van der Walt et al., 2014) and smoothed (trimesh).
"""
    if recon is None:
        workflow.__desc__ += 'FreeSurfer itself was not run.\n'
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
            ('brain_file', 'brain'),
        ]),
    ])  # fmt: skip
    last = measure
    if level == 'full' and (recon is None or recon.program == 'mri_synthseg'):
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
    labelled = measure
    if recon is not None:
        labelled = pe.Node(
            ReconBrain(n_threads=n_threads, **asdict(recon)),
            name='recon',
            n_procs=n_threads,
            mem_gb=mem_gb,
        )
        workflow.__desc__ += f'Measures are those of FreeSurfer ({recon.program}).\n'
        workflow.connect([
            (inputnode, labelled, [('scan', 'scan'), ('t1w', 'in_file')]),
            (measure, labelled, [('labels_file', 'labels_file')]),
            (last, labelled, [('measures_file', 'measures_file'), ('warnings', 'warnings')]),
        ])  # fmt: skip
        last = labelled
    workflow.connect([
        (labelled, outputnode, [('labels_file', 'labels')]),
        (last, outputnode, [('measures_file', 'measures'), ('warnings', 'warnings')]),
    ])  # fmt: skip
    return workflow
