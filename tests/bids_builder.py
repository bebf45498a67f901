"""Tiny BIDS datasets for tests: real headers, empty images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nb
import numpy as np

SIDECAR = {
    'MagneticFieldStrength': 3,
    'Manufacturer': 'Siemens',
    'RepetitionTime': 2.3,
    'EchoTime': 0.00298,
    'InversionTime': 0.9,
    'FlipAngle': 9,
}


class Builder:
    """Writes files below ``root``."""

    def __init__(self, root: Path):
        self.root = root
        self.json('dataset_description.json', {'Name': 'tiny', 'BIDSVersion': '1.10.0'})

    def json(self, name: str, content: dict) -> Path:
        return self.text(name, json.dumps(content))

    def text(self, name: str, content: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def image(
        self, name: str, sidecar: dict | None = None, *, shape=(24, 24, 24), zooms=(4, 4, 4)
    ) -> Path:
        """Write ``sub-…/[ses-…/]anat/name`` and, if given, its sidecar."""
        entities = dict(pair.split('-', 1) for pair in name.split('_')[:-1])
        folder = self.root / f'sub-{entities["sub"]}'
        if 'ses' in entities:
            folder /= f'ses-{entities["ses"]}'
        folder /= 'swi' if name.split('.')[0].endswith('_swi') else 'anat'
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        img = nb.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*zooms, 1]))
        img.to_filename(path)
        if sidecar is not None:
            path.with_name(name.split('.')[0] + '.json').write_text(json.dumps(sidecar))
        return path


def part_of(dataset: Path, folder: Path, *subjects: str) -> Path:
    """Copy some subjects of a dataset, without its derivatives."""
    folder.mkdir(parents=True)
    for item in dataset.iterdir():
        if item.is_file():
            shutil.copy(item, folder)
    for subject in subjects:
        shutil.copytree(dataset / subject, folder / subject)
    return folder
