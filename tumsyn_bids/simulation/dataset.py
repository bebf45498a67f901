"""The phantom dataset: a small BIDS dataset of simulated people, with its truth beside it.

Files are the same bit for bit whenever the same command runs again: numbers come from one seeded
generator, are computed in double precision and rounded before they are stored, and archives carry
no dates. Another zlib may pack the same voxels into other bytes; unpacked they are equal.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..acquisition import BIDS_KEYS
from ..errors import UsageError
from ..grids import Grid
from . import documents
from .anatomy import TISSUE_NAMES, Anatomy, build_anatomy, label_names, with_lesions
from .cohort import COHORT, REFERENCE_PROTOCOLS, Member, Protocol, Session, Take
from .documents import TRUTH_FOLDER, write_json, write_tsv
from .phantom import Person, draw_person, transform_points
from .scanner import View, as_image, contrast_map, scan, scan_grid

DEFAULT_SEED = 2024
#: Mean of the brain in stored units; low, so that the noise takes few bits in the files.
_LEVEL = 40.0
#: The truth has no noise and needs fewer steps; it covers the brain.
_TRUTH_LEVEL = 25.0
_COMPRESSION = 6
_TRUTH_BORDER_MM = 5
_TISSUE_GROUPS: dict[str, tuple[str, ...]] = {
    'CSF': ('csf',),
    'white_matter': ('white_matter', 'cerebellar_white_matter'),
    'brain_stem': ('brain_stem',),
    'lesion': ('white_matter_lesion',),
}
_TISSUE_GROUPS['grey_matter'] = tuple(
    name for name in TISSUE_NAMES if name not in sum(_TISSUE_GROUPS.values(), ())
)


def write_phantom_dataset(
    out_dir: str | Path,
    *,
    resolution_mm: float | None = None,
    seed: int = DEFAULT_SEED,
    subjects: Iterable[str] | None = None,
) -> Path:
    """Write the phantom dataset.

    Parameters
    ----------
    out_dir : path-like
        Made if it does not exist; must be empty if it does.
    resolution_mm : float, optional
        No voxel edge is shorter than this. By default the scans have the voxel sizes of their
        protocols, 1 to 5 mm, and the truth has 1 mm.
    seed : int
        Of the shapes of the heads, of noise and of shading.
    subjects : iterable of str, optional
        Labels without ``sub-``, of those in :data:`~tumsyn_bids.simulation.cohort.COHORT`; all by
        default. A subject comes out the same whichever others are written.

    Returns
    -------
    Path
        ``out_dir``.

    Raises
    ------
    UsageError
        If the folder holds anything, a subject is unknown or the resolution is impossible.
    """
    out_dir = Path(out_dir)
    members = _members(subjects)
    _check_request(out_dir, resolution_mm)
    anatomy = build_anatomy(2 if (resolution_mm or 0) > 1.5 else 1)
    for member in members:
        number = COHORT.index(member)
        rng = np.random.default_rng(np.random.SeedSequence((seed, number)))
        person = draw_person(rng, size=member.size)
        inside = with_lesions(anatomy, member.lesions)
        for order, session in enumerate(member.sessions):
            visit = _Visit(out_dir, member, session, resolution_mm)
            _write_scans(visit, inside, person, (seed, number, order))
            _write_truth(visit, inside, person)
    documents.write_root_files(out_dir, members, label_names())
    return out_dir


def _members(subjects: Iterable[str] | None) -> tuple[Member, ...]:
    if subjects is None:
        return COHORT
    wanted = {str(subject).removeprefix('sub-') for subject in subjects}
    known = [member.label for member in COHORT]
    for label in sorted(wanted.difference(known)):
        raise UsageError(
            f'the phantom has no subject {label!r}', remedy=f'Choose among {", ".join(known)}'
        )
    return tuple(member for member in COHORT if member.label in wanted)


def _check_request(out_dir: Path, resolution_mm: float | None) -> None:
    if resolution_mm is not None and not 0 < resolution_mm <= 10:
        raise UsageError(
            f'a resolution of {resolution_mm:g} mm is not possible',
            remedy='Give a number of millimetres above 0 and up to 10',
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UsageError('is not an empty folder', path=out_dir, remedy='Name a new folder')


@dataclass(frozen=True)
class _Visit:
    """Where the files of one session go."""

    root: Path
    member: Member
    session: Session
    resolution_mm: float | None

    @property
    def stem(self) -> str:
        return '_'.join(self._parts)

    @property
    def raw(self) -> Path:
        return self.root.joinpath(*self._parts, 'anat')

    @property
    def truth(self) -> Path:
        return self.root.joinpath(TRUTH_FOLDER, *self._parts, 'anat')

    @property
    def reference(self) -> Take:
        return self.session.takes[0]

    def scan_name(self, take: Take) -> str:
        return f'{self.stem}_{take.contrast}'

    def scan_uri(self, take: Take) -> str:
        inside = '/'.join((*self._parts, 'anat', f'{self.scan_name(take)}.nii.gz'))
        return f'bids:raw:{inside}'

    @property
    def _parts(self) -> tuple[str, ...]:
        session = () if self.session.label is None else (f'ses-{self.session.label}',)
        return (f'sub-{self.member.label}', *session)


def _write_scans(visit: _Visit, anatomy: Anatomy, person: Person, seed: tuple[int, ...]) -> None:
    for order, take in enumerate(visit.session.takes):
        protocol = take.protocol.at_least(visit.resolution_mm)
        img = scan(
            anatomy,
            person,
            protocol.acquisition,
            protocol.grid(take.pose),
            pose=take.pose,
            slice_thickness_mm=protocol.slice_thickness_mm,
            level=_LEVEL,
            snr=protocol.snr,
            bias=protocol.bias,
            floor=protocol.floor,
            seed=(*seed, order),
        )
        write_image(img, visit.raw / f'{visit.scan_name(take)}.nii.gz')
        write_json(_sidecar(protocol), visit.raw / f'{visit.scan_name(take)}.json')


def _write_truth(visit: _Visit, anatomy: Anatomy, person: Person) -> None:
    pose = visit.reference.pose
    grid = brain_grid(anatomy, person, pose, zoom=max(1.0, visit.resolution_mm or 1.0))
    view = View.of(anatomy, person, grid, pose)
    space = {'SpatialReference': visit.scan_uri(visit.reference)}
    base = f'{visit.stem}_space-individual'
    mask = view.nearest(anatomy.brain.astype(np.uint8))
    labels = np.where(mask, view.nearest(anatomy.labels), 0).astype(np.int16)
    for contrast, protocol in _lacking(visit.session).items():
        image = np.rint(view.mean(contrast_map(anatomy, protocol.acquisition, _TRUTH_LEVEL)))
        stored = np.where(mask, np.minimum(image, 255), 0).astype(np.uint8)
        name = f'{base}_desc-truth_{contrast}'
        _write_pair(visit, name, as_image(stored, grid), {
            'Description': 'What a scan of this protocol would show of the brain, '
            'without noise and shading',
            **space,
            'SkullStripped': True,
            **_imaging_fields(protocol),
        })  # fmt: skip
    about = {'Description': 'Structures, numbered as in FreeSurfer', 'Manual': False, **space}
    _write_pair(visit, f'{base}_desc-truth_dseg', as_image(labels, grid), about)
    about = {'Description': 'Brain with the fluid in and around it', 'Type': 'Brain', **space}
    _write_pair(visit, f'{base}_desc-brain_mask', as_image(mask, grid), about)
    _write_volumes(visit, labels, view)
    for take in visit.session.takes[1:]:
        name = f'{visit.stem}_from-{take.contrast}_to-individual_mode-image_xfm.txt'
        write_transform(np.linalg.inv(take.pose) @ pose, visit.truth / name)


def _lacking(session: Session) -> dict[str, Protocol]:
    acquired = {take.contrast for take in session.takes}
    return {name: made for name, made in REFERENCE_PROTOCOLS.items() if name not in acquired}


def _write_pair(visit: _Visit, name: str, img: nb.Nifti1Image, about: dict) -> None:
    write_image(img, visit.truth / f'{name}.nii.gz')
    write_json({'Sources': [], **about}, visit.truth / f'{name}.json')


def brain_grid(anatomy: Anatomy, person: Person, pose: np.ndarray, *, zoom: float) -> Grid:
    """Return an upright grid around the brain of a person, corners at whole millimetres.

    Parameters
    ----------
    anatomy : Anatomy
    person : Person
    pose : ndarray, shape (4, 4)
        Scanner to head coordinates.
    zoom : float
        Voxel size in mm.
    """
    surface = anatomy.brain & ~ndimage.binary_erosion(anatomy.brain)
    voxels = np.argwhere(surface)[::50].T
    template = transform_points(anatomy.affine, voxels.astype(np.float64))
    points = transform_points(np.linalg.inv(pose), person.from_template(template))
    low = np.floor(points.min(axis=1)) - _TRUTH_BORDER_MM
    high = np.ceil(points.max(axis=1)) + _TRUTH_BORDER_MM
    return scan_grid((zoom,) * 3, high - low, 'RAS', centre=(low + high) / 2)


def _write_volumes(visit: _Visit, labels: np.ndarray, view: View) -> None:
    names, voxel = label_names(), float(np.prod(view.grid.zooms))
    rows = []
    for value in np.unique(labels[labels > 0]):
        index = np.argwhere(labels == value)
        middle = transform_points(view.grid.affine, index.mean(axis=0))
        rows.append(
            {
                'index': int(value),
                'name': names[int(value)],
                'volume_mm3': f'{len(index) * voxel:.1f}',
                **{key: f'{mm + 0.0:.2f}' for key, mm in zip('xyz', middle, strict=True)},
            }
        )
    write_tsv(rows, visit.truth / f'{visit.stem}_desc-labels_morph.tsv')
    volumes = tissue_volumes(view)
    rows = [{'tissue': name, 'volume_mm3': f'{mm3:.1f}'} for name, mm3 in volumes.items()]
    write_tsv(rows, visit.truth / f'{visit.stem}_desc-tissues_morph.tsv')


def tissue_volumes(view: View) -> dict[str, float]:
    """Return the volumes in mm³ of the tissues within the brain mask.

    They are integrals of the shares of tissue in each voxel, not counts of voxels.
    """
    volumes = {}
    for group, members in _TISSUE_GROUPS.items():
        share = view.anatomy.mix({name: float(name in members) for name in TISSUE_NAMES})
        total = view.mean(share * view.anatomy.brain).sum()
        volumes[group] = float(total * np.prod(view.grid.zooms))
    return volumes


def _imaging_fields(protocol: Protocol) -> dict:
    acquisition = protocol.acquisition
    values = {key: getattr(acquisition, name) for name, key in BIDS_KEYS.items()}
    return {key: value for key, value in values.items() if value is not None}


def _sidecar(protocol: Protocol) -> dict:
    fields = {**protocol.sequence, **_imaging_fields(protocol)}
    fields['SliceThickness'] = protocol.slice_thickness_mm
    if protocol.sequence['MRAcquisitionType'] == '2D':
        fields['SpacingBetweenSlices'] = protocol.zooms[2]
    return dict(sorted(fields.items()))


def write_image(img: nb.Nifti1Image, path: Path) -> None:
    """Write a compressed NIfTI file that is the same bit for bit each time."""
    img.header['descrip'] = b'tumsyn phantom: simulated'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as raw, gzip.GzipFile('', 'wb', _COMPRESSION, raw, mtime=0) as packed:
        packed.write(img.to_bytes())


def write_transform(matrix: np.ndarray, path: Path) -> None:
    """Write a world-to-world matrix (RAS+, fixed to moving) as an ITK text file."""
    from nitransforms.linear import Affine

    # Rounded, so that a last bit that differs between machines does not show.
    Affine(np.round(matrix, 9) + 0.0).to_filename(str(path), fmt='itk')
