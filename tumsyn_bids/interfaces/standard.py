"""Steps that bring images into standard spaces."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from .anatomy import check_rows
from .base import Step, StepInputSpec
from .derivatives import Write, WriteInputSpec
from .figures import Draw


class NormalizeInputSpec(StepInputSpec):
    """Inputs of :class:`Normalize`."""

    in_file = File(exists=True, mandatory=True, desc='T1w, acquired or synthetic, else any scan')
    mask_file = File(exists=True, mandatory=True, desc='its brain mask')
    space = traits.Str(mandatory=True, desc='standard space, in words')
    seed = traits.Int(1, usedefault=True, desc='seed of the registration')


class NormalizeOutputSpec(TraitedSpec):
    """Outputs of :class:`Normalize`."""

    forward = File(exists=True, desc='ITK composite transform, individual to standard')
    inverse = File(exists=True, desc='the other way')
    checks = traits.List(traits.Dict(), desc='checks of the deformation')
    warnings = traits.List(traits.Str(), desc='why it should not be trusted blindly')


class Normalize(Step):
    """Register a brain with the average brain of a standard space."""

    input_spec = NormalizeInputSpec
    output_spec = NormalizeOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.quality import messages
        from ..anatomy.standard import normalize_brain

        found = normalize_brain(
            nb.load(self.inputs.in_file),
            nb.load(self.inputs.mask_file),
            *average_brain(self.inputs.space),
            folder,
            seed=self.inputs.seed,
        )
        step = self.inputs.space.split(':')[0]
        return {
            'forward': str(found.forward),
            'inverse': str(found.inverse),
            'checks': check_rows(step, self.inputs.scan, found.checks),
            'warnings': [f'{step}: {text}' for text in messages(found.checks)],
        }


def average_brain(words: str):
    """Return the average brain of a space and its mask: embedded, else from TemplateFlow."""
    from ..anatomy.averages import EMBEDDED_SPACE, embedded_average
    from ..bids.spaces import StandardSpace, average_files

    space = StandardSpace.of(words)
    if space.name == EMBEDDED_SPACE:
        return embedded_average()
    return tuple(nb.load(path) for path in average_files(space))


def check_space(space) -> None:
    """Make sure that what a space needs is there; TemplateFlow may fetch it.

    Parameters
    ----------
    space : StandardSpace

    Raises
    ------
    UsageError
    """
    from ..anatomy.averages import EMBEDDED_RESOLUTIONS, EMBEDDED_SPACE
    from ..bids.spaces import average_files, grid_file
    from ..errors import UsageError

    if space.name != EMBEDDED_SPACE:
        average_files(space)
        if space.resolution:
            grid_file(space)
    elif space.resolution and space.resolution not in EMBEDDED_RESOLUTIONS:
        raise UsageError(
            f'--output-spaces: {space.name} has no resolution {space.resolution}',
            remedy=f'Ask for one of {", ".join(EMBEDDED_RESOLUTIONS)}, native',
        )


def space_grid(words: str, img):
    """Return the grid on which an image lies in a standard space."""
    from ..anatomy.averages import EMBEDDED_SPACE, embedded_grid
    from ..bids.spaces import StandardSpace, grid_file
    from ..grids import Grid

    space = StandardSpace.of(words)
    if space.resolution is None:
        zooms = Grid.of(img).canonical().zooms
        return Grid.of(average_brain(words)[0]).canonical().with_zooms(zooms)
    if space.name == EMBEDDED_SPACE:
        return embedded_grid(space.resolution)
    return Grid.of(nb.load(grid_file(space)))


class WriteStandardInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteStandard`."""

    in_file = File(exists=True, mandatory=True, desc='image in its own space')
    transforms = traits.List(
        File(exists=True), mandatory=True, desc="from the standard space to the image's"
    )
    written = File(exists=True, mandatory=True, desc='the same image in the individual space')
    space = traits.Str(mandatory=True, desc='standard space, in words')


class WriteStandard(Write):
    """Write an image in a standard space, interpolated once."""

    input_spec = WriteStandardInputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.standard import carry
        from ..bids.derivatives import own_uri, save_image
        from ..bids.naming import sidecar_path
        from ..bids.spaces import StandardSpace, standard_path, standard_transforms

        space = StandardSpace.of(self.inputs.space)
        written = Path(self.inputs.written)
        like = nb.load(written)
        relative = written.relative_to(self.inputs.output_dir)
        grid = space_grid(self.inputs.space, like)
        binary = relative.name.endswith('_mask.nii.gz')
        img = carry(
            nb.load(self.inputs.in_file),
            self.inputs.transforms,
            grid,
            interpolation='linear' if binary else 'cubic',
        )
        if binary:
            img = nb.Nifti1Image((np.asarray(img.dataobj) > 0.5).astype(np.uint8), grid.affine)
        sidecar = json.loads(sidecar_path(written).read_text(encoding='utf-8'))
        sidecar.pop('SpatialReference', None)
        transform = standard_transforms(self.plan, space.average)[0]
        sidecar['Sources'] = [own_uri(relative), own_uri(transform)]
        sidecar['Description'] += f'; brought into {space.name} by a deformation'
        sidecar['Resolution'] = ' x '.join(f'{zoom:g}' for zoom in grid.zooms) + ' mm voxels'
        path = save_image(
            img,
            self._place(standard_path(relative, space)),
            sidecar,
            dtype=like.get_data_dtype(),
            code=4 if space.name.startswith('MNI152') else 2,
            descrip=like.header['descrip'].item().decode('ascii', 'replace'),
        )
        return {'out_file': str(path)}


class WriteStandardTransformsInputSpec(WriteInputSpec):
    """Inputs of :class:`WriteStandardTransforms`."""

    forward = File(exists=True, mandatory=True, desc='individual to standard')
    inverse = File(exists=True, mandatory=True, desc='standard to individual')
    space = traits.Str(mandatory=True, desc='standard space, in words')


class WriteStandardTransformsOutputSpec(TraitedSpec):
    """Outputs of :class:`WriteStandardTransforms`."""

    out_files = traits.List(File(exists=True), desc='the outputs')


class WriteStandardTransforms(Write):
    """Write the deformations between the individual and a standard space."""

    input_spec = WriteStandardTransformsInputSpec
    output_spec = WriteStandardTransformsOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..bids.derivatives import raw_uri, save_copy
        from ..bids.spaces import StandardSpace, standard_transforms

        space = StandardSpace.of(self.inputs.space)
        names = ('individual', space.name)
        ends = (names, names[::-1])
        files = (self.inputs.forward, self.inputs.inverse)
        written = []
        for file, place, (start, end) in zip(
            files, standard_transforms(self.plan, space), ends, strict=True
        ):
            sidecar = {
                'Description': f'Affine and deformation (ITK composite) that resample images of '
                f'{start} onto {end}: they map points of {end} to points of {start}',
                'Sources': [raw_uri(self.plan.reference, self.inputs.bids_dir)],
            }
            written.append(str(save_copy(file, self._place(place), sidecar)))
        return {'out_files': written}


class DrawStandardInputSpec(WriteInputSpec):
    """Inputs of :class:`DrawStandard`."""

    in_file = File(exists=True, mandatory=True, desc='image that was registered')
    forward = File(exists=True, mandatory=True, desc='individual to standard')
    space = traits.Str(mandatory=True, desc='standard space, in words')


class DrawStandard(Draw):
    """Draw a brain in a standard space, with the outline of the average."""

    input_spec = DrawStandardInputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.standard import carry
        from ..bids.spaces import StandardSpace, standard_figure
        from ..grids import Grid
        from ..reports.figures import plot_mask

        space = StandardSpace.of(self.inputs.space)
        average, mask = average_brain(self.inputs.space)
        place = standard_figure(self.plan, space)

        def plot(out: Path) -> None:
            img = carry(nb.load(self.inputs.in_file), [self.inputs.forward], Grid.of(average))
            plot_mask(img, mask, out, title=place.title, note='outline: the average brain')

        return {'figures': [self._draw(place, plot)]}
