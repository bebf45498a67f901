"""White and pial surfaces of a hemisphere as meshes, and what is measured on them.

The white surface is the border of what lies within the cortex (marching cubes on a smoothed field
of probabilities; Taubin, 1995, smoothes the mesh). The pial surface is the white one moved outward
along the gradient of the distance from it, by the thickness measured there, so both share their
triangles. In a sulcus whose banks touch, the movement comes to rest half-way between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage

from ..errors import ScanError
from ..grids import Grid
from .thickness import THICKEST_MM, Ribbon

#: How far (mm) a vertex may lie from a parcel's voxels and still belong to it.
_REACH_MM = 2.5
_STEP_MM = 0.25
#: Slower than this (mm of distance per mm of way) is the middle of a sulcus.
_LEAST_SLOPE = 0.6
_LEAST_VOXELS = 100
#: How often curvature and thickness are averaged with their neighbours.
_AVERAGES = 4


@dataclass(frozen=True)
class Surface:
    """The surfaces of a hemisphere.

    Attributes
    ----------
    white, pial : ndarray, shape (n, 3)
        Vertices, RAS+ world coordinates in mm; the same vertex has the same number in both.
    faces : ndarray of int32, shape (m, 3)
        Triangles, seen anticlockwise from outside.
    thickness : ndarray, shape (n,)
        mm; NaN where there is no cortex.
    parcels : ndarray of int32, shape (n,)
        FreeSurfer's numbers; 0 where there is no cortex.
    curvature : ndarray, shape (n,)
        Mean curvature of the white surface, 1/mm; positive in sulci, as in FreeSurfer.
    area : ndarray, shape (n,)
        mm² of the white surface.
    """

    white: np.ndarray
    pial: np.ndarray
    faces: np.ndarray
    thickness: np.ndarray
    parcels: np.ndarray
    curvature: np.ndarray
    area: np.ndarray

    @property
    def midthickness(self) -> np.ndarray:
        """Vertices half-way between the white and the pial surface."""
        return (self.white + self.pial) / 2

    @property
    def euler(self) -> int:
        """Euler number: 2 for a sphere, 2 less for each handle."""
        return int(_mesh(self.white, self.faces).euler_number)

    @property
    def pial_area(self) -> np.ndarray:
        """mm² of the pial surface at each vertex."""
        return _vertex_areas(_mesh(self.pial, self.faces))


def hemisphere_surface(
    found: Ribbon, labels: np.ndarray, thickness: np.ndarray, grid: Grid
) -> Surface:
    """Build the surfaces of a hemisphere.

    Parameters
    ----------
    found : Ribbon
        Of this hemisphere.
    labels : ndarray of int
        FreeSurfer's numbers.
    thickness : ndarray
        mm; 0 where it is unknown. Where no voxel near a vertex has one, there is no cortex.
    grid : Grid
        Of all arrays; with voxels of one size along all axes.

    Raises
    ------
    ScanError
        Where there is too little to build a closed surface.
    """
    inner = _solid(found.inner)
    mesh, voxels = _white_mesh(inner, grid)
    local = _local_thickness(found.cortex, thickness)
    flow = _flow(inner)
    size = float(grid.zooms.mean())
    adjacency = _averaging(mesh)
    # Half a millimetre into the cortex, no voxel of white matter blurs what is read.
    start = _moved(voxels, flow, np.full(len(voxels), 0.5 / size), size)
    values = _sample(local, start)
    known = np.isfinite(values)
    lengths = _averaged(adjacency, np.where(known, values, 0))
    pial = _moved(voxels, flow, np.clip(lengths, 0, THICKEST_MM) / size, size)
    parcels = _parcels((voxels + pial) / 2, labels, found.cortex, size)
    of_cortex = known & (parcels > 0)
    return Surface(
        white=np.asarray(mesh.vertices),
        pial=nb.affines.apply_affine(grid.affine, pial),
        faces=np.asarray(mesh.faces, np.int32),
        thickness=np.where(of_cortex, lengths, np.nan),
        parcels=np.where(of_cortex, parcels, 0).astype(np.int32),
        curvature=_averaged(adjacency, _curvature(mesh)),
        area=_vertex_areas(mesh),
    )


def _mesh(vertices, faces):
    import trimesh

    return trimesh.Trimesh(vertices, faces, process=False)


def _solid(inner: np.ndarray) -> np.ndarray:
    """Return a field whose part above one half is in one piece and has no cavity."""
    parts, count = ndimage.label(inner >= 0.5)
    if count == 0:
        raise ScanError('there is no white matter', remedy='Look at the labels')
    body = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    if body.sum() < _LEAST_VOXELS:
        raise ScanError('there is too little white matter', remedy='Look at the labels')
    filled = ndimage.binary_fill_holes(body)
    field = np.where((inner >= 0.5) & ~body, 0, inner)
    return np.where(filled & ~body, 1, field).astype(np.float32)


def _white_mesh(inner: np.ndarray, grid: Grid):
    """Return the white surface in world coordinates, and its vertices in voxels."""
    import trimesh
    from skimage.measure import marching_cubes

    padded = np.pad(ndimage.gaussian_filter(inner, 0.6), 2)
    vertices, faces, _, _ = marching_cubes(padded, 0.5, allow_degenerate=False)
    mesh = trimesh.Trimesh(vertices - 2, faces, process=True)
    parts = mesh.split(only_watertight=False)
    if len(parts) > 1:
        mesh = max(parts, key=lambda part: len(part.faces))
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=10)
    voxels = np.asarray(mesh.vertices).copy()
    mesh.vertices = nb.affines.apply_affine(grid.affine, voxels)
    if mesh.volume < 0:
        mesh.invert()
    return mesh, voxels


def _flow(inner: np.ndarray) -> np.ndarray:
    """Return the direction that leads away from the white surface, shape (3, *inner.shape)."""
    inside = inner >= 0.5
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), 0.8)
    slopes = np.stack(np.gradient(smooth))
    return slopes / np.maximum(np.linalg.norm(slopes, axis=0), _LEAST_SLOPE)


def _moved(places: np.ndarray, flow: np.ndarray, lengths: np.ndarray, size: float) -> np.ndarray:
    """Move points (voxel indices) along a field, each by its own length in voxels."""
    places, left = places.copy(), lengths.copy()
    step = _STEP_MM / size
    while (left > 1e-6).any():
        by = np.minimum(left, step)
        moving = by > 0
        way = np.stack([_at(part, places[moving]) for part in flow], axis=1)
        places[moving] += way * by[moving, None]
        left -= by
    return places


def _at(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(data, places.T, order=1, mode='nearest')


def _local_thickness(cortex: np.ndarray, thickness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = (cortex & (thickness > 0)).astype(np.float32)
    blurred = ndimage.gaussian_filter(thickness * known, 1.0, truncate=2.5)
    return blurred, ndimage.gaussian_filter(known, 1.0, truncate=2.5)


def _sample(local: tuple[np.ndarray, np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return the mean thickness of the cortex around points; NaN where there is none."""
    total, weight = (_at(part, places) for part in local)
    return np.divide(total, weight, out=np.full(len(places), np.nan), where=weight > 0.05)


def _parcels(places: np.ndarray, labels: np.ndarray, cortex: np.ndarray, size: float):
    distance, nearest = ndimage.distance_transform_edt(~cortex, return_indices=True)
    index = tuple(np.clip(np.rint(places).astype(int), 0, np.array(labels.shape) - 1).T)
    found = labels[tuple(axis[index] for axis in nearest)]
    return np.where(distance[index] * size <= _REACH_MM, found, 0)


def _averaging(mesh):
    """Return the matrix that averages a value with those of the neighbouring vertices."""
    from scipy import sparse

    edges = mesh.edges_unique
    count = len(mesh.vertices)
    both = np.concatenate([edges, edges[:, ::-1]])
    ones = np.ones(len(both))
    matrix = sparse.csr_matrix((ones, both.T), shape=(count, count)) + sparse.identity(count)
    return sparse.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix


def _averaged(matrix, values: np.ndarray) -> np.ndarray:
    for _ in range(_AVERAGES):
        values = matrix @ values
    return values


def _vertex_areas(mesh) -> np.ndarray:
    """Return a third of the area of the triangles around each vertex."""
    return np.bincount(
        mesh.faces.ravel(), np.repeat(mesh.area_faces / 3, 3), minlength=len(mesh.vertices)
    )


def _curvature(mesh) -> np.ndarray:
    """Return the mean curvature at each vertex from the angles between triangles.

    An edge of length l across which the normal turns by an angle bends the surface by l × angle
    / 2 in all (Cohen-Steiner and Morvan, 2003); half of that goes to each of its ends.
    """
    edges = mesh.face_adjacency_edges
    lengths = np.linalg.norm(np.diff(mesh.vertices[edges], axis=1)[:, 0], axis=1)
    bent = mesh.face_adjacency_angles * np.where(mesh.face_adjacency_convex, -1, 1) * lengths / 4
    total = np.bincount(edges.ravel(), np.repeat(bent, 2), minlength=len(mesh.vertices))
    return total / np.maximum(_vertex_areas(mesh), 1e-6)
