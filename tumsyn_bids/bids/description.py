"""The files at the root of the output dataset, and whether a folder may become one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError
from ..files import write_text
from .tables import read_tsv, to_tsv

PIPELINE = 'tumsyn-bids'
BIDS_VERSION = '1.11.0'

#: What the BIDS schema does not know yet, or does not ask about.
BIDSIGNORE = """\
*.html
logs
figures
swi
*_xfm.*
*_scores.*
*_qc.*
*_morph.*
*_hemi-*
group_*
"""

README = """\
# Synthetic and preprocessed brain MRI

Made by tumsyn-bids {version}.

**Images named `desc-synth…` are SYNTHETIC.** A network computed them from an acquired scan of
another contrast; no scanner measured them. They may lack, move or invent detail, lesions in
particular. Their sidecars say `"Synthetic": true`, name the source, the model and what was asked
for, and the `descrip` field of their headers begins with SYNTHETIC.

- `sub-*/[ses-*/]anat`: synthetic images (`desc-synth`), bias-corrected acquired scans on the grid
  of the reference of their session (`desc-preproc`), brain masks (`desc-brain_mask`), rigid
  transforms (`_xfm`), agreement of synthetic with acquired images (`_scores.tsv`),
  how far synthetic images can be trusted, checks of masks and alignments (`_qc.tsv`).
- `sub-*.html`: a report for each subject; look at it before you use an image.
- `logs/status.tsv`: what became of each session.
- `descriptions.tsv`: what each `desc-` label means.
- `group_*.tsv`: tables over all subjects, written by the group level.
"""


_COLUMNS = {'desc_id', 'description'}


def check_output_dir(output_dir: str | Path, version: str) -> None:
    """Refuse a folder that holds what this version cannot add to.

    Versions whose first two numbers agree share their outputs' layout.

    Raises
    ------
    UsageError
        Where the folder is a dataset of another pipeline or of an incompatible version, or
        holds subjects of unknown origin.
    """
    output_dir = Path(output_dir)
    path = output_dir / 'dataset_description.json'
    if not path.is_file():
        _refuse_strangers(output_dir)
        return
    name, found = _generator(path)
    if name != PIPELINE:
        raise UsageError(
            f'this folder holds a dataset of {name or "unknown origin"}',
            path=path,
            field='GeneratedBy',
            remedy='Choose an output directory that is empty or holds results of tumsyn-bids',
        )
    if _series(found) != _series(version):
        raise UsageError(
            f'this folder holds results of {PIPELINE} {found}, and this is version {version}',
            path=path,
            field='GeneratedBy',
            remedy='Choose another output directory',
        )


def write_dataset_files(
    output_dir: str | Path,
    bids_dir: str | Path,
    *,
    version: str,
    descriptions: Mapping[str, str],
) -> None:
    """Write the root files of the output dataset.

    Safe to call from several processes at once: each file is replaced as a whole, is left alone
    where it is right already, and does not depend on which participants a process works on.
    Rows of ``descriptions.tsv`` that others have written are kept.

    Parameters
    ----------
    output_dir, bids_dir : path-like
    version : str
        Ours.
    descriptions : mapping of str to str
        Text for each ``desc-`` label, without ``desc-``.
    """
    output_dir, bids_dir = Path(output_dir), Path(bids_dir)
    description = dataset_description(bids_dir, version=version)
    text = json.dumps(description, indent=2, ensure_ascii=False) + '\n'
    write_text(output_dir / 'dataset_description.json', text)
    write_text(output_dir / '.bidsignore', BIDSIGNORE)
    write_text(output_dir / 'README.md', README.format(version=version))
    _write_descriptions(output_dir / 'descriptions.tsv', descriptions)


def dataset_description(bids_dir: Path, *, version: str) -> dict:
    """Return the content of ``dataset_description.json``."""
    raw = _read_json(bids_dir / 'dataset_description.json')
    source = {'URL': bids_dir.absolute().as_uri()}
    if isinstance(raw.get('DatasetDOI'), str):
        source['DOI'] = raw['DatasetDOI']
    description = {
        'Name': f'Synthetic contrasts of {raw.get("Name") or bids_dir.name}',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': PIPELINE, 'Version': version}],
        'SourceDatasets': [source],
        'DatasetLinks': {'raw': bids_dir.absolute().as_uri()},
        'HowToAcknowledge': 'See the methods section of the reports (sub-*.html).',
    }
    if isinstance(raw.get('License'), str):
        description['License'] = raw['License']
    return description


def _write_descriptions(path: Path, descriptions: Mapping[str, str]) -> None:
    """Add rows to a table that other processes may be adding theirs to.

    Each row is first put down in a file of its own, which nobody else replaces. Whoever then
    writes the table looks at all of these again afterwards, so the last writer misses none.
    """
    single = path.parent / 'logs' / 'descriptions'
    for label, text in descriptions.items():
        write_text(single / f'{label}.txt', ' '.join(text.split()) + '\n')
    while True:
        files = sorted(single.glob('[!.]*.txt'))
        found = {f'desc-{file.stem}': file.read_text('utf-8').strip() for file in files}
        known = _known_descriptions(path)
        rows = {**known, **found}
        if rows == known:
            return
        ordered = [{'desc_id': key, 'description': rows[key]} for key in sorted(rows)]
        write_text(path, to_tsv(ordered))


def _known_descriptions(path: Path) -> dict[str, str]:
    rows = read_tsv(path) if path.is_file() else []
    return {row['desc_id']: row['description'] for row in rows if row.keys() >= _COLUMNS}


def _refuse_strangers(output_dir: Path) -> None:
    subjects = sorted(item.name for item in output_dir.glob('sub-*') if item.is_dir())
    if subjects:
        raise UsageError(
            f'this folder holds {subjects[0]} but no dataset_description.json, '
            f'so it is not known what made it',
            path=output_dir,
            remedy='Choose an output directory that is empty or holds results of tumsyn-bids',
        )


def _generator(path: Path) -> tuple[str | None, str]:
    first = _read_json(path).get('GeneratedBy')
    first = first[0] if isinstance(first, list) and first else {}
    first = first if isinstance(first, dict) else {}
    return first.get('Name'), str(first.get('Version', ''))


def _series(version: str) -> str:
    """Return ``major.minor`` of a version, or all of it where it has no such start."""
    match = re.match(r'\d+\.\d+', version)
    return match[0] if match else version


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
