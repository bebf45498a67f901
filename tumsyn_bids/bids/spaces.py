"""Standard spaces: what ``--output-spaces`` asks for, and where TemplateFlow has it.

The words are those of NiPreps (``MNI152NLin6Asym:res-2``, ``MNIPediatricAsym:cohort-2``), read by
niworkflows. Both libraries are imported only where a space is asked for: importing TemplateFlow
makes a folder.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..plan import SessionPlan
from .naming import FigurePath, derivative_path, figure_path

#: Words for the space in which images are written anyway.
_OWN = {'individual', 'T1w', 'T2w', 'anat', 'run', 'session'}


@dataclass(frozen=True)
class StandardSpace:
    """A space asked for.

    Attributes
    ----------
    name : str
        As TemplateFlow spells it.
    cohort : str or None
    resolution : str or None
        TemplateFlow's number of a grid; ``None`` keeps the voxel size of each image.
    """

    name: str
    cohort: str | None = None
    resolution: str | None = None

    @property
    def words(self) -> str:
        """As it would be written on the command line; :func:`parse_spaces` reads it."""
        cohort = f':cohort-{self.cohort}' if self.cohort else ''
        return f'{self.name}{cohort}:res-{self.resolution or "native"}'

    @property
    def average(self) -> StandardSpace:
        """The same space without a resolution: what brains are registered with."""
        return StandardSpace(self.name, self.cohort)

    @classmethod
    def of(cls, words: str) -> StandardSpace:
        """Read :attr:`words`."""
        name, *rest = words.split(':')
        values = dict(item.split('-', 1) for item in rest)
        resolution = values.get('res', 'native')
        return cls(name, values.get('cohort'), None if resolution == 'native' else resolution)


def parse_spaces(words: Iterable[str]) -> tuple[StandardSpace, ...]:
    """Read the words of ``--output-spaces``; spaces of the person's own brain are left out.

    Raises
    ------
    UsageError
        Where a space is unknown, or no image can be brought there.
    """
    words = list(words)
    if not words:
        return ()
    try:
        from niworkflows.utils.spaces import OutputReferencesAction
    except OSError as error:
        raise UsageError(
            f'TemplateFlow cannot use its folder ({error.strerror})',
            path=error.filename,
            remedy='Set TEMPLATEFLOW_HOME to a folder that is populated or can be written to',
        ) from error
    found = argparse.Namespace(output_spaces=None)
    try:
        OutputReferencesAction([], 'output_spaces')(None, found, words)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f'--output-spaces {" ".join(words)}: {" ".join(str(error).split()).rstrip(".")}',
            remedy='Name spaces as TemplateFlow does, for example MNI152NLin2009cAsym:res-2',
        ) from error
    references = [item for item in found.output_spaces.references if item.space not in _OWN]
    for item in references:
        if not item.standard or item.dim != 3:
            raise UsageError(
                f'--output-spaces: images cannot be brought into {item.space}',
                remedy='Ask for volumetric standard spaces',
            )
    return tuple(dict.fromkeys(map(_space, references)))


def _space(reference) -> StandardSpace:
    resolution = str(reference.spec.get('res', reference.spec.get('resolution', 'native')))
    cohort = reference.spec.get('cohort')
    return StandardSpace(
        reference.space,
        None if cohort is None else str(cohort),
        None if resolution == 'native' else resolution.lstrip('0') or '0',
    )


def average_files(space: StandardSpace) -> tuple[Path, Path]:
    """Return TemplateFlow's T1w average of a space, 1 mm or so, and its brain mask.

    Raises
    ------
    UsageError
        Where TemplateFlow has none, or it is not here and cannot be fetched.
    """
    average = _template_file(space, resolution=1, suffix='T1w', desc=None)
    return average, _template_file(space, resolution=1, suffix='mask', desc='brain')


def grid_file(space: StandardSpace) -> Path:
    """Return an image on the grid that a space's resolution means."""
    return _template_file(space, resolution=int(space.resolution), suffix='T1w', desc=None)


def _template_file(space: StandardSpace, **query) -> Path:
    from templateflow import api, conf

    cohort = {'cohort': space.cohort} if space.cohort else {}
    wanted = ', '.join(f'{name}={value}' for name, value in {**cohort, **query}.items())
    try:
        # Also where it is known not to be there it may be a place holder of no size.
        found = api.get(space.name, extension='.nii.gz', **cohort, **query)
    except Exception as error:  # network libraries raise errors of many kinds
        raise _not_there(space, wanted, conf.TF_HOME, type(error).__name__) from error
    paths = [Path(path) for path in (found if isinstance(found, list) else [found])]
    paths = [path for path in paths if path.is_file() and path.stat().st_size]
    if not paths:
        raise _not_there(space, wanted, conf.TF_HOME, 'no such file')
    return min(paths, key=lambda path: len(path.name))


def _not_there(space: StandardSpace, wanted: str, home, reason: str) -> UsageError:
    return UsageError(
        f'TemplateFlow has no {space.name} ({wanted}) here and none could be fetched ({reason})',
        path=home,
        remedy='On a machine with a network, set TEMPLATEFLOW_HOME to a folder and run '
        f'`python -c "from templateflow import api; api.get(\'{space.name}\')"`, then set it to '
        'the same folder here',
    )


def standard_path(path: Path, space: StandardSpace) -> Path:
    """Return where an image of the individual space goes once it is in a standard space."""
    cohort = f'_cohort-{space.cohort}' if space.cohort else ''
    name = path.name.replace('_space-individual', f'_space-{space.name}{cohort}')
    if space.resolution:
        name = re.sub('_res-[A-Za-z0-9]+', '', name)
        place = f'_space-{space.name}{cohort}'
        name = name.replace(place, f'{place}_res-{space.resolution}')
    return path.with_name(name)


def standard_transforms(plan: SessionPlan, space: StandardSpace) -> tuple[Path, Path]:
    """Name the transforms between the individual and a standard space, forward and back."""
    person = {'subject': plan.subject, 'session': plan.session, 'mode': 'image'}
    label = space.name + (f'cohort{space.cohort}' if space.cohort else '')
    forward = {**person, 'from': 'individual', 'to': label}
    back = {**person, 'from': label, 'to': 'individual'}
    return tuple(derivative_path(item, 'xfm', extension='.h5') for item in (forward, back))


def standard_figure(plan: SessionPlan, space: StandardSpace) -> FigurePath:
    """Name the figure of a brain in a standard space."""
    label = space.name + (f'cohort{space.cohort}' if space.cohort else '')
    entities = {'subject': plan.subject, 'session': plan.session, 'space': label}
    path = figure_path({**entities, 'desc': 'standard'}, 'T1w')
    return FigurePath('standard', f'In the space {space.name}', path)
