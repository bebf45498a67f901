"""What surrounds the brain: skull, scalp, face and neck, as simple solid shapes.

Everything is in millimetres of the MNI152NLin2009cAsym space (RAS+). Later rows of a table are
painted over earlier ones; a row with ``mirrored`` is painted on both sides. The proportions are
those of an adult head; none of it is measured on a person.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

# Label numbers of the tissues outside the brain, as in ``tissues.LABEL_TISSUES``.
AIR, CSF, VESSEL, EYE, FAT, MUSCLE, MUCOSA, SKIN = 0, 24, 502, 506, 507, 508, 509, 511
CORD, BONE, MARROW, OPTIC_NERVE = 512, 515, 516, 530
NAMES: dict[int, str] = {
    VESSEL: 'Vessel',
    EYE: 'Eye',
    FAT: 'Fat',
    MUSCLE: 'Muscle',
    MUCOSA: 'Mucosa',
    SKIN: 'Skin',
    CORD: 'Spinal-Cord',
    BONE: 'Bone-Cortical',
    MARROW: 'Bone-Marrow',
    OPTIC_NERVE: 'Optic-Nerve',
}

SKIN_MM = 2.0
#: Skin and the fat beneath it.
SCALP_MM = 5.5


@dataclass(frozen=True)
class Ellipsoid:
    """Points whose distance to ``centre``, in units of ``radii``, is below 1."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def distance(self, points: list[np.ndarray]) -> np.ndarray:
        """Return roughly the signed distance in mm, negative inside."""
        scaled = [(p - c) / r for p, c, r in zip(points, self.centre, self.radii, strict=True)]
        norm = np.sqrt(sum(part * part for part in scaled))
        # Dividing by the gradient of the norm makes it a distance near the surface.
        slope = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, self.radii, strict=True)))
        return (norm - 1) * norm / np.maximum(slope, 1e-6)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner."""
        centre, radii = np.array(self.centre), np.array(self.radii)
        return centre - radii, centre + radii

    def mirrored(self) -> Ellipsoid:
        """Return the same shape on the other side."""
        return replace(self, centre=_flip(self.centre))


@dataclass(frozen=True)
class Tube:
    """A straight tube with round ends whose radius changes evenly from one end to the other."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float
    end_radius: float | None = None

    def distance(self, points: list[np.ndarray]) -> np.ndarray:
        """Return roughly the signed distance in mm, negative inside."""
        start, end = np.array(self.start), np.array(self.end)
        axis = end - start
        along = sum((p - s) * a for p, s, a in zip(points, start, axis, strict=True))
        along = np.clip(along / (axis @ axis), 0, 1)
        off = [p - s - along * a for p, s, a in zip(points, start, axis, strict=True)]
        last = self.radius if self.end_radius is None else self.end_radius
        return np.sqrt(sum(o * o for o in off)) - (self.radius + (last - self.radius) * along)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner."""
        ends, reach = np.array([self.start, self.end]), max(self.radius, self.end_radius or 0)
        return ends.min(axis=0) - reach, ends.max(axis=0) + reach

    def mirrored(self) -> Tube:
        """Return the same shape on the other side."""
        return replace(self, start=_flip(self.start), end=_flip(self.end))


@dataclass(frozen=True)
class Arch:
    """A horseshoe open to the back, such as jaws and rows of teeth.

    Attributes
    ----------
    centre : tuple of 3 float
    radii : tuple of 2 float
        Half axes of the middle line, to the side and to the front.
    half_width, half_height : float
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float]
    half_width: float
    half_height: float

    def distance(self, points: list[np.ndarray]) -> np.ndarray:
        """Return roughly the signed distance in mm, negative inside."""
        x, y, z = (p - c for p, c in zip(points, self.centre, strict=True))
        norm = np.sqrt((x / self.radii[0]) ** 2 + (y / self.radii[1]) ** 2)
        ring = np.abs(norm - 1) * min(self.radii) - self.half_width
        return np.maximum(np.maximum(ring, np.abs(z) - self.half_height), -y)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner."""
        reach = np.array([*(1.5 * np.array(self.radii)), self.half_height])
        centre = np.array(self.centre)
        return centre - reach, centre + reach

    def mirrored(self) -> Arch:
        """Return the shape itself: it is its own mirror image."""
        return self


@dataclass(frozen=True)
class Part:
    """A shape made of one label, with an optional shell of another around it."""

    label: int
    shape: Ellipsoid | Tube | Arch
    mirrored: bool = False
    shell: int | None = None
    shell_mm: float = 0.0

    def both_sides(self) -> Iterator[Part]:
        """Yield the part and, if it is mirrored, its counterpart."""
        yield self
        if self.mirrored:
            yield replace(self, shape=self.shape.mirrored())


#: What bulges out of the vault of the skull: shape and the width in mm over which it blends in.
SURFACE: tuple[tuple[Ellipsoid | Tube, float], ...] = (
    (Ellipsoid((0, 22, -58), (68, 70, 66)), 14),
    (Ellipsoid((0, 38, -96), (50, 56, 36)), 16),
    (Tube((0, -34, -50), (0, -52, -240), 60, 62), 22),
    (Tube((0, 84, -34), (0, 101, -58), 6, 11), 9),
    (Ellipsoid((14, 94, -62), (9, 9, 8)), 6),
    (Ellipsoid((-14, 94, -62), (9, 9, 8)), 6),
    (Ellipsoid((0, 84, -82), (24, 12, 12)), 8),
    (Ellipsoid((0, 84, -116), (22, 12, 12)), 10),
    (Ellipsoid((83, -28, -36), (6, 17, 30)), 4),
    (Ellipsoid((-83, -28, -36), (6, 17, 30)), 4),
)

PARTS: tuple[Part, ...] = (
    # Fat of the cheeks, the temples and the nape; the large muscles of chewing between.
    Part(FAT, Ellipsoid((44, 58, -78), (13, 13, 18)), mirrored=True),
    Part(FAT, Ellipsoid((58, 34, -36), (6, 14, 16)), mirrored=True),
    Part(FAT, Ellipsoid((0, -98, -108), (30, 8, 40))),
    Part(FAT, Ellipsoid((30, -12, -110), (8, 10, 46)), mirrored=True),
    Part(MUSCLE, Ellipsoid((57, 22, -86), (6, 14, 30)), mirrored=True),
    # Bones of the face.
    Part(BONE, Tube((28, 84, -48), (58, 48, -50), 5), mirrored=True),
    Part(MARROW, Tube((34, 77, -48), (54, 52, -50), 2.4), mirrored=True),
    Part(BONE, Tube((58, 48, -50), (66, 0, -48), 3), mirrored=True),
    Part(BONE, Ellipsoid((0, 46, -60), (44, 40, 22))),
    Part(MARROW, Ellipsoid((0, 66, -73), (26, 14, 5))),
    Part(BONE, Ellipsoid((0, 16, -44), (26, 18, 14))),
    Part(MARROW, Ellipsoid((0, -14, -48), (10, 8, 14))),
    Part(MARROW, Ellipsoid((18, 14, -50), (6, 8, 8)), mirrored=True),
    Part(BONE, Ellipsoid((48, -26, -46), (24, 14, 12)), mirrored=True),
    Part(BONE, Ellipsoid((56, -42, -56), (12, 12, 18)), mirrored=True),
    Part(MARROW, Ellipsoid((58, -44, -62), (6, 7, 9)), mirrored=True),
    # Jaw and teeth.
    Part(BONE, Arch((0, 40, -113), (36, 42), 6, 11)),
    Part(MARROW, Arch((0, 40, -114), (36, 42), 3.6, 7.5)),
    Part(BONE, Tube((44, 42, -112), (52, 12, -56), 5.5, 4), mirrored=True),
    Part(MARROW, Tube((44, 42, -112), (52, 14, -66), 2.8, 1.6), mirrored=True),
    Part(MUCOSA, Ellipsoid((0, 52, -88), (29, 38, 14))),
    Part(BONE, Arch((0, 46, -81), (27, 39), 3.5, 6)),
    Part(BONE, Arch((0, 44, -97), (26, 38), 3.5, 6)),
    Part(AIR, Ellipsoid((0, 50, -80), (17, 26, 2.2))),
    Part(MUSCLE, Ellipsoid((0, 44, -93), (21, 34, 14))),
    Part(FAT, Ellipsoid((0, 44, -105), (3, 24, 12))),
    # Air of the nose, its sinuses and the throat.
    Part(MUCOSA, Ellipsoid((0, 52, -56), (15, 42, 17))),
    Part(AIR, Ellipsoid((5.5, 52, -60), (2.6, 40, 10)), mirrored=True),
    Part(AIR, Ellipsoid((9.5, 46, -52), (1.8, 28, 9)), mirrored=True),
    Part(AIR, Ellipsoid((11.5, 50, -66), (2.4, 26, 3.5)), mirrored=True),
    Part(AIR, Ellipsoid((5.0, 97, -66), (3, 4, 6)), mirrored=True),
    Part(AIR, Ellipsoid((6, 50, -37), (4.5, 18, 8)), mirrored=True, shell=MUCOSA, shell_mm=1.5),
    Part(AIR, Ellipsoid((30, 46, -62), (12, 17, 15)), mirrored=True, shell=MUCOSA, shell_mm=1.5),
    Part(AIR, Ellipsoid((8, 18, -43), (7.5, 12, 9)), mirrored=True, shell=MUCOSA, shell_mm=1.2),
    Part(AIR, Ellipsoid((9, 78, -20), (8, 3, 8)), mirrored=True, shell=BONE, shell_mm=1.5),
    Part(AIR, Tube((0, 6, -58), (0, -6, -90), 8, 6), shell=MUCOSA, shell_mm=3),
    Part(AIR, Tube((0, -6, -90), (0, -2, -200), 6, 8), shell=MUCOSA, shell_mm=3),
    Part(AIR, Tube((88, -24, -43), (52, -22, -42), 3.2, 2.6), mirrored=True),
    Part(AIR, Ellipsoid((54, -36, -46), (6, 7, 7)), mirrored=True),
    Part(AIR, Ellipsoid((60, -44, -52), (3, 5, 6)), mirrored=True),
    # Eyes in their fat, with their nerves and four straight muscles.
    Part(FAT, Tube((31, 64, -36), (22, 24, -34), 18, 5), mirrored=True, shell=BONE, shell_mm=2),
    Part(MUSCLE, Tube((31, 66, -25), (22, 27, -31), 2.2), mirrored=True),
    Part(MUSCLE, Tube((31, 66, -47), (22, 27, -36), 2.2), mirrored=True),
    Part(MUSCLE, Tube((42, 66, -36), (26, 27, -34), 2.2), mirrored=True),
    Part(MUSCLE, Tube((20, 66, -36), (18, 27, -34), 2.2), mirrored=True),
    Part(OPTIC_NERVE, Tube((31, 54, -36), (20, 24, -33), 2.2), mirrored=True),
    Part(OPTIC_NERVE, Tube((20, 24, -33), (5, 8, -22), 2.0), mirrored=True),
    Part(EYE, Ellipsoid((32, 65, -36), (12, 12, 12)), mirrored=True, shell=MUSCLE, shell_mm=1.2),
    Part(MUSCLE, Ellipsoid((32, 72.5, -36), (5, 2, 5)), mirrored=True),
    # Large vessels of the neck.
    Part(VESSEL, Tube((26, -8, -60), (30, -4, -220), 3), mirrored=True),
    Part(VESSEL, Tube((32, -18, -60), (38, -10, -220), 5), mirrored=True),
)

#: Bone that rises between the lobes: the petrous pyramids and the slope before the brain stem.
BASE: tuple[Part, ...] = (
    Part(BONE, Tube((12, -14, -44), (60, -34, -38), 7, 12), mirrored=True),
    Part(BONE, Tube((0, -4, -30), (0, -22, -66), 8, 6)),
    Part(MARROW, Tube((0, -5, -36), (0, -20, -62), 5, 3.5)),
)

#: The spine: from the foramen magnum downwards, relative to the middle of the cord.
CORD_TOP = (0.0, -45.0, -68.0)
CORD_BOTTOM = (0.0, -58.0, -240.0)
_BODY_AHEAD_MM = 20.0
_VERTEBRA_MM = 19.0
SPINE_BONES: tuple[Part, ...] = (
    Part(BONE, Tube((0, -66, -88), (0, -92, -96), 4, 3)),
    Part(BONE, Tube((0, -70, -108), (0, -94, -118), 4, 3)),
    Part(BONE, Tube((0, -72, -128), (0, -96, -138), 4, 3)),
    Part(BONE, Tube((0, -46, -80), CORD_BOTTOM, 13, 12)),
)
CANAL: tuple[Part, ...] = (
    Part(CSF, Tube((0, -46, -56), CORD_BOTTOM, 11, 9)),
    Part(CORD, Tube(CORD_TOP, CORD_BOTTOM, 6, 5)),
)


def paint(labels: np.ndarray, parts, points: list[np.ndarray], allowed: np.ndarray) -> None:
    """Paint parts into a label map, in place and in order.

    Parameters
    ----------
    labels : ndarray, shape (X, Y, Z)
    parts : iterable of Part
    points : list of 3 ndarray
        World coordinates in mm, open grids of shapes (X, 1, 1), (1, Y, 1) and (1, 1, Z).
    allowed : ndarray of bool, shape (X, Y, Z)
        Where painting is possible at all.
    """
    for part in itertools.chain.from_iterable(part.both_sides() for part in parts):
        box = _box(part, points)
        near = [
            np.take(p, range(*box[axis].indices(p.size)), axis) for axis, p in enumerate(points)
        ]
        distance, free, target = part.shape.distance(near), allowed[box], labels[box]
        if part.shell is not None:
            target[free & (distance < part.shell_mm)] = part.shell
        target[free & (distance < 0)] = part.label


def vertebrae() -> Iterator[Part]:
    """Yield the bodies of the vertebrae, each a block of marrow within bone."""
    top, bottom = np.array(CORD_TOP), np.array(CORD_BOTTOM)
    direction = (bottom - top) / np.linalg.norm(bottom - top)
    for number in range(8):
        centre = top + direction * (14 + _VERTEBRA_MM * number)
        centre = tuple(float(v) for v in centre + np.array([0, _BODY_AHEAD_MM, 0]))
        yield Part(BONE, Ellipsoid(centre, (14, 11, 9.5)))
        yield Part(MARROW, Ellipsoid(centre, (12, 9, 7.8)))


def surface_distance(vault: np.ndarray, points: list[np.ndarray]) -> np.ndarray:
    """Return the signed distance to the skin: the vault blended with face, neck and ears."""
    skin = vault
    for shape, width in SURFACE:
        skin = _smooth_union(skin, shape.distance(points), width)
    return skin


def skull_thickness(points: list[np.ndarray]) -> np.ndarray:
    """Return the thickness of the skull in mm: thin at the temples, thick at the back."""
    x, y, z = points
    temples = np.exp(-(((np.abs(x) - 70) / 25) ** 2 + ((y - 10) / 45) ** 2 + ((z + 10) / 35) ** 2))
    back = np.exp(-((x / 60) ** 2 + ((y + 110) / 40) ** 2 + (z / 50) ** 2))
    return 6.5 - 2.5 * temples + 2.0 * back


def _smooth_union(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    blend = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return second + (first - second) * blend - width * blend * (1 - blend)


def _box(part: Part, points: list[np.ndarray]) -> tuple[slice, slice, slice]:
    low, high = part.shape.bounds()
    margin = part.shell_mm + 1
    box = []
    for axis, coordinate in enumerate(points):
        inside = np.flatnonzero(
            (coordinate.ravel() >= low[axis] - margin)
            & (coordinate.ravel() <= high[axis] + margin)
        )
        box.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
    return tuple(box)


def _flip(point: tuple[float, float, float]) -> tuple[float, float, float]:
    return (-point[0], point[1], point[2])
