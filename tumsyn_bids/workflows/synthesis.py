"""Builders for what is made from a source, and for its comparison with acquired scans."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..acquisition import Acquisition
from ..interfaces.synthesis import MatchBrightness, Score, Synthesize
from ..plan import SynthesisTask
from .outputs import pick


def init_synthesis_wf(
    *,
    tasks: tuple[SynthesisTask, ...],
    source: Acquisition,
    model: str = 'embedded',
    model_sha256: str = '',
    device: str = 'auto',
    use_cuda: bool = False,
    n_threads: int = 1,
    mem_gb: float = 4.0,
    skull_strip: str = 'ants',
    seed: int = 1,
    cache_dir: str = '',
    name: str = 'synthesis_wf',
):
    """Make all the images that come from one source.

    The model is loaded once and the source encoded once; each target is then decoded on the field
    of view of the reference with its own voxel size.

    Parameters
    ----------
    tasks : tuple of SynthesisTask
        All have the same source.
    source : Acquisition
        What the source is.
    model : str
        Name or path.
    model_sha256 : str
        So that results of another model are not taken from the work directory.
    device : str
    use_cuda : bool
        Take a GPU slot of the plugin.
    n_threads : int
    mem_gb : float
    skull_strip : str
        How the brains of donors of brightness are extracted.
    seed : int
    cache_dir : str
        Where sessions share what is found of donors.
    name : str

    Inputs
    ------
    scan
        Acquired file of the source, for messages.
    corrected
        Bias-corrected source, in its own space.
    mask
        Brain mask of the reference.
    transform
        From the reference to the source; left open where the source is the reference.

    Outputs
    -------
    synthetic
        List of images, in the order of ``tasks``.
    model
        Name, version and SHA-256 of the model, as a dictionary.
    warnings
        For each task, what lies outside of what the model has learned, and what is doubtful.
    confidence
        For each task, the figures of confidence, of the images before their brightness is matched.
    donors
        For each task, the scans whose brightness the image has.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Missing contrasts were synthesised from an acquired scan of the same session with *TUMSyn*, a
network conditioned on the text of the requested acquisition (contrast, voxel size, field strength,
manufacturer, imaging parameters, age and sex). Synthetic images are predictions, not measurements.
"""
    inputnode = pe.Node(
        IdentityInterface(fields=['scan', 'corrected', 'mask', 'transform']), name='inputnode'
    )
    outputnode = pe.Node(
        IdentityInterface(fields=['synthetic', 'model', 'warnings', 'confidence', 'donors']),
        name='outputnode',
    )
    synthesize = pe.Node(
        Synthesize(
            source=source.to_dict(),
            prompts=[task.prompt for task in tasks],
            acquisitions=[task.target.acquisition.to_dict() for task in tasks],
            model=model,
            model_sha256=model_sha256,
            device=device,
            use_cuda=use_cuda,
        ),
        name='synthesize',
        # Nipype counts GPU slots by this number.
        n_procs=1 if use_cuda else n_threads,
        mem_gb=mem_gb,
    )
    workflow.connect([
        (inputnode, synthesize, [
            ('scan', 'scan'),
            ('corrected', 'in_file'),
            ('mask', 'mask_file'),
            ('transform', 'transform_file'),
        ]),
        (synthesize, outputnode, [('model', 'model'), ('confidence', 'confidence')]),
    ])  # fmt: skip
    made = [('out_files', 'synthetic'), ('warnings', 'warnings')]
    donors = [donor for task in tasks for donor in task.donors]
    if not donors:
        outputnode.inputs.donors = [[] for _ in tasks]
        workflow.connect([(synthesize, outputnode, made)])
        return workflow
    workflow.__desc__ += """\
Their grey values were matched to landmarks of the histograms of scans of the same contrast that
other participants have (Nyul and Udupa, 1999).
"""
    match = pe.Node(
        MatchBrightness(
            contrasts=[task.target.contrast for task in tasks],
            donors=[[asdict(donor) for donor in task.donors] for task in tasks],
            donor_files=sorted({path for d in donors for path in (d.path, d.reference)}),
            method=skull_strip,
            seed=seed,
            cache_dir=cache_dir,
        ),
        name='match_brightness',
        n_procs=n_threads,
        mem_gb=1.5,
    )
    workflow.connect([
        (inputnode, match, [('scan', 'scan'), ('mask', 'mask_file')]),
        (synthesize, match, [('out_files', 'in_files'), ('warnings', 'warnings')]),
        (match, outputnode, [*made, ('donors', 'donors')]),
    ])  # fmt: skip
    return workflow


def init_score_wf(*, index: int, mem_gb: float = 1.5, name: str = 'score_wf'):
    """Compare one of a source's synthetic images with the acquired scan of its contrast.

    Parameters
    ----------
    index : int
        Which of the synthetic images.
    mem_gb : float
    name : str

    Inputs
    ------
    scan
        Acquired file that is compared with.
    synthetic
        List of synthetic images.
    acquired, transform
        Bias-corrected acquired scan, and the transform from the reference to it.
    source, source_transform
        Bias-corrected source of the synthetic image, and its transform.
    mask
        Brain mask of the reference.

    Outputs
    -------
    scores
        Figures of agreement by name.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = """\
Where the requested contrast was acquired as well, the synthetic image was compared with it inside
the brain by peak signal-to-noise ratio, structural similarity and Pearson correlation.
"""
    fields = ['scan', 'acquired', 'transform', 'source', 'source_transform', 'mask']
    inputnode = pe.Node(IdentityInterface(fields=['synthetic', *fields]), name='inputnode')
    outputnode = pe.Node(IdentityInterface(fields=['scores']), name='outputnode')
    score = pe.Node(Score(), name='score', mem_gb=mem_gb)
    workflow.connect([
        (inputnode, score, [
            ('scan', 'scan'),
            (('synthetic', pick, index), 'synthetic_file'),
            ('acquired', 'acquired_file'),
            ('transform', 'transform_file'),
            ('source', 'source_file'),
            ('source_transform', 'source_transform'),
            ('mask', 'mask_file'),
        ]),
        (score, outputnode, [('scores', 'scores')]),
    ])  # fmt: skip
    return workflow
