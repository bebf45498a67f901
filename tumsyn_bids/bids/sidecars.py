"""JSON sidecars with BIDS inheritance, and which file each value came from.

pybids finds the images. Sidecars are read here, when a scan is planned, because pybids' metadata
index reads those of the whole dataset, stops at the first that is not valid JSON, and does not
tell which file a value was in.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ScanError


@dataclass(frozen=True)
class Stated:
    """A value and the file that states it."""

    value: object
    path: Path


def dataset_root(dataset) -> Path:
    """Return the root folder of a ``BIDSLayout``, or of a path."""
    return Path(dataset if isinstance(dataset, str | os.PathLike) else dataset.root).absolute()


def name_parts(path: str | Path) -> tuple[dict[str, str], str]:
    """Split a BIDS file name into its short entities and its suffix.

    >>> name_parts('sub-01_acq-FLAIR_T2w.nii.gz')
    ({'sub': '01', 'acq': 'FLAIR'}, 'T2w')
    """
    stem = re.sub(r'\.(nii|nii\.gz|json)$', '', Path(path).name)
    *pairs, suffix = stem.split('_')
    entities = dict(pair.split('-', 1) for pair in pairs if '-' in pair)
    return entities, suffix


class Sidecars:
    """The sidecars of one dataset; folders and files are read once.

    Parameters
    ----------
    root : path-like
        Root of the dataset; nothing above it is looked at.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()
        self._folders: dict[Path, list[tuple[Path, dict[str, str], str]]] = {}
        self._contents: dict[Path, dict] = {}

    def metadata(self, path: str | Path) -> dict[str, Stated]:
        """Return the metadata of an image (or of a sidecar itself), inherited ones included.

        The inheritance principle: a sidecar applies to images with its suffix that have all of
        its entities and lie in or below its folder; the nearer one prevails.

        Raises
        ------
        ScanError
            A sidecar that applies cannot be read, or is no JSON object.
        """
        merged: dict[str, Stated] = {}
        for sidecar in self.applying(path):
            content = self._content(sidecar)
            merged.update({key: Stated(value, sidecar) for key, value in content.items()})
        return merged

    def applying(self, path: str | Path) -> list[Path]:
        """Return the sidecars that apply to a file, the nearest last."""
        path = Path(path).absolute()
        entities, suffix = name_parts(path)
        folders = [path.parent]
        while folders[-1] != self.root and self.root in folders[-1].parents:
            folders.append(folders[-1].parent)
        found = []
        for folder in reversed(folders):
            level = [
                (len(theirs), sidecar)
                for sidecar, theirs, their_suffix in self._folder(folder)
                if their_suffix == suffix and theirs.items() <= entities.items()
            ]
            found += [sidecar for _, sidecar in sorted(level)]
        return found

    def _folder(self, folder: Path) -> list[tuple[Path, dict[str, str], str]]:
        if folder not in self._folders:
            files = sorted(folder.glob('*.json'))
            self._folders[folder] = [(file, *name_parts(file)) for file in files]
        return self._folders[folder]

    def _content(self, path: Path) -> dict:
        if path not in self._contents:
            self._contents[path] = read_json_object(path)
        return self._contents[path]


def read_json_object(path: Path) -> dict:
    """Read a JSON file that must hold an object.

    Raises
    ------
    ScanError
        The file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except json.JSONDecodeError as error:
        raise ScanError(
            f'not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})',
            path=path,
            remedy='Mend the file; a backslash must be doubled and no comma may end a list',
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ScanError(
            f'it cannot be read ({error})',
            path=path,
            remedy='Check that the file is there (datalad get) and readable',
        ) from error
    except ValueError as error:  # numbers of thousands of digits
        raise ScanError(f'it cannot be read ({error})', path=path, remedy='Mend it') from error
    if not isinstance(content, dict):
        raise ScanError('it holds no JSON object', path=path, remedy='Mend the file')
    return content
