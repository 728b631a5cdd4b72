"""One driver per store: a lock that is released when its holder ends, in any way.

A folder's lock is the kernel's, by filelock. A bucket has no such locks, so there the lock is an object, `.lock`, which
its holder rewrites every few seconds, each time on condition that it is still the version it wrote last. A run that
finds the object unchanged for `STALE_S`, by its own clock, takes it over on the same condition, so that only one of
several succeeds. A holder that cannot write for `LOST_S` gives up before that. A holder that was suspended for a minute
can still complete the one request in progress.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from concord import plain_json
from concord.files import is_plain
from store.layout import StoreError
from store.place import Changed, Folder, Place, place

log = logging.getLogger(__name__)

FILE = ".lock"
BEAT_S = 10.0  # between two writes of the holder
LOST_S = 30.0  # without one that came through: the holder stops
STALE_S = 50.0  # without a change: others take over
POLL_S = 2.0  # between two looks of a run that waits


INTERRUPT = signal.SIGUSR2  # not SIGINT, which jobs in the background of a script ignore


class Held(StoreError):
    """Another run has the store."""


class Lost(StoreError):
    """The store may be another run's by now."""


@contextmanager
def held(root: str | os.PathLike[str] | Place) -> Iterator[None]:
    """Be the only driver of a store within the context. Raises Held if there is another one, after at most a minute.

    Raises Lost where the lock of a bucket is lost meanwhile; the main thread is interrupted for that, whatever it waits for.
    """
    root = place(root)
    if isinstance(root, Folder):
        with _locked(root):
            yield
        return
    lease = _Lease(root)
    lease.take()  # the lock file stays when it is given back, as a folder's does
    mine = threading.current_thread() is threading.main_thread()  # other threads learn it only at the end
    before = signal.signal(INTERRUPT, _interrupted) if mine else None
    beating = threading.Thread(target=lease.beat, daemon=True, name="lease")
    beating.start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not lease.lost:
            raise
    finally:
        lease.done.set()
        beating.join()
        if mine:
            signal.signal(INTERRUPT, before)
        lease.give_back()
    if lease.lost:
        raise Lost(lease.lost)


def _locked(root: Folder) -> AbstractContextManager[object]:
    """A folder's lock, acquired, which the context gives back. The lock file stays; nothing is written to it."""
    file = root.path / FILE
    if not root.path.is_dir():  # filelock would make it
        raise StoreError(f"{root} does not exist any more; put the store back where it was")
    if os.path.lexists(file) and not is_plain(file):  # filelock would lock a pipe, too
        what = "a symbolic link" if file.is_symlink() else "not a regular file"
        raise StoreError(f"{file} is {what}, and the lock needs a file of that name; remove it")
    try:
        return FileLock(file, blocking=False, fallback_to_soft=False).acquire()
    except Timeout:
        raise Held(f"another run is writing to {root}; wait for it to end, or stop it") from None
    except OSError as error:  # ENOLCK, EOPNOTSUPP: network disks that are mounted without locks
        if error.filename is not None:
            raise StoreError(
                f"{file} cannot be opened for the lock ({error.strerror}); remove it, or check the rights of its folder"
            ) from error
        raise StoreError(
            f"{file} cannot be locked ({error.strerror}): mount that disk with locks, or put the store on another"
        ) from error


def _interrupted(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Lease:
    """The lock object of a bucket."""

    def __init__(self, root: Place):
        from store.place.bucket import Bucket

        assert isinstance(root, Bucket)
        self.root, self.file = root, root.hasty() / FILE
        self.holder, self.beats = uuid.uuid4().hex, 0
        self.tag: dict[str, str] | None = None
        self.lost = ""
        self.done = threading.Event()

    def take(self) -> None:
        """Wait for the lock. Raises Held if its holder is alive."""
        seen: dict[str, str] | None = None
        since = time.monotonic()
        while not self._try(seen, since):
            if seen is None:
                seen, since = self.tag, time.monotonic()
                who = f"process {self.state.get('process')} on {self.state.get('host')}"
                log.info(
                    "%s is locked by %s; taken over unless that process renews it within %.0f s",
                    self.root,
                    who,
                    STALE_S,
                )
            elif self.tag != seen:
                who = f"process {self.state.get('process')} on {self.state.get('host')}"
                raise Held(f"another run ({who}) is writing to {self.root}; wait for it to end, or stop it")
            time.sleep(POLL_S)

    def _try(self, seen: dict[str, str] | None, since: float) -> bool:
        """Take the lock where there is none, where it was given back, or where it has been `seen` unchanged for too long."""
        self._look()
        free = not self.state.get("holder") or (self.tag == seen and time.monotonic() - since > STALE_S)
        if free:
            with suppress(Changed):
                self._write(self.holder)
                return True
            self._look()  # another was quicker, or our own write was and its answer got lost
        return self.state.get("holder") == self.holder

    def beat(self) -> None:
        """Keep the lock until `done`; where that fails say so in `lost` and interrupt the main thread."""
        last = time.monotonic()
        while not self.done.wait(BEAT_S):
            begun = time.monotonic()
            try:
                with suppress(Changed):
                    self._write(self.holder)
                    last = begun
                    continue
                self._look()
                if self.state.get("holder") != self.holder:
                    self.lost = f"another run has taken over {self.root}; this run did not renew its lock for a minute"
                    break
                last = begun
            except (
                Exception
            ) as error:  # whatever it is: a thread that died of it would not notice that the lock is lost
                log.warning("the lock of %s could not be renewed: %s", self.root, error)
            if time.monotonic() - last > LOST_S:
                self.lost = f"the lock of {self.root} could not be renewed for {LOST_S:.0f} s; run it again to continue"
                break
        if self.lost and signal.getsignal(INTERRUPT) is _interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)

    def give_back(self) -> None:
        """Release the lock immediately."""
        if not self.lost:
            with suppress(StoreError):  # then it goes stale
                self._write("")

    def _look(self) -> None:
        try:
            data, self.tag = self.file.read_tagged()
            self.state: dict[str, Any] = plain_json.parse_dict(data)
        except FileNotFoundError:
            self.state, self.tag = {}, None
        except ValueError:
            self.state = {}

    def _write(self, holder: str) -> None:
        self.beats += 1
        state = {"holder": holder, "host": socket.gethostname(), "process": os.getpid(), "beats": self.beats}
        self.tag = self.file.swap(json.dumps(state).encode(), self.tag)
