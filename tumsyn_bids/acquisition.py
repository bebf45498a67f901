"""What a scan is: its contrast, its imaging parameters and the person in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True)
class Contrast:
    """One of the contrasts that the model speaks of.

    Attributes
    ----------
    name : str
        Our key, used in ``--contrasts`` and in targets files.
    suffix : str
        BIDS suffix of an image of this contrast.
    prompt_name : str
        The modality as the published prompts spell it.
    datatype : str
        BIDS datatype folder of acquired images.
    ceagent : str or None
        Value of the ``ce-`` entity when the contrast implies a contrast agent.
    """

    name: str
    suffix: str
    prompt_name: str
    datatype: str = 'anat'
    ceagent: str | None = None


CONTRASTS: dict[str, Contrast] = {
    contrast.name: contrast
    for contrast in (
        Contrast('T1w', 'T1w', 'T1w'),
        Contrast('T2w', 'T2w', 'T2w'),
        Contrast('FLAIR', 'FLAIR', 'FLAIR'),
        Contrast('PDw', 'PDw', 'PD'),
        Contrast('T2starw', 'T2starw', 'T2 Star'),
        Contrast('SWI', 'swi', 'SWI', datatype='swi'),
        Contrast('T1CE', 'T1w', 'T1CE', ceagent='gadolinium'),
    )
}


@dataclass(frozen=True)
class Acquisition:
    """Imaging metadata in BIDS units; whatever is unknown is ``None``, never 0.

    Attributes
    ----------
    contrast : str or None
        Key of :data:`CONTRASTS`.
    age : float or None
        Years.
    sex : {'M', 'F'} or None
    field_strength : float or None
        Tesla (``MagneticFieldStrength``).
    manufacturer : str or None
        Canonical vendor name, e.g. ``'Siemens'``, ``'GE'``, ``'Philips'``.
    voxel_size : tuple of 3 float or None
        Millimetres along the head: left-right, posterior-anterior, inferior-superior.
    repetition_time, echo_time, inversion_time : float or None
        Seconds, as in BIDS sidecars.
    flip_angle : float or None
        Degrees.
    """

    contrast: str | None = None
    age: float | None = None
    sex: str | None = None
    field_strength: float | None = None
    manufacturer: str | None = None
    voxel_size: tuple[float, float, float] | None = None
    repetition_time: float | None = None
    echo_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None

    def replace(self, **changes) -> Acquisition:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def filled_from(self, other: Acquisition) -> Acquisition:
        """Return a copy whose unknown fields are taken from ``other``."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return replace(other, **known)

    def to_dict(self) -> dict:
        """Return a JSON-serialisable mapping."""
        values = asdict(self)
        if self.voxel_size is not None:
            values['voxel_size'] = list(self.voxel_size)
        return values

    @classmethod
    def from_dict(cls, values: dict) -> Acquisition:
        """Rebuild an acquisition from :meth:`to_dict`."""
        values = dict(values)
        if values.get('voxel_size') is not None:
            values['voxel_size'] = tuple(float(v) for v in values['voxel_size'])
        return cls(**values)


#: BIDS sidecar key of each numeric imaging parameter of an :class:`Acquisition`.
BIDS_KEYS: dict[str, str] = {
    'field_strength': 'MagneticFieldStrength',
    'manufacturer': 'Manufacturer',
    'repetition_time': 'RepetitionTime',
    'echo_time': 'EchoTime',
    'inversion_time': 'InversionTime',
    'flip_angle': 'FlipAngle',
}

FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Acquisition))
