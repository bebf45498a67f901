"""One process at a time for a participant of an output directory, also over NFS.

A lock is a file, ``sub-01.lock``, that comes into being by a hard link, which is atomic on NFS
too. It names the host and the process that hold it; how long ago its holder was last alive
is its modification time. That time is set and compared by the clock of the file server alone, so
clocks of hosts that disagree do no harm.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from errno import EMLINK, ENOSYS, ENOTSUP, EPERM
from pathlib import Path

from ..errors import SessionError

#: Seconds between two signs of life of the holder.
HEARTBEAT = 60.0
#: Seconds without one after which a lock counts as left behind. Attributes of files on NFS may be
#: a minute old, and a virtual machine may be halted a while.
STALE_AFTER = 900.0
# File systems without hard links; an exclusive creation is all they offer.
_NO_LINKS = (EPERM, ENOTSUP, ENOSYS, EMLINK)


class LockedError(SessionError):
    """Another process works on the participant."""


class ParticipantLocks:
    """The locks of the participants that this process works on.

    Parameters
    ----------
    *folders : path-like
        Where the locks lie; a participant is ours when all of them have its lock. Made if absent.
    heartbeat, stale_after : float
        Seconds.

    Examples
    --------
    >>> with ParticipantLocks('out/logs/locks') as locks:  # doctest: +SKIP
    ...     locks.acquire('01')
    """

    def __init__(
        self,
        *folders: str | Path,
        heartbeat: float = HEARTBEAT,
        stale_after: float = STALE_AFTER,
    ):
        self._folders = [Path(folder) for folder in folders]
        self._heartbeat, self._stale_after = heartbeat, stale_after
        self._held: dict[Path, str] = {}
        self._guard = threading.Lock()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ParticipantLocks:
        self._thread = threading.Thread(target=self._live, name='locks', daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join()
        self._release(list(self._held))

    def acquire(self, participant: str) -> None:
        """Take the locks of a participant; nothing happens where they are ours already.

        Raises
        ------
        LockedError
            Where another process holds one; the error names that process and the file.
        OSError
            Where a folder cannot be written to.
        """
        try:
            for path in self._paths(participant):
                if path not in self._held:
                    token = self._acquire(path)
                    with self._guard:
                        self._held[path] = token
        except (LockedError, OSError):
            self.release(participant)
            raise

    def release(self, participant: str) -> None:
        """Give the locks of a participant back; one that somebody has taken over is left."""
        self._release(self._paths(participant))

    def _paths(self, participant: str) -> list[Path]:
        return [folder / f'sub-{participant}.lock' for folder in self._folders]

    def _acquire(self, path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        token = uuid.uuid4().hex
        for _ in range(10):
            if _create(path, token):
                return token
            holder = _holder(path)
            if holder is None:  # released meanwhile
                continue
            if not self._is_stale(path, holder):
                break
            if self._take_over(path, holder, token):
                return token
        raise _locked(path, _holder(path) or {})

    def _release(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with self._guard:
                token = self._held.pop(path, None)
            if token is not None and (_holder(path) or {}).get('token') == token:
                with suppress(OSError):
                    path.unlink()

    def _live(self) -> None:
        while not self._leave.wait(self._heartbeat):
            with self._guard:
                held = dict(self._held)
            for path, token in held.items():
                if (_holder(path) or {}).get('token') == token:
                    with suppress(OSError):  # a server that is away for a while
                        os.utime(path)

    def _is_stale(self, path: Path, holder: dict) -> bool:
        if _place() and holder.get('place') == _place():
            return not _is_alive(holder)
        probe = path.with_name(f'.{uuid.uuid4().hex[:12]}-{path.name}')
        try:
            probe.touch()
            return probe.stat().st_mtime - path.stat().st_mtime > self._stale_after
        except FileNotFoundError:
            return False
        finally:
            probe.unlink(missing_ok=True)

    def _take_over(self, path: Path, holder: dict, token: str) -> bool:
        """Replace a lock that was left behind; of several that try, one succeeds.

        Only who holds the claim on exactly this lock may replace it, and replacing is one step,
        so that a lock which somebody has just taken is never removed.
        """
        claim = path.with_name(f'{path.name}.{holder.get("token", "broken")}')
        if not _create(claim, token):
            self._drop_old_claim(claim)
            return False
        try:
            if (_holder(path) or {}).get('token') != holder.get('token'):
                return False
            mine = _write_hidden(path, token)
            os.replace(mine, path)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _drop_old_claim(self, claim: Path) -> None:
        """Remove the claim of a process that died while it took over a lock."""
        holder = _holder(claim)
        if holder is not None and self._is_stale(claim, holder):
            claim.unlink(missing_ok=True)


def _create(path: Path, token: str) -> bool:
    """Make a lock file unless there is one; tell whether it was made."""
    mine = _write_hidden(path, token)
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_exclusively(path, mine.read_bytes())
    else:
        return True
    finally:
        mine.unlink(missing_ok=True)
    # Over NFS the answer to a link that was made may get lost; the file itself tells.
    return (_holder(path) or {}).get('token') == token


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, 'wb') as stream:
        stream.write(content)
    return True


def _write_hidden(path: Path, token: str) -> Path:
    hidden = path.with_name(f'.{uuid.uuid4().hex[:12]}-{path.name}')
    content = {
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'began': _began(os.getpid()),
        'place': _place(),
        'since': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'token': token,
    }
    hidden.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    return hidden


def _holder(path: Path) -> dict | None:
    """Return what a lock says; an empty mapping where it cannot be understood."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _place() -> str:
    """Name what process numbers refer to: this boot of this host, and this container in it.

    Empty where the system does not tell; only the age of a lock counts then.
    """
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{socket.gethostname()} {boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return ''


def _is_alive(holder: dict) -> bool:
    """Tell whether the process is there and is not another one with the same number."""
    began = _began(holder.get('pid'))
    return began is not None and began == holder.get('began')


def _began(pid: object) -> int | None:
    """Return when a process was started, in clock ticks since the boot: no clock changes that."""
    try:
        # The name of the program, in parentheses, may hold anything.
        state, *fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (OSError, ValueError):
        return None
    return None if state in 'ZX' else int(fields[18])


def _locked(path: Path, holder: dict) -> LockedError:
    who = f'process {holder.get("pid", "?")} on {holder.get("host", "an unknown host")}'
    return LockedError(
        f'{who} works on this participant since {holder.get("since", "an unknown time")}',
        path=path,
        remedy='Wait for it; remove the file if you know that this process is gone',
    )
