"""What all interfaces share: results by name, and failures that name the scan at fault."""

from __future__ import annotations

from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, isdefined, traits

from ..errors import SessionError, TumsynError, storage_error


class StepInputSpec(BaseInterfaceInputSpec):
    """Inputs of every step."""

    scan = traits.Str(desc='the acquired file this step works for, named when it fails')


class Step(SimpleInterface):
    """One step of a session: a thin class over a function of the computing rooms."""

    def _work(self, folder: Path) -> dict:
        """Do the step, writing new files into ``folder``; return the outputs by name."""
        raise NotImplementedError

    def _written_to(self, folder: Path) -> Path:
        """Return the folder that is at fault when the disk is full."""
        return folder

    def _run_interface(self, runtime):
        try:
            self._results.update(self._work(Path(runtime.cwd)))
        except TumsynError:
            raise
        except Exception as error:
            if isinstance(error, OSError):
                of_disk = storage_error(error, self._written_to(Path(runtime.cwd)))
                if of_disk is not None:
                    raise of_disk from error
            first_line = next(iter(str(error).strip().splitlines()), 'no message')
            raise SessionError(
                f'{type(self).__name__} failed ({type(error).__name__}: {first_line})',
                path=self.inputs.scan if isdefined(self.inputs.scan) else None,
                remedy='The crash report has the details',
            ) from error
        return runtime


def save(data: np.ndarray, affine: np.ndarray, path: Path) -> str:
    """Write an array as an uncompressed NIfTI for the steps to come; return its path."""
    img = nb.Nifti1Image(data, affine)
    img.set_qform(affine, 1)
    img.set_sform(affine, 1)
    img.to_filename(path)
    return str(path)


def optional(value):
    """Return a trait's value, or ``None`` where it was left undefined."""
    return value if isdefined(value) else None
