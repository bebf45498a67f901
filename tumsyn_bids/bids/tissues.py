"""What the outputs of tissue segmentation are called, and their sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import write_text
from ..plan import SessionPlan
from .derivatives import own_uri, raw_uri, save_image
from .morphometry import MeasuredImage
from .naming import FigurePath, derivative_path, figure_path, session_paths
from .tables import to_tsv

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

#: Number, name and abbreviation in BIDS' table of generic tissues.
TISSUES = (
    {'index': 1, 'name': 'Gray Matter', 'abbreviation': 'GM'},
    {'index': 2, 'name': 'White Matter', 'abbreviation': 'WM'},
    {'index': 3, 'name': 'Cerebrospinal Fluid', 'abbreviation': 'CSF'},
)


@dataclass(frozen=True)
class TissuePaths:
    """Where the outputs go, relative to the output directory.

    Attributes
    ----------
    labels : Path
    names : Path
        Table of the labels.
    probabilities : dict of str to Path
        By abbreviation of the tissue.
    figure : FigurePath
    """

    labels: Path
    names: Path
    probabilities: dict[str, Path]
    figure: FigurePath


def tissue_paths(plan: SessionPlan) -> TissuePaths:
    """Name the outputs of a session's tissue segmentation."""
    person = {'subject': plan.subject, 'session': plan.session}
    entities = {**person, 'space': 'individual', 'resolution': '1mm'}
    return TissuePaths(
        labels=derivative_path(entities, 'dseg'),
        names=derivative_path(entities, 'dseg', extension='.tsv'),
        probabilities={
            row['abbreviation']: derivative_path(
                {**entities, 'label': row['abbreviation']}, 'probseg'
            )
            for row in TISSUES
        },
        figure=FigurePath(
            'tissues', 'Tissues', figure_path({**person, 'desc': 'tissues'}, 'dseg')
        ),
    )


def save_tissues(
    labels: SpatialImage,
    probabilities: Mapping[str, SpatialImage],
    plan: SessionPlan,
    measured: MeasuredImage,
    *,
    bids_dir: str | Path,
    output_dir: str | Path,
) -> list[Path]:
    """Write the label image with its table, and the probabilities of the tissues.

    Parameters
    ----------
    labels : SpatialImage
        Numbers of :data:`TISSUES`.
    probabilities : mapping of str to SpatialImage
        By abbreviation.
    plan : SessionPlan
    measured : MeasuredImage
    bids_dir, output_dir : path-like
    """
    paths, out, of = tissue_paths(plan), Path(output_dir), session_paths(plan)
    image = of.preproc[measured.scan] if measured.task is None else of.synthetic[measured.task]
    common = {
        'Manual': False,
        'Sources': [own_uri(image), own_uri(of.mask)],
        'SpatialReference': raw_uri(plan.reference, bids_dir),
        'Resolution': '1 mm isotropic voxels around the brain',
        'MeasuredImage': f'{measured.origin} T1w',
    }
    about = f'of grey matter, white matter and CSF, from the {measured.origin} T1w'
    written = [
        save_image(
            labels,
            out / paths.labels,
            {'Description': f'Most probable {about}', **common},
            dtype=np.uint8,
        ),
        write_text(out / paths.names, to_tsv(TISSUES)),
    ]
    for tissue, img in probabilities.items():
        sidecar = {'Description': f'Probability {about}: {tissue}', 'Label': tissue, **common}
        written.append(save_image(img, out / paths.probabilities[tissue], sidecar))
    return written
