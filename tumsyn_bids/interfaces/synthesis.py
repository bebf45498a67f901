"""Steps that make synthetic images and compare them with acquired ones."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from ..acquisition import Acquisition
from ..errors import ScanError
from ..plan import Donor
from .anatomy import world_of
from .base import Step, StepInputSpec, save


class SynthesizeInputSpec(StepInputSpec):
    """Inputs of :class:`Synthesize`."""

    in_file = File(exists=True, mandatory=True, desc='bias-corrected source, own space')
    mask_file = File(exists=True, mandatory=True, desc='brain mask of the reference')
    transform_file = File(exists=True, desc='from the reference to the source')
    source = traits.Dict(mandatory=True, desc='the source, as a dictionary of Acquisition')
    prompts = traits.List(traits.Str(), mandatory=True, desc='one prompt for each target')
    acquisitions = traits.List(
        traits.Dict(), mandatory=True, desc='the targets, as dictionaries of Acquisition'
    )
    model = traits.Str(mandatory=True, desc='name or path of the model')
    model_sha256 = traits.Str(desc='so that another model is another step')
    device = traits.Str('auto', usedefault=True, nohash=True, desc='auto, cpu or cuda[:N]')
    use_cuda = traits.Bool(False, usedefault=True, nohash=True, desc='takes a GPU slot')


class SynthesizeOutputSpec(TraitedSpec):
    """Outputs of :class:`Synthesize`."""

    out_files = traits.List(File(exists=True), desc='one synthetic image for each target')
    model = traits.Dict(desc='name, version and sha256 of the model')
    warnings = traits.List(
        traits.List(traits.Str()),
        desc='what is outside of what the model has learned, and what is doubtful, each target',
    )
    confidence = traits.List(
        traits.Dict(), desc='figures of confidence and the verdict, each target'
    )


class Synthesize(Step):
    """Encode a source once and decode all the targets made from it."""

    input_spec = SynthesizeInputSpec
    output_spec = SynthesizeOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..grids import Grid
        from ..synthesis.judged import Wanted, make_images

        synthesizer = _synthesizer(self.inputs.model, self.inputs.device)
        mask = nb.load(self.inputs.mask_file)
        targets = [Acquisition.from_dict(values) for values in self.inputs.acquisitions]
        made = make_images(
            synthesizer,
            nb.load(self.inputs.in_file),
            [
                Wanted(prompt, target)
                for prompt, target in zip(self.inputs.prompts, targets, strict=True)
            ],
            field_of_view=Grid.of(mask),
            mask=mask,
            source=Acquisition.from_dict(self.inputs.source),
            world=world_of(self.inputs.transform_file),
        )
        out_files = [
            save(
                np.asarray(item.image.dataobj),
                item.image.affine,
                folder / f'synthetic-{number}.nii',
            )
            for number, item in enumerate(made)
        ]
        return {
            'out_files': out_files,
            'model': {
                'name': synthesizer.name,
                'version': synthesizer.version,
                'sha256': synthesizer.sha256,
            },
            'warnings': [item.warnings for item in made],
            'confidence': [item.confidence for item in made],
        }


class MatchBrightnessInputSpec(StepInputSpec):
    """Inputs of :class:`MatchBrightness`."""

    in_files = traits.List(File(exists=True), mandatory=True, desc='synthetic images')
    mask_file = File(exists=True, mandatory=True, desc='brain mask of the reference')
    warnings = traits.List(traits.List(traits.Str()), mandatory=True, desc='so far, each image')
    contrasts = traits.List(traits.Str(), mandatory=True, desc='of the images')
    donors = traits.List(
        traits.List(traits.Dict()), mandatory=True, desc='scans to look like, each image'
    )
    donor_files = traits.List(File(exists=True), desc='so that other scans are another step')
    method = traits.Str('ants', usedefault=True, desc='how the brains of donors are extracted')
    seed = traits.Int(mandatory=True, desc='seed of the registration')
    cache_dir = traits.Str(mandatory=True, nohash=True, desc='where sessions share what is found')


class MatchBrightnessOutputSpec(TraitedSpec):
    """Outputs of :class:`MatchBrightness`."""

    out_files = traits.List(File(exists=True), desc='the images, as bright as their donors')
    warnings = traits.List(traits.List(traits.Str()), desc='and donors that were of no use')
    donors = traits.List(traits.List(traits.Str()), desc='those that were taken, each image')


class MatchBrightness(Step):
    """Give synthetic images the brightness of scans that other people have."""

    input_spec = MatchBrightnessInputSpec
    output_spec = MatchBrightnessOutputSpec

    def _work(self, folder: Path) -> dict:
        mask = nb.load(self.inputs.mask_file)
        results = {'out_files': [], 'warnings': [], 'donors': []}
        images = zip(
            self.inputs.in_files,
            self.inputs.contrasts,
            self.inputs.donors,
            self.inputs.warnings,
            strict=True,
        )
        for number, (path, contrast, donors, warnings) in enumerate(images):
            landmarks, doubts = self._landmarks(contrast, donors)
            if landmarks:
                path = _matched(nb.load(path), mask, landmarks, folder / f'matched-{number}.nii')
            results['out_files'].append(path)
            results['warnings'].append([*warnings, *doubts])
            results['donors'].append(list(landmarks))
        return results

    def _landmarks(self, contrast: str, donors: list[dict]) -> tuple[dict[str, list], list[str]]:
        """Return the landmarks of each donor that is of use, and why others are not."""
        found, doubts = {}, []
        for donor in (Donor(**values) for values in donors):
            try:
                found[donor.path] = donor_landmarks(
                    donor,
                    method=self.inputs.method,
                    seed=self.inputs.seed,
                    cache_dir=self.inputs.cache_dir,
                )
            except ScanError as error:
                doubts.append(f'synthetic {contrast}: its brightness is not that of {error}')
        if donors and not found:
            doubts.append(f'synthetic {contrast}: no other scan told how bright it should be')
        return found, doubts


def donor_landmarks(donor: Donor, *, method: str, seed: int, cache_dir: str) -> list[float]:
    """Return the landmarks of a scan, inside the brain that the reference of its session shows.

    Brains and landmarks are kept in ``cache_dir``, by the versions of the scans, because the
    same people serve many sessions.

    Raises
    ------
    ScanError
        If scan or reference cannot be used.
    """
    from joblib import Memory

    memory = Memory(cache_dir, verbose=0)
    how = donor.reference_contrast, method, seed
    brain = memory.cache(_brain)(donor.reference, _version(donor.reference), *how)
    if donor.path == donor.reference:
        return brain[-1]
    return memory.cache(_landmarks, ignore=['brain'])(
        donor.path, _version(donor.path), donor.reference, _version(donor.reference), *how, brain
    )


def _version(path: str) -> tuple[int, int]:
    about = Path(path).stat()
    return about.st_size, about.st_mtime_ns


def _brain(path: str, version: tuple, contrast: str, method: str, seed: int) -> tuple:
    from ..anatomy.brightness import find_brain, unit_landmarks

    img, mask = find_brain(path, contrast, method=method, seed=seed)
    arrays = np.asarray(img.dataobj, dtype=np.float32), np.asarray(mask.dataobj, dtype=np.uint8)
    return *arrays, img.affine, unit_landmarks(img, mask, path)


def _landmarks(
    path, version, reference, of_reference, contrast, method, seed, brain
) -> list[float]:
    from ..anatomy.brightness import scan_landmarks

    data, mask, affine, _ = brain
    images = nb.Nifti1Image(data, affine), nb.Nifti1Image(mask, affine)
    return scan_landmarks(path, *images, seed=seed)


def _matched(img, mask, landmarks: dict[str, list], path: Path) -> str:
    from ..anatomy.brightness import image_landmarks, match_landmarks, mean_landmarks

    wanted = mean_landmarks(list(landmarks.values()))
    data = match_landmarks(np.asarray(img.dataobj), image_landmarks(img, mask), wanted)
    return save(data, img.affine, path)


class ScoreInputSpec(StepInputSpec):
    """Inputs of :class:`Score`."""

    synthetic_file = File(exists=True, mandatory=True, desc='synthetic image')
    acquired_file = File(exists=True, mandatory=True, desc='acquired scan of its contrast')
    transform_file = File(exists=True, desc='from the reference to the acquired scan')
    source_file = File(exists=True, mandatory=True, desc='scan that the synthetic was made from')
    source_transform = File(exists=True, desc='from the reference to that scan')
    mask_file = File(exists=True, mandatory=True, desc='brain mask of the reference')


class ScoreOutputSpec(TraitedSpec):
    """Outputs of :class:`Score`."""

    scores = traits.Dict(desc='figures of agreement inside the brain, by name')


class Score(Step):
    """Compare a synthetic image with the acquired scan of the same contrast."""

    input_spec = ScoreInputSpec
    output_spec = ScoreOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..evaluation.metrics import score_pair
        from ..grids import Grid, covers, resample

        synthetic = nb.load(self.inputs.synthetic_file)
        grid = Grid.of(synthetic)
        mask = resample(nb.load(self.inputs.mask_file), grid, order=0) > 0
        arrays = []
        for path, transform in (
            (self.inputs.acquired_file, self.inputs.transform_file),
            (self.inputs.source_file, self.inputs.source_transform),
        ):
            scan, world = nb.load(path), world_of(transform)
            arrays.append(resample(scan, grid, world=world))
            mask &= covers(scan, grid, world=world)
        acquired, source = arrays
        scores = score_pair(np.asarray(synthetic.dataobj), acquired, mask, source=source)
        return {'scores': {name: float(value) for name, value in scores.items()}}


@lru_cache(maxsize=1)
def _synthesizer(model: str, device: str):
    """Keep the model of this process; loading it takes longer than a small synthesis."""
    from ..synthesis.synthesizer import Synthesizer

    return Synthesizer.load(model, device=device)
