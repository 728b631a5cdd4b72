"""What a user asks of precompute, and all checks that come before anything is written."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import store
import teachers
from concord import __version__
from concord.secrets import redact
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.errors import RunError, UsageError
from pipelines.labels.borrow import borrowed_fit, check_teachers
from pipelines.workers.cluster import Pools
from store import layout, mend
from store.arrays import inventory
from store.creation import check_lone, is_taken, mark
from store.place import Place, lease
from teachers import recorded
from teachers.face import backends as face_backends
from teachers.files.weights import OtherWeights

log = logging.getLogger(__name__)

ASR, VSR = "whisper:tiny.en@3", "lips"


@dataclass(frozen=True)
class Config:
    """What the user asked for; None = what the store has, or the default for a new one."""

    store: Place  # its options are for corpora in buckets too
    corpora: tuple[str, ...] = ()
    name: str | None = None
    root: str | None = None
    asr: str | None = None
    vsr: str | None = None
    similarity: str | None = None
    limit: int | None = None
    pools: Pools = field(default_factory=Pools)
    address: str | None = None
    words: bool = False
    arrays: tuple[str, ...] = ()  # of layout.OPTIONAL_ARRAYS
    refit: bool = False
    seed: int = 0
    fit_from: Place | None = None
    retry_failed: bool = False
    clip_timeout: float | None = None  # seconds; None: grows with the clip (pipelines.workers.isolation)
    attempts: int = 3
    dry_run: bool = False


def rows(config: Config) -> list[Row]:
    """Rows of the corpora asked for, the first `limit` of them."""
    options = config.store.options
    found = [row for corpus in config.corpora for row in manifest.load(corpus, config.name, config.root, options)]
    ids = [row.id for row in found]
    if len(set(ids)) < len(ids):
        raise UsageError("two --corpus options yield the same clips; name each corpus once")
    return found[: config.limit] if config.limit is not None else found


def check_place(config: Config) -> bool:
    """Whether the store exists; raises UsageError for a place where none is and none can be made."""
    try:
        if (config.store / "zarr.json").exists():
            return True
        taken = is_taken(config.store)
        check_lone(config.store)
    except OSError as error:
        raise UsageError(f"{config.store} cannot be looked at: {error.strerror}") from error
    if not config.corpora:
        raise UsageError(f"{config.store} is not a store yet; name a corpus to make it from: --corpus KIND:ROOT")
    if taken:
        raise UsageError(
            f"{config.store} exists and is no concord-av store: nothing in it was touched; choose an empty folder or a new one "
            "for --store"
        )
    return False


def optional_arrays(config: Config, exists: bool) -> tuple[str, ...]:
    """Those of layout.OPTIONAL_ARRAYS that the store has or, where it is made in this run, will have."""
    unknown = [name for name in config.arrays if name not in layout.OPTIONAL_ARRAYS]
    if unknown:
        raise UsageError(f"--arrays knows {', '.join(layout.OPTIONAL_ARRAYS)}, not {unknown[0]!r}")
    if not exists:
        return tuple(name for name in layout.OPTIONAL_ARRAYS if name in config.arrays)
    has = tuple(name for name in layout.OPTIONAL_ARRAYS if (config.store / "frames" / name).names())
    missing = [name for name in config.arrays if name not in has]
    if missing:
        raise UsageError(
            f"{config.store} was made without frames/{missing[0]}, which cannot be added to it: make a new store with --arrays "
            f"{','.join(config.arrays)}, or leave --arrays out"
        )
    return has


def load_teachers(config: Config, exists: bool) -> tuple[teachers.Teacher, teachers.Teacher]:
    """The two teachers, loaded here so that a wrong name or missing weights end the run before anything is written."""
    names = {"asr": config.asr or ASR, "vsr": config.vsr or VSR}
    if exists:
        attrs = store.Writer.open(config.store).attrs
        check_teachers(config.store, attrs)
        for side, wanted in (("asr", config.asr), ("vsr", config.vsr)):
            has = attrs["teachers"][side]["name"]
            if wanted not in (None, has):
                raise UsageError(
                    f"{config.store} was made with --{side} {has}, not {wanted}: embeddings of two teachers cannot share a "
                    f"store; leave --{side} out, or make another store"
                )
            names[side] = has
    asr, vsr = (_teacher(config, side, names[side], exists) for side in ("asr", "vsr"))
    for side, teacher, stream in (("asr", asr, "audio"), ("vsr", vsr, "video")):
        if teacher.stream != stream:
            raise UsageError(f"--{side} takes a teacher of {stream}; {teacher.name} looks at {teacher.stream}")
        if exists:
            has = store.Writer.open(config.store).attrs["teachers"][side]
            if has.get("sha256") != teacher.provenance().get("sha256"):
                raise UsageError(
                    f"the weights of {teacher.name} here are not those that {config.store} was made with (SHA-256 "
                    f"{teacher.provenance().get('sha256')}, expected {has.get('sha256')}); bring back the same file"
                )
    if exists and face_backend(store.Writer.open(config.store)) not in face_backends.installed():
        raise UsageError(
            f"{config.store} was made with {face_backend(store.Writer.open(config.store))} running the face networks, which is "
            "not installed here; make install brings it"
        )
    if config.words and not hasattr(asr, "transcribe"):
        raise UsageError(f"--words needs a teacher that writes text, such as whisper:tiny.en; {asr.name} does not")
    _check_similarity(config, exists, asr, vsr)
    return asr, vsr


def _teacher(config: Config, side: str, name: str, exists: bool) -> teachers.Teacher:
    """The teacher called `name`; for a store that exists the weights are compared with its record before they are parsed."""
    if not exists:
        return teachers.load(name)
    has = store.Writer.open(config.store).attrs["teachers"][side]
    try:
        return recorded.load(has, foreign=False)
    except OtherWeights as error:
        raise UsageError(
            f"the weights of {name} here are not those that {config.store} was made with: {error}, expected "
            f"{has.get('sha256')}; bring back the same file"
        ) from error


def _check_similarity(config: Config, exists: bool, asr: teachers.Teacher, vsr: teachers.Teacher) -> None:
    """Whether the kind of comparison asked for can be made of these teachers, and agrees with the store's and --fit-from's."""
    note = store.Writer.open(config.store).attrs.get("similarity", {}) if exists else {}
    kind = config.similarity or note.get("kind")
    if config.fit_from:
        if config.refit:
            raise UsageError("--fit-from takes another store's fit, --refit learns one here: give one of them")
        has = borrowed_fit(config.fit_from, {"asr": asr.provenance(), "vsr": vsr.provenance()})[0].kind
        if config.similarity not in (None, has):
            raise UsageError(
                f"the fit of {config.fit_from} is of kind {has}, not {config.similarity}: leave --similarity out"
            )
        kind = has
    elif config.similarity not in (None, note.get("kind", config.similarity)) and not config.refit:
        raise UsageError(
            f"{config.store} compares by {note['kind']}, not {config.similarity}; add --refit to fit and label it anew"
        )
    if kind == "cosine" and asr.dim != vsr.dim:
        raise UsageError(
            f"similarity cosine needs two teachers of one space; {asr.name} has {asr.dim} columns, {vsr.name} {vsr.dim}"
        )
    if kind in ("posterior", "js"):
        for teacher in (asr, vsr):
            if teacher.provenance()["options"].get("rows") != "log posteriors":
                raise UsageError(
                    f"similarity {kind} compares character posteriors, which {teacher.name} does not give; "
                    "take deep_avsr-audio and deep_avsr-video"
                )


def face_backend(writer: store.Writer) -> str:
    """Who runs the face networks for this store; all its crops and points come from one. Old stores know MediaPipe alone."""
    return writer.attrs["teachers"]["face"]["options"].get("backend", "mediapipe")


def create(config: Config, asr: teachers.Teacher, vsr: teachers.Teacher) -> store.Writer:
    """A new store that knows its teachers."""
    from teachers.face.tracker import FaceTracker
    from teachers.voice import VoiceActivity

    attrs = {
        "created_by": f"concord-av {__version__}",
        "commit": commit(),
        "command": command(sys.argv),
        "teachers": {
            "asr": asr.provenance(),
            "vsr": vsr.provenance(),
            "face": FaceTracker().provenance(whole_faces="face" in config.arrays),
            "voice": VoiceActivity().provenance(),
        },
        "corpora": [],
        "similarity": {},
    }
    extra = {name: layout.OPTIONAL_ARRAYS[name] for name in optional_arrays(config, exists=False)}
    return store.create(config.store, {"asr": asr.dim, "vsr": vsr.dim}, attrs, extra)


def mend_store(config: Config, writer: store.Writer) -> None:
    """Metadata of the store written anew where it is lost or damaged and can be told from the rest. Raises UsageError for
    other damage to its small files, unless the run writes anew what is damaged; ledger and manifest are left to `kept`."""
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
        log.warning("the metadata of %s was lost or damaged and is written anew", ", ".join(mended))


@contextmanager
def lock(root: Place, exists: bool) -> Iterator[None]:
    """One driver a store (`store.place.lease`), from before it is made. Raises UsageError where another has it, or has just
    made what did not exist."""
    try:
        if not exists:
            mark(root)
        with lease.held(root):
            if not exists and (root / "zarr.json").exists():
                raise UsageError(f"another run has just made {root}; run this again to go on with it")
            yield
    except lease.Held as error:
        raise UsageError(str(error)) from error
    except lease.Lost as error:
        raise RunError(str(error)) from error
    except OSError as error:
        if exists or (root / "zarr.json").exists():
            raise
        raise UsageError(f"{root} cannot be made: {error.strerror or error}") from error


def command(arguments: Sequence[str]) -> str:
    """The command line for a shell, without the values of storage options and whatever else may be a secret."""
    shown: list[str] = []
    for k, word in enumerate(arguments):
        option, given, rest = word.partition("=")
        if option == "--storage-option" and given:
            word = f"{option}={rest.partition('=')[0]}=..."
        elif k and arguments[k - 1] == "--storage-option":
            word = f"{option}=..."
        shown.append(word)
    return shlex.join([Path(shown[0]).name, *map(redact, shown[1:])]) if shown else ""


def commit() -> str:
    """The checkout's commit, empty where this is an installed copy."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return ""
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()
