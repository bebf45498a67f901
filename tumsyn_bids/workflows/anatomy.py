"""Builders for what is done to acquired scans."""

from __future__ import annotations

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..interfaces.anatomy import (
    CheckAlignment,
    CorrectBias,
    ExtractBrain,
    RegisterScan,
    Resample,
    SanitizeScan,
)


def init_preproc_wf(*, n_threads: int = 1, mem_gb: float = 1.0, name: str = 'preproc_wf'):
    """Make a scan's header and intensities fit for use, on its own grid.

    Parameters
    ----------
    n_threads : int
        Threads of N4.
    mem_gb : float
        Memory of N4.
    name : str

    Inputs
    ------
    scan
        Acquired file.

    Outputs
    -------
    corrected
        3D float32 image with a settled header and without its bias field.
    findings
        What was odd about the header, as dictionaries.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Each scan was corrected for intensity non-uniformity with *N4* (Tustison et al., 2010) as
implemented in ANTs.
"""
    inputnode = pe.Node(IdentityInterface(fields=['scan']), name='inputnode')
    outputnode = pe.Node(IdentityInterface(fields=['corrected', 'findings']), name='outputnode')
    sanitize = pe.Node(SanitizeScan(), name='sanitize', mem_gb=mem_gb)
    correct_bias = pe.Node(CorrectBias(), name='correct_bias', n_procs=n_threads, mem_gb=mem_gb)
    workflow.connect([
        (inputnode, sanitize, [('scan', 'in_file'), ('scan', 'scan')]),
        (inputnode, correct_bias, [('scan', 'scan')]),
        (sanitize, correct_bias, [('out_file', 'in_file')]),
        (sanitize, outputnode, [('findings', 'findings')]),
        (correct_bias, outputnode, [('out_file', 'corrected')]),
    ])  # fmt: skip
    return workflow


def init_brain_wf(
    *,
    contrast: str,
    method: str = 'ants',
    seed: int = 2025,
    n_threads: int = 1,
    mem_gb: float = 2.0,
    name: str = 'brain_wf',
):
    """Find the brain of the reference scan.

    Parameters
    ----------
    contrast : str
        Contrast of the reference scan.
    method : {'ants', 'hd-bet', 'none'}
    seed : int
    n_threads : int
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file, for messages.
    corrected
        Bias-corrected reference.

    Outputs
    -------
    mask
        Brain mask on the reference's grid.
    volume_ml, method, warnings
        How the mask was made and whether it is plausible.
    stripped
        Whether it leaves the skull out.
    checks
        Checks of the mask, as dictionaries.
    """
    workflow = Workflow(name=name)
    if method != 'none':
        tool = {'ants': 'registration of a brain template with ANTs', 'hd-bet': 'HD-BET'}[method]
        workflow.__desc__ = f'The brain of the reference scan was extracted by {tool}.\n'
    inputnode = pe.Node(IdentityInterface(fields=['scan', 'corrected']), name='inputnode')
    outputnode = pe.Node(
        IdentityInterface(
            fields=['mask', 'volume_ml', 'method', 'stripped', 'warnings', 'checks']
        ),
        name='outputnode',
    )
    extract_brain = pe.Node(
        ExtractBrain(contrast=contrast, method=method, seed=seed),
        name='extract_brain',
        n_procs=n_threads,
        mem_gb=mem_gb,
    )
    workflow.connect([
        (inputnode, extract_brain, [('scan', 'scan'), ('corrected', 'in_file')]),
        (extract_brain, outputnode, [
            ('mask_file', 'mask'),
            ('volume_ml', 'volume_ml'),
            ('method', 'method'),
            ('stripped', 'stripped'),
            ('warnings', 'warnings'),
            ('checks', 'checks'),
        ]),
    ])  # fmt: skip
    return workflow


def init_coreg_wf(
    *,
    contrast: str,
    coreg: str = 'rigid',
    seed: int = 2025,
    n_threads: int = 1,
    mem_gb: float = 1.5,
    name: str = 'coreg_wf',
):
    """Align a scan rigidly with its session's reference and bring it onto the reference's grid.

    Parameters
    ----------
    contrast : str
        Contrast of the scan.
    coreg : {'rigid', 'affine', 'syn'}
    seed : int
    n_threads : int
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file, for messages.
    corrected
        Bias-corrected scan, in its own space.
    reference
        Bias-corrected reference.
    mask
        Brain mask of the reference.

    Outputs
    -------
    transform
        ITK transform that maps points of the reference to points of the scan: text, or HDF5 with
        a deformation.
    inverse
        The other way.
    resampled
        The scan on the reference's grid, interpolated once.
    cost_before, cost_after
        Cost of the alignment by the headers alone and by the transform.
    warnings
        Doubts about the alignment.
    checks
        Checks of the alignment, as dictionaries.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
The other scans of a session were aligned with its reference by {} registration with mutual
information (ANTs; Avants et al., 2011).
""".format({'syn': 'affine and deformable (SyN)'}.get(coreg, coreg))
    inputnode = pe.Node(
        IdentityInterface(fields=['scan', 'corrected', 'reference', 'mask']), name='inputnode'
    )
    outputnode = pe.Node(
        IdentityInterface(
            fields=[
                'transform',
                'inverse',
                'resampled',
                'cost_before',
                'cost_after',
                'warnings',
                'checks',
            ]
        ),
        name='outputnode',
    )
    register = pe.Node(
        RegisterScan(seed=seed, coreg=coreg), name='register', n_procs=n_threads, mem_gb=mem_gb
    )
    check = pe.Node(CheckAlignment(contrast=contrast), name='check', mem_gb=mem_gb)
    resample = pe.Node(Resample(), name='resample', mem_gb=mem_gb)
    workflow.connect([
        (inputnode, register, [
            ('scan', 'scan'),
            ('corrected', 'moving_file'),
            ('reference', 'fixed_file'),
            ('mask', 'fixed_mask'),
        ]),
        (inputnode, resample, [
            ('scan', 'scan'),
            ('corrected', 'in_file'),
            ('reference', 'grid_file'),
        ]),
        (register, resample, [('forward', 'transform_file')]),
        (inputnode, check, [
            ('scan', 'scan'),
            ('corrected', 'moving_file'),
            ('reference', 'fixed_file'),
            ('mask', 'mask_file'),
        ]),
        (register, check, [('transform_file', 'transform_file'), ('forward', 'forward')]),
        (check, outputnode, [('warnings', 'warnings'), ('checks', 'checks')]),
        (register, outputnode, [
            ('forward', 'transform'),
            ('inverse', 'inverse'),
            ('cost_before', 'cost_before'),
            ('cost_after', 'cost_after'),
        ]),
        (resample, outputnode, [('out_file', 'resampled')]),
    ])  # fmt: skip
    return workflow
