"""Scans of other people, whose brightness an image of their contrast takes.

What a scan looks like is only in part in its sidecars, and often they are empty. Where other
people of the dataset have a scan of the contrast that is to be made, and nothing in its sidecars
contradicts the target's protocol, the image is made as bright as those scans are.

Never those of the same person: the image would not be a prediction when it is compared with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ..acquisition import Acquisition
from ..errors import UsageError
from ..plan import Donor
from ..targets import PROTOCOL_FIELDS
from .choice import choose_reference
from .layout import list_participants
from .metadata import MetadataReader
from .modal import anatomical_files
from .selection import select_scans

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

#: So many scans are taken, of the first people of the sorted list that have one, so that a person
#: who joins the dataset later changes nothing; and so many people are looked at.
DONORS, PEOPLE = 3, 50
#: Parameters that differ by less than this part are the same protocol.
_TOLERANCE = 0.05


@dataclass
class Donors:
    """Finds scans for the sessions of one dataset; each person's folder is read once.

    Parameters
    ----------
    layout : BIDSLayout
    reader : MetadataReader
    filters : dict, optional
        As for :func:`~tumsyn_bids.bids.selection.select_scans`.
    """

    layout: BIDSLayout
    reader: MetadataReader
    filters: dict[str, dict] | None = None
    _people: list[str] | None = None
    _found: dict[str, dict[str, tuple[Acquisition, Donor]]] = field(default_factory=dict)

    def find(self, wanted: Acquisition, subject: str) -> tuple[Donor, ...]:
        """Return scans that look as an image should, of others than a person.

        Parameters
        ----------
        wanted : Acquisition
            Of the target, with all parameters filled in.
        subject : str
            Whom the image is of.
        """
        if self._people is None:
            self._people = list_participants(self.layout.root)[: PEOPLE + 1]
        found: list[Donor] = []
        for person in self._people:
            of_person = {} if person == subject else self._of(person)
            acquisition, donor = of_person.get(wanted.contrast, (None, None))
            if donor is not None and _same_protocol(acquisition, wanted):
                found.append(donor)
            if len(found) == DONORS:
                break
        return tuple(found)

    def _of(self, person: str) -> dict[str, tuple[Acquisition, Donor]]:
        """Return a person's scan of each contrast, of the first session that has one."""
        if person not in self._found:
            chosen: dict[str, tuple[Acquisition, Donor]] = {}
            folder = Path(self.layout.root) / f'sub-{person}'
            for session, paths in groupby(anatomical_files(folder), _session):
                try:
                    scans, _, _ = select_scans(
                        self.layout,
                        person,
                        session,
                        self.filters,
                        reader=self.reader,
                        images=list(paths),
                    )
                except UsageError:
                    raise
                except Exception:  # noqa: BLE001 - told where that session is planned
                    continue
                for scan in scans:
                    reference, _ = choose_reference(scans)
                    donor = Donor(scan.path, scan.contrast, reference.path, reference.contrast)
                    chosen.setdefault(scan.contrast, (scan.acquisition, donor))
            self._found[person] = chosen
        return self._found[person]


def _session(path: Path) -> str | None:
    match = re.search(r'_ses-([^_]+)', path.name)
    return match and match[1]


def _same_protocol(scan: Acquisition, wanted: Acquisition) -> bool:
    """Tell whether nothing known of a scan contradicts what is wanted."""
    for name in ('field_strength', *PROTOCOL_FIELDS):
        known, asked = getattr(scan, name), getattr(wanted, name)
        if known is not None and asked is not None and abs(known - asked) > _TOLERANCE * asked:
            return False
    return True
