"""Which of a session's images are used, by rules that need nothing but names, sidecars, headers.

1. Images of other contrasts, derived images, phase, real and imaginary parts, MP2RAGE parts and
   ``UNIT1`` are refused; so are images that a filter file leaves out.
2. Images whose name tells of another person or session than their folder, that cannot be read, or
   that have more than one volume are refused with a warning, and the session has their contrast
   all the same. Images whose header tells that they hold no brain
   volume are refused: fewer than :data:`MIN_SLICES` slices, less than :data:`MIN_EXTENT` mm in a
   direction, voxels above :data:`MAX_VOXEL` mm.
3. Of several images of one contrast, one is taken: one whose name tells the contrast before one
   that is guessed (a FLAIR named T2w, a T1CE without ``ce-``); of several echoes the one whose
   echo time is nearest to the default protocol's; then the one with the thinnest slices; then the
   smallest voxels; then the highest run, because a scan is repeated when the first one failed;
   then the last by name. The others are refused with this reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..acquisition import CONTRASTS
from ..errors import ScanError, UsageError
from ..plan import Finding, Refusal, Scan
from ..protocols import default_protocol
from .layout import OUR_QUERIES
from .metadata import CONTRAST_OF_SUFFIX, MetadataReader, read_header, with_voxel_size
from .sidecars import name_parts

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

MIN_SLICES = 10
MIN_EXTENT = 60.0
MAX_VOXEL = 10.0

_IMAGES = ['.nii', '.nii.gz']
_NOT_OURS = ('defacemask', 'mask', 'dseg', 'probseg')
_WHY_NOT = {
    'UNIT1': 'the uniform MP2RAGE image has a noise background; provide a denoised T1w',
    'MP2RAGE': 'one inversion of an MP2RAGE is no T1w; provide a denoised T1w',
    'angio': 'angiograms are none of the contrasts that can be used',
}


def select_scans(
    layout: BIDSLayout,
    subject: str,
    session: str | None,
    filters: dict[str, dict] | None = None,
    *,
    reader: MetadataReader | None = None,
    images: Sequence[Path] | None = None,
) -> tuple[list[Scan], list[Refusal], list[Finding]]:
    """Choose at most one scan of each contrast of a session.

    Parameters
    ----------
    layout : BIDSLayout
        From :func:`~tumsyn_bids.bids.layout.index_dataset`.
    subject : str
    session : str or None
        None for images outside of sessions.
    filters : dict, optional
        From :func:`~tumsyn_bids.bids.layout.load_filters`; by contrast, in lower case.
    reader : MetadataReader, optional
        One for many sessions reads the dataset's tables once.
    images : sequence of Path, optional
        The session's part of :func:`images_by_session`, if that was called already.

    Returns
    -------
    scans : list of Scan
        Sorted by contrast.
    refused : list of Refusal
        Every other image, with the reason.
    findings : list of Finding
        About the chosen scans.

    Raises
    ------
    ScanError
        A sidecar that applies to an anatomical image is not valid JSON. The session cannot be
        planned then: what the image is would be a guess.
    UsageError
        A filter names an entity that BIDS does not know.
    """
    reader = reader or MetadataReader(layout.root)
    refused: list[Refusal] = []
    left_out: list[_LeftOut] = []
    candidates: list[tuple[Scan, list[Finding]]] = []
    ours = {name: query for name, query in (filters or {}).items() if name in OUR_QUERIES}
    allowed = {name: _allowed(layout, name, query) for name, query in ours.items()}
    if images is None:
        images = images_by_session(layout).get((subject, session), [])
    for path in images:
        if name_parts(path)[1] in _NOT_OURS:
            continue
        outcome = _candidate(path, reader, allowed)
        if isinstance(outcome, Refusal):
            refused.append(outcome)
        elif isinstance(outcome, _LeftOut):
            left_out.append(outcome)
        else:
            candidates.append(outcome)
    scans, findings, beaten = _best(candidates, Path(layout.root))
    there = {scan.contrast for scan in scans} | {item.acquired for item in refused}
    order = sorted(
        [*refused, *beaten, *_by_filters(left_out, there)], key=lambda refusal: refusal.path
    )
    return scans, order, findings


def images_by_session(layout: BIDSLayout) -> dict[tuple[str, str | None], list[Path]]:
    """Return the images of the index by subject and session, sorted.

    One query for all: asking pybids for each session takes a tenth of a second in a large dataset.
    """
    start = len(str(Path(layout.root)))
    grouped: dict[tuple[str, str | None], list[Path]] = {}
    for path in sorted(layout.get(extension=_IMAGES, return_type='filename')):
        subject = re.search(r'/sub-([^/_]+)', path[start:])
        # By folders: an image whose name says otherwise is refused where it lies.
        session = re.search(r'^/sub-[^/]+/ses-([^/]+)/', path[start:])
        if subject:
            grouped.setdefault((subject[1], session and session[1]), []).append(Path(path))
    return grouped


def sharpness(scan: Scan) -> tuple[float, float]:
    """Return slice thickness (mm) and voxel volume (mm³): smaller is sharper.

    Rounded, so that the last digits of a header do not decide.
    """
    return round(max(scan.zooms), 2), float(f'{math.prod(scan.zooms):.3g}')


@lru_cache(maxsize=1)
def _known_entities() -> tuple:
    from bids.layout.models import Config

    configs = [Config.load(name) for name in ('bids', 'derivatives')]
    return tuple(entity for config in configs for entity in config.entities.values())


def _entities(relative: str) -> tuple[dict[str, str], str]:
    """Return entities under their long pybids names, and the suffix.

    Of the path inside the dataset: in the index, folders above it may look like entities.
    """
    from bids.layout import parse_file_entities

    found = parse_file_entities(f'/{relative}', entities=_known_entities())
    entities = {key: str(value) for key, value in found.items() if key != 'extension'}
    return entities, entities.pop('suffix', '')


def _candidate(
    path: Path, reader: MetadataReader, allowed: dict[str, set[str]]
) -> tuple[Scan, list[Finding]] | Refusal | _LeftOut:
    relative = path.relative_to(reader.root).as_posix()
    entities, suffix = _entities(relative)
    reason = _name_reason(suffix, entities)
    if reason:
        return Refusal(relative, reason)
    misplaced = _misplaced(relative)
    if misplaced:
        return _unusable(relative, misplaced, reader.imaging(path)[0].contrast)
    acq, findings = reader.read_named(path)
    name = acq.contrast.lower()
    if str(path) not in allowed.get(name, {str(path)}):
        return _LeftOut(relative, acq.contrast)
    try:
        header = read_header(path)
    except ScanError as error:
        return _unusable(relative, f'{error.problem}; {error.remedy}', acq.contrast)
    volumes = math.prod(header.shape[3:])
    if volumes != 1:
        reason = f'it has {volumes} volumes, and a scan has one; keep one of them, or their mean'
        return _unusable(relative, reason, acq.contrast)
    reason = _header_reason(header.shape, header.zooms)
    if reason:
        return Refusal(relative, reason)
    acq = with_voxel_size(acq, header)
    return Scan(str(path), acq, entities, header.shape, header.zooms), findings


def _misplaced(relative: str) -> str | None:
    """Say that name and folders tell of different people or sessions: whose it is is a guess."""
    *folders, name = Path(relative).parts
    above = [folder for folder in folders if folder.startswith(('sub-', 'ses-'))]
    entities, _ = name_parts(name)
    named = [f'{key}-{entities[key]}' for key in ('sub', 'ses') if key in entities]
    if named == above:
        return None
    there, here = (' '.join(labels) or 'nobody' for labels in (above, named))
    return f'its folder says {there} and its name {here}; find out whose it is, and rename it'


def _unusable(relative: str, reason: str, contrast: str) -> Refusal:
    """Refuse a scan that the session has and that the user can make usable."""
    return Refusal(relative, reason, 'warning', acquired=contrast)


def _name_reason(suffix: str, entities: dict[str, str]) -> str | None:
    if suffix in _WHY_NOT:
        return _WHY_NOT[suffix]
    if suffix not in CONTRAST_OF_SUFFIX:
        return f'the suffix {suffix or "(none)"} is none of the contrasts that can be used'
    if 'desc' in entities or 'space' in entities:
        return 'a derived image (desc- or space- in its name) is no acquired scan'
    if entities.get('part', 'mag') != 'mag':
        return f'the {entities["part"]} part of a complex image is no magnitude'
    return None


def _header_reason(shape: tuple[int, ...], zooms: tuple[float, ...]) -> str | None:
    if len(shape) < 3 or min(shape[:3]) < MIN_SLICES:
        size = ' x '.join(map(str, shape))
        return f'its {size} voxels are fewer than {MIN_SLICES} slices'
    if not all(math.isfinite(zoom) and 0 < zoom <= MAX_VOXEL for zoom in zooms):
        size = ' x '.join(f'{zoom:g}' for zoom in zooms)
        return f'its voxel size of {size} mm is not between 0 and {MAX_VOXEL:g} mm'
    extent = min(n * zoom for n, zoom in zip(shape, zooms, strict=False))
    if extent < MIN_EXTENT:
        return f'it covers only {extent:.0f} mm in one direction, a brain needs {MIN_EXTENT:g} mm'
    return None


class _LeftOut(NamedTuple):
    """An image that a filter leaves out."""

    path: str
    contrast: str


def _by_filters(left_out: Iterable[_LeftOut], there: Iterable[str | None]) -> Iterator[Refusal]:
    """Refuse what filters leave out; once for each contrast of which nothing is left, loudly."""
    told = set(there)
    for path, contrast in left_out:
        reason = f'left out by your filter "{contrast.lower()}"'
        if contrast in told:
            yield Refusal(path, reason)
        else:
            told.add(contrast)
            reason += f', which leaves no {contrast} of this session: it counts as missing'
            yield Refusal(path, reason, 'warning')


def _allowed(layout, name: str, query: dict) -> set[str]:
    # What the image is follows from name and sidecar together; the query only narrows.
    entities = {key: value for key, value in query.items() if key != 'suffix'}
    try:
        files = layout.get(**{'extension': _IMAGES, **entities})
    except (ValueError, TypeError) as error:
        raise UsageError(
            f'the filter cannot be used ({error})',
            field=name,
            remedy='Use the entity names of pybids, such as acquisition, run, reconstruction',
        ) from error
    return {file.path for file in files}


def _best(candidates, root: Path) -> tuple[list[Scan], list[Finding], list[Refusal]]:
    scans, findings, beaten = [], [], []
    for contrast in sorted({scan.contrast for scan, _ in candidates}):
        rivals = [item for item in candidates if item[0].contrast == contrast]
        rivals.sort(key=lambda item: item[0].path, reverse=True)
        best = min(rivals, key=lambda item: _rank(item[0]))
        scans.append(best[0])
        findings += best[1]
        beaten += _beaten(best[0], (scan for scan, _ in rivals if scan is not best[0]), root)
    return scans, findings, beaten


def _beaten(best: Scan, others: Iterable[Scan], root: Path) -> list[Refusal]:
    name = Path(best.path).name
    return [
        Refusal(
            Path(scan.path).relative_to(root).as_posix(),
            f'{name} is used as {best.contrast}: {_advantage(best, scan)}',
        )
        for scan in others
    ]


def _rank(scan: Scan) -> tuple:
    return (
        _guessed(scan),
        *_echo_rank(scan),
        *sharpness(scan),
        -_integer(scan.entities.get('run')),
    )


def _guessed(scan: Scan) -> bool:
    """Tell whether the contrast follows from more than the name says in BIDS."""
    contrast = CONTRASTS[scan.contrast]
    if name_parts(scan.path)[1] != contrast.suffix:
        return True
    return contrast.ceagent is not None and 'ceagent' not in scan.entities


def _echo_rank(scan: Scan) -> tuple[float, int]:
    if 'echo' not in scan.entities:
        return 0.0, 0
    te = scan.acquisition.echo_time
    if te is None:
        return math.inf, _integer(scan.entities['echo'])
    wanted = default_protocol(scan.contrast, scan.acquisition.field_strength).echo_time
    return round(abs(te - wanted), 6), _integer(scan.entities['echo'])


def _advantage(best: Scan, other: Scan) -> str:
    if _guessed(best) != _guessed(other):
        return f'its name says so, and the other is a {best.contrast} by what else is known of it'
    if _echo_rank(best) != _echo_rank(other):
        return 'its echo time is nearer to that of the default protocol'
    if sharpness(best)[0] < sharpness(other)[0]:
        return f'its slices are thinner ({max(best.zooms):g} mm against {max(other.zooms):g} mm)'
    if sharpness(best)[1] < sharpness(other)[1]:
        return 'its voxels are smaller'
    if _integer(best.entities.get('run')) > _integer(other.entities.get('run')):
        return 'it is the later run'
    return 'the two are alike, and its name comes last'


def _integer(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
