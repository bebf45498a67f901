"""What is measured of the cortex: thickness, area and curvature, parcel by parcel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import ScanError
from ..grids import Grid
from .labels import CORTEX_BASE, structures
from .refinement import Tissues
from .surfaces import Surface, hemisphere_surface
from .thickness import ribbon, thickness_map

#: Mean thickness (mm) of a parcel beyond which it is called implausible for an adult.
PLAUSIBLE_MM = (1.0, 5.5)
#: Fewer voxels with a thickness than this, or fewer vertices, and the parcel has none.
_LEAST_VOXELS, _LEAST_VERTICES = 10, 10


@dataclass(frozen=True)
class Cortex:
    """The cortex of a brain.

    Attributes
    ----------
    thickness : ndarray of float32 or None
        mm on the grid of the labels, 0 where there is no cortex; ``None`` where it could not be
        measured.
    surfaces : dict of str to Surface
        For ``'lh'`` and ``'rh'``; a hemisphere without a surface is absent.
    notes : list of str
        What could not be measured, and why.
    """

    thickness: np.ndarray | None
    surfaces: Mapping[str, Surface] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure_cortex(
    labels: np.ndarray, tissues: Tissues, grid: Grid, *, threads: int | None = None
) -> Cortex:
    """Measure the cortex. What fails is told and left out; nothing is raised.

    Parameters
    ----------
    labels : ndarray of int
        FreeSurfer's numbers.
    tissues : Tissues
    grid : Grid
        Voxels of one size along all axes.
    threads : int
        Of ITK.
    """
    try:
        thickness = thickness_map(ribbon(labels, tissues), grid, threads=threads)
    except ScanError as error:
        return Cortex(None, {}, [f'thickness of the cortex was not measured: {error}'])
    surfaces, notes = {}, []
    for side in CORTEX_BASE:
        try:
            own = ribbon(labels, tissues, (side,))
            surfaces[side] = hemisphere_surface(own, labels, thickness, grid)
        except ScanError as error:
            notes.append(f'{side}: no surface was built: {error}')
    return Cortex(thickness, surfaces, notes)


def add_cortex(record: Mapping, labels: np.ndarray, found: Cortex) -> dict:
    """Return a record of measures with those of the cortex added to it.

    Parameters
    ----------
    record : mapping
        As :func:`tumsyn_bids.morphometry.tables.to_record` gives it.
    labels : ndarray of int
        FreeSurfer's numbers.
    found : Cortex

    Returns
    -------
    dict
        Rows of parcels have ``thickness_mm``, ``thickness_sd_mm`` (over the white
        surface), ``area_mm2``,
        ``curvature`` (mean amount, 1/mm) and ``vertices`` (of the white surface) besides, ``None``
        where unknown. ``hemispheres`` has, for each side, ``euler``, ``vertices``,
        ``white_area_mm2``, ``pial_area_mm2`` and ``thickness_mm`` (over vertices).
    """
    rows = [
        {**row, **_parcel(row, labels, found)} if row['number'] >= 1000 else dict(row)
        for row in record['structures']
    ]
    sides = {side: _hemisphere(surface) for side, surface in found.surfaces.items()}
    return {**record, 'structures': rows, 'hemispheres': sides}


def cortex_doubts(record: Mapping, notes: list[str]) -> list[str]:
    """Word what looks wrong about the cortex, for the log and the report."""
    doubtful = [
        f'{row["name"]}: {row["thickness_mm"]:.1f} mm of cortex are implausible for an adult'
        for row in record['structures']
        if row.get('thickness_mm') is not None and not _plausible(row['thickness_mm'])
    ]
    handles = [
        f'{side}: the white surface has {(2 - values["euler"]) // 2} handles'
        for side, values in record['hemispheres'].items()
        if values['euler'] < 2 - 2 * MOST_HANDLES
    ]
    return [*notes, *doubtful, *handles]


#: More handles than this in a hemisphere's white surface are told.
MOST_HANDLES = 100


def _parcel(row: Mapping, labels: np.ndarray, found: Cortex) -> dict:
    number = row['number']
    surface = found.surfaces.get(structures()[number].hemisphere)
    mean, spread = _thickness(number, labels, found, surface)
    return {
        'thickness_mm': mean,
        'thickness_sd_mm': spread,
        **_on_surface(surface, number),
        'flag': _flag(row['flag'], mean),
    }


def _thickness(number: int, labels: np.ndarray, found: Cortex, surface: Surface | None):
    """Return mean and deviation over the white surface; over voxels where there is none.

    Thick cortex has more voxels, so a mean over voxels is that of a surface and more: by the
    variance over the mean.
    """
    if found.thickness is None:
        return None, None
    if surface is not None:
        own = surface.parcels == number
        values, weights, least = surface.thickness[own], surface.area[own], _LEAST_VERTICES
    else:
        values = found.thickness[labels == number]
        values = values[values > 0]
        weights, least = np.ones(len(values)), _LEAST_VOXELS
    if len(values) < least:
        return None, None
    mean = float(np.average(values, weights=weights))
    return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _on_surface(surface: Surface | None, number: int) -> dict:
    unknown = {'area_mm2': None, 'curvature': None, 'vertices': None}
    if surface is None:
        return unknown
    own = surface.parcels == number
    area = float(surface.area[own].sum())
    if own.sum() < _LEAST_VERTICES or not area:
        return unknown
    bent = float((np.abs(surface.curvature[own]) * surface.area[own]).sum()) / area
    return {'area_mm2': area, 'curvature': bent, 'vertices': int(own.sum())}


def _flag(flag: str, thickness: float | None) -> str:
    if thickness is None:
        return '; '.join(part for part in (flag, 'thickness not measured') if part)
    if not _plausible(thickness):
        return '; '.join(part for part in (flag, 'implausible thickness') if part)
    return flag


def _plausible(thickness: float) -> bool:
    return PLAUSIBLE_MM[0] <= thickness <= PLAUSIBLE_MM[1]


def _hemisphere(surface: Surface) -> dict:
    own = surface.parcels > 0
    area = surface.area[own]
    mean = float((surface.thickness[own] * area).sum() / area.sum()) if own.any() else math.nan
    return {
        'euler': surface.euler,
        'vertices': int(own.sum()),
        'white_area_mm2': float(area.sum()),
        'pial_area_mm2': float(surface.pial_area[own].sum()),
        'thickness_mm': mean if math.isfinite(mean) else None,
    }
