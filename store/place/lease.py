"""One driver a store: a lock that ends with its holder, however that dies.

A folder's lock is the kernel's. In a bucket it is an object, `.lock`, that its holder writes anew every few seconds, each time
on condition that it is still the one it wrote last. Who finds an object that stays the same for `STALE_S`, by its own clock,
takes it over on the same condition, so that of several one wins; a holder that cannot write for `LOST_S` gives up before that.
It cannot stop a holder that was frozen for a minute from making the one request that it was in the middle of.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from store.formats import document
from store.layout import StoreError
from store.place import Changed, Folder, Place, place

log = logging.getLogger(__name__)

FILE = ".lock"
BEAT_S = 10.0  # between two writes of the holder
LOST_S = 30.0  # without one that came through: the holder stops
STALE_S = 50.0  # without a change: others take over
POLL_S = 2.0  # between two looks of one who waits


INTERRUPT = signal.SIGUSR2  # not SIGINT, which jobs in the background of a script ignore


class Held(StoreError):
    """Another run has the store."""


class Lost(StoreError):
    """The store may be another run's by now."""


@contextmanager
def held(root: str | os.PathLike[str] | Place) -> Iterator[None]:
    """Be the one driver of a store within the context. Raises Held where another is, after at most a minute.

    Raises Lost where the lock of a bucket is lost meanwhile; the main thread is interrupted for that, whatever it waits for.
    """
    root = place(root)
    if isinstance(root, Folder):
        lock = _locked(root)
        try:
            yield
        finally:
            os.close(lock)
        return
    lease = _Lease(root)
    lease.take()  # the lock file stays when it is given back, as a folder's does
    mine = threading.current_thread() is threading.main_thread()  # others can be told only when they come to the end
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


def _locked(root: Folder) -> int:
    """The locked file of a folder, open. Nothing is written to it, and no link is followed."""
    file = root.path / FILE
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise StoreError(
            f"{file} cannot be opened for the lock ({why}); remove it, or see who may write there"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise StoreError(f"{file} is no file, and the lock needs one of that name; remove it")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.exists(file) or not os.path.samestat(os.fstat(lock), os.stat(file)):
            raise BlockingIOError  # its holder has just taken the store back
    except BlockingIOError:
        os.close(lock)
        raise Held(f"another run is writing to {root}; wait for it to end, or stop it") from None
    except OSError as error:  # ENOLCK, EOPNOTSUPP: network disks that are mounted without locks
        os.close(lock)
        raise StoreError(
            f"{file} cannot be locked ({error.strerror}): mount that disk with locks, or put the store on another"
        ) from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _interrupted(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


class _Lease:
    """The lock object of a bucket."""

    def __init__(self, root: Place):
        from store.place.bucket import Bucket

        assert isinstance(root, Bucket)
        self.root, self.file = root, root.hasty() / FILE
        self.holder, self.beats = uuid.uuid4().hex, 0
        self.tag: Any = None
        self.lost = ""
        self.done = threading.Event()

    def take(self) -> None:
        """Wait until the lock is ours. Raises Held where its holder is alive."""
        seen: Any = None
        since = time.monotonic()
        while not self._try(seen, since):
            if seen is None:
                seen, since = self.tag, time.monotonic()
                who = f"process {self.state.get('process')} on {self.state.get('host')}"
                log.info(
                    "%s is locked by %s; taken over unless that is heard of within %.0f s", self.root, who, STALE_S
                )
            elif self.tag != seen:
                who = f"process {self.state.get('process')} on {self.state.get('host')}"
                raise Held(f"another run ({who}) is writing to {self.root}; wait for it to end, or stop it")
            time.sleep(POLL_S)

    def _try(self, seen: Any, since: float) -> bool:
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
                    self.lost = f"another run has taken over {self.root}; this one was not heard of for a minute"
                    break
                last = begun
            except (
                Exception
            ) as error:  # whatever it is: a thread that died of it would not notice that the lock is lost
                log.warning("the lock of %s could not be renewed: %s", self.root, error)
            if time.monotonic() - last > LOST_S:
                self.lost = f"the lock of {self.root} could not be renewed for {LOST_S:.0f} s; run it again to go on"
                break
        if self.lost and signal.getsignal(INTERRUPT) is _interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)

    def give_back(self) -> None:
        """Let others have the lock at once."""
        if not self.lost:
            with suppress(StoreError):  # then it goes stale
                self._write("")

    def _look(self) -> None:
        try:
            data, self.tag = self.file.read_tagged()
            self.state: dict[str, Any] = document.parse_dict(data)
        except FileNotFoundError:
            self.state, self.tag = {}, None
        except ValueError:
            self.state = {}

    def _write(self, holder: str) -> None:
        self.beats += 1
        state = {"holder": holder, "host": socket.gethostname(), "process": os.getpid(), "beats": self.beats}
        self.tag = self.file.swap(json.dumps(state).encode(), self.tag)
