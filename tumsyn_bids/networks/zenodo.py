"""Fetching the files of the record that the published weights are in."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pooch
import requests
from tqdm import tqdm

from ..errors import ModelError

RECORD = '13119176'
SITE = 'https://zenodo.org'
_TIMEOUT_S = 60
_PIECE = 1 << 16


@dataclass(frozen=True)
class Record:
    """What a record says of itself.

    Attributes
    ----------
    licence : str or None
    files : dict of str to (int, str)
        Size in bytes and checksum (``md5:...``) of each file.
    """

    licence: str | None
    files: dict[str, tuple[int, str]]


def read_record(folder: Path, *, site: str = SITE, record: str = RECORD) -> Record:
    """Ask a record for its files.

    Parameters
    ----------
    folder : Path
        Where its files are wanted; named in what the user is told to do without internet.
    site : str
        Address of Zenodo or of a mirror with the same paths.
    record : str

    Raises
    ------
    ModelError
        If the site cannot be reached or answers something else.
    """
    address = f'{site.rstrip("/")}/api/records/{record}'
    try:
        response = requests.get(address, timeout=_TIMEOUT_S)
        response.raise_for_status()
        answer = response.json()
        files = {
            item['key']: (int(item['size']), str(item['checksum'])) for item in answer['files']
        }
        licence = (answer.get('metadata', {}).get('license') or {}).get('id')
    except requests.exceptions.JSONDecodeError as error:
        raise _strange(address) from error
    except requests.RequestException as error:
        raise _unreachable(address, folder, record, error) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange(address) from error
    if not files or any(Path(name).name != name for name in files):
        raise _strange(address)
    return Record(licence, files)


def fetch_files(
    record_files: dict[str, tuple[int, str]],
    folder: Path,
    *,
    site: str = SITE,
    record: str = RECORD,
    say=lambda text: None,
) -> list[Path]:
    """Download the files that are not there yet and check each against its checksum.

    Complete files are kept; one that was interrupted goes on where it stopped.

    Parameters
    ----------
    record_files : dict
        ``Record.files``.
    folder : Path
    site, record : str
        As for :func:`read_record`.
    say : callable of str
        Told of each file before it is fetched.

    Returns
    -------
    list of Path

    Raises
    ------
    ModelError
        If the disk is too small, the connection breaks or a checksum differs.
    """
    _check_space(record_files, folder)
    paths = []
    for name, (size, checksum) in record_files.items():
        url = f'{site.rstrip("/")}/api/records/{record}/files/{quote(name)}/content'
        say(f'{name}: {size / 1e6:.1f} MB')
        try:
            path = pooch.retrieve(
                url,
                known_hash=checksum,
                fname=name,
                path=folder,
                downloader=_Resuming(folder / f'{name}.part'),
            )
        except ValueError as error:
            raise ModelError(
                'what arrived does not have the checksum of the record and was thrown away',
                path=folder / name,
                remedy='Start the command again',
            ) from error
        except requests.RequestException as error:
            raise _unreachable(url, folder, record, error) from error
        except OSError as error:
            raise ModelError(
                f'cannot be written ({error.strerror})',
                path=folder,
                remedy='Check permissions and free space',
            ) from error
        paths.append(Path(path))
    return paths


class _Resuming:
    """A downloader for pooch, which itself begins an interrupted file again."""

    def __init__(self, part: Path):
        self._part = part

    def __call__(self, url: str, output_file, _pooch, check_only: bool = False) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {'Range': f'bytes={have}-'} if have else {}
        with requests.get(url, stream=True, headers=headers, timeout=_TIMEOUT_S) as response:
            complete = have and response.status_code == requests.codes.range_not_satisfiable
            if not complete:
                response.raise_for_status()
                goes_on = response.status_code == requests.codes.partial_content
                whole = int(response.headers.get('Content-Length', 0)) or None
                with self._part.open('ab' if goes_on else 'wb') as file, _bar(whole) as bar:
                    for piece in response.iter_content(_PIECE):
                        bar.update(file.write(piece))
        os.replace(self._part, output_file)


def _bar(size: int | None):
    # Not on what is no terminal.
    return tqdm(total=size, unit='B', unit_scale=True, disable=None)


def _check_space(files, folder: Path) -> None:
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    present = sum(
        path.stat().st_size
        for name in files
        for path in (folder / name, folder / f'{name}.part')
        if path.exists()
    )
    needed = sum(size for size, _ in files.values()) - present
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ModelError(
            f'{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free',
            path=folder,
            remedy='Make room or give another folder with --to',
        )


def _unreachable(address: str, folder: Path, record: str, error) -> ModelError:
    answer = getattr(error, 'response', None)
    problem = 'cannot be reached' if answer is None else f'answers with error {answer.status_code}'
    return ModelError(
        f'{address} {problem}',
        remedy=f'Start the command again when it can; what has arrived is kept. Without internet: '
        f'on another machine download the files of {SITE}/records/{record}, copy them to {folder} '
        'and run: tumsyn models import official '
        f'--synthesis {folder / "checkpoint.pt"} '
        f'--text-encoder {folder / "checkpoint_CLIP.pt"}',
    )


def _strange(address: str) -> ModelError:
    return ModelError(
        f'{address} does not answer like a Zenodo record',
        remedy='Check the address given with --site or TUMSYN_ZENODO',
    )
