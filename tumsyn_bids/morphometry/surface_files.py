"""Surfaces as files: between steps, as GIFTI, and as FreeSurfer has them."""

from __future__ import annotations

import colorsys
from dataclasses import fields
from pathlib import Path

import nibabel as nb
import numpy as np

from ..files import staged
from .labels import CORTEX_BASE, structures
from .surfaces import Surface

#: BIDS names of the files of a hemisphere: suffix and extension.
GIFTI_FILES = {
    'white': '.surf.gii',
    'pial': '.surf.gii',
    'midthickness': '.surf.gii',
    'thickness': '.shape.gii',
    'curv': '.shape.gii',
}
_STRUCTURE = {'lh': 'CortexLeft', 'rh': 'CortexRight'}
_DEPTH = {'white': 'GrayWhite', 'pial': 'Pial', 'midthickness': 'MidThickness'}


def save_surface(surface: Surface, path: str | Path) -> Path:
    """Write a surface as numpy arrays, for :func:`load_surface`."""
    path = Path(path)
    np.savez_compressed(
        path, **{item.name: getattr(surface, item.name) for item in fields(Surface)}
    )
    return path


def load_surface(path: str | Path) -> Surface:
    """Read what :func:`save_surface` wrote."""
    with np.load(path) as arrays:
        return Surface(**{item.name: arrays[item.name] for item in fields(Surface)})


def gifti(surface: Surface, side: str, kind: str) -> nb.gifti.GiftiImage:
    """Return a mesh or a map of a hemisphere as a GIFTI image.

    Parameters
    ----------
    surface : Surface
    side : {'lh', 'rh'}
    kind : {'white', 'pial', 'midthickness', 'thickness', 'curv'}
        A mesh, or thickness (mm; 0 where there is no cortex, as workbench and FreeSurfer have
        it) or mean curvature (1/mm) on its vertices.
    """
    img = nb.gifti.GiftiImage(
        meta=nb.gifti.GiftiMetaData(AnatomicalStructurePrimary=_STRUCTURE[side])
    )
    if kind in _DEPTH:
        meta = {
            'AnatomicalStructurePrimary': _STRUCTURE[side],
            'AnatomicalStructureSecondary': _DEPTH[kind],
            'GeometricType': 'Anatomical',
        }
        img.add_gifti_data_array(
            nb.gifti.GiftiDataArray(
                np.asarray(getattr(surface, kind), np.float32),
                intent='NIFTI_INTENT_POINTSET',
                meta=nb.gifti.GiftiMetaData(**meta),
            )
        )
        img.add_gifti_data_array(
            nb.gifti.GiftiDataArray(surface.faces, intent='NIFTI_INTENT_TRIANGLE')
        )
        return img
    values = surface.curvature if kind == 'curv' else np.nan_to_num(surface.thickness)
    img.add_gifti_data_array(
        nb.gifti.GiftiDataArray(
            values.astype(np.float32),
            intent='NIFTI_INTENT_SHAPE',
            meta=nb.gifti.GiftiMetaData(Name=kind),
        )
    )
    return img


def write_freesurfer(subject: str | Path, side: str, surface: Surface, centre) -> list[Path]:
    """Write the surfaces of a hemisphere into a subject's folder of FreeSurfer.

    ``surf/?h.white``, ``.pial``, ``.thickness``, ``.area`` and ``.curv``, and
    ``label/?h.aparc.annot``.

    Parameters
    ----------
    subject : path-like
        The folder; ``surf`` and ``label`` exist.
    side : {'lh', 'rh'}
    surface : Surface
    centre : array-like, shape (3,)
        World coordinates of the middle of the conformed images, where FreeSurfer's surface
        coordinates have their origin.
    """
    subject, centre = Path(subject), np.asarray(centre)
    folder, written = subject / 'surf', []
    volume = {
        'head': np.array([2, 0, 20]),
        'valid': '1  # volume info valid',
        'filename': '../mri/orig.mgz',
        'volume': np.array([256, 256, 256]),
        'voxelsize': np.ones(3),
        'xras': np.array([-1.0, 0, 0]),
        'yras': np.array([0, 0, -1.0]),
        'zras': np.array([0, 1.0, 0]),
        'cras': centre.astype(float),
    }
    for kind in ('white', 'pial'):
        path = folder / f'{side}.{kind}'
        places = getattr(surface, kind) - centre
        with staged(path) as temporary:
            nb.freesurfer.write_geometry(
                temporary, places, surface.faces, create_stamp='tumsyn-bids', volume_info=volume
            )
        written.append(path)
    maps = {
        'thickness': np.nan_to_num(surface.thickness),
        'area': surface.area,
        'curv': surface.curvature,
    }
    for kind, values in maps.items():
        path = folder / f'{side}.{kind}'
        with staged(path) as temporary:
            nb.freesurfer.write_morph_data(
                temporary, values.astype(np.float32), len(surface.faces)
            )
        written.append(path)
    written.append(_write_annotation(subject / 'label' / f'{side}.aparc.annot', side, surface))
    return written


def _write_annotation(path: Path, side: str, surface: Surface) -> Path:
    base = CORTEX_BASE[side]
    numbers = [number for number in sorted(structures()) if base < number < base + 1000]
    names = ['unknown', *(structures()[number].parcel for number in numbers)]
    table = np.zeros((len(names), 4), int)
    for row, number in enumerate(numbers, start=1):
        rgb = colorsys.hsv_to_rgb((number % 1000) * 0.382 % 1, 0.75, 0.95)
        table[row, :3] = [round(255 * value) for value in rgb]
    index = np.full(len(surface.parcels), -1)
    for row, number in enumerate(numbers, start=1):
        index[surface.parcels == number] = row
    with staged(path) as temporary:
        nb.freesurfer.write_annot(temporary, index, table, names, fill_ctab=True)
    return path
