"""Steps that segment the tissues of a brain, write and draw them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from .anatomy import check_rows
from .base import Step, StepInputSpec, save
from .derivatives import Write, WriteInputSpec
from .figures import Draw

#: Colours of grey matter, white matter and CSF in figures.
_COLOURS = {1: (205, 62, 78), 2: (245, 245, 245), 3: (60, 120, 220)}


class MapTissuesInputSpec(StepInputSpec):
    """Inputs of :class:`MapTissues`."""

    in_file = File(exists=True, mandatory=True, desc='T1w, acquired or synthetic')
    mask_file = File(exists=True, mandatory=True, desc='brain mask in the same world space')
    seed = traits.Int(1, usedefault=True, desc='seed of the registration')


class MapTissuesOutputSpec(TraitedSpec):
    """Outputs of :class:`MapTissues`."""

    labels = File(exists=True, desc='most probable tissue')
    probabilities = traits.Dict(desc='file of each tissue, by abbreviation')
    checks = traits.List(traits.Dict(), desc='checks of the tissues')
    warnings = traits.List(traits.Str(), desc='why they should not be trusted blindly')


class MapTissues(Step):
    """Segment grey matter, white matter and CSF."""

    input_spec = MapTissuesInputSpec
    output_spec = MapTissuesOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.quality import messages
        from ..anatomy.tissues import map_tissues

        images = nb.load(self.inputs.in_file), nb.load(self.inputs.mask_file)
        found = map_tissues(*images, seed=self.inputs.seed)
        shares = {'GM': found.tissues.gm, 'WM': found.tissues.wm, 'CSF': found.tissues.csf}
        affine = found.grid.affine
        return {
            'labels': save(found.labels.astype(np.uint8), affine, folder / 'labels.nii'),
            'probabilities': {
                name: save(share.astype(np.float32), affine, folder / f'{name}.nii')
                for name, share in shares.items()
            },
            'checks': check_rows('tissues', self.inputs.scan, found.checks),
            'warnings': [f'tissues: {text}' for text in messages(found.checks)],
        }


class WriteTissuesInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteTissues`."""

    labels = File(exists=True, mandatory=True, desc='most probable tissue')
    probabilities = traits.Dict(mandatory=True, desc='file of each tissue, by abbreviation')


class WriteTissuesOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteTissues`."""

    out_files = traits.List(File(exists=True), desc='the outputs')


class WriteTissues(Write):
    """Write labels and probabilities of the tissues."""

    input_spec = WriteTissuesInputSpec
    output_spec = WriteTissuesOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.morphometry import measured_image
        from ..bids.tissues import save_tissues

        written = save_tissues(
            nb.load(self.inputs.labels),
            {name: nb.load(path) for name, path in self.inputs.probabilities.items()},
            self.plan,
            measured_image(self.plan),
            bids_dir=self.inputs.bids_dir,
            output_dir=self.inputs.output_dir,
        )
        return {'out_files': [str(path) for path in written]}


class DrawTissuesInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawTissues`."""

    in_file = File(exists=True, mandatory=True, desc='the T1w')
    labels = File(exists=True, mandatory=True, desc='most probable tissue')


class DrawTissues(Draw):
    """Draw the tissues over the T1w."""

    input_spec = DrawTissuesInputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.morphometry import measured_image
        from ..bids.tissues import tissue_paths
        from ..grids import Grid, resample
        from ..reports.labels import plot_labels

        place, origin = tissue_paths(self.plan).figure, measured_image(self.plan).origin

        def plot(out: Path) -> None:
            labels = nb.load(self.inputs.labels)
            t1w = resample(nb.load(self.inputs.in_file), Grid.of(labels))
            plot_labels(
                nb.Nifti1Image(t1w, labels.affine),
                labels,
                out,
                colours=_COLOURS,
                synthetic=origin == 'synthetic',
                note=f'grey matter red, white matter white, CSF blue; from the {origin} T1w',
            )

        return {'figures': [self._draw(place, plot)]}
