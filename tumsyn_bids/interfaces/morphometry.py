"""Steps that measure a brain, write what was measured and draw it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from ..errors import ScanError
from .base import Step, StepInputSpec, optional, save
from .derivatives import Write, WriteInputSpec
from .figures import Draw


class MeasureInputSpec(StepInputSpec):
    """Inputs of :class:`MeasureBrain`."""

    in_file = File(exists=True, mandatory=True, desc='T1w, acquired or synthetic')
    mask_file = File(exists=True, mandatory=True, desc='brain mask in the same world space')
    seed = traits.Int(1, usedefault=True, desc="of ITK's random numbers")


class MeasureOutputSpec(TraitedSpec):
    """Outputs of :class:`MeasureBrain`."""

    labels_file = File(exists=True, desc="FreeSurfer's numbers, 1 mm")
    brain_file = File(exists=True, desc='the T1w inside the mask, same grid')
    tissues_file = File(exists=True, desc='probabilities of GM, WM and CSF, same grid')
    measures_file = File(exists=True, desc='rows, parts of the brain and the affine, JSON')
    warnings = traits.List(traits.Str(), desc='structures that should not be trusted')


class MeasureBrain(Step):
    """Segment the structures of a brain and measure their volumes."""

    input_spec = MeasureInputSpec
    output_spec = MeasureOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..morphometry.segmentation import segment_brain, unsegmented
        from ..morphometry.tables import to_record
        from ..morphometry.volumes import brain_volumes, doubts, measure_structures

        images = nb.load(self.inputs.in_file), nb.load(self.inputs.mask_file)
        failures = []
        try:
            found = segment_brain(*images, seed=self.inputs.seed)
        except ScanError as error:
            # The rest of the session is delivered: all measures are unknown, and it is told.
            found, failures = unsegmented(*images), [f'nothing was measured: {error}']
        measures = measure_structures(found)
        parts = brain_volumes(found, measures)
        notes = failures or doubts(measures, found.intracranial_mm3)
        measures_file = folder / 'measures.json'
        measures_file.write_text(json.dumps(to_record(measures, parts, found.affine)))
        affine = found.grid.affine
        tissues = np.stack([found.tissues.gm, found.tissues.wm, found.tissues.csf], axis=-1)
        return {
            'tissues_file': save(tissues.astype(np.float32), affine, folder / 'tissues.nii'),
            'labels_file': save(found.labels, affine, folder / 'labels.nii'),
            'brain_file': save(found.brain, affine, folder / 'brain.nii'),
            'measures_file': str(measures_file),
            'warnings': [f'morphometry: {note}' for note in notes],
        }


class CortexInputSpec(StepInputSpec):
    """Inputs of :class:`MeasureCortex`."""

    labels_file = File(exists=True, mandatory=True, desc="FreeSurfer's numbers")
    tissues_file = File(exists=True, mandatory=True, desc='probabilities, same grid')
    measures_file = File(exists=True, mandatory=True, desc='measures, JSON')
    warnings = traits.List(traits.Str(), desc='what is doubted already')


class CortexOutputSpec(TraitedSpec):
    """Outputs of :class:`MeasureCortex`."""

    measures_file = File(exists=True, desc='measures with those of the cortex, JSON')
    surface_files = traits.List(File(exists=True), desc='lh.npz, rh.npz; fewer where it failed')
    warnings = traits.List(traits.Str(), desc='what should not be trusted')


class MeasureCortex(Step):
    """Measure the thickness of the cortex and build its surfaces."""

    input_spec = CortexInputSpec
    output_spec = CortexOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..grids import Grid
        from ..morphometry.cortex import add_cortex, cortex_doubts, measure_cortex
        from ..morphometry.refinement import Tissues
        from ..morphometry.surface_files import save_surface

        img = nb.load(self.inputs.labels_file)
        labels = np.asarray(img.dataobj, np.int32)
        shares = np.asarray(nb.load(self.inputs.tissues_file).dataobj, np.float32)
        tissues = Tissues(*np.moveaxis(shares, -1, 0))
        found = measure_cortex(labels, tissues, Grid.of(img))
        record = json.loads(Path(self.inputs.measures_file).read_text())
        record = add_cortex(record, labels, found)
        measures_file = folder / 'measures.json'
        measures_file.write_text(json.dumps(record))
        surfaces = {
            side: save_surface(surface, folder / f'{side}.npz')
            for side, surface in found.surfaces.items()
        }
        notes = [f'morphometry: {note}' for note in cortex_doubts(record, found.notes)]
        return {
            'measures_file': str(measures_file),
            'surface_files': [str(path) for path in surfaces.values()],
            'warnings': [*(optional(self.inputs.warnings) or ()), *notes],
        }


class WriteMorphometryInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteMorphometry`."""

    in_file = File(exists=True, mandatory=True, desc='the T1w that was measured')
    labels_file = File(exists=True, mandatory=True, desc='label image')
    brain_file = File(exists=True, mandatory=True, desc='brain on its grid')
    measures_file = File(exists=True, mandatory=True, desc='measures, JSON')
    surface_files = traits.List(File(exists=True), desc='surfaces by hemisphere')
    warnings = traits.List(traits.Str(), desc='structures that should not be trusted')
    subjects_dir = traits.Str(desc='where files in formats of FreeSurfer go')


class WriteMorphometryOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteMorphometry`."""

    out_files = traits.List(File(exists=True), desc='the outputs')


class WriteMorphometry(Write):
    """Write labels and tables of a session, and its folder in a FreeSurfer subjects directory."""

    input_spec = WriteMorphometryInputSpec
    output_spec = WriteMorphometryOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.morphometry import measured_image, save_labels, save_measures, save_surfaces
        from ..morphometry.tables import label_rows, morph_rows

        plan, measured = self.plan, measured_image(self.plan)
        record = json.loads(Path(self.inputs.measures_file).read_text())
        labels = nb.load(self.inputs.labels_file)
        places = {'bids_dir': self.inputs.bids_dir, 'output_dir': self.inputs.output_dir}
        written = save_labels(labels, label_rows(), plan, measured, **places)
        warnings = optional(self.inputs.warnings) or ()
        rows = morph_rows(record)
        written.append(save_measures(rows, plan, measured, **places, warnings=warnings))
        surfaces = self._surfaces()
        written += save_surfaces(_gifti(surfaces), plan, measured, **places)
        subjects_dir = optional(self.inputs.subjects_dir)
        measured_at_all = record['brain']['EstimatedTotalIntraCranialVol'] is not None
        # recon-all and its kin have filled the subject's folder themselves.
        own_tree = 'recon-all' not in record.get('software', '')
        if subjects_dir and measured_at_all and own_tree:
            self._write_freesurfer(Path(subjects_dir), labels, record, surfaces)
        return {'out_files': [str(path) for path in written]}

    def _surfaces(self) -> dict:
        from ..morphometry.surface_files import load_surface

        files = optional(self.inputs.surface_files) or ()
        return {Path(name).stem: load_surface(name) for name in files}

    def _write_freesurfer(self, subjects_dir: Path, labels, record: dict, surfaces) -> None:
        from ..bids.morphometry import measured_image
        from ..morphometry.freesurfer import RAW, write_subject

        others = {scan.contrast: scan.path for scan in reversed(self.plan.scans)}

        write_subject(
            subjects_dir,
            self.plan.label,
            t1w=nb.load(self.inputs.in_file),
            brain=nb.load(self.inputs.brain_file),
            labels=labels,
            record=record,
            origin=measured_image(self.plan).origin,
            surfaces=surfaces,
            others={name: nb.load(others[name]) for name in RAW if name in others},
        )


def _gifti(surfaces: dict) -> dict:
    """Return the GIFTI images of surfaces by side, kind and extension."""
    from ..morphometry.surface_files import GIFTI_FILES, gifti

    return {
        (side, kind, extension): gifti(surface, side, kind)
        for side, surface in surfaces.items()
        for kind, extension in GIFTI_FILES.items()
    }


class AgreementInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteAgreement`."""

    task = traits.Int(mandatory=True, desc='index of the task that makes the synthetic T1w')
    acquired_labels = File(exists=True, mandatory=True, desc='structures on the acquired T1w')
    acquired_measures = File(exists=True, mandatory=True, desc='measures on the acquired T1w')
    synthetic_labels = File(exists=True, mandatory=True, desc='structures on the synthetic T1w')
    synthetic_measures = File(exists=True, mandatory=True, desc='measures on the synthetic T1w')


class WriteAgreement(Write):
    """Write how measures from a synthetic T1w agree with those from the acquired one."""

    input_spec = AgreementInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.morphometry import save_agreement
        from ..morphometry.agreement import agreement_rows, dice_by_label

        inputs = self.inputs
        labels = nb.load(inputs.acquired_labels), nb.load(inputs.synthetic_labels)
        records = [
            json.loads(Path(name).read_text())
            for name in (inputs.acquired_measures, inputs.synthetic_measures)
        ]
        path = save_agreement(
            agreement_rows(*records, dice_by_label(*labels)),
            self.plan,
            inputs.task,
            bids_dir=inputs.bids_dir,
            output_dir=inputs.output_dir,
        )
        return {'out_file': str(path)}


class DrawMorphometryInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawMorphometry`."""

    brain_file = File(exists=True, mandatory=True, desc='brain on the grid of the labels')
    labels_file = File(exists=True, mandatory=True, desc='label image')
    measures_file = File(exists=True, mandatory=True, desc='measures, JSON')


class DrawMorphometry(Draw):
    """Draw the structures over the brain, with the table of their volumes."""

    input_spec = DrawMorphometryInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.morphometry import measured_image, morphometry_paths
        from ..morphometry.labels import colours
        from ..morphometry.tables import report_rows
        from ..reports.labels import plot_labels

        place, origin = morphometry_paths(self.plan).figure, measured_image(self.plan).origin
        images = nb.load(self.inputs.brain_file), nb.load(self.inputs.labels_file)
        record = json.loads(Path(self.inputs.measures_file).read_text())

        def plot(out: Path) -> None:
            plot_labels(
                *images,
                out,
                colours=colours(),
                synthetic=origin == 'synthetic',
                note=f'measured on the {origin} T1w',
            )

        caption = f'Volumes in ml, measured on the {origin} T1w'
        entry = self._draw(place, plot, caption)
        return {'figures': [{**entry, 'table': report_rows(record)}]}
