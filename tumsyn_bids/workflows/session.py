"""The graph of one session, wired from its plan, and the graph of many."""

from __future__ import annotations

import re
from pathlib import Path

from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from ..interfaces.derivatives import (
    Summarize,
    WriteChecks,
    WriteConfidence,
    WriteMask,
    WritePreproc,
    WriteScores,
    WriteSynthetic,
    WriteTransform,
)
from ..plan import SessionPlan
from ..resources import session_gb
from ..settings import Settings
from .anatomy import init_brain_wf, init_coreg_wf, init_preproc_wf
from .figures import Figures
from .morphometry import Measurement
from .outputs import join, pick, write_node
from .standard import StandardSpaces
from .synthesis import init_score_wf, init_synthesis_wf
from .tissues import TissueSegmentation


def init_tumsyn_wf(
    *,
    plans: list[SessionPlan],
    settings: Settings,
    model_sha256: str = '',
    use_cuda: bool = False,
    name: str = 'tumsyn_wf',
):
    """Put many sessions into one graph, for Nipype plugins that spread it over a cluster.

    Parameters
    ----------
    plans : list of SessionPlan
    settings : Settings
    model_sha256 : str
    use_cuda : bool
        See :func:`init_session_wf`.
    name : str
    """
    workflow = Workflow(name=name)
    common = {'settings': settings, 'model_sha256': model_sha256, 'use_cuda': use_cuda}
    workflow.add_nodes([init_session_wf(plan=plan, **common) for plan in plans])
    return workflow


def init_session_wf(
    *,
    plan: SessionPlan,
    settings: Settings,
    model_sha256: str = '',
    use_cuda: bool = False,
    name: str | None = None,
):
    """Make everything that the plan of a session asks for.

    Parameters
    ----------
    plan : SessionPlan
    settings : Settings
    model_sha256 : str
        Of the model, so that results of another one are not taken from the work directory.
    use_cuda : bool
        The network takes a GPU slot of the plugin, if it has such.
    name : str, optional
        ``<session>_wf`` if not given.
    """
    workflow = Workflow(name=name or session_name(plan))
    workflow.__desc__ = _describe(plan)
    session = _Session(workflow, plan, settings)
    session.add_scans()
    session.add_brain()
    session.add_coregistrations()
    session.add_syntheses(model_sha256, use_cuda)
    session.add_scores()
    session.add_morphometry()
    session.add_tissues()
    session.add_standard_spaces()
    session.add_figures()
    session.add_checks()
    session.add_summary()
    return workflow


def session_name(plan: SessionPlan) -> str:
    """Return the name of a session's workflow, which is also its folder's name."""
    # Two for a plus sign: sub-A+ses-B would else share the folder of session B of sub-A.
    label = plan.label.replace('+', '__')
    return re.sub('[^A-Za-z0-9]', '_', label) + '_wf'


def summary_file(plan: SessionPlan, settings: Settings) -> Path:
    """Return where the workflow of a session leaves its summary."""
    return settings.work_dir / 'summaries' / f'{plan.label}.json'


class _Session(Figures, Measurement, StandardSpaces, TissueSegmentation):
    """A session's workflow while it is being wired."""

    def __init__(self, workflow, plan: SessionPlan, settings: Settings):
        self.workflow, self.plan, self.settings = workflow, plan, settings
        self.names = _scan_names(plan)
        self.preproc: dict[str, Workflow] = {}
        self.coreg: dict[str, Workflow] = {}
        self.synthesis: dict[str, Workflow] = {}
        self.written: list[tuple] = []
        self.scored: list[tuple] = []
        self.drawn: list[tuple] = []
        self.doubting: list[Workflow] = []
        self.checked: list[Workflow] = []
        self.in_individual: list[tuple] = []
        self.sources = _tasks_by_source(plan)

    def add_scans(self) -> None:
        for path, name in self.names.items():
            preproc = init_preproc_wf(
                n_threads=self.settings.omp_nthreads, name=f'preproc_{name}_wf'
            )
            preproc.inputs.inputnode.scan = path
            self.workflow.add_nodes([preproc])
            self.preproc[path] = preproc

    def add_brain(self) -> None:
        plan, reference = self.plan, self.preproc[self.plan.reference]
        self.brain = init_brain_wf(
            contrast=plan.scan(plan.reference).contrast,
            method=self.settings.skull_strip,
            seed=self.settings.random_seed,
            n_threads=self.settings.omp_nthreads,
        )
        self.brain.inputs.inputnode.scan = plan.reference
        write_mask = self._writer(WriteMask, 'write_mask')
        write_scan = self._writer(WritePreproc, f'write_{self.names[plan.reference]}')
        self.workflow.connect([
            (reference, self.brain, [('outputnode.corrected', 'inputnode.corrected')]),
            (reference, write_scan, [('outputnode.corrected', 'in_file')]),
            (self.brain, write_mask, [
                ('outputnode.mask', 'mask_file'),
                ('outputnode.volume_ml', 'volume_ml'),
                ('outputnode.method', 'method'),
                ('outputnode.warnings', 'warnings'),
            ]),
        ])  # fmt: skip
        self.checked.append(self.brain)
        self.in_individual += [
            (write_mask, 'out_file', self.brain, 'outputnode.mask', plan.reference),
            (write_scan, 'out_file', reference, 'outputnode.corrected', plan.reference),
        ]

    def add_coregistrations(self) -> None:
        reference = self.preproc[self.plan.reference]
        for path, name in self.names.items():
            if path == self.plan.reference:
                continue
            coreg = init_coreg_wf(
                contrast=self.plan.scan(path).contrast,
                coreg=self.settings.coreg,
                seed=self.settings.random_seed,
                n_threads=self.settings.omp_nthreads,
                name=f'coreg_{name}_wf',
            )
            coreg.inputs.inputnode.scan = path
            write_scan = self._writer(WritePreproc, f'write_{name}', scan=path)
            write_transform = self._writer(
                WriteTransform, f'write_xfm_{name}', 'out_files', scan=path
            )
            write_transform.inputs.coreg = self.settings.coreg
            self.workflow.connect([
                (self.preproc[path], coreg, [('outputnode.corrected', 'inputnode.corrected')]),
                (reference, coreg, [('outputnode.corrected', 'inputnode.reference')]),
                (self.brain, coreg, [('outputnode.mask', 'inputnode.mask')]),
                (coreg, write_scan, [
                    ('outputnode.resampled', 'in_file'),
                    ('outputnode.transform', 'transform_file'),
                ]),
                (coreg, write_transform, [
                    ('outputnode.transform', 'transform_file'),
                    ('outputnode.inverse', 'inverse_file'),
                    ('outputnode.cost_before', 'cost_before'),
                    ('outputnode.cost_after', 'cost_after'),
                ]),
            ])  # fmt: skip
            self.coreg[path] = coreg
            self.checked.append(coreg)
            self.in_individual.append(
                (write_scan, 'out_file', self.preproc[path], 'outputnode.corrected', path)
            )

    def add_syntheses(self, model_sha256: str, use_cuda: bool) -> None:
        for source, indices in self.sources.items():
            name = self.names[source]
            synthesis = init_synthesis_wf(
                tasks=tuple(self.plan.tasks[index] for index in indices),
                source=self.plan.scan(source).acquisition,
                model=self.settings.model,
                model_sha256=model_sha256,
                device=self.settings.device,
                use_cuda=use_cuda,
                n_threads=self.settings.omp_nthreads,
                mem_gb=session_gb(self.plan, self.settings.skull_strip),
                skull_strip=self.settings.skull_strip,
                seed=self.settings.random_seed,
                cache_dir=str(self.settings.work_dir / 'brightness'),
                name=f'synthesis_from_{name}_wf',
            )
            synthesis.inputs.inputnode.scan = source
            write = self._writer(WriteSynthetic, f'write_from_{name}', 'out_files', scan=source)
            write.inputs.tasks = indices
            self._connect_scan(source, synthesis, 'corrected', 'transform')
            self.workflow.connect([
                (self.brain, synthesis, [('outputnode.mask', 'inputnode.mask')]),
                (self.brain, write, [
                    ('outputnode.warnings', 'mask_warnings'),
                    ('outputnode.stripped', 'stripped'),
                ]),
                (synthesis, write, [
                    ('outputnode.synthetic', 'in_files'),
                    ('outputnode.model', 'model'),
                    ('outputnode.warnings', 'warnings'),
                    ('outputnode.confidence', 'confidence'),
                    ('outputnode.donors', 'donors'),
                ]),
            ])  # fmt: skip
            self.synthesis[source] = synthesis
            self.in_individual += [
                (
                    write,
                    ('out_files', pick, position),
                    synthesis,
                    ('outputnode.synthetic', pick, position),
                    '',
                )
                for position in range(len(indices))
            ]
        if self.sources:
            write = self._writer(WriteConfidence, 'write_confidence')
            write.inputs.tasks = [index for indices in self.sources.values() for index in indices]
            join(self.workflow, self._judged(), write, 'confidence')

    def add_scores(self) -> None:
        validated = self._validated()
        if not validated:
            return
        for index in validated:
            task = self.plan.tasks[index]
            acquired = self.plan.acquired(task.target.contrast)
            score = init_score_wf(
                index=self.sources[task.source].index(index), name=f'score_{index}_wf'
            )
            score.inputs.inputnode.scan = acquired
            self._connect_scan(acquired, score, 'acquired', 'transform')
            self._connect_scan(task.source, score, 'source', 'source_transform')
            self.workflow.connect([
                (self.brain, score, [('outputnode.mask', 'inputnode.mask')]),
                (self.synthesis[task.source], score, [
                    ('outputnode.synthetic', 'inputnode.synthetic'),
                ]),
            ])  # fmt: skip
            self.scored.append((score, 'outputnode.scores'))
        write = self._writer(WriteScores, 'write_scores')
        write.inputs.tasks = validated
        join(self.workflow, self.scored, write, 'scores')

    def add_checks(self) -> None:
        self.checks = self._writer(WriteChecks, 'write_checks')
        checked = [(part, 'outputnode.checks') for part in self.checked]
        join(self.workflow, checked, self.checks, 'checks')

    def add_summary(self) -> None:
        summarize = write_node(Summarize, plan=self.plan, settings=self.settings, name='summarize')
        summarize.inputs.summary_file = str(summary_file(self.plan, self.settings))
        join(self.workflow, self.written, summarize, 'outputs')
        join(self.workflow, self.scored, summarize, 'scores')
        join(self.workflow, self._judged(), summarize, 'confidence')
        summarize.inputs.tasks = [index for indices in self.sources.values() for index in indices]
        join(self.workflow, self.drawn, summarize, 'figures')
        preprocs, syntheses = self.preproc.values(), list(self.synthesis.values())
        findings = [(preproc, 'outputnode.findings') for preproc in preprocs]
        join(self.workflow, findings, summarize, 'findings')
        warnings = [(synthesis, 'outputnode.warnings') for synthesis in syntheses]
        join(self.workflow, warnings, summarize, 'model_warnings')
        doubtful = (self.brain, *self.coreg.values(), *self.doubting)
        doubts = [(part, 'outputnode.warnings') for part in doubtful]
        join(self.workflow, doubts, summarize, 'doubts')
        self.workflow.connect(self.checks, 'checks', summarize, 'checks')
        if syntheses:
            self.workflow.connect(syntheses[0], 'outputnode.model', summarize, 'model')

    def _judged(self) -> list[tuple]:
        """Return where the figures of confidence come from, source by source."""
        return [(synthesis, 'outputnode.confidence') for synthesis in self.synthesis.values()]

    def _writer(self, interface, name: str, output: str = 'out_file', scan: str = ''):
        node = write_node(interface, plan=self.plan, settings=self.settings, name=name, scan=scan)
        self.written.append((node, output))
        return node

    def _aligned(self, path: str) -> tuple:
        """Return where a scan in the individual space comes from."""
        if path in self.coreg:
            return self.coreg[path], 'outputnode.resampled'
        return self.preproc[path], 'outputnode.corrected'

    def _validated(self) -> list[int]:
        return [i for i, task in enumerate(self.plan.tasks) if task.purpose == 'validate']

    def _connect_scan(self, path: str, workflow, image: str, transform: str) -> None:
        """Hand a scan in its own space, and its transform if it has one, to a workflow.

        Images are resampled by matrices there, so a scan that was deformed is handed over as it
        lies on the reference's grid.
        """
        if path in self.coreg and self.settings.coreg == 'syn':
            self.workflow.connect(*self._aligned(path), workflow, f'inputnode.{image}')
            return
        self.workflow.connect(
            self.preproc[path], 'outputnode.corrected', workflow, f'inputnode.{image}'
        )
        if path in self.coreg:
            self.workflow.connect(
                self.coreg[path], 'outputnode.transform', workflow, f'inputnode.{transform}'
            )


def _scan_names(plan: SessionPlan) -> dict[str, str]:
    """Give each scan a short name; a contrast that occurs twice gets a number."""
    names: dict[str, str] = {}
    for scan in plan.scans:
        taken = sum(name.rstrip('0123456789_') == scan.contrast for name in names.values())
        names[scan.path] = f'{scan.contrast}_{taken + 1}' if taken else scan.contrast
    return names


def _tasks_by_source(plan: SessionPlan) -> dict[str, list[int]]:
    """Return, for each source, the indices of the tasks that it serves, in the plan's order."""
    indices: dict[str, list[int]] = {}
    for index, task in enumerate(plan.tasks):
        indices.setdefault(task.source, []).append(index)
    return indices


def _describe(plan: SessionPlan) -> str:
    reference = plan.scan(plan.reference).contrast
    scans = ', '.join(scan.contrast for scan in plan.scans)
    return f'The scans used were {scans}; the {reference} defined the space of the session.\n'
