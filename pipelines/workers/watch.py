"""From a media file to a clip for teachers: pictures decoded, face tracked, sound placed on the same clock, voice
detected.

Precompute's face stage, the detector's answers and the benchmarks all use this module, so a clip gives the same bytes
in all of them. It needs no store; the stage decides about a clip that does not fit its slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.hearing.mixes import choose_mix, is_silent
from pipelines.hearing.tracks import AUTO, choose_track
from pipelines.media.facts import Fact
from pipelines.media.files import Media, MediaError, shown
from pipelines.media.local import local_copy
from pipelines.media.picture import Video
from pipelines.media.probe import has_sound
from pipelines.media.sound import Sound, decode_sound
from pipelines.workers.threads import fix_threads
from store import layout
from teachers import ClipMedia
from teachers.face.tracker import FaceTrack


@dataclass(frozen=True)
class Watched:
    """A clip for teachers, by how many seconds its sound starts after its first picture in the file, and what a person
    should know of the file."""

    clip: ClipMedia
    start_skew_s: float
    facts: tuple[Fact, ...] = ()

    @property
    def quality(self) -> float:
        """Share of the frames in which a face was detected."""
        return float(((self.clip.flags & layout.FACE_DETECTED) > 0).mean())


class Watcher:
    """The models for reading clips, loaded once for many clips."""

    def __init__(self, backend: str | None = None, arrays: Sequence[str] = ()) -> None:
        """`backend` runs the face networks (`teachers.face.backends`; None: the best installed one); `arrays` names the
        members of layout.OPTIONAL_ARRAYS that clips need."""
        import cv2  # noqa: F401 - crops faces; imported here so that fix_threads finds it

        from teachers.face.tracker import FaceTracker
        from teachers.voice import VoiceActivity

        self.whole_faces = "face" in arrays
        self.tracker = FaceTracker(backend=backend)
        self.voice = VoiceActivity()
        fix_threads()

    def watch(
        self, path: Media, audio_path: Media | None = None, clip_id: str = "", audio_track: int = AUTO
    ) -> Watched:
        """The clip at `path`, with the sound of `audio_path` if that is a separate file, and of several sound tracks the
        one of number `audio_track` (`hearing.tracks`). Files in buckets are downloaded while they are used. Raises
        MediaError and NoFaceError."""
        with local_copy(path) as pictures, local_copy(audio_path or pictures) as sounds:
            # The header was read when the clip was planned, by another worker, perhaps in an earlier run. Only the presence of
            # sound is checked again: it costs one open, and avoids tracking a face for nothing.
            if not has_sound(sounds):
                raise MediaError("no_audio", f"{shown(sounds)} has no sound; name its sound as audio_path")
            choice = choose_track(sounds, audio_track, self.voice.frames)
            video = Video(pictures)
            track = self.tracker.track(video, whole_faces=self.whole_faces)
            start_s = video.start_s if audio_path is None else None
            sound = self._hear(sounds, start_s, len(track.detected), choice.track.index)
        flags = self._flags(track, sound)
        clip = ClipMedia(clip_id, sound.samples, track.mouth, track.lips, track.blendshapes, flags, track.face)
        return Watched(clip, sound.start_skew_s, (*video.facts, *choice.facts, *sound.facts))

    def _hear(self, path: Media, start_s: float | None, num_frames: int, track: int) -> Sound:
        """The sound in the mix of its channels that carries the voice."""
        sound = decode_sound(path, start_s, num_frames, track)
        mix = choose_mix(path, track, self.voice.frames) if sound.odd else None
        facts = sound.facts
        if mix is not None:
            sound = decode_sound(path, start_s, num_frames, track, mix)
            facts = (*sound.facts, Fact("channel_mix", mix.text))
        if is_silent(sound.samples):
            facts = (*facts, Fact("silent", "the sound is silent"))
        return replace(sound, facts=facts)

    def _flags(self, track: FaceTrack, sound: Sound) -> np.ndarray:
        """u1 [frames], with the bits of layout."""
        flags = np.full(len(track.detected), layout.IN_USE, np.uint8)
        flags[track.detected] |= layout.FACE_DETECTED
        flags[track.interpolated] |= layout.FACE_INTERPOLATED
        flags[sound.present] |= layout.AUDIO_PRESENT
        flags[self.voice.frames(sound.samples) & sound.present] |= layout.VOICE_ACTIVE
        return flags
