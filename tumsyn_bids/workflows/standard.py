"""The way into standard spaces: its builder, and its wiring into the graph of a session."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..bids.morphometry import MeasuredImage, measured_image
from ..bids.spaces import StandardSpace
from ..interfaces.standard import (
    DrawStandard,
    Normalize,
    WriteStandard,
    WriteStandardTransforms,
)
from .outputs import join


def init_standard_wf(
    *,
    space: str = 'MNI152NLin2009cAsym',
    seed: int = 2025,
    n_threads: int = 1,
    mem_gb: float = 3.0,
    name: str = 'standard_wf',
):
    """Register a session's brain with the average brain of a standard space.

    Parameters
    ----------
    space : str
        As on the command line; its resolution does not matter here.
    seed : int
    n_threads : int
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file, for messages.
    image
        T1w in the individual space, acquired or synthetic; else the reference.
    mask
        Brain mask of the reference.

    Outputs
    -------
    forward, inverse
        ITK composite transforms: forward resamples the individual space onto the standard one.
    checks
        Checks of the deformation, as dictionaries.
    warnings
        Doubts about it.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Images were brought into standard spaces by an affine and a deformable registration of the brain
(ANTs SyN with cross-correlation; Avants et al., 2008).
"""
    inputnode = pe.Node(IdentityInterface(fields=['scan', 'image', 'mask']), name='inputnode')
    outputnode = pe.Node(
        IdentityInterface(fields=['forward', 'inverse', 'checks', 'warnings']), name='outputnode'
    )
    normalize = pe.Node(
        Normalize(space=space, seed=seed or 1), name='normalize', n_procs=n_threads, mem_gb=mem_gb
    )
    workflow.connect([
        (inputnode, normalize, [
            ('scan', 'scan'),
            ('image', 'in_file'),
            ('mask', 'mask_file'),
        ]),
        (normalize, outputnode, [
            ('forward', 'forward'),
            ('inverse', 'inverse'),
            ('checks', 'checks'),
            ('warnings', 'warnings'),
        ]),
    ])  # fmt: skip
    return workflow


class StandardSpaces:
    """The part of a session's wiring that brings its images into standard spaces."""

    def add_standard_spaces(self) -> None:
        spaces = [StandardSpace.of(words) for words in self.settings.output_spaces]
        for average in dict.fromkeys(space.average for space in spaces):
            label = average.name + (average.cohort or '')
            standard = init_standard_wf(
                space=average.words,
                seed=self.settings.random_seed,
                n_threads=self.settings.omp_nthreads,
                name=f'standard_{label}_wf',
            )
            measured = measured_image(self.plan) or MeasuredImage(self.plan.reference)
            standard.inputs.inputnode.scan = measured.scan
            write = self._writer(WriteStandardTransforms, f'write_xfm_{label}', 'out_files')
            draw = self._drawer(DrawStandard, f'draw_{label}')
            write.inputs.space = draw.inputs.space = average.words
            source, image = self._measured(measured)
            self.workflow.connect([
                (source, standard, [(image, 'inputnode.image')]),
                (source, draw, [(image, 'in_file')]),
                (self.brain, standard, [('outputnode.mask', 'inputnode.mask')]),
                (standard, draw, [('outputnode.forward', 'forward')]),
                (standard, write, [
                    ('outputnode.forward', 'forward'),
                    ('outputnode.inverse', 'inverse'),
                ]),
            ])  # fmt: skip
            self.doubting.append(standard)
            self.checked.append(standard)
            for space in spaces:
                if space.average == average:
                    self._carry_all(space, standard, f'{label}_{space.resolution or "native"}')

    def _carry_all(self, space: StandardSpace, standard, label: str) -> None:
        """Bring every image of the individual space into a standard one, from its own voxels."""
        for number, (write, field, image, output, scan) in enumerate(self.in_individual):
            carry = self._writer(WriteStandard, f'write_{label}_{number}')
            carry.inputs.space = space.words
            self.workflow.connect([
                (write, carry, [(field, 'written')]),
                (image, carry, [(output, 'in_file')]),
            ])  # fmt: skip
            chain = [(standard, 'outputnode.forward')]
            if scan in self.coreg:
                chain.append((self.coreg[scan], 'outputnode.transform'))
            join(self.workflow, chain, carry, 'transforms')
