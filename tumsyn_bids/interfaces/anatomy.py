"""Steps on acquired scans: header repair, bias field, brain mask, co-registration."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from .base import Step, StepInputSpec, optional, save


class SanitizeScanInputSpec(StepInputSpec):
    """Inputs of :class:`SanitizeScan`."""

    in_file = File(exists=True, mandatory=True, desc='acquired NIfTI file')


class SanitizeScanOutputSpec(TraitedSpec):
    """Outputs of :class:`SanitizeScan`."""

    out_file = File(exists=True, desc='3D float32 image whose header can be trusted')
    findings = traits.List(traits.Dict(), desc='what was odd, as dictionaries of Finding')


class SanitizeScan(Step):
    """Read a scan and settle what its header leaves open."""

    input_spec = SanitizeScanInputSpec
    output_spec = SanitizeScanOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.geometry import sanitize

        clean = sanitize(self.inputs.in_file)
        data = np.asarray(clean.img.dataobj, dtype=np.float32)
        return {
            'out_file': save(data, clean.img.affine, folder / 'sanitized.nii'),
            'findings': [asdict(finding) for finding in clean.findings],
        }


class CorrectBiasInputSpec(StepInputSpec):
    """Inputs of :class:`CorrectBias`."""

    in_file = File(exists=True, mandatory=True, desc='sanitized scan')


class CorrectBiasOutputSpec(TraitedSpec):
    """Outputs of :class:`CorrectBias`."""

    out_file = File(exists=True, desc='scan without its smooth intensity drift')


class CorrectBias(Step):
    """Remove the bias field with N4."""

    input_spec = CorrectBiasInputSpec
    output_spec = CorrectBiasOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.bias import correct_bias

        img = correct_bias(nb.load(self.inputs.in_file))
        data = np.asarray(img.dataobj, dtype=np.float32)
        return {'out_file': save(data, img.affine, folder / 'corrected.nii')}


class ExtractBrainInputSpec(StepInputSpec):
    """Inputs of :class:`ExtractBrain`."""

    in_file = File(exists=True, mandatory=True, desc='bias-corrected scan')
    contrast = traits.Str(mandatory=True, desc='contrast of the scan')
    method = traits.Str('ants', usedefault=True, desc='ants, hd-bet or none')
    seed = traits.Int(mandatory=True, desc='seed of the registration')


class ExtractBrainOutputSpec(TraitedSpec):
    """Outputs of :class:`ExtractBrain`."""

    mask_file = File(exists=True, desc="brain mask on the scan's grid")
    volume_ml = traits.Float(desc='volume of the mask')
    method = traits.Str(desc='how the mask was made')
    stripped = traits.Bool(desc='whether the mask leaves the skull out')
    warnings = traits.List(traits.Str(), desc='why the mask should not be trusted blindly')
    checks = traits.List(traits.Dict(), desc='checks of the mask')


class ExtractBrain(Step):
    """Find the brain of the reference scan."""

    input_spec = ExtractBrainInputSpec
    output_spec = ExtractBrainOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.brain import extract_brain, is_stripped

        img = nb.load(self.inputs.in_file)
        brain = extract_brain(
            img,
            self.inputs.contrast,
            seed=self.inputs.seed,
            method=self.inputs.method,
        )
        mask = np.asarray(brain.img.dataobj, dtype=np.uint8)
        return {
            'mask_file': save(mask, brain.img.affine, folder / 'mask.nii'),
            'volume_ml': float(brain.volume_ml),
            'method': brain.method,
            # Without extraction the mask is the image's non-zero part, the whole head maybe.
            'stripped': brain.method != 'none' or bool(is_stripped(img)),
            'warnings': list(brain.warnings),
            'checks': check_rows('brain mask', self.inputs.scan, brain.checks),
        }


class RegisterScanInputSpec(StepInputSpec):
    """Inputs of :class:`RegisterScan`."""

    fixed_file = File(exists=True, mandatory=True, desc='bias-corrected reference')
    moving_file = File(exists=True, mandatory=True, desc='bias-corrected other scan')
    fixed_mask = File(exists=True, mandatory=True, desc='brain mask of the reference')
    coreg = traits.Enum('rigid', 'affine', 'syn', usedefault=True, desc='kind of transform')
    seed = traits.Int(mandatory=True, desc='seed of the sampling of the metric')


class RegisterScanOutputSpec(TraitedSpec):
    """Outputs of :class:`RegisterScan`."""

    transform_file = File(exists=True, desc='ITK text transform, reference to scan')
    forward = File(exists=True, desc='the same with the deformation, if there is one')
    inverse = File(exists=True, desc='from the scan to the reference')
    cost_before = traits.Float(desc='cost with the headers alone')
    cost_after = traits.Float(desc='cost with the transform')


class RegisterScan(Step):
    """Align a scan with the reference of its session."""

    input_spec = RegisterScanInputSpec
    output_spec = RegisterScanOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.registration import deform, register_linear, write_itk

        images = nb.load(self.inputs.fixed_file), nb.load(self.inputs.moving_file)
        mask, seed, coreg = nb.load(self.inputs.fixed_mask), self.inputs.seed, self.inputs.coreg
        found = register_linear(
            *images,
            seed=seed,
            fixed_mask=mask,
            transform='rigid' if coreg == 'rigid' else 'affine',
        )
        forward = write_itk(found.matrix, folder / 'linear.txt')
        inverse = write_itk(np.linalg.inv(found.matrix), folder / 'inverse.txt')
        results = {
            'transform_file': str(forward),
            'cost_before': float(found.cost_before),
            'cost_after': float(found.cost_after),
        }
        if coreg == 'syn':
            forward, inverse = deform(*images, found.matrix, folder, mask=mask, seed=seed)
        return {**results, 'forward': str(forward), 'inverse': str(inverse)}


class CheckAlignmentInputSpec(StepInputSpec):
    """Inputs of :class:`CheckAlignment`."""

    fixed_file = File(exists=True, mandatory=True, desc='bias-corrected reference')
    moving_file = File(exists=True, mandatory=True, desc='bias-corrected other scan')
    mask_file = File(exists=True, mandatory=True, desc='brain mask of the reference')
    transform_file = File(exists=True, mandatory=True, desc='linear, reference to scan')
    forward = File(exists=True, mandatory=True, desc='the same with the deformation, if any')
    contrast = traits.Str(mandatory=True, desc='contrast of the other scan')


class CheckAlignmentOutputSpec(TraitedSpec):
    """Outputs of :class:`CheckAlignment`."""

    checks = traits.List(traits.Dict(), desc='checks of the alignment')
    warnings = traits.List(traits.Str(), desc='why it should not be trusted blindly')


class CheckAlignment(Step):
    """Check that an aligned scan shows the head of the reference and fits its brain mask."""

    input_spec = CheckAlignmentInputSpec
    output_spec = CheckAlignmentOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..anatomy.quality import messages
        from ..anatomy.selfcheck import check_alignment

        forward = self.inputs.forward
        checks = check_alignment(
            nb.load(self.inputs.fixed_file),
            nb.load(self.inputs.moving_file),
            world_of(self.inputs.transform_file),
            nb.load(self.inputs.mask_file),
            contrast=self.inputs.contrast,
            deformation=forward if forward.endswith('.h5') else None,
        )
        name = Path(self.inputs.scan).name
        return {
            'checks': check_rows('co-registration', self.inputs.scan, checks),
            'warnings': [f'{name}: {text}' for text in messages(checks)],
        }


def _saved(img, path: Path) -> str:
    return save(np.asarray(img.dataobj, dtype=np.float32), img.affine, path)


def check_rows(step: str, scan: str, checks) -> list[dict]:
    """Return checks as dictionaries that say which step and scan they belong to."""
    return [{'step': step, 'scan': scan, **asdict(check)} for check in checks]


class ResampleInputSpec(StepInputSpec):
    """Inputs of :class:`Resample`."""

    in_file = File(exists=True, mandatory=True, desc='scan in its own space')
    grid_file = File(exists=True, mandatory=True, desc='image on the grid wanted')
    transform_file = File(exists=True, desc="from the grid's space to the scan's")


class ResampleOutputSpec(TraitedSpec):
    """Outputs of :class:`Resample`."""

    out_file = File(exists=True, desc='scan on that grid')


class Resample(Step):
    """Bring a scan onto another image's grid in one interpolation."""

    input_spec = ResampleInputSpec
    output_spec = ResampleOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..grids import Grid, resample

        img, grid = nb.load(self.inputs.in_file), Grid.of(nb.load(self.inputs.grid_file))
        transform = optional(self.inputs.transform_file)
        if transform and transform.endswith('.h5'):
            from ..anatomy.standard import carry

            return {'out_file': _saved(carry(img, [transform], grid), folder / 'resampled.nii')}
        data = resample(img, grid, world=world_of(transform), order=3)
        # Cubic splines overshoot at edges; the scan's own range bounds what is plausible.
        values = np.asarray(img.dataobj)
        np.clip(data, values.min(), values.max(), out=data)
        return {'out_file': save(data, grid.affine, folder / 'resampled.nii')}


def world_of(transform_file) -> np.ndarray | None:
    """Read a linear transform as a 4x4 world matrix; ``None`` where there is none."""
    from ..anatomy.registration import read_itk

    path = optional(transform_file)
    return read_itk(path) if path else None
