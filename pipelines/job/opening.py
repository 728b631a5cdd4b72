"""The store of a run: locked by this driver, created if it does not exist, repaired if its small files are damaged."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import store
from concord import __version__
from pipelines.errors import RunError, UsageError
from pipelines.job.request import Config, Request, command, commit
from store import layout, mend
from store.arrays import inventory
from store.creation import mark
from store.place import Place, lease

log = logging.getLogger(__name__)


@contextmanager
def lock(root: Place, exists: bool) -> Iterator[None]:
    """Hold the store for this driver alone (`store.place.lease`), from before it is created. Raises UsageError if
    another driver holds it or has just created it, and RunError if another takes it during the run."""
    try:
        if not exists:
            mark(root)
        with lease.held(root):
            if not exists and (root / "zarr.json").exists():
                raise UsageError(f"another run has just made {root}; run this again to continue it")
            yield
    except lease.Held as error:
        raise UsageError(str(error)) from error
    except lease.Lost as error:
        raise RunError(str(error)) from error
    except OSError as error:
        if exists or (root / "zarr.json").exists():
            raise
        raise UsageError(f"{root} cannot be made: {error.strerror or error}") from error


def create(request: Request) -> store.Writer:
    """Create a store with the records of its teachers."""
    from teachers.face.tracker import FaceTracker
    from teachers.voice import VoiceActivity

    face = FaceTracker().provenance(whole_faces="face" in request.arrays)
    if request.mouth_crops:
        face["options"]["mouth_crops"] = True
    attrs = {
        "created_by": f"concord-av {__version__}",
        "commit": commit(),
        "command": command(sys.argv),
        "teachers": {
            "asr": request.asr.provenance(),
            "vsr": request.vsr.provenance(),
            "face": face,
            "voice": VoiceActivity().provenance(),
        },
        "corpora": [],
        "similarity": {},
        **({"audio_track": request.config.audio_track} if request.config.audio_track else {}),
    }
    extra = {name: layout.OPTIONAL_ARRAYS[name] for name in request.arrays}
    return store.create(request.config.store, {"asr": request.asr.dim, "vsr": request.vsr.dim}, attrs, extra)


def mend_store(config: Config, writer: store.Writer) -> None:
    """Rewrite lost or damaged metadata of the store that follows from the rest. Raises UsageError for other damage to
    its small files, unless this run rewrites them; ledger and manifest are left to `kept`."""
    damage = mend.damage(writer)
    if config.refit or config.fit_from:
        damage = {key: text for key, text in damage.items() if key.partition("/")[0] != "fit"}
    if config.words and any(key.startswith("words") for key in damage):
        writer.drop("words")
        damage = {key: text for key, text in damage.items() if not key.startswith("words")}
    beyond = [
        text
        for key, text in damage.items()
        if key not in inventory.TABLES and not (key.endswith("zarr.json") and key.startswith(("clips/", "frames/")))
    ]
    if beyond:
        raise UsageError(beyond[0])
    mended = mend.mend_metadata(writer)
    if mended:
        log.warning("the metadata of %s was lost or damaged and was rewritten", ", ".join(mended))
