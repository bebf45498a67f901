"""Who is in the phantom dataset and how each of them was scanned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..acquisition import Acquisition
from ..grids import Grid
from .phantom import rigid, transform_points
from .scanner import scan_grid


@dataclass(frozen=True)
class Protocol:
    """A sequence as it was run: what the image and its sidecar need.

    Attributes
    ----------
    acquisition : Acquisition
        Contrast, field strength, manufacturer and imaging parameters.
    zooms : tuple of 3 float
        Distance of voxel centres in mm along the storage axes; slices last.
    fov_mm : tuple of 3 float
    axcodes : str
        Directions of increasing storage indices.
    slice_thickness_mm : float
    sequence : dict
        Further BIDS fields of the sidecar.
    centre : tuple of 3 float
        Middle of the field of view in coordinates of the head, in mm.
    tilt_deg : tuple of 3 float
    snr, bias, floor : float
        See :func:`~tumsyn_bids.simulation.scanner.scan`.
    """

    acquisition: Acquisition
    zooms: tuple[float, float, float]
    fov_mm: tuple[float, float, float]
    axcodes: str
    slice_thickness_mm: float
    sequence: dict
    centre: tuple[float, float, float] = (0, -6, -12)
    tilt_deg: tuple[float, float, float] = (0, 0, 0)
    snr: float = 55.0
    bias: float = 0.12
    floor: float = 0.0

    def at_least(self, resolution_mm: float | None) -> Protocol:
        """Return the protocol with no voxel edge shorter than ``resolution_mm``."""
        if resolution_mm is None:
            return self
        values = dict(vars(self))
        values['zooms'] = tuple(max(zoom, float(resolution_mm)) for zoom in self.zooms)
        values['slice_thickness_mm'] = max(self.slice_thickness_mm, float(resolution_mm))
        return Protocol(**values)

    def grid(self, pose: np.ndarray) -> Grid:
        """Return the grid of an image of this protocol, centred on the head where it lies.

        Parameters
        ----------
        pose : ndarray, shape (4, 4)
            Scanner to head coordinates.
        """
        # The operator moves the table in whole millimetres.
        centre = np.rint(transform_points(np.linalg.inv(pose), np.array(self.centre, float)))
        return scan_grid(
            self.zooms, self.fov_mm, self.axcodes, centre=centre, tilt_deg=self.tilt_deg
        )


@dataclass(frozen=True)
class Take:
    """One scan: a protocol and how the person lay, scanner to head coordinates."""

    protocol: Protocol
    pose: np.ndarray

    @property
    def contrast(self) -> str:
        return self.protocol.acquisition.contrast


@dataclass(frozen=True)
class Session:
    """Scans of one visit; the first is the one whose space is ``individual``."""

    label: str | None
    age: float
    takes: tuple[Take, ...]


@dataclass(frozen=True)
class Member:
    """A person of the cohort.

    Attributes
    ----------
    label : str
        Without ``sub-``.
    sex, hand : str
    sessions : tuple of Session
    size : float
        See :func:`~tumsyn_bids.simulation.phantom.draw_person`.
    lesions : tuple of (x, y, z, radius)
        See :func:`~tumsyn_bids.simulation.anatomy.with_lesions`.
    """

    label: str
    sex: str
    sessions: tuple[Session, ...]
    size: float
    hand: str = 'R'
    lesions: tuple[tuple[float, float, float, float], ...] = ()


_SITE = {
    'InstitutionName': 'Simulated: no person was scanned',
    'InstitutionAddress': 'None',
    'InstitutionalDepartmentName': 'None',
    'SoftwareVersions': 'tumsyn phantom',
    'NonlinearGradientCorrection': False,
    'CoilCombinationMethod': 'Single channel',
    'MatrixCoilMode': 'None',
    'BodyPart': 'HEAD',
}
_3T = {
    **_SITE,
    'Manufacturer': 'Siemens',
    'ManufacturersModelName': 'Simulated 3 T',
    'DeviceSerialNumber': '3',
    'StationName': 'SIM3T',
    'MagneticFieldStrength': 3,
    'ReceiveCoilName': 'Ideal head coil',
    'ReceiveCoilActiveElements': 'All',
}
_1_5T = {
    **_SITE,
    'Manufacturer': 'GE',
    'ManufacturersModelName': 'Simulated 1.5 T',
    'DeviceSerialNumber': '1',
    'StationName': 'SIM1',
    'MagneticFieldStrength': 1.5,
    'ReceiveCoilName': 'Ideal head coil',
    'ReceiveCoilActiveElements': 'All',
}


def _acquisition(contrast: str, scanner: dict, tr: float, te: float, fa: float, ti=None):
    return Acquisition(
        contrast=contrast,
        field_strength=float(scanner['MagneticFieldStrength']),
        manufacturer=scanner['Manufacturer'],
        repetition_time=tr,
        echo_time=te,
        inversion_time=ti,
        flip_angle=fa,
    )


def _sequence(scanner: dict, kind: str, dimension: str, codes: str, variant: str, **more) -> dict:
    return {
        **scanner,
        'MRAcquisitionType': dimension,
        'PulseSequenceType': kind,
        'PulseSequenceDetails': 'Simulated with the signal equation of the sequence',
        'ScanningSequence': codes,
        'SequenceVariant': variant,
        'ScanOptions': 'NONE',
        **more,
    }


_MPRAGE = _sequence(_3T, 'MPRAGE', '3D', 'GR\\IR', 'SK\\SP\\MP', SequenceName='tfl3d1')
_TSE = _sequence(_3T, 'Turbo spin echo', '2D', 'SE', 'SK\\SP\\OSP', SequenceName='tse2d1')
_DARK_FLUID = _sequence(
    _3T, 'Inversion-recovery turbo spin echo', '2D', 'SE\\IR', 'SK\\SP\\MP', SequenceName='tir2d1'
)
_BRAVO = _sequence(
    _1_5T, 'Inversion-prepared spoiled gradient echo', '3D', 'GR\\IR', 'SS\\SP\\SK',
    SequenceName='BRAVO',
)  # fmt: skip
_FSE = _sequence(_1_5T, 'Fast spin echo', '2D', 'SE', 'SK', SequenceName='FSE')

MPRAGE_3T = Protocol(
    acquisition=_acquisition('T1w', _3T, tr=2.3, te=0.00298, fa=9, ti=0.9),
    zooms=(1.5, 1.5, 1.5),
    fov_mm=(228.0, 210.0, 174.0),
    axcodes='PSR',
    slice_thickness_mm=1.5,
    sequence=_MPRAGE,
)
TSE_3T = Protocol(
    acquisition=_acquisition('T2w', _3T, tr=4.32, te=0.092, fa=160),
    zooms=(1.0, 1.0, 4.0),
    fov_mm=(172, 220, 160),
    axcodes='LAS',
    slice_thickness_mm=4.0,
    sequence=_TSE,
    centre=(0, -14, 17),
    tilt_deg=(9, 0, -2),
)
DARK_FLUID_3T = Protocol(
    acquisition=_acquisition('FLAIR', _3T, tr=9.0, te=0.12, fa=150, ti=2.5),
    zooms=(1.0, 1.0, 5.0),
    fov_mm=(172, 222, 160),
    axcodes='LAS',
    slice_thickness_mm=5.0,
    sequence=_DARK_FLUID,
    centre=(0, -17, 20),
    tilt_deg=(14, -3, 4),
)
BRAVO_1_5T = Protocol(
    acquisition=_acquisition('T1w', _1_5T, tr=0.0082, te=0.0032, fa=12, ti=0.45),
    zooms=(1.3, 1.3, 2.0),
    fov_mm=(174.2, 209.3, 228.0),
    axcodes='LSA',
    slice_thickness_mm=2.0,
    sequence=_BRAVO,
    snr=45,
    floor=3.5,
)
FSE_1_5T = Protocol(
    acquisition=_acquisition('T2w', _1_5T, tr=5.2, te=0.102, fa=90),
    zooms=(1.1, 1.1, 5.0),
    fov_mm=(171.6, 220.0, 160),
    axcodes='LAS',
    slice_thickness_mm=4.5,
    sequence=_FSE,
    centre=(0, -8, 15),
    tilt_deg=(-6, 0, 0),
    snr=45,
    floor=3.5,
)

#: What is made of a contrast that a session lacks: the protocol most frequent in the dataset.
REFERENCE_PROTOCOLS: dict[str, Protocol] = {
    'T1w': MPRAGE_3T,
    'T2w': TSE_3T,
    'FLAIR': DARK_FLUID_3T,
}

#: Around the ventricles and below the cortex, on both sides, as with small-vessel disease.
_LESIONS = (
    (-19, 36, 10, 5.0), (20, 37, 8, 4.0), (-27, -42, 24, 5.5), (28, -40, 25, 4.5),
    (25, -10, 30, 4.0), (-24, 8, 28, 3.0), (-33, -22, 36, 2.5), (30, 18, 32, 2.5),
    (-22, 44, 22, 2.5), (36, -58, 14, 3.0),
)  # fmt: skip

COHORT: tuple[Member, ...] = (
    Member(
        '01', 'F', size=0.90,
        sessions=(Session(None, 34, (Take(MPRAGE_3T, rigid((2, -1, 3), (1, -4, 2))),)),),
    ),
    Member(
        '02', 'M', size=0.93, hand='L', lesions=_LESIONS,
        sessions=(Session(None, 71, (Take(DARK_FLUID_3T, rigid((4, 2, -3), (-2, 5, 1))),)),),
    ),
    Member(
        '03', 'F', size=0.91,
        sessions=(
            Session('1', 52, (
                Take(MPRAGE_3T, rigid((-3, 2, 1), (2, 1, -3))),
                Take(TSE_3T, rigid((-1, 4, -1.5), (4.5, -0.5, -0.5))),
            )),
            Session('2', 54, (
                Take(BRAVO_1_5T, rigid((5, -2, -4), (-3, 6, 4))),
                Take(FSE_1_5T, rigid((3.5, 0.5, -2), (-1, 3, 7))),
            )),
        ),
    ),
)  # fmt: skip
