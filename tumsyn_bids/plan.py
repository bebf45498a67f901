"""The plan of a session: which scans are used, what is made from which, and why.

These records are written before anything is computed. ``--dry-run`` prints them, the workflow is
built from them, sidecars and the report quote them. They hold no images and are JSON-serialisable.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .acquisition import Acquisition


@dataclass(frozen=True)
class Finding:
    """Something odd in the input, kept for the log, the sidecar and the report.

    Attributes
    ----------
    path : str
        The file where it was found.
    field : str
        The field of that file (``RepetitionTime``, ``age``, ``qform`` …).
    value : str
        The value as found.
    problem : str
        One sentence.
    action : str
        What was done about it (``'treated as missing'``, …).
    severity : {'info', 'warning', 'error'}
    """

    path: str
    field: str
    value: str
    problem: str
    action: str
    severity: str = 'warning'

    def __str__(self) -> str:
        return f'{self.path}: {self.field} {self.value}: {self.problem}; {self.action}'


_ACQUIRED = ' (it counts as acquired: no {} is made as missing)'


@dataclass(frozen=True)
class Refusal:
    """A scan that was found and not used, with the rule that says why.

    Attributes
    ----------
    path : str
    reason : str
    severity : {'info', 'warning'}
        Warnings are told at once: the user will want to mend them.
    acquired : str or None
        The contrast that the session has all the same, so that it is not made as missing.
    """

    path: str
    reason: str
    severity: str = 'info'
    acquired: str | None = None


@dataclass(frozen=True)
class Scan:
    """An acquired image that will be used.

    Attributes
    ----------
    path : str
        Absolute path of the NIfTI file.
    acquisition : Acquisition
        Always has a ``contrast``.
    entities : dict of str to str
        BIDS entities of the file name (long pybids names), without suffix and extension.
    shape : tuple of int
    zooms : tuple of float
        Voxel size in mm along the storage axes.
    """

    path: str
    acquisition: Acquisition
    entities: dict[str, str]
    shape: tuple[int, ...]
    zooms: tuple[float, ...]

    @property
    def contrast(self) -> str:
        return self.acquisition.contrast


@dataclass(frozen=True)
class Target:
    """A requested acquisition.

    Attributes
    ----------
    name : str
        Short alphanumeric name, unique within a run; goes into ``desc-synth<name>``
        (``desc-synth`` alone for the default target of a contrast, whose name is ``''``).
    acquisition : Acquisition
        What to synthesise; ``voxel_size`` of ``None`` means 1 mm isotropic.
    provenance : dict of str to str
        For each field of the acquisition, where its value came from.
    """

    name: str
    acquisition: Acquisition
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def contrast(self) -> str:
        return self.acquisition.contrast


@dataclass(frozen=True)
class Donor:
    """A scan of another person, whose brightness an image takes.

    Attributes
    ----------
    path : str
    contrast : str
    reference, reference_contrast : str
        The reference of its session, in which its brain is found.
    """

    path: str
    contrast: str
    reference: str
    reference_contrast: str


@dataclass(frozen=True)
class SynthesisTask:
    """One image to make.

    Attributes
    ----------
    target : Target
    source : str
        Path of the scan that it is made from.
    prompt : str
    purpose : {'missing', 'requested', 'validate'}
    reason : str
        Why this source was taken.
    donors : tuple of Donor
        Other people's scans whose brightness the image takes; empty if it keeps its own.
    stated_size : tuple of 3 float, optional
        Voxel size in mm that the prompt states, where it is not that of the image's grid: that of
        the acquired scan which the image is compared with.
    """

    target: Target
    source: str
    prompt: str
    purpose: str
    reason: str
    donors: tuple[Donor, ...] = ()
    stated_size: tuple[float, float, float] | None = None

    @property
    def requested(self) -> Target:
        """What the prompt asks for: the target, but for a voxel size that is not its grid's."""
        if self.stated_size is None:
            return self.target
        origin = {**self.target.provenance, 'voxel_size': 'the acquired scan that is compared'}
        acquisition = self.target.acquisition.replace(voxel_size=self.stated_size)
        return Target(self.target.name, acquisition, origin)


@dataclass(frozen=True)
class SessionPlan:
    """All that will be done for one session (or for a subject without sessions)."""

    subject: str
    session: str | None
    scans: tuple[Scan, ...]
    reference: str
    reference_reason: str
    tasks: tuple[SynthesisTask, ...]
    refused: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-1``."""
        stem = f'sub-{self.subject}'
        return f'{stem}_ses-{self.session}' if self.session else stem

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user is told at once: scans that are there and cannot be used as they are."""
        return tuple(
            f'{item.path}: {item.reason}{_ACQUIRED.format(item.acquired) if item.acquired else ""}'
            for item in self.refused
            if item.severity == 'warning'
        )

    def scan(self, path: str) -> Scan:
        """Return the scan with this path."""
        return next(scan for scan in self.scans if scan.path == path)

    def acquired(self, contrast: str) -> str:
        """Return the path of the first scan of a contrast."""
        return next(scan.path for scan in self.scans if scan.contrast == contrast)

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` gives back an equal plan."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SessionPlan:
        """Rebuild a plan from :meth:`to_json`."""
        raw = json.loads(text)
        return cls(
            subject=raw['subject'],
            session=raw['session'],
            scans=tuple(_scan(item) for item in raw['scans']),
            reference=raw['reference'],
            reference_reason=raw['reference_reason'],
            tasks=tuple(_task(item) for item in raw['tasks']),
            refused=tuple(Refusal(**item) for item in raw['refused']),
            findings=tuple(Finding(**item) for item in raw['findings']),
        )

    def write(self, path: str | Path) -> Path:
        """Write the plan as JSON and return its path."""
        path = Path(path)
        path.write_text(self.to_json())
        return path


def _scan(raw: dict) -> Scan:
    return Scan(
        path=raw['path'],
        acquisition=Acquisition.from_dict(raw['acquisition']),
        entities=raw['entities'],
        shape=tuple(raw['shape']),
        zooms=tuple(raw['zooms']),
    )


def _task(raw: dict) -> SynthesisTask:
    target = raw['target']
    return SynthesisTask(
        target=Target(
            name=target['name'],
            acquisition=Acquisition.from_dict(target['acquisition']),
            provenance=target['provenance'],
        ),
        source=raw['source'],
        prompt=raw['prompt'],
        purpose=raw['purpose'],
        reason=raw['reason'],
        donors=tuple(Donor(**donor) for donor in raw['donors']),
        stated_size=raw['stated_size'] and tuple(raw['stated_size']),
    )
