"""Steps that draw the figures of the report; a figure that fails says why and stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nb
from nipype import logging
from nipype.interfaces.base import File, TraitedSpec, traits

from .base import optional
from .derivatives import Write, WriteInputSpec

_log = logging.getLogger('nipype.interface')


class DrawOutputSpec(TraitedSpec):
    """Outputs of every step that draws."""

    figures = traits.List(traits.Dict(), desc='kind, title and path; reason where one is missing')


class Draw(Write):
    """A step that draws."""

    output_spec = DrawOutputSpec

    def _draw(self, place, plot: Callable[[Path], object], caption: str = '') -> dict:
        """Draw one figure where the BIDS room wants it; return its entry for the record."""
        path = self._place(place.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {'kind': place.kind, 'title': place.title, 'path': place.path.as_posix()}
        if caption:
            entry['caption'] = caption
        try:
            plot(path)
        except Exception as error:  # noqa: BLE001 - results count for more than their picture
            _log.exception('figure %s was not drawn', path)
            entry['reason'] = f'{type(error).__name__}: {error}'
        return entry


class DrawMaskInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawMask`."""

    in_file = File(exists=True, mandatory=True, desc='bias-corrected reference')
    mask_file = File(exists=True, mandatory=True, desc='its brain mask')
    volume_ml = traits.Float(desc='volume of the mask')


class DrawMask(Draw):
    """Draw the outline of the brain mask."""

    input_spec = DrawMaskInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.naming import session_paths
        from ..reports.figures import plot_mask

        place = session_paths(self.plan).mask_figure
        images = nb.load(self.inputs.in_file), nb.load(self.inputs.mask_file)
        volume = optional(self.inputs.volume_ml)
        note = f'{volume:.0f} ml' if volume else ''
        return {'figures': [self._draw(place, lambda out: plot_mask(*images, out, note=note))]}


class DrawRegistrationInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawRegistration`."""

    reference = File(exists=True, mandatory=True, desc='bias-corrected reference')
    before = File(exists=True, mandatory=True, desc='bias-corrected scan, own space')
    after = File(exists=True, mandatory=True, desc='the scan in the individual space')
    mask_file = File(exists=True, mandatory=True, desc='brain mask')


class DrawRegistration(Draw):
    """Draw a scan before and after its alignment."""

    input_spec = DrawRegistrationInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.naming import session_paths
        from ..reports.figures import plot_registration

        plan, scan = self.plan, self.inputs.scan
        place = session_paths(plan).registration_figures[scan]
        images = [
            nb.load(path)
            for path in (self.inputs.reference, self.inputs.before, self.inputs.after)
        ]

        def plot(out: Path) -> None:
            plot_registration(
                *images,
                out,
                mask=nb.load(self.inputs.mask_file),
                title=place.title,
                fixed_label=plan.scan(plan.reference).contrast,
                moving_label=plan.scan(scan).contrast,
            )

        return {'figures': [self._draw(place, plot)]}


class DrawSyntheticInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawSynthetic`."""

    source = File(exists=True, mandatory=True, desc='the source in the individual space')
    synthetic = traits.List(File(exists=True), mandatory=True, desc='images made from it')
    tasks = traits.List(traits.Int(), mandatory=True, desc='which tasks of the plan they are')


class DrawSynthetic(Draw):
    """Draw the synthetic images made from one source beside it."""

    input_spec = DrawSyntheticInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.naming import session_paths
        from ..reports.figures import plot_synthesis

        plan, source = self.plan, nb.load(self.inputs.source)
        places = session_paths(plan).synthesis_figures
        figures = []
        for path, index in zip(self.inputs.synthetic, self.inputs.tasks, strict=True):
            task, place = plan.tasks[index], places[index]

            def plot(out: Path, path=path, task=task, place=place) -> None:
                plot_synthesis(
                    source,
                    nb.load(path),
                    out,
                    place.title,
                    source_label=plan.scan(task.source).contrast,
                    synthetic_label=task.target.contrast,
                )

            figures.append(self._draw(place, plot, task.prompt))
        return {'figures': figures}


class DrawValidationInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawValidation`."""

    synthetic = File(exists=True, mandatory=True, desc='synthetic image')
    acquired = File(exists=True, mandatory=True, desc='acquired scan in the individual space')
    task = traits.Int(mandatory=True, desc='which task of the plan it is')


class DrawValidation(Draw):
    """Draw a synthetic image, the acquired one, and their difference."""

    input_spec = DrawValidationInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.naming import session_paths
        from ..reports.figures import plot_validation

        place = session_paths(self.plan).validation_figures[self.inputs.task]
        images = nb.load(self.inputs.acquired), nb.load(self.inputs.synthetic)
        label = self.plan.tasks[self.inputs.task].target.contrast

        def plot(out: Path) -> None:
            plot_validation(*images, out, title=place.title, label=label)

        return {'figures': [self._draw(place, plot)]}
