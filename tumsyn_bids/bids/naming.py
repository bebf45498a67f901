"""What the outputs of a session are called.

Names follow the BIDS specification for derivatives: the entities of the scan that an output comes
from, then ``space-``, ``res-`` and ``desc-``, in the order of the specification. All paths are
relative to the output directory and their labels hold letters, digits and plus signs only, so no
label can lead out of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ..acquisition import CONTRASTS
from ..errors import SessionError
from ..plan import Scan, SessionPlan, SynthesisTask

#: File name key of each entity (long pybids name), in the order of the BIDS specification.
#: ``from``, ``to`` and ``mode`` belong to transforms, which the specification does not know yet.
ENTITY_KEYS: dict[str, str] = {
    'subject': 'sub',
    'session': 'ses',
    'sample': 'sample',
    'acquisition': 'acq',
    'ceagent': 'ce',
    'reconstruction': 'rec',
    'direction': 'dir',
    'run': 'run',
    'modality': 'mod',
    'echo': 'echo',
    'flip': 'flip',
    'inv': 'inv',
    'mt': 'mt',
    'part': 'part',
    'proc': 'proc',
    'chunk': 'chunk',
    'from': 'from',
    'to': 'to',
    'mode': 'mode',
    'hemisphere': 'hemi',
    'space': 'space',
    'segmentation': 'seg',
    'resolution': 'res',
    'label': 'label',
    'desc': 'desc',
}

DEFAULT_VOXEL_SIZE = (1.0, 1.0, 1.0)

# The entities of a raw file that our outputs set themselves.
_OWN_ENTITIES = {'from', 'to', 'mode', 'space', 'segmentation', 'resolution', 'desc'}


@dataclass(frozen=True)
class FigurePath:
    """A figure of the report.

    Attributes
    ----------
    kind : {'mask', 'registration', 'synthesis', 'validation', 'morphometry', 'standard'}
    title : str
    path : Path
        Relative to the output directory.
    """

    kind: str
    title: str
    path: Path


@dataclass(frozen=True)
class SessionPaths:
    """Where each output of a session goes, relative to the output directory.

    Attributes
    ----------
    mask : Path
        Brain mask of the reference.
    preproc : dict of str to Path
        For each scan (its path): the bias-corrected scan on the reference's grid.
    transforms : dict of str to Path
        For each scan but the reference: the transform that resamples it onto the reference. A
        deformation has the extension ``.h5`` instead.
    inverse_transforms : dict of str to Path
        The same keys: the other way.
    synthetic : tuple of Path
        One for each task of the plan, in the plan's order.
    confidence : Path
        Table that says how far each synthetic image can be trusted.
    scores : Path
        Table of agreement of synthetic with acquired images.
    mask_figure : FigurePath
    registration_figures : dict of str to FigurePath
        Keys as ``transforms``.
    synthesis_figures : tuple of FigurePath
        One for each task, in the plan's order.
    validation_figures : dict of int to FigurePath
        Keys are the indices of the tasks whose purpose is ``validate``.
    """

    mask: Path
    preproc: dict[str, Path]
    transforms: dict[str, Path]
    inverse_transforms: dict[str, Path]
    synthetic: tuple[Path, ...]
    confidence: Path
    scores: Path
    mask_figure: FigurePath
    registration_figures: dict[str, FigurePath] = field(default_factory=dict)
    synthesis_figures: tuple[FigurePath, ...] = ()
    validation_figures: dict[int, FigurePath] = field(default_factory=dict)

    @property
    def figures(self) -> tuple[FigurePath, ...]:
        """All figures, in the order of the report."""
        return (
            self.mask_figure,
            *self.registration_figures.values(),
            *self.synthesis_figures,
            *self.validation_figures.values(),
        )


def clean_label(value: object) -> str:
    """Return the letters, digits and plus signs of a value: all that a BIDS label may hold.

    Raises
    ------
    SessionError
        Where nothing is left.
    """
    label = re.sub('[^A-Za-z0-9+]', '', str(value))
    if not label:
        raise SessionError(
            f'no file name can be made from the label {value!r}',
            remedy='Use letters and digits in labels',
        )
    return label


def file_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Put entities into the order of the specification; unknown and empty ones are left out."""
    pairs = [
        f'{key}-{clean_label(entities[name])}'
        for name, key in ENTITY_KEYS.items()
        if entities.get(name) is not None
    ]
    return '_'.join([*pairs, clean_label(suffix)]) + extension


def derivative_path(
    entities: Mapping[str, str],
    suffix: str,
    *,
    datatype: str = 'anat',
    extension: str = '.nii.gz',
) -> Path:
    """Return where a derivative with these entities goes, relative to the output directory."""
    folder = Path(f'sub-{clean_label(entities["subject"])}')
    if entities.get('session') is not None:
        folder /= f'ses-{clean_label(entities["session"])}'
    return folder / clean_label(datatype) / file_name(entities, suffix, extension)


def figure_path(entities: Mapping[str, str], suffix: str, *, extension: str = '.svg') -> Path:
    """Return where a figure with these entities goes, relative to the output directory."""
    folder = Path(f'sub-{clean_label(entities["subject"])}', 'figures')
    return folder / file_name(entities, suffix, extension)


def sidecar_path(path: Path) -> Path:
    """Return the JSON file that goes with a data file."""
    return path.with_name(path.name.split('.')[0] + '.json')


def resolution_label(voxel_size: tuple[float, float, float] | None) -> str:
    """Word a voxel size as a ``res-`` label: ``1mm``, ``0p8x0p8x1p2mm``; ``None`` is 1 mm.

    Examples
    --------
    >>> resolution_label((0.8, 0.8, 1.2)), resolution_label((1.0, 1.0, 1.0))
    ('0p8x0p8x1p2mm', '1mm')
    """
    sizes = [f'{size:.4g}'.replace('.', 'p') for size in voxel_size or DEFAULT_VOXEL_SIZE]
    return ('x'.join(sizes) if len(set(sizes)) > 1 else sizes[0]) + 'mm'


def desc_label(task: SynthesisTask) -> str:
    """Return the ``desc-`` label of a synthetic image.

    ``synth`` for the default target of a contrast, ``synth<name>`` for a named one. Images made
    only to be compared with an acquired scan are told apart by ``synthval``.
    """
    kind = 'synthval' if task.purpose == 'validate' else 'synth'
    return kind + (clean_label(task.target.name) if task.target.name else '')


def session_paths(plan: SessionPlan) -> SessionPaths:
    """Name all outputs of a session so that no two collide, not even where case is ignored."""
    names = _Names()
    person = {'subject': plan.subject, 'session': plan.session}
    others = [scan for scan in plan.scans if scan.path != plan.reference]
    synthetic = tuple(_synthetic_path(names, plan, task) for task in plan.tasks)
    validated = [index for index, task in enumerate(plan.tasks) if task.purpose == 'validate']
    return SessionPaths(
        mask=names.give(
            lambda serial: derivative_path(
                {**person, 'space': 'individual', 'desc': 'brain' + serial}, 'mask'
            )
        ),
        preproc={scan.path: _preproc_path(names, plan, scan) for scan in plan.scans},
        transforms={scan.path: _transform_path(names, plan, scan) for scan in others},
        inverse_transforms={
            scan.path: _transform_path(names, plan, scan, inverse=True) for scan in others
        },
        synthetic=synthetic,
        confidence=derivative_path({**person, 'desc': 'synth'}, 'qc', extension='.tsv'),
        scores=derivative_path({**person, 'desc': 'validation'}, 'scores', extension='.tsv'),
        mask_figure=FigurePath(
            'mask', 'Brain mask', figure_path({**person, 'desc': 'brain'}, 'mask')
        ),
        registration_figures={scan.path: _coreg_figure(names, plan, scan) for scan in others},
        synthesis_figures=tuple(
            FigurePath('synthesis', _task_title(plan, task), _figure_of(names, path))
            for task, path in zip(plan.tasks, synthetic, strict=True)
        ),
        validation_figures={
            index: FigurePath(
                'validation',
                f'{plan.tasks[index].target.contrast}: synthetic against acquired',
                _figure_of(names, synthetic[index], 'VsAcquired'),
            )
            for index in validated
        },
    )


def describe_labels(plans: list[SessionPlan]) -> dict[str, str]:
    """Explain each ``desc-`` label that the outputs of some plans carry."""
    texts = {
        'preproc': 'Acquired scan, bias-corrected, on the grid of the reference of its session',
        'brain': 'Brain of the reference of the session',
        'synth': 'SYNTHETIC image, computed from an acquired scan of another contrast',
        'morphometry': 'Structures of the brain, outlined on the T1w that was measured',
        'anatomy': 'Checks of brain mask, co-registrations and deformations',
        'tissues': 'Grey matter, white matter and CSF over the T1w',
        'standard': 'Brain in a standard space, with the outline of its average',
        'validation': 'Agreement of synthetic with acquired images of the same contrast',
    }
    for plan in plans:
        for path, task in zip(session_paths(plan).synthetic, plan.tasks, strict=True):
            label = re.search('_desc-([A-Za-z0-9+]+)_', path.name)[1]
            texts.setdefault(label, _describe_task(task))
    return texts


def _describe_task(task: SynthesisTask) -> str:
    text = 'SYNTHETIC image, computed from an acquired scan of another contrast'
    if task.purpose == 'validate':
        text += ', made to be compared with the acquired scan of its own contrast'
    return f'{text}; target "{task.target.name}"' if task.target.name else text


class _Names:
    """The names given so far; a name asked for again gets a serial number."""

    def __init__(self):
        self._given: set[str] = set()

    def give(self, build: Callable[[str], Path]) -> Path:
        for serial in count(1):
            path = build('' if serial == 1 else str(serial))
            if str(path).casefold() not in self._given:
                self._given.add(str(path).casefold())
                return path
        raise AssertionError('unreachable')


def _source_entities(plan: SessionPlan, scan: Scan) -> dict[str, str]:
    kept = {name: value for name, value in scan.entities.items() if name not in _OWN_ENTITIES}
    return {**kept, 'subject': plan.subject, 'session': plan.session}


def _preproc_path(names: _Names, plan: SessionPlan, scan: Scan) -> Path:
    contrast = CONTRASTS[scan.contrast]
    entities = {**_source_entities(plan, scan), 'space': 'individual'}
    return names.give(
        lambda serial: derivative_path(
            {**entities, 'desc': 'preproc' + serial}, contrast.suffix, datatype=contrast.datatype
        )
    )


def _transform_path(
    names: _Names, plan: SessionPlan, scan: Scan, *, inverse: bool = False
) -> Path:
    here, there = ('to', 'from') if inverse else ('from', 'to')
    entities = {**_source_entities(plan, scan), there: 'individual', 'mode': 'image'}
    return names.give(
        lambda serial: derivative_path(
            {**entities, here: scan.contrast + serial}, 'xfm', extension='.txt'
        )
    )


def _synthetic_path(names: _Names, plan: SessionPlan, task: SynthesisTask) -> Path:
    contrast = CONTRASTS[task.target.contrast]
    entities = {
        'subject': plan.subject,
        'session': plan.session,
        # acq-, echo-, inv- and their like describe the source's contrast, so they are dropped.
        'run': plan.scan(task.source).entities.get('run'),
        'ceagent': contrast.ceagent,
        'space': 'individual',
        'resolution': resolution_label(task.target.acquisition.voxel_size),
    }
    return names.give(
        lambda serial: derivative_path(
            {**entities, 'desc': desc_label(task) + serial},
            contrast.suffix,
            datatype=contrast.datatype,
        )
    )


def _coreg_figure(names: _Names, plan: SessionPlan, scan: Scan) -> FigurePath:
    entities, suffix = _source_entities(plan, scan), CONTRASTS[scan.contrast].suffix
    path = names.give(lambda serial: figure_path({**entities, 'desc': 'coreg' + serial}, suffix))
    reference = plan.scan(plan.reference).contrast
    return FigurePath('registration', f'{scan.contrast} aligned with {reference}', path)


def _figure_of(names: _Names, image: Path, addition: str = '') -> Path:
    """Name a figure after the image that it shows."""
    stem = image.name.removesuffix('.nii.gz')

    def build(serial: str) -> Path:
        name = re.sub('_desc-([A-Za-z0-9+]+)_', rf'_desc-\g<1>{addition}{serial}_', stem)
        return Path(image.parts[0], 'figures', name + '.svg')

    return names.give(build)


def _task_title(plan: SessionPlan, task: SynthesisTask) -> str:
    name = f' ({task.target.name})' if task.target.name else ''
    return f'{task.target.contrast}{name} from {plan.scan(task.source).contrast}'
