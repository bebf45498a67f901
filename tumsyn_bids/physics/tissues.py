"""Relaxation times and proton densities of the tissues of the head.

The means at 3 T are compiled from published measurements: white and grey matter and CSF from
Stanisz et al. (Magn Reson Med 2005), Cox & Gowland (Magn Reson Med 2010) and the BrainWeb tables
(Kwan et al. 1999); deep nuclei from T1 and R2* atlases; fat, marrow and muscle from Gold et al.
(AJR 2004); water contents from quantitative proton-density mapping. T1 of cortex is set at the
upper end of the published range, which reproduces the grey/white contrast of MPRAGE scans better
than its mean; so is T1 of fluid, which the inversion times of FLAIR protocols in public datasets
null it (within 9 % of TR 4.8 to 11 s, three vendors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Relaxation:
    """Magnetic properties, scalars or arrays of one shape.

    Attributes
    ----------
    t1, t2, t2star : float or ndarray
        Relaxation times in seconds.
    pd : float or ndarray
        Proton density relative to water.
    uptake : float or ndarray
        Concentration of contrast agent after injection, in mM; 0 behind an intact barrier.
    """

    t1: float | np.ndarray
    t2: float | np.ndarray
    t2star: float | np.ndarray
    pd: float | np.ndarray
    uptake: float | np.ndarray = 0.0


@dataclass(frozen=True)
class Tissue:
    """A row of the table: means at 3 T in milliseconds.

    ``scales`` says whether relaxation depends on field strength as it does in solid tissue;
    that of free water hardly does.
    """

    name: str
    t1_ms: float
    t2_ms: float
    t2star_ms: float
    pd: float
    uptake_mm: float = 0.0
    scales: bool = True


TISSUES: dict[str, Tissue] = {
    tissue.name: tissue
    for tissue in (
        Tissue('air', 1000, 1, 1, 0.0, scales=False),
        Tissue('white_matter', 850, 70, 50, 0.70, 0.02),
        Tissue('cortex', 1500, 88, 58, 0.82, 0.04),
        Tissue('cerebellar_white_matter', 880, 72, 50, 0.71, 0.02),
        Tissue('cerebellar_cortex', 1450, 88, 55, 0.82, 0.04),
        Tissue('csf', 4500, 1500, 400, 1.0, scales=False),
        Tissue('caudate', 1280, 74, 45, 0.82, 0.03),
        Tissue('putamen', 1170, 64, 38, 0.81, 0.03),
        Tissue('pallidum', 920, 46, 25, 0.75, 0.03),
        Tissue('accumbens', 1250, 78, 48, 0.82, 0.03),
        Tissue('thalamus', 1080, 68, 48, 0.76, 0.03),
        Tissue('ventral_dc', 980, 60, 38, 0.75, 0.03),
        Tissue('brain_stem', 1000, 70, 48, 0.74, 0.02),
        Tissue('hippocampus', 1420, 92, 55, 0.84, 0.03),
        Tissue('amygdala', 1380, 92, 55, 0.84, 0.03),
        Tissue('choroid_plexus', 1900, 150, 80, 0.90, 1.0),
        Tissue('white_matter_lesion', 1400, 160, 90, 0.87, 0.02),
        Tissue('vessel', 1900, 120, 25, 0.85, 1.5),
        Tissue('optic_nerve', 1000, 70, 48, 0.74, 0.02),
        Tissue('eye', 4000, 1000, 300, 1.0, scales=False),
        Tissue('fat', 371, 90, 40, 0.95),
        Tissue('muscle', 1420, 40, 25, 0.90, 0.1),
        Tissue('skin', 1000, 42, 20, 0.70, 0.2),
        Tissue('mucosa', 1500, 90, 30, 0.90, 0.8),
        Tissue('bone', 220, 1, 0.45, 0.10),
        Tissue('marrow', 450, 75, 15, 0.80),
    )
}

#: FreeSurfer numbers, and those of the extra-cerebral labels of SynthSeg's training maps, to
#: tissue. Hemispheres share a tissue; the right-hand numbers are added below.
_LEFT_LABELS: dict[int, str] = {
    2: 'white_matter',
    3: 'cortex',
    4: 'csf',
    5: 'csf',
    7: 'cerebellar_white_matter',
    8: 'cerebellar_cortex',
    10: 'thalamus',
    11: 'caudate',
    12: 'putamen',
    13: 'pallidum',
    17: 'hippocampus',
    18: 'amygdala',
    25: 'white_matter_lesion',
    26: 'accumbens',
    28: 'ventral_dc',
    30: 'csf',
    31: 'choroid_plexus',
    78: 'white_matter_lesion',
    81: 'white_matter_lesion',
}
_RIGHT_OF: dict[int, int] = {
    2: 41,
    3: 42,
    4: 43,
    5: 44,
    7: 46,
    8: 47,
    10: 49,
    11: 50,
    12: 51,
    13: 52,
    17: 53,
    18: 54,
    25: 57,
    26: 58,
    28: 60,
    30: 62,
    31: 63,
    78: 79,
    81: 82,
}
LABEL_TISSUES: dict[int, str] = {
    **_LEFT_LABELS,
    **{_RIGHT_OF[label]: tissue for label, tissue in _LEFT_LABELS.items()},
    0: 'air',
    14: 'csf',
    15: 'csf',
    16: 'brain_stem',
    24: 'csf',
    72: 'csf',
    # Hypointensities within white matter, and of the grey nuclei, where they look alike.
    77: 'white_matter_lesion',
    80: 'white_matter_lesion',
    85: 'optic_nerve',
    136: 'choroid_plexus',
    137: 'choroid_plexus',
    163: 'choroid_plexus',
    164: 'choroid_plexus',
    251: 'white_matter',
    252: 'white_matter',
    253: 'white_matter',
    254: 'white_matter',
    255: 'white_matter',
    502: 'vessel',
    506: 'eye',
    507: 'fat',
    508: 'muscle',
    509: 'mucosa',
    511: 'skin',
    512: 'brain_stem',
    514: 'vessel',
    515: 'bone',
    516: 'marrow',
    530: 'optic_nerve',
}
#: First and last number of what FreeSurfer (``mri_aparc2aseg``) makes of parcellations: it adds
#: thousands, for left and right cortex and left and right white matter, to the numbers of the
#: parcels; those of Destrieux's of 2009 have numbers of their own. 5001 and 5002 are white matter
#: deep below any parcel.
_LABEL_RANGES: tuple[tuple[int, int, str], ...] = (
    (1000, 2999, 'cortex'),
    (3000, 4999, 'white_matter'),
    (5001, 5002, 'white_matter'),
    (11100, 11175, 'cortex'),
    (12100, 12175, 'cortex'),
    (13100, 13175, 'white_matter'),
    (14100, 14175, 'white_matter'),
)
#: Largest number that has a tissue.
LARGEST_LABEL = max(last for _, last, _ in _LABEL_RANGES)


def relaxation(tissue: str, field_strength: float = 3.0) -> Relaxation:
    """Return the properties of a tissue at a field strength.

    T1 grows with B0^0.39; T2 falls with B0^0.14 and T2* with B0^0.45, fits to the published
    values between 1.5 T and 7 T. Free water is taken as independent of the field.

    Parameters
    ----------
    tissue : str
        A key of :data:`TISSUES`.
    field_strength : float
        Tesla.

    Raises
    ------
    KeyError
        If the tissue is not in the table; the message lists those that are.
    """
    try:
        row = TISSUES[tissue]
    except KeyError:
        raise KeyError(f'unknown tissue {tissue!r}; known: {", ".join(TISSUES)}') from None
    ratio = field_strength / 3.0 if row.scales else 1.0
    return Relaxation(
        t1=row.t1_ms * 1e-3 * ratio**0.39,
        t2=row.t2_ms * 1e-3 * ratio**-0.14,
        t2star=row.t2star_ms * 1e-3 * ratio**-0.45,
        pd=row.pd,
        uptake=row.uptake_mm,
    )


def tissue_of_label(label: int) -> str:
    """Return the tissue of a FreeSurfer label number; parcels of cortex count as cortex.

    Raises
    ------
    KeyError
        If the number has no tissue.
    """
    label = int(label)
    for first, last, tissue in _LABEL_RANGES:
        if first <= label <= last:
            return tissue
    try:
        return LABEL_TISSUES[label]
    except KeyError:
        raise KeyError(f'label {label} has no tissue in the table') from None
