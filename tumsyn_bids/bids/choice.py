"""Which of a session's scans is the reference, and which the source of a target.

*Reference*: the T1w if there is one, else the sharpest scan (thinnest slices, then smallest
voxels). A contrast-enhanced T1w (T1CE) is it only when it is alone, because enhancement is
anatomy that other scans do not show.

*Source* of a target: the reference, unless that has the target's contrast; then the sharpest scan
of another contrast. A scan is its own contrast's source only if the session has no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..acquisition import CONTRASTS
from ..plan import Scan
from .selection import sharpness


def choose_reference(scans: Sequence[Scan]) -> tuple[Scan, str]:
    """Return the scan that defines the session's space, and why."""
    plain = [scan for scan in scans if scan.contrast == 'T1w']
    if plain:
        return plain[0], 'it is the T1w'
    others = [scan for scan in scans if scan.contrast != 'T1CE']
    if not others:
        return scans[0], 'it is the only scan'
    best = min(others, key=_preference)
    if len(scans) == 1:
        return best, 'it is the only scan'
    return best, f'there is no T1w, and of the others it is the sharpest ({_zooms(best)})'


def choose_source(contrast: str, scans: Sequence[Scan], reference: Scan) -> tuple[Scan, str]:
    """Return the scan to make a contrast from, and why."""
    if reference.contrast != contrast:
        return reference, f'the reference ({reference.contrast})'
    others = [scan for scan in scans if scan.contrast != contrast]
    usual = [scan for scan in others if scan.contrast != 'T1CE'] or others
    if not usual:
        return reference, f'the only scan of the session, itself {contrast}'
    best = min(usual, key=_preference)
    return best, f'the sharpest scan that is not {contrast} itself ({_zooms(best)})'


def _preference(scan: Scan) -> tuple:
    """Rank the sharpest first, and equals in the order of the contrasts."""
    return (*sharpness(scan), tuple(CONTRASTS).index(scan.contrast))


def _zooms(scan: Scan) -> str:
    return f'{scan.contrast}, {" x ".join(f"{zoom:.2g}" for zoom in scan.zooms)} mm'
