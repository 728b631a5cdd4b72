"""The request to precompute, and all checks before anything is written."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import store
import teachers
from concord import extras
from concord.secrets import redact
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.corpora.splits import Rule
from pipelines.errors import UsageError
from pipelines.job.splits import Decided, decide
from pipelines.labels.borrow import borrowed_fit, check_teachers
from pipelines.labels.words import Transcriber
from pipelines.seeing import crops
from pipelines.tables import kept
from pipelines.workers.chain import Pools
from store import layout
from store.arrays.attributes import RootAttributes
from store.creation import check_lone, is_taken
from store.place import Place
from teachers import Teacher, recorded
from teachers.face import backends as face_backends
from teachers.files.weights import OtherWeights

ASR, VSR = "whisper:tiny.en@3", "lips"
DEFAULTS = {"asr": ASR, "vsr": VSR}


@dataclass(frozen=True)
class Config:
    """The user's options; None = the store's value, or the default for a new store."""

    store: Place  # its options also apply to corpora in buckets
    corpora: tuple[str, ...] = ()
    name: str | None = None
    root: str | None = None
    asr: str | None = None
    vsr: str | None = None
    similarity: str | None = None
    limit: int | None = None
    split_by: Rule | None = None  # a file of splits, or a protocol; None: as corpora and store have them
    pools: Pools = field(default_factory=Pools)
    address: str | None = None
    words: bool = False
    arrays: tuple[str, ...] = ()  # of layout.OPTIONAL_ARRAYS
    audio_track: int | None = None  # of rows that name none; 0: chosen for each file
    mouth_crops: bool = False  # clips are mouth crops already
    refit: bool = False
    seed: int = 0
    fit_from: Place | None = None
    retry_failed: bool = False
    clip_timeout: float | None = None  # seconds; None: grows with the clip (pipelines.workers.isolation)
    attempts: int = 3
    dry_run: bool = False


@dataclass(frozen=True)
class Request:
    """A valid request: the user's options, and the results of the checks."""

    config: Config
    exists: bool  # the store
    rows: list[Row]  # of the requested corpora, with their splits
    arrays: tuple[str, ...]  # of layout.OPTIONAL_ARRAYS, that the store has or will have
    asr: Teacher
    vsr: Teacher
    mouth_crops: bool = False  # the store's clips are, or will be, mouth crops taken as they are
    splits: Decided = field(default_factory=lambda: Decided([]))  # by `split_by`

    @property
    def dims(self) -> int:
        """Columns of both embeddings together."""
        return self.asr.dim + self.vsr.dim


def check(config: Config) -> Request:
    """All checks that come before anything is written. Raises UsageError, ManifestError, StoreError and TeacherError."""
    rows = _rows(config)
    exists = _check_place(config)
    arrays = _optional_arrays(config, exists)
    attrs = store.Writer.open(config.store).attrs if exists else None
    rows = manifest.with_track(rows, _audio_track(config, attrs) or None)
    asr, vsr = _load_teachers(config, attrs)
    mouth_crops = _mouth_crops(config, attrs, arrays, vsr)
    _check_similarity(config, (attrs.get("similarity") if attrs else None) or {}, asr, vsr)
    decided = _splits(config, rows, attrs)
    rows = decided.rows[: config.limit]
    return Request(config, exists, rows, arrays, asr, vsr, mouth_crops, decided)


def _rows(config: Config) -> list[Row]:
    """Rows of the requested corpora."""
    options = config.store.options
    found = [row for corpus in config.corpora for row in manifest.load(corpus, config.name, config.root, options)]
    ids = [row.id for row in found]
    if len(set(ids)) < len(ids):
        raise UsageError("two --corpus options give the same clips; name each corpus once")
    return found


def _splits(config: Config, rows: list[Row], attrs: RootAttributes | None) -> Decided:
    """The rows with the splits that the user asks for, and what that changes in the store."""
    if config.split_by is None:
        return Decided(rows)
    present = kept.read(store.open(config.store), rows).rows if attrs is not None else []
    makes_fit = config.refit or config.fit_from is not None
    has_fit = bool(attrs and attrs.get("similarity"))
    return decide(config.split_by, rows, present, str(config.store), makes_fit, has_fit)


def _check_place(config: Config) -> bool:
    """Whether the store exists. Raises UsageError if it does not and cannot be created."""
    try:
        if (config.store / "zarr.json").exists():
            return True
        taken = is_taken(config.store)
        check_lone(config.store)
    except OSError as error:
        raise UsageError(f"{config.store} cannot be read: {error.strerror}") from error
    if not config.corpora:
        raise UsageError(f"{config.store} is not a store yet; name a corpus to make it from: --corpus KIND:ROOT")
    if taken:
        raise UsageError(
            f"{config.store} exists and is not a concord-av store: nothing in it was changed; choose an empty folder or a new "
            "one for --store"
        )
    return False


def _optional_arrays(config: Config, exists: bool) -> tuple[str, ...]:
    """The members of layout.OPTIONAL_ARRAYS that the store has or, if this run creates it, will have."""
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
            f"{','.join(config.arrays)}, or omit --arrays"
        )
    return has


def _audio_track(config: Config, attrs: RootAttributes | None) -> int:
    """The sound track that rows get which name none: the store's, else the requested one; 0 = chosen for each file."""
    asked = config.audio_track
    has = attrs.get("audio_track", 0) if attrs is not None else asked or 0
    if asked not in (None, has):
        shown = [track or "auto" for track in (has, asked)]
        raise UsageError(
            f"{config.store} was made with --audio-track {shown[0]}, not {shown[1]}: omit it, name tracks of single clips in "
            "the manifest's column audio_track, or make another store"
        )
    return has


def _mouth_crops(config: Config, attrs: RootAttributes | None, arrays: tuple[str, ...], vsr: Teacher) -> bool:
    """Whether clips are taken as mouth crops: the store says, else the option. Raises UsageError and TeacherError."""
    has = config.mouth_crops if attrs is None else bool(attrs["teachers"]["face"]["options"].get("mouth_crops", False))
    if config.mouth_crops and not has:
        raise UsageError(
            f"{config.store} was made of clips with whole faces, which cannot share a store with mouth crops; omit "
            "--mouth-crops, or make another store"
        )
    if has and "face" in arrays:
        raise UsageError("--arrays face keeps whole faces, which mouth crops do not show; omit one of the two options")
    if has:
        crops.check_teacher(vsr, f"name one that sees pixels with --vsr, such as {crops.READERS}")
    return has


def _load_teachers(config: Config, attrs: RootAttributes | None) -> tuple[Teacher, Teacher]:
    """The two teachers, loaded here so that a wrong name or missing weights end the run before anything is written;
    `attrs` are the store's, None if this run creates it."""
    names = _teacher_names(config, attrs)
    asr, vsr = (_teacher(config, side, names[side], attrs) for side in ("asr", "vsr"))
    for side, teacher, stream in (("asr", asr, "audio"), ("vsr", vsr, "video")):
        if teacher.stream != stream:
            raise UsageError(f"--{side} takes a teacher of {stream}; {teacher.name} is one of {teacher.stream}")
    backend = face_backend(attrs) if attrs is not None else None
    if backend is not None and backend not in face_backends.installed():
        raise UsageError(
            f"{config.store} was made with {backend} running the face networks, which is not installed here: "
            f"{extras.install(face_backends.BACKENDS.get(backend, ('', '', 'face'))[2])}"
        )
    if config.words and not isinstance(asr, Transcriber):
        raise UsageError(f"--words needs a teacher that writes text, such as whisper:tiny.en; {asr.name} does not")
    return asr, vsr


def _teacher_names(config: Config, attrs: RootAttributes | None) -> dict[str, str]:
    """The teacher of each side: the store's, else the requested one or the default."""
    asked = {"asr": config.asr, "vsr": config.vsr}
    if attrs is None:
        return {side: name or DEFAULTS[side] for side, name in asked.items()}
    check_teachers(config.store, attrs)
    has = {side: attrs["teachers"][side]["name"] for side in asked}
    for side, name in asked.items():
        if name not in (None, has[side]):
            raise UsageError(
                f"{config.store} was made with --{side} {has[side]}, not {name}: embeddings of two teachers cannot share a "
                f"store; omit --{side}, or make another store"
            )
    return has


def _teacher(config: Config, side: str, name: str, attrs: RootAttributes | None) -> Teacher:
    """The teacher called `name`. The weights of a store's teacher are compared with its record before they are parsed."""
    if attrs is None:
        return teachers.load(name)
    has = attrs["teachers"][side]
    expected = f"expected {has.get('sha256')}; restore the same file"
    try:
        teacher = recorded.load(has, foreign=False)
    except OtherWeights as error:
        raise UsageError(
            f"the weights of {name} here are not those that {config.store} was made with: {error}, {expected}"
        ) from error
    found = teacher.provenance().get("sha256")
    if found != has.get("sha256"):
        raise UsageError(
            f"the weights of {name} here are not those that {config.store} was made with: SHA-256 {found}, {expected}"
        )
    return teacher


def _check_similarity(config: Config, note: Mapping[str, Any], asr: Teacher, vsr: Teacher) -> None:
    """Raises UsageError if the requested kind of similarity is not possible with these teachers, or contradicts the
    store's own (`note`) or that of --fit-from."""
    kind = config.similarity or note.get("kind")
    if config.fit_from:
        if config.refit:
            raise UsageError("--fit-from uses another store's fit, --refit learns one here: give one of them")
        has = borrowed_fit(config.fit_from, {"asr": asr.provenance(), "vsr": vsr.provenance()})[0].kind
        if config.similarity not in (None, has):
            raise UsageError(
                f"the fit of {config.fit_from} is of kind {has}, not {config.similarity}: leave --similarity out"
            )
        kind = has
    elif config.similarity not in (None, note.get("kind", config.similarity)) and not config.refit:
        raise UsageError(
            f"{config.store} compares by {note['kind']}, not {config.similarity}; add --refit to fit and label it again"
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
                    "use deep_avsr-audio and deep_avsr-video"
                )


def face_backend(attrs: RootAttributes) -> str:
    """The backend of the face networks for this store; all its crops and points come from one. Old stores always used
    MediaPipe."""
    backend: str = attrs["teachers"]["face"]["options"].get("backend", "mediapipe")
    return backend


def command(arguments: Sequence[str]) -> str:
    """The command line for a shell, without the values of storage options and other possible secrets."""
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
    """The checkout's commit; empty for an installed copy."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return ""
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()
