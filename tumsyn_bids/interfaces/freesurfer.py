"""FreeSurfer's own programs, where they are installed."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import CommandLine, File, TraitedSpec, traits

from ..errors import ScanError, SessionError
from .base import Step, StepInputSpec, optional, save

#: Programs that measure a brain, best first. The first two write a whole subject's folder.
PROGRAMS = ('recon-all', 'recon-all-clinical.sh', 'mri_synthseg')
#: Label images that they leave in ``mri``, best first.
_LABELS = ('aparc+aseg.mgz', 'synthseg.mgz')


def find_program() -> str | None:
    """Return the best of :data:`PROGRAMS` that is on the PATH."""
    return next((name for name in PROGRAMS if shutil.which(name)), None)


class ReconInputSpec(StepInputSpec):
    """Inputs of :class:`ReconBrain`."""

    in_file = File(exists=True, mandatory=True, desc='T1w with skull, acquired or synthetic')
    program = traits.Enum(*PROGRAMS, mandatory=True, desc='which program measures')
    subject = traits.Str(mandatory=True, desc="name of the subject's folder")
    subjects_dir = traits.Str(mandatory=True, desc="FreeSurfer's SUBJECTS_DIR")
    n_threads = traits.Int(1, usedefault=True, desc='of the program')
    labels_file = File(exists=True, mandatory=True, desc='labels of our own')
    measures_file = File(exists=True, mandatory=True, desc='measures of our own, JSON')
    warnings = traits.List(traits.Str(), desc='doubts about measures of our own')


class ReconOutputSpec(TraitedSpec):
    """Outputs of :class:`ReconBrain`."""

    labels_file = File(exists=True, desc="FreeSurfer's labels on the grid of ours")
    measures_file = File(exists=True, desc="FreeSurfer's measures, JSON")
    warnings = traits.List(traits.Str(), desc='what should not be trusted')


class ReconBrain(Step):
    """Run FreeSurfer on a T1w image and take its measures in place of our own.

    Where it fails, our own stay, and that is told.
    """

    input_spec = ReconInputSpec
    output_spec = ReconOutputSpec

    def _work(self, folder: Path) -> dict:
        from ..morphometry.freesurfer_read import read_subject

        inputs = self.inputs
        try:
            subject = self._run_program(folder)
            record = json.loads(Path(inputs.measures_file).read_text())
            record = read_subject(subject, record, f'FreeSurfer {inputs.program}')
        except (ScanError, OSError, RuntimeError) as error:
            first = next(iter(str(error).strip().splitlines()), 'no message')
            note = f'morphometry: {inputs.program} failed, these are measures of our own: {first}'
            return {
                'labels_file': inputs.labels_file,
                'measures_file': inputs.measures_file,
                'warnings': [*(optional(inputs.warnings) or ()), note],
            }
        measures_file = folder / 'measures.json'
        measures_file.write_text(json.dumps(record))
        return {
            'labels_file': self._labels(subject, folder),
            'measures_file': str(measures_file),
            'warnings': [],
        }

    def _run_program(self, folder: Path) -> Path:
        """Run the program; return the folder that holds its tables."""
        inputs = self.inputs
        if not shutil.which(inputs.program):
            raise SessionError(
                f'{inputs.program} is not on the PATH any more', remedy='Set up FreeSurfer'
            )
        subjects_dir = Path(inputs.subjects_dir)
        subjects_dir.mkdir(parents=True, exist_ok=True)
        subject = subjects_dir / inputs.subject
        if inputs.program == 'recon-all':
            self._recon_all(subjects_dir)
        elif inputs.program == 'recon-all-clinical.sh':
            threads = str(inputs.n_threads)
            self._call(inputs.in_file, inputs.subject, threads, str(subjects_dir))
        else:
            subject = folder / 'synthseg'
            for part in ('mri', 'stats'):
                (subject / part).mkdir(parents=True, exist_ok=True)
            outputs = ['--o', str(subject / 'mri' / 'synthseg.mgz')]
            outputs += ['--vol', str(subject / 'stats' / 'synthseg.vol.csv')]
            threads = ['--threads', str(inputs.n_threads), '--cpu']
            self._call('--i', inputs.in_file, *outputs, '--parc', *threads)
        return subject

    def _recon_all(self, subjects_dir: Path) -> None:
        from nipype.interfaces.freesurfer import ReconAll

        ReconAll(
            subject_id=self.inputs.subject,
            T1_files=[self.inputs.in_file],
            directive='all',
            subjects_dir=str(subjects_dir),
            openmp=self.inputs.n_threads,
        ).run()

    def _call(self, *arguments: str) -> None:
        CommandLine(command=self.inputs.program, args=shlex.join(arguments)).run()

    def _labels(self, subject: Path, folder: Path) -> str:
        from ..grids import Grid, resample
        from ..morphometry.labels import structures

        for name in _LABELS:
            path = subject / 'mri' / name
            if path.is_file():
                own = nb.load(self.inputs.labels_file)
                numbers = np.rint(resample(nb.load(path), Grid.of(own), order=0))
                numbers = np.where(np.isin(numbers, list(structures())), numbers, 0)
                return save(numbers.astype(np.int32), own.affine, folder / 'labels.nii')
        return self.inputs.labels_file
