"""Steps that write the outputs of a session; names and sidecars come from the BIDS room."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from ..plan import SessionPlan
from .base import Step, StepInputSpec, optional


class WriteInputSpec(StepInputSpec):
    """Inputs of every step that writes outputs."""

    plan = traits.Str(mandatory=True, desc='the SessionPlan as JSON')
    bids_dir = traits.Str(mandatory=True, desc='raw dataset')
    output_dir = traits.Str(mandatory=True, desc='derivative dataset')


class WriteOutputSpec(TraitedSpec):
    """Outputs of most steps that write outputs."""

    out_file = File(exists=True, desc='the output')


class Write(Step):
    """A step that writes outputs; it always runs, in case somebody removed them."""

    _always_run = True
    output_spec = WriteOutputSpec

    @property
    def plan(self) -> SessionPlan:
        return SessionPlan.from_json(self.inputs.plan)

    def _written_to(self, folder: Path) -> Path:
        return Path(self.inputs.output_dir)

    def _place(self, relative: Path) -> Path:
        return Path(self.inputs.output_dir) / relative


class WritePreprocInputSpec(WriteInputSpec):
    """Inputs of :class:`WritePreproc`."""

    in_file = File(exists=True, mandatory=True, desc="corrected scan on the reference's grid")
    transform_file = File(exists=True, desc='what resampled it, of all scans but the reference')


class WritePreproc(Write):
    """Write a bias-corrected scan in the individual space."""

    input_spec = WritePreprocInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import ALIGNED, SCANNER, preproc_sidecar, save_image
        from ..bids.naming import session_paths

        plan, scan, paths = self.plan, self.inputs.scan, session_paths(self.plan)
        used = optional(self.inputs.transform_file)
        transform = paths.transforms[scan].with_suffix(Path(used).suffix) if used else None
        bids_dir = self.inputs.bids_dir
        path = save_image(
            nb.load(self.inputs.in_file),
            self._place(paths.preproc[scan]),
            preproc_sidecar(plan, plan.scan(scan), bids_dir=bids_dir, transform=transform),
            code=SCANNER if scan == plan.reference else ALIGNED,
        )
        return {'out_file': str(path)}


class WriteTransformInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteTransform`."""

    transform_file = File(exists=True, mandatory=True, desc='ITK transform, reference to scan')
    inverse_file = File(exists=True, mandatory=True, desc='the other way')
    coreg = traits.Enum('rigid', 'affine', 'syn', usedefault=True, desc='kind of transform')
    cost_before = traits.Float(desc='cost with the headers alone')
    cost_after = traits.Float(desc='cost with the transform')


class WriteTransformOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteTransform`."""

    out_files = traits.List(File(exists=True), desc='the outputs')


class WriteTransform(Write):
    """Write the transforms between a scan and the reference, both ways."""

    input_spec = WriteTransformInputSpec
    output_spec = WriteTransformOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import save_copy, transform_sidecar
        from ..bids.naming import session_paths

        plan, scan = self.plan, self.inputs.scan
        paths = session_paths(plan)
        written = []
        for file, place, inverse in (
            (self.inputs.transform_file, paths.transforms[scan], False),
            (self.inputs.inverse_file, paths.inverse_transforms[scan], True),
        ):
            sidecar = transform_sidecar(
                plan,
                plan.scan(scan),
                bids_dir=self.inputs.bids_dir,
                kind=self.inputs.coreg,
                inverse=inverse,
                cost_before=optional(self.inputs.cost_before),
                cost_after=optional(self.inputs.cost_after),
            )
            place = self._place(place).with_suffix(Path(file).suffix)
            written.append(str(save_copy(file, place, sidecar)))
        return {'out_files': written}


class WriteMaskInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteMask`."""

    mask_file = File(exists=True, mandatory=True, desc='brain mask of the reference')
    volume_ml = traits.Float(desc='volume of the mask')
    method = traits.Str(mandatory=True, desc='how it was made')
    warnings = traits.List(traits.Str(), desc='why it should not be trusted blindly')


class WriteMask(Write):
    """Write the brain mask of the session."""

    input_spec = WriteMaskInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import SCANNER, mask_sidecar, save_image
        from ..bids.naming import session_paths

        plan = self.plan
        sidecar = mask_sidecar(
            plan,
            bids_dir=self.inputs.bids_dir,
            method=self.inputs.method,
            volume_ml=optional(self.inputs.volume_ml),
            warnings=optional(self.inputs.warnings) or (),
        )
        path = save_image(
            nb.load(self.inputs.mask_file),
            self._place(session_paths(plan).mask),
            sidecar,
            dtype=np.uint8,
            code=SCANNER,
        )
        return {'out_file': str(path)}


class WriteSyntheticInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteSynthetic`."""

    in_files = traits.List(File(exists=True), mandatory=True, desc='synthetic images')
    tasks = traits.List(traits.Int(), mandatory=True, desc='which tasks of the plan they are')
    model = traits.Dict(mandatory=True, desc='name, version and sha256 of the model')
    warnings = traits.List(
        traits.List(traits.Str()), mandatory=True, desc='what the model says about each target'
    )
    confidence = traits.List(
        traits.Dict(), mandatory=True, desc='figures of confidence and the verdict, each target'
    )
    donors = traits.List(
        traits.List(traits.Str()), mandatory=True, desc='whose brightness each image has'
    )
    mask_warnings = traits.List(traits.Str(), desc='doubts about the brain mask')
    stripped = traits.Bool(True, usedefault=True, desc='whether the mask leaves the skull out')


class WriteSyntheticOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteSynthetic`."""

    out_files = traits.List(File(exists=True), desc='the outputs')


class WriteSynthetic(Write):
    """Write the synthetic images made from one source."""

    input_spec = WriteSyntheticInputSpec
    output_spec = WriteSyntheticOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import ModelRecord, save_synthetic, synthetic_sidecar
        from ..bids.naming import session_paths

        plan = self.plan
        paths = session_paths(plan)
        out_files = []
        about = (self.inputs.warnings, self.inputs.confidence, self.inputs.donors)
        images = zip(self.inputs.in_files, self.inputs.tasks, *about, strict=True)
        for in_file, index, warnings, confidence, donors in images:
            sidecar = synthetic_sidecar(
                plan,
                plan.tasks[index],
                bids_dir=self.inputs.bids_dir,
                model=ModelRecord(**self.inputs.model),
                mask=paths.mask,
                skull_stripped=self.inputs.stripped,
                confidence=confidence,
                donors=donors,
                warnings=[*warnings, *(optional(self.inputs.mask_warnings) or ())],
            )
            place = self._place(paths.synthetic[index])
            out_files.append(str(save_synthetic(nb.load(in_file), place, sidecar)))
        return {'out_files': out_files}


class WriteConfidenceInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteConfidence`."""

    tasks = traits.List(traits.Int(), mandatory=True, desc='which tasks of the plan')
    confidence = traits.List(traits.Dict(), mandatory=True, desc='their figures of confidence')


class WriteConfidence(Write):
    """Write the table that says how far each synthetic image can be trusted."""

    input_spec = WriteConfidenceInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import save_confidence
        from ..bids.naming import session_paths

        paths = session_paths(self.plan)
        rows = confidence_rows(self.plan, self.inputs.tasks, self.inputs.confidence)
        return {'out_file': str(save_confidence(rows, self._place(paths.confidence)))}


def confidence_rows(plan: SessionPlan, tasks: Sequence[int], figures: Sequence[dict]):
    """Return the rows of the table of confidence, in the order of the tasks of the plan."""
    from ..bids.derivatives import own_uri
    from ..bids.naming import session_paths

    paths = session_paths(plan)
    return [
        {
            'synthetic': own_uri(paths.synthetic[index]),
            'contrast': plan.tasks[index].target.contrast,
            'source': plan.scan(plan.tasks[index].source).contrast,
            **values,
        }
        for index, values in sorted(zip(tasks, figures, strict=True), key=lambda pair: pair[0])
    ]


class WriteScoresInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteScores`."""

    tasks = traits.List(traits.Int(), mandatory=True, desc='which tasks of the plan were scored')
    scores = traits.List(traits.Dict(), mandatory=True, desc='their figures of agreement')


class WriteScores(Write):
    """Write the table of agreement of synthetic with acquired images."""

    input_spec = WriteScoresInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import own_uri, raw_uri, save_scores
        from ..bids.naming import session_paths

        plan = self.plan
        paths = session_paths(plan)
        rows = [
            {
                'synthetic': own_uri(paths.synthetic[index]),
                'contrast': plan.tasks[index].target.contrast,
                'source': plan.scan(plan.tasks[index].source).contrast,
                'acquired': raw_uri(
                    plan.acquired(plan.tasks[index].target.contrast), self.inputs.bids_dir
                ),
                **scores,
            }
            for index, scores in zip(self.inputs.tasks, self.inputs.scores, strict=True)
        ]
        return {'out_file': str(save_scores(rows, self._place(paths.scores)))}


class WriteChecksInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteChecks`."""

    checks = traits.List(traits.Dict(), mandatory=True, desc='checks with their step and scan')


class WriteChecksOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteChecks`."""

    out_file = File(exists=True, desc='the table')
    checks = traits.List(traits.Dict(), desc='the rows of the table')


class WriteChecks(Write):
    """Write the table of checks of a session."""

    input_spec = WriteChecksInputSpec
    output_spec = WriteChecksOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.quality import LIMITS
        from ..bids.checks import check_table, save_checks

        rows = check_table(self.inputs.checks, self.plan, bids_dir=self.inputs.bids_dir)
        path = save_checks(
            rows,
            {name: limit.meaning for name, limit in LIMITS.items()},
            self.plan,
            output_dir=self.inputs.output_dir,
        )
        return {'out_file': str(path), 'checks': rows}


class SummarizeInputSpec(WriteInputSpec):
    """Inputs of :class:`Summarize`."""

    summary_file = traits.Str(mandatory=True, desc='where the summary goes')
    outputs = traits.List(File(exists=True), mandatory=True, desc='all that was written')
    findings = traits.List(traits.Dict(), desc='what was odd about the headers')
    doubts = traits.List(traits.Str(), desc='about the brain mask and the alignments')
    model = traits.Dict(desc='name, version and sha256 of the model')
    model_warnings = traits.List(traits.List(traits.Str()), desc='one list for each image')
    scores = traits.List(traits.Dict(), desc='agreement, one for each validated image')
    tasks = traits.List(traits.Int(), desc='which tasks of the plan confidence is about')
    confidence = traits.List(traits.Dict(), desc='figures of confidence, one for each image')
    figures = traits.List(traits.Dict(), desc='figures of the report')
    checks = traits.List(traits.Dict(), desc='rows of the table of checks')


class SummarizeOutputSpec(TraitedSpec):
    """Outputs of :class:`Summarize`."""

    out_file = File(exists=True, desc='the summary, JSON')


class Summarize(Write):
    """Put down what a session has yielded, for its record and its report."""

    input_spec = SummarizeInputSpec
    output_spec = SummarizeOutputSpec

    def _work(self, folder: Path) -> dict:
        findings = [
            f'{Path(item["path"]).name}: {item["field"]}: {item["problem"]} ({item["action"]})'
            for item in optional(self.inputs.findings) or ()
        ]
        doubts = optional(self.inputs.doubts) or []
        about_model = [
            text for texts in optional(self.inputs.model_warnings) or () for text in texts
        ]
        summary = {
            'outputs': list(self.inputs.outputs),
            'warnings': list(dict.fromkeys([*findings, *doubts, *about_model])),
            'mended': findings,
            'model': optional(self.inputs.model) or {},
            'scores': optional(self.inputs.scores) or [],
            'confidence': confidence_rows(
                self.plan,
                optional(self.inputs.tasks) or [],
                optional(self.inputs.confidence) or [],
            ),
            'figures': optional(self.inputs.figures) or [],
            'checks': optional(self.inputs.checks) or [],
        }
        path = Path(self.inputs.summary_file)
        path.write_text(json.dumps(summary, indent=1))
        return {'out_file': str(path)}
