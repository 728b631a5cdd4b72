"""The teachers' evidence on the clips of a manifest: from a store's arrays, or from the files as `predict` reads them.

A store has what both teachers and the face stage found, so no video is decoded: embeddings are projected anew by the fit in
use. Sound longer than the clips that the fit has learned from is embedded again from the stored samples in pieces, as
`predict` does it. A store keeps one more face of a video, `predict` follows up to three; and it keeps no facts of the file.
Pictures are read only for a student, when its turn comes.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

import store
from pipelines.corpora.manifest import Row
from pipelines.errors import UsageError
from pipelines.hearing.tracks import AUTO
from pipelines.labels import projection
from pipelines.labels.projection import half
from pipelines.tables import ledger
from pipelines.workers.threads import fix_threads
from store import layout, similarity
from store.place import is_url, place
from student.predict.basis import Basis
from student.predict.evidence import Evidence, Unusable, Witness, in_pieces
from teachers import ClipMedia, TeacherError, recorded, speaker

log = logging.getLogger(__name__)

OF_SOUND = np.uint8(layout.AUDIO_PRESENT | layout.VOICE_ACTIVE)
PICTURES = ("mouth", "audio")
SECOND = ("lips2", "blendshapes2", "flags2")


class Source(Protocol):
    """Where evidence comes from."""

    def __call__(self, row: Row) -> tuple[Evidence, np.ndarray]:
        """The evidence on a clip, and its sound i2 [640 * frames]. Raises Unusable for a clip about which `predict` would
        say why it has no answer, and Absent for one that this source does not have."""
        ...

    def pictured(self, evidence: Evidence) -> Evidence:
        """The same with pictures and sound, for a student."""
        ...

    def told(self) -> dict[str, Any]:
        """What the reader of a report must know of it, for JSON."""
        ...

    def close(self) -> None: ...


class Absent(Exception):
    """A clip of the manifest that this source does not have; `reason` in a word or two."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# -- pairs of lips and sound ---------------------------------------------------------------------------------------------


def swapped(lips: Evidence, sound: Evidence) -> Evidence:
    """The evidence on a video made of the lips of one and the sound of another, both cut to the shorter length.

    Which of several faces may speak was found with the own sound.
    """
    return replace(dubbed(lips, sound), others=tuple(dubbed(one, sound) for one in lips.others))


def dubbed(lips: Evidence, sound: Evidence, shift: int = 0) -> Evidence:
    """One face with the sound of another video, which comes `shift` frames later; what both last is left."""
    seen, heard = lips.clip, sound.clip
    rows, other, _ = similarity.shifted(seen.num_frames, heard.num_frames, shift)
    samples = slice(other.start * layout.SAMPLES_PER_FRAME, other.stop * layout.SAMPLES_PER_FRAME)
    flags = (seen.flags[rows] & ~OF_SOUND) | (heard.flags[other] & OF_SOUND)
    clip = ClipMedia(
        seen.id,
        heard.audio[samples],
        seen.mouth[rows],
        seen.lips[rows],
        seen.blendshapes[rows],
        flags,
        None if seen.face is None else seen.face[rows],
    )
    return replace(
        lips,
        clip=clip,
        vsr_projection=lips.vsr_projection[rows],
        asr_projection=sound.asr_projection[other],
        others=(),
        facts=(),
    )


# -- from a store --------------------------------------------------------------------------------------------------------


class FromStore:
    """Evidence from a store's arrays; clips are found by their paths."""

    def __init__(self, reader: store.Reader, on: Basis, arrays: tuple[str, ...] = ()) -> None:
        """`arrays` are the members of layout.OPTIONAL_ARRAYS that a student needs. Raises UsageError if the store's
        teachers are not the fit's, or it lacks such an array."""
        fix_threads()
        self.reader, self.on, self.arrays = reader, on, arrays
        check_teachers(reader, on)
        if lacks := [name for name in arrays if name not in reader.names]:
            raise UsageError(
                f"{reader.path} has no frames/{lacks[0]}, which this detector sees; make it with --arrays {lacks[0]}"
            )
        self.to_vsr, self.to_asr = projection.maps(on.fit)
        self.second = all(name in reader.names for name in SECOND)
        self.again = self.kept_whole = 0
        self.rows: dict[str, int] = {}
        for i, path in enumerate(reader.clips["path"].tolist()):
            self.rows.setdefault(_key(path), i)

    def __call__(self, row: Row) -> tuple[Evidence, np.ndarray]:
        i = self.rows.get(_key(row.path))
        if i is None:
            raise Absent("not in the store", f"{row.path} is not in {self.reader.path}")
        clip = self.reader.clip(i)
        if not clip.done:
            entry = self._ledger.get(clip.id)
            if entry is None or not entry.reason:
                raise Absent(
                    "not finished", f"{row.path} is not finished in {self.reader.path}; run precompute.py again"
                )
            raise Unusable(entry.reason, entry.message)
        names = ["asr", "vsr", "flags", "audio", *(SECOND if self.second else ())]
        got = self.reader.frames(i, 0, clip.length, names)
        audio = got["audio"].reshape(-1)
        media = ClipMedia(row.id, *_nothing(clip.length), got["flags"], num_faces=clip.num_faces)
        asr = half(self._sound(got["asr"], replace(media, audio=audio)))
        sound, lips = half(self.to_asr(asr, media.flags)), half(self.to_vsr(got["vsr"], media.flags))
        found = Evidence(row.path, media, lips, sound, [], float(clip.start_skew), vsr=got["vsr"], asr=asr)
        return replace(found, others=self._others(i, found, got)), audio

    def pictured(self, evidence: Evidence) -> Evidence:
        got = self._read(evidence.path, (*PICTURES, *self.arrays))
        sound = got["audio"].reshape(-1)
        found = replace(evidence, clip=replace(evidence.clip, mouth=got["mouth"], audio=sound, face=got.get("face")))
        if not evidence.others:
            return found
        if "face" in self.arrays:  # of the second face a store has its mouth alone
            return replace(found, others=())
        mouth = self._read(evidence.path, ("mouth2",))["mouth2"]
        others = tuple(replace(one, clip=replace(one.clip, mouth=mouth, audio=sound)) for one in evidence.others)
        return replace(found, others=others)

    def told(self) -> dict[str, Any]:
        return {
            "from": str(self.reader.path),
            "sound_in_pieces": self.again,
            "sound_as_stored_though_long": self.kept_whole,
        }

    def close(self) -> None:
        pass

    def _read(self, path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        i = self.rows[_key(path)]
        return self.reader.frames(i, 0, self.reader.clip(i).length, names)

    def _sound(self, stored: np.ndarray, media: ClipMedia) -> np.ndarray:
        """The embedding of a clip's sound as `predict` has it."""
        if not 0 < self.on.clip_frames < media.num_frames:
            return stored
        if self._asr is None:
            self.kept_whole += 1
            return stored
        self.again += 1
        return in_pieces(self._asr, media, self.on.clip_frames)

    def _others(self, i: int, found: Evidence, got: dict[str, np.ndarray]) -> tuple[Evidence, ...]:
        """The second face, if it may be the speaker, as `pipelines.workers.watch` decides it."""
        if not self.second or not (got["flags2"] & layout.FACE).any() or self._vsr is None:
            return ()
        lips = self.reader.frames(i, 0, len(got["flags"]), ["lips"])["lips"].astype(np.float32)
        lips2 = got["lips2"].astype(np.float32)
        seen, seen2 = ((flags & layout.FACE_DETECTED) > 0 for flags in (got["flags"], got["flags2"]))
        motions = [speaker.motion(*face, found.voice) for face in ((lips, seen), (lips2, seen2))]
        if len(speaker.may_speak(motions)) < 2:
            return ()
        flags = got["flags2"] | (found.clip.flags & (OF_SOUND | np.uint8(layout.IN_USE)))
        clip = replace(found.clip, lips=lips2, blendshapes=got["blendshapes2"].astype(np.float32), flags=flags)
        if self._vsr.name != "lips":
            clip = replace(clip, mouth=self.reader.frames(i, 0, len(flags), ["mouth2"])["mouth2"])
        vsr = half(self._vsr.embed([clip])[0])
        return (replace(found, clip=clip, vsr_projection=half(self.to_vsr(vsr, clip.flags)), vsr=vsr),)

    @cached_property
    def _asr(self) -> Any:
        return self._teacher("asr")

    @cached_property
    def _vsr(self) -> Any:
        return self._teacher("vsr")

    def _teacher(self, side: str) -> Any:
        """The fit's teacher of a side; None, with a warning, if it is not on this machine."""
        try:
            return recorded.load(self.on.teachers[side], "cpu", foreign=True)
        except TeacherError as error:
            without = "long sound is taken as stored" if side == "asr" else "second faces are left out"
            log.warning("%s: %s", without, error)
            return None

    @cached_property
    def _ledger(self) -> dict[str, ledger.Entry]:
        return ledger.read(self.reader.place)


def check_teachers(reader: store.Reader, on: Basis) -> None:
    """Raises UsageError if a store was made with other teachers than a fit."""
    mine = reader.attrs.get("teachers") or {}
    for side in ("asr", "vsr"):
        ours, its = mine.get(side) or {}, on.teachers[side]
        if (ours.get("name"), ours.get("sha256")) != (its.get("name"), its.get("sha256")):
            raise UsageError(
                f"the fit of {on.source} is for {side} {its.get('name')}, {reader.path} has {ours.get('name')}"
                f"{' of other weights' if ours.get('name') == its.get('name') else ''}; name a fit of the same teachers "
                "with --fit-from"
            )


def _nothing(frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sound, mouth, lips and blendshapes of a clip that nobody looks at; they take no memory."""
    return (
        np.broadcast_to(np.int16(0), frames * layout.SAMPLES_PER_FRAME),
        np.broadcast_to(np.uint8(0), (frames, 96, 96)),
        np.broadcast_to(np.float32(0), (frames, 40, 2)),
        np.broadcast_to(np.float32(0), (frames, 52)),
    )


def _key(path: str) -> str:
    """One spelling of a file that may be reached through links; URLs as they are."""
    return str(place(path)) if is_url(path) else os.path.realpath(str(place(path).path))


# -- from files ----------------------------------------------------------------------------------------------------------


class FromFiles:
    """Evidence from the files themselves, read as `predict` reads them. Pictures stay in memory if a student needs them."""

    def __init__(self, on: Basis, keeps: bool, arrays: tuple[str, ...] = ()) -> None:
        """`keeps` pictures and sound. Raises TeacherError, WeightsError."""
        records = {side: on.teachers.get(side) or {} for side in ("asr", "vsr")}
        self.witness = Witness(on.fit, records, "cpu", on.clip_frames, arrays)
        self.keeps = keeps

    def __call__(self, row: Row) -> tuple[Evidence, np.ndarray]:
        if not is_url(row.path) and not os.path.exists(row.path):
            raise Absent("missing", f"{row.path} is not here; copy it, or correct the manifest")
        if row.audio_path:
            text = f"{row.path}: its sound is another file, which predict does not read; make a store of it"
            raise Absent("separate sound", text)
        self.witness.audio_track = row.audio_track or AUTO
        found, _ = self.witness.hear_and_see(row.path, words=False)
        audio = found.clip.audio
        if not self.keeps:
            found = replace(_bare(found), others=tuple(_bare(one) for one in found.others))
        return found, audio

    def pictured(self, evidence: Evidence) -> Evidence:
        return evidence

    def told(self) -> dict[str, Any]:
        return {"from": "the files"}

    def close(self) -> None:
        self.witness.child.close()


def _bare(evidence: Evidence) -> Evidence:
    """Without pictures and sound."""
    clip = evidence.clip
    bare = ClipMedia(clip.id, *_nothing(clip.num_frames), clip.flags, num_faces=clip.num_faces)
    return replace(evidence, clip=bare, others=())
