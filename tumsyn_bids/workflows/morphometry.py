"""What is measured of a brain: its builder, and its wiring into the graph of a session."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..bids.morphometry import MeasuredImage, measured_image, validated_t1w
from ..interfaces.freesurfer import ReconBrain, find_program
from ..interfaces.morphometry import (
    DrawMorphometry,
    MeasureBrain,
    MeasureCortex,
    WriteAgreement,
    WriteMorphometry,
)
from .outputs import pick


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
MNI152NLin2009cAsym average, and of its mirror image, with the Desikan-Killiany labels (Desikan et
al., 2006) of FreeSurfer; both were fused (Rohlfing and Maurer, 2007) and
corrected by the shares of tissues in each voxel, which were told by a model of partial volume
(Santago and Gage, 1993) with the deformed labels as prior.
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


class Measurement:
    """The part of a session's wiring that measures its T1w images."""

    def add_morphometry(self) -> None:
        measured = measured_image(self.plan)
        if self.settings.morphometry == 'none' or measured is None:
            return
        morphometry, source, image = self._measure(measured, 'morphometry_wf')
        write = self._writer(WriteMorphometry, 'write_morphometry', 'out_files', measured.scan)
        if self.settings.fs_subjects_dir:
            write.inputs.subjects_dir = str(self.settings.fs_subjects_dir)
        draw = self._drawer(DrawMorphometry, 'draw_morphometry', measured.scan)
        self.workflow.connect([
            (source, write, [(image, 'in_file')]),
            (morphometry, write, [
                ('outputnode.labels', 'labels_file'),
                ('outputnode.brain', 'brain_file'),
                ('outputnode.measures', 'measures_file'),
                ('outputnode.surfaces', 'surface_files'),
                ('outputnode.warnings', 'warnings'),
            ]),
            (morphometry, draw, [
                ('outputnode.labels', 'labels_file'),
                ('outputnode.brain', 'brain_file'),
                ('outputnode.measures', 'measures_file'),
            ]),
        ])  # fmt: skip
        self._compare_measures(morphometry, measured)

    def _measure(self, measured: MeasuredImage, name: str) -> tuple:
        """Wire the measurement of an image; return it, and where the image comes from."""
        morphometry = init_morphometry_wf(
            level=self.settings.morphometry,
            recon=self._recon(measured),
            seed=self.settings.random_seed,
            n_threads=self.settings.omp_nthreads,
            name=name,
        )
        morphometry.inputs.inputnode.scan = measured.scan
        source, image = self._measured(measured)
        self.workflow.connect([
            (source, morphometry, [(image, 'inputnode.t1w')]),
            (self.brain, morphometry, [('outputnode.mask', 'inputnode.mask')]),
        ])  # fmt: skip
        self.doubting.append(morphometry)
        return morphometry, source, image

    def _recon(self, measured: MeasuredImage) -> Recon | None:
        program = find_program() if self.settings.fs_recon else None
        if program is None:
            return None
        # The synthetic T1w of a session that has an acquired one is a subject of its own.
        second = measured != measured_image(self.plan)
        subject = self.plan.label + ('_synthetic' if second else '')
        return Recon(program, subject, str(self.settings.fs_subjects_dir))

    def _compare_measures(self, acquired: Workflow, measured: MeasuredImage) -> None:
        """Measure a synthetic T1w as well where the session has both, and compare."""
        task = validated_t1w(self.plan)
        if task is None or measured.task is not None:
            return
        other = MeasuredImage(self.plan.tasks[task].source, task)
        synthetic, *_ = self._measure(other, 'morphometry_of_synthetic_wf')
        write = self._writer(WriteAgreement, 'write_agreement', scan=measured.scan)
        write.inputs.task = task
        self.workflow.connect([
            (acquired, write, [
                ('outputnode.labels', 'acquired_labels'),
                ('outputnode.measures', 'acquired_measures'),
            ]),
            (synthetic, write, [
                ('outputnode.labels', 'synthetic_labels'),
                ('outputnode.measures', 'synthetic_measures'),
            ]),
        ])  # fmt: skip

    def _measured(self, measured: MeasuredImage) -> tuple:
        """Return where the image that a session is measured on comes from."""
        if measured.task is None:
            return self._aligned(measured.scan)
        position = self.sources[measured.scan].index(measured.task)
        return self.synthesis[measured.scan], ('outputnode.synthetic', pick, position)
