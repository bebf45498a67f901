"""The figures of a session: its wiring into the graph."""

from __future__ import annotations

from ..interfaces.figures import DrawMask, DrawRegistration, DrawSynthetic, DrawValidation
from .outputs import pick, write_node


class Figures:
    """The part of a session's wiring that draws what was done."""

    def add_figures(self) -> None:
        self._draw_anatomy()
        for source, indices in self.sources.items():
            draw = self._drawer(DrawSynthetic, f'draw_from_{self.names[source]}', source)
            draw.inputs.tasks = indices
            self.workflow.connect(*self._aligned(source), draw, 'source')
            self.workflow.connect(
                self.synthesis[source], 'outputnode.synthetic', draw, 'synthetic'
            )
        for index in self._validated():
            task = self.plan.tasks[index]
            acquired = self.plan.acquired(task.target.contrast)
            draw = self._drawer(DrawValidation, f'draw_validation_{index}', acquired)
            draw.inputs.task = index
            position = self.sources[task.source].index(index)
            self.workflow.connect(*self._aligned(acquired), draw, 'acquired')
            self.workflow.connect([
                (self.synthesis[task.source], draw, [
                    (('outputnode.synthetic', pick, position), 'synthetic'),
                ]),
            ])  # fmt: skip

    def _draw_anatomy(self) -> None:
        reference = self.preproc[self.plan.reference]
        draw_mask = self._drawer(DrawMask, 'draw_mask')
        self.workflow.connect([
            (reference, draw_mask, [('outputnode.corrected', 'in_file')]),
            (self.brain, draw_mask, [
                ('outputnode.mask', 'mask_file'),
                ('outputnode.volume_ml', 'volume_ml'),
            ]),
        ])  # fmt: skip
        for path, coreg in self.coreg.items():
            draw = self._drawer(DrawRegistration, f'draw_coreg_{self.names[path]}', path)
            self.workflow.connect([
                (reference, draw, [('outputnode.corrected', 'reference')]),
                (self.preproc[path], draw, [('outputnode.corrected', 'before')]),
                (coreg, draw, [('outputnode.resampled', 'after')]),
                (self.brain, draw, [('outputnode.mask', 'mask_file')]),
            ])  # fmt: skip

    def _drawer(self, interface, name: str, scan: str = ''):
        node = write_node(interface, plan=self.plan, settings=self.settings, name=name, scan=scan)
        self.drawn.append((node, 'figures'))
        return node
