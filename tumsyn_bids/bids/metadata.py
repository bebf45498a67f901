"""What sidecars, file names and headers say about a scan, checked for plausibility."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..acquisition import BIDS_KEYS, Acquisition
from ..errors import ScanError
from ..plan import Finding
from ..values import (
    TREATED_AS_MISSING,
    as_number,
    canonical_manufacturer,
    doubt,
    is_missing,
    nominal_field_strength,
    wrong_unit,
)
from .participants import People
from .sidecars import Sidecars, Stated, dataset_root, name_parts

#: Fields of a sidecar whose values must be plausible; findings about others are decisions.
STATED_FIELDS = (*BIDS_KEYS.values(), 'AcquisitionVoxelSize')

_TIMES = ('repetition_time', 'echo_time', 'inversion_time')
_NUMERIC = ('field_strength', 'repetition_time', 'echo_time', 'inversion_time', 'flip_angle')

#: What an image is by its BIDS suffix alone.
CONTRAST_OF_SUFFIX = {
    'T1w': 'T1w',
    'T2w': 'T2w',
    'PDw': 'PDw',
    'FLAIR': 'FLAIR',
    'T2starw': 'T2starw',
    'swi': 'SWI',
}
_NO_AGENT = ('none', 'no', 'pre', 'native')
#: How sidecars word that none was given.
_NO_AGENT_WORDS = re.compile(r'(no|none|nil|not|without|pre|native|false)\b', re.IGNORECASE)
_POST_CONTRAST = re.compile(r'(?<![a-z])(post|gd|gad|gado\w*)(?![a-z])', re.IGNORECASE)
#: Inversion times that null cerebrospinal fluid, and the repetition time they need, in seconds.
_FLAIR_INVERSION = (1.5, 3.2)
_FLAIR_REPETITION = 4.0


def read_acquisition(path: str | Path, layout) -> tuple[Acquisition, list[Finding]]:
    """Read all that is known about a scan.

    Parameters
    ----------
    path : path-like
        A NIfTI image, or a sidecar whose image is absent.
    layout : BIDSLayout or path-like
        The dataset, for inheritance and for the person.

    Returns
    -------
    acquisition : Acquisition
        ``contrast`` is None if the suffix is none of ours.
    findings : list of Finding
        Implausible values (treated as missing) and decisions about the contrast. Their paths are
        relative to the dataset.

    Raises
    ------
    ScanError
        A sidecar that applies is not valid JSON, or the image's header cannot be read.
    """
    return MetadataReader(dataset_root(layout)).read(path)


class MetadataReader:
    """Reads acquisitions of one dataset; tables and inherited sidecars are read once.

    Parameters
    ----------
    root : path-like
        Root of the dataset.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()
        self.people = People(self.root)
        self._sidecars = Sidecars(self.root)

    def read(self, path: str | Path) -> tuple[Acquisition, list[Finding]]:
        """Read a scan, its header and its person; see :func:`read_acquisition`."""
        acq, findings = self.read_named(path)
        if not str(path).endswith('.json'):
            acq = with_voxel_size(acq, read_header(path))
        return acq, findings

    def read_named(self, path: str | Path) -> tuple[Acquisition, list[Finding]]:
        """Read name, sidecars and person, but not the header; see :func:`with_voxel_size`."""
        acq, findings = self.imaging(path)
        entities, _ = name_parts(path)
        if 'sub' not in entities:
            return acq, findings
        age, sex, about = self.people.person(entities['sub'], entities.get('ses'))
        return acq.replace(age=age, sex=sex), findings + about

    def imaging(self, path: str | Path) -> tuple[Acquisition, list[Finding]]:
        """Read name and sidecars only: no header, no person; see :func:`with_voxel_size`."""
        stated = self._sidecars.metadata(path)
        findings: list[Finding] = []
        values = {field: self._number(field, stated, findings) for field in _NUMERIC}
        if values['field_strength'] is not None:
            values['field_strength'] = nominal_field_strength(values['field_strength'])
        self._check_units(values, stated, findings)
        self._check_echo(values, stated, findings)
        acq = Acquisition(
            contrast=self._contrast(path, stated, values, findings),
            manufacturer=self._manufacturer(stated, findings),
            voxel_size=self._voxel_size(stated, findings),
            **values,
        )
        return acq, findings

    def _number(self, field, stated, findings) -> float | None:
        item = stated.get(BIDS_KEYS[field])
        if item is None or is_missing(item.value):
            return None
        number = as_number(item.value)
        if number is None:
            findings.append(self._finding(item, BIDS_KEYS[field], 'is not a number'))
            return None
        if field == 'inversion_time' and number == 0:
            return None  # converters write 0 for "no inversion"
        problem = doubt(field, number)
        if problem:
            findings.append(self._finding(item, BIDS_KEYS[field], problem))
            return None
        return number

    def _check_units(self, values, stated, findings) -> None:
        """Drop the times of a file that is in milliseconds, where only one of them shows it."""
        slips = [field for field in _TIMES if self._slipped(field, stated)]
        for path in dict.fromkeys(stated[BIDS_KEYS[field]].path for field in slips):
            times = {
                field: as_number(stated[BIDS_KEYS[field]].value)
                for field in _TIMES
                if BIDS_KEYS[field] in stated and stated[BIDS_KEYS[field]].path == path
            }
            times = {field: time / 1000 for field, time in times.items() if time}
            tr, te = times.get('repetition_time'), times.get('echo_time')
            impossible = tr is not None and te is not None and te >= tr
            if impossible or any(doubt(field, time) for field, time in times.items()):
                continue  # as milliseconds they cannot be: one value alone is wrong
            for field in times:
                if values[field] is not None:
                    key = BIDS_KEYS[field]
                    problem = 'may be in milliseconds, as another time of this file seems to be'
                    findings.append(self._finding(stated[key], key, problem))
                    values[field] = None

    def _slipped(self, field: str, stated) -> bool:
        item = stated.get(BIDS_KEYS[field])
        number = None if item is None else as_number(item.value)
        return number is not None and wrong_unit(field, number) is not None

    def _check_echo(self, values, stated, findings) -> None:
        """Drop an echo that comes after the next excitation: one of both is in a wrong unit."""
        tr, te = values['repetition_time'], values['echo_time']
        if tr is None or te is None or te < tr:
            return
        problem = f'the echo time ({te:g} s) is not shorter than the repetition time ({tr:g} s)'
        for field in ('repetition_time', 'echo_time'):
            values[field] = None
            key = BIDS_KEYS[field]
            findings.append(self._finding(stated[key], key, problem))

    def _manufacturer(self, stated, findings) -> str | None:
        item = stated.get('Manufacturer')
        if item is None or is_missing(item.value):
            return None
        name = canonical_manufacturer(str(item.value))
        if name is None:
            findings.append(self._finding(item, 'Manufacturer', 'is no manufacturer known to us'))
        return name

    def _voxel_size(self, stated, findings) -> tuple[float, float, float] | None:
        item = stated.get('AcquisitionVoxelSize')
        if item is None or is_missing(item.value):
            return None
        sizes = [as_number(v) for v in item.value] if isinstance(item.value, list) else []
        if len(sizes) == 3 and not any(v is None or doubt('voxel_size', v) for v in sizes):
            return tuple(sizes)
        problem = 'is not three plausible sizes in mm'
        findings.append(
            self._finding(item, 'AcquisitionVoxelSize', problem, "the header's voxel size is used")
        )
        return None

    def _contrast(self, path, stated, values, findings) -> str | None:
        entities, suffix = name_parts(path)
        contrast = CONTRAST_OF_SUFFIX.get(suffix)
        if contrast == 'T2w' and _is_flair(entities, values):
            findings.append(self._flair_finding(path, entities, values))
            return 'FLAIR'
        if contrast == 'T1w':
            return self._t1_contrast(path, entities, stated, findings)
        return contrast

    def _flair_finding(self, path, entities, values) -> Finding:
        if 'flair' in entities.get('acq', '').lower():
            why = f'its name says acq-{entities["acq"]}'
        else:
            why = (
                f'its inversion time of {values["inversion_time"]:g} s at a repetition time of '
                f'{values["repetition_time"]:g} s nulls cerebrospinal fluid'
            )
        return Finding(
            path=self._relative(path),
            field='suffix',
            value='T2w',
            problem=f'this is a FLAIR named T2w: {why}',
            action='used as FLAIR',
        )

    def _t1_contrast(self, path, entities, stated, findings) -> str:
        if 'ce' in entities:
            return 'T1w' if entities['ce'].lower() in _NO_AGENT else 'T1CE'
        agent = stated.get('ContrastBolusIngredient')
        if agent is not None and _names_agent(agent.value):
            problem = 'a contrast agent was given, and the file name has no ce- entity'
            findings.append(
                self._finding(agent, 'ContrastBolusIngredient', problem, 'used as T1CE')
            )
            return 'T1CE'
        series = stated.get('SeriesDescription')
        if series is not None and _POST_CONTRAST.search(str(series.value)):
            problem = 'it reads like a scan after contrast agent, and the name has no ce- entity'
            findings.append(
                self._finding(series, 'SeriesDescription', problem, 'used as T1w, as it is named')
            )
        return 'T1w'

    def _finding(
        self, item: Stated, field: str, problem: str, action: str = TREATED_AS_MISSING
    ) -> Finding:
        return Finding(self._relative(item.path), field, str(item.value)[:80], problem, action)

    def _relative(self, path: str | Path) -> str:
        path = Path(path).absolute()
        return (path.relative_to(self.root) if self.root in path.parents else path).as_posix()


def _names_agent(value: object) -> bool:
    """Tell whether ``ContrastBolusIngredient`` holds the name of an agent."""
    if not isinstance(value, str) or is_missing(value) or _NO_AGENT_WORDS.match(value.strip()):
        return False
    return any(character.isalpha() for character in value)


def _is_flair(entities: dict[str, str], values: dict[str, float | None]) -> bool:
    if 'flair' in entities.get('acq', '').lower():
        return True
    ti, tr = values['inversion_time'], values['repetition_time']
    low, high = _FLAIR_INVERSION
    return ti is not None and tr is not None and low <= ti <= high and tr > _FLAIR_REPETITION


@dataclass(frozen=True)
class Header:
    """What a header says about the voxels.

    Attributes
    ----------
    shape : tuple of int
    zooms : tuple of 3 float
        Voxel size in mm along the axes as they are stored.
    order : tuple of 3 int
        The stored axis nearest to left-right, posterior-anterior and inferior-superior.
    """

    shape: tuple[int, ...]
    zooms: tuple[float, float, float]
    order: tuple[int, int, int] = (0, 1, 2)

    def along_head(self, sizes: Sequence[float]) -> tuple[float, float, float]:
        """Bring sizes along the stored axes into the order of the head's axes."""
        return tuple(sizes[axis] for axis in self.order)


def with_voxel_size(acq: Acquisition, header: Header) -> Acquisition:
    """Return what is known of a scan with its voxel size along the axes of the head.

    BIDS does not say along which axes ``AcquisitionVoxelSize`` is; programs that write it go by
    the image as it is stored, and so do we. Of a sidecar alone, it stays as it is stated.

    Parameters
    ----------
    acq : Acquisition
        From :meth:`MetadataReader.imaging` or :meth:`MetadataReader.read_named`.
    header : Header
    """
    return acq.replace(voxel_size=header.along_head(acq.voxel_size or header.zooms))


def read_header(path: str | Path) -> Header:
    """Read shape, voxel size and orientation of an image without reading its voxels.

    Raises
    ------
    ScanError
        The file is absent, empty or no NIfTI image.
    """
    import nibabel as nb

    path = Path(path)
    if not path.exists():
        link = path.is_symlink()
        raise ScanError(
            'the image is a link whose target is absent' if link else 'the image is not there',
            path=path,
            remedy=f"Fetch its content with datalad get '{path}'" if link else 'Check the path',
        )
    try:
        path.open('rb').close()
    except OSError as error:
        raise ScanError(
            f'the image cannot be read ({error.strerror})',
            path=path,
            remedy='Check its permissions and the disk',
        ) from error
    try:
        img = nb.load(path)
        zooms = nb.affines.voxel_sizes(img.affine)
        stored = nb.io_orientation(img.affine)[:, 0]
    except Exception as error:  # damaged bytes make nibabel raise errors of any kind
        raise ScanError(
            f'its header cannot be read ({error})',
            path=path,
            remedy='Convert or copy the image again',
        ) from error
    return Header(
        shape=tuple(int(n) for n in img.shape),
        zooms=tuple(round(float(zoom), 4) for zoom in zooms),
        order=tuple(int(axis) for axis in stored.argsort()),
    )
