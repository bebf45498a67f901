"""Default protocols: what a contrast is asked to look like when nobody says.

One row per contrast and field strength, from public sources. They are typical, not ideal: the
purpose is a prompt of the kind that the text encoder was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .acquisition import CONTRASTS, Acquisition

#: Voxel size of every default protocol in mm: synthetic images feed analyses that want 1 mm
#: isotropic, also of contrasts that scanners acquire in thick slices.
DEFAULT_VOXEL_SIZE = (1.0, 1.0, 1.0)

#: Taken when the field strength of the source is unknown, in tesla.
DEFAULT_FIELD_STRENGTH = 3.0


@dataclass(frozen=True)
class Protocol:
    """A row of the table.

    Attributes
    ----------
    acquisition : Acquisition
        Contrast, field strength, voxel size and imaging parameters (seconds, degrees).
    sequence : str
        The pulse sequence and whether scanners run it in 2D or 3D.
    source : str
        Where the numbers were published.
    """

    acquisition: Acquisition
    sequence: str
    source: str


def default_protocol(contrast: str, field_strength: float | None) -> Acquisition:
    """Return the default acquisition of a contrast.

    Parameters
    ----------
    contrast : str
        Key of :data:`~tumsyn_bids.acquisition.CONTRASTS`.
    field_strength : float or None
        Tesla. The row with the nearest field strength (in ratio) is taken, that of 3 T if
        unknown.

    Returns
    -------
    Acquisition
        With the field strength of the row, without person and manufacturer.
    """
    return protocol_for(contrast, field_strength).acquisition


def usual_protocol(acquisition: Acquisition) -> Acquisition:
    """Return the same person on the same kind of scanner under the default protocol at 3 T.

    Parameters
    ----------
    acquisition : Acquisition
        Of known contrast.
    """
    default = default_protocol(acquisition.contrast, DEFAULT_FIELD_STRENGTH)
    known = ('age', 'sex', 'manufacturer', 'voxel_size')
    return default.replace(**{name: getattr(acquisition, name) for name in known})


def protocol_for(contrast: str, field_strength: float | None) -> Protocol:
    """Return the row that :func:`default_protocol` takes, with its source."""
    wanted = math.log(field_strength or DEFAULT_FIELD_STRENGTH)
    rows = [row for row in PROTOCOLS if row.acquisition.contrast == contrast]
    return min(rows, key=lambda row: abs(math.log(row.acquisition.field_strength) - wanted))


def protocol_sources() -> list[dict[str, str]]:
    """Return the table as rows of text, in milliseconds, for the documentation."""
    return [_row(protocol) for protocol in PROTOCOLS]


def _row(protocol: Protocol) -> dict[str, str]:
    acq = protocol.acquisition
    times = {
        'TR (ms)': acq.repetition_time,
        'TE (ms)': acq.echo_time,
        'TI (ms)': acq.inversion_time,
    }
    return {
        'contrast': acq.contrast,
        'field (T)': f'{acq.field_strength:g}',
        **{key: '–' if value is None else f'{value * 1000:g}' for key, value in times.items()},
        'FA (degree)': f'{acq.flip_angle:g}',
        'sequence': protocol.sequence,
        'source': protocol.source,
    }


def _protocol(contrast, field_strength, tr, te, ti, fa, sequence, source) -> Protocol:
    """Make a row; times in milliseconds."""
    times = [None if time is None else round(time / 1000, 9) for time in (tr, te, ti)]
    acq = Acquisition(
        contrast=CONTRASTS[contrast].name,
        field_strength=field_strength,
        voxel_size=DEFAULT_VOXEL_SIZE,
        repetition_time=times[0],
        echo_time=times[1],
        inversion_time=times[2],
        flip_angle=fa,
    )
    return Protocol(acq, sequence, source)


# Sidecars are named by data set and file: OpenNeuro numbers, github.com/neurolabusc for dcm_qa_*.
# fmt: off
PROTOCOLS: tuple[Protocol, ...] = (
    _protocol('T1w', 1.5, 2400, 3.5, 1000, 8, 'MPRAGE, 3D',
              'ADNI-1 at 1.5 T: Jack et al., JMRI 27:685, 2008, doi:10.1002/jmri.21049'),
    _protocol('T1w', 3.0, 2300, 2.98, 900, 9, 'MPRAGE, 3D',
              'sidecar of OpenNeuro ds004513 (sub-s003, Siemens); the same as ADNI-2 at 3 T'),
    _protocol('T2w', 1.5, 8230, 95, None, 150, 'turbo spin echo, 2D',
              'sidecar of dcm_qa_cs_dl (Si_4_t2_tse_tra_p2, Siemens Sola)'),
    _protocol('T2w', 3.0, 4010, 116, None, 150, 'turbo spin echo, 2D',
              'sidecar of OpenNeuro ds004332 (sub-01, Siemens Prisma)'),
    _protocol('FLAIR', 1.5, 6000, 120, 2000, 90, 'inversion-recovery turbo spin echo, 2D',
              'sidecar of OpenNeuro ds004889 (sub-1, Philips Intera)'),
    _protocol('FLAIR', 3.0, 5000, 388, 1800, 120, 'inversion-recovery SPACE, 3D',
              'sidecars of OpenNeuro ds004146 (sub-0001), ds004199 and ds004332 (Siemens); '
              'nominal echo time of a variable-flip-angle train'),
    _protocol('PDw', 1.5, 8178.3, 8, None, 90, 'turbo spin echo, 2D',
              'IXI at 1.5 T, as quoted in the TUMSyn paper, Fig. 5a'),
    _protocol('PDw', 3.0, 4320, 11, None, 160, 'turbo spin echo, 2D',
              'sidecar of dcm_qa_pdt2 (first echo of the dual-echo scan, Siemens Prisma)'),
    _protocol('T2starw', 1.5, 663, 23, None, 18, 'spoiled gradient echo, 2D',
              'Stehling et al., Acad Radiol 15:895, 2008'),
    _protocol('T2starw', 3.0, 700, 20, None, 20, 'spoiled gradient echo, 2D',
              'sidecar of OpenNeuro ds004332 (sub-01, Siemens Prisma)'),
    _protocol('SWI', 1.5, 49, 40, None, 15, 'flow-compensated spoiled gradient echo, 3D',
              'echo time recommended at 1.5 T by Haacke et al., AJNR 30:19, 2009, '
              'doi:10.3174/ajnr.A1400'),
    _protocol('SWI', 3.0, 27, 20, None, 15, 'flow-compensated spoiled gradient echo, 3D',
              'sidecar of OpenNeuro ds004146 (sub-0001, Siemens Prisma)'),
    _protocol('T1CE', 1.5, 2100, 3.5, 1100, 12, 'MPRAGE after gadolinium, 3D',
              'Brain Tumor Imaging Protocol: Ellingson et al., Neuro-Oncology 17:1188, 2015'),
    _protocol('T1CE', 3.0, 2100, 3, 1100, 12, 'MPRAGE after gadolinium, 3D',
              'Brain Tumor Imaging Protocol: Ellingson et al., Neuro-Oncology 17:1188, 2015'),
)
# fmt: on
