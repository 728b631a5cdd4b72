"""From a media file to a clip for teachers: pictures decoded, faces followed, sound placed on the same clock, voice
detected, and the face taken that speaks.

Of several faces it is the one whose lips move with the voice, if that is clear (`teachers.speaker`), else the most
prominent one; a fact says which. Precompute's face stage, the detector's answers and the benchmarks all use this module,
so a clip gives the same bytes in all of them. It needs no store; the stage decides about a clip that does not fit its
slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.hearing.listen import Voice
from pipelines.hearing.mixes import choose_mix, is_silent
from pipelines.hearing.tracks import AUTO, choose_track
from pipelines.media.facts import Fact
from pipelines.media.files import Media
from pipelines.media.local import local_copy
from pipelines.media.picture import Video
from pipelines.media.sound import Sound, decode_sound
from pipelines.seeing import crops, still
from pipelines.workers.threads import fix_threads
from store import layout
from teachers import ClipMedia, speaker
from teachers.face.tracker import Faces, FaceTrack, NoFaceError, Seen

SMALL = 60  # pixels from forehead to chin: the mouth crop, 96 pixels, then shows some 16 of the picture


@dataclass(frozen=True)
class Watched:
    """A clip for teachers, by how many seconds its sound starts after its first picture in the file, and what a person
    should know of the file. `others` are the same clip with other faces that may be the speaker, the likeliest first;
    none if it is clear which face speaks."""

    clip: ClipMedia
    start_skew_s: float
    facts: tuple[Fact, ...] = ()
    others: tuple[ClipMedia, ...] = ()

    @property
    def quality(self) -> float:
        """Share of the frames in which a face was detected, held or not."""
        return float(((self.clip.flags & layout.FACE_DETECTED) > 0).mean())


class Watcher:
    """The models for reading clips, loaded once for many clips."""

    def __init__(
        self, backend: str | None = None, arrays: Sequence[str] = (), others: int = 1, mouth_crops: bool = False
    ) -> None:
        """`backend` runs the face networks (`teachers.face.backends`; None: the best installed one); `arrays` names the
        members of layout.OPTIONAL_ARRAYS that clips need; `others` is the most of `Watched.others`; `mouth_crops`: clips
        are mouth crops already."""
        import cv2  # noqa: F401 - crops faces; imported here so that fix_threads finds it

        from teachers.face.tracker import FaceTracker
        from teachers.voice import VoiceActivity

        self.whole_faces, self.others, self.mouth_crops = "face" in arrays, others, mouth_crops
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
            heard = choose_track(sounds, audio_track, self.voice.frames)  # first: without sound no face is followed
            video = Video(pictures)
            faces = None if self.mouth_crops else self._follow(pictures, video)
            seen = [faces.seen(i) for i in range(len(faces.tracks))] if faces else []
            tracks = faces.cropped(seen) if faces and len(seen) == 1 else []  # before the sound needs memory
            tracks = tracks if faces else [crops.taken(video)]
            start_s = video.start_s if audio_path is None else None
            sound = hear(sounds, start_s, video.num_frames, heard.track.index, self.voice.frames)
            voice = self.voice.frames(sound.samples) & sound.present
            choice = (
                chosen([speaker.motion(one.lips, one.detected, voice) for one in seen]) if faces else Choice([0], 0)
            )
            wanted = choice.order[: 1 + max(self.others if choice.rivals else 0, 1)]
            facts = [*video.facts, *heard.facts, *sound.facts, *(_facts(faces, seen, choice) if faces else ())]
            tracks = tracks or (faces.cropped([seen[i] for i in wanted]) if faces else [])
        clips = [self._clip(clip_id, track, sound, voice) for track in tracks]
        clip, others = clips[0], tuple(clips[1 : 1 + min(choice.rivals, self.others)])
        if len(tracks) > 1:
            two = tracks[1]
            flags = still.mark(two.mouth, face_flags(two))
            clip = replace(clip, mouth2=two.mouth, lips2=two.lips, blendshapes2=two.blendshapes, flags2=flags)
        return Watched(clip, sound.start_skew_s, (*facts, *still.facts(clip.flags)), others)

    def _follow(self, path: Media, video: Video) -> Faces:
        """All faces of a clip. Raises NoFaceError, also for one that looks like a mouth crop."""
        try:
            faces = self.tracker.follow(video, whole_faces=self.whole_faces)
        except NoFaceError as error:
            crops.refuse(path, self.tracker.faces, error)
        crops.refuse_face(path, faces.tracks[0], faces.shapes[0][1], self.tracker.faces)
        return faces

    def _clip(self, clip_id: str, track: FaceTrack, sound: Sound, voice: np.ndarray) -> ClipMedia:
        """The clip with this face."""
        flags = face_flags(track) | np.uint8(layout.IN_USE)
        flags[sound.present] |= layout.AUDIO_PRESENT
        flags[voice] |= layout.VOICE_ACTIVE
        flags = still.mark(track.mouth, flags)
        media = clip_id, sound.samples, track.mouth, track.lips, track.blendshapes, flags, track.face
        return ClipMedia(*media, num_faces=track.num_faces)


def hear(path: Media, start_s: float | None, num_frames: int, track: int, voice: Voice) -> Sound:
    """The sound for pictures that start at `start_s` (`decode_sound`), in the mix of its channels that carries the voice."""
    sound = decode_sound(path, start_s, num_frames, track)
    mix = choose_mix(path, track, voice) if sound.odd else None
    facts = sound.facts
    if mix is not None:
        sound = decode_sound(path, start_s, num_frames, track, mix)
        facts = (*sound.facts, Fact("channel_mix", mix.text))
    if is_silent(sound.samples):
        facts = (*facts, Fact("silent", "the sound is silent"))
    return replace(sound, facts=facts)


@dataclass(frozen=True)
class Choice:
    """Which of several faces was taken: their numbers, the one that was taken first, and how many of the others, which
    come next, may be the speaker as well."""

    order: list[int]
    rivals: int


def chosen(motions: Sequence[float]) -> Choice:
    """The choice by the motion of lips; `motions` has the most prominent face first, which is taken if several may speak."""
    may = speaker.may_speak(motions)
    return Choice([*may, *(i for i in range(len(motions)) if i not in may)], len(may) - 1)


def face_flags(track: FaceTrack) -> np.ndarray:
    """u1 [frames], with the bits of layout that tell of the face."""
    flags = np.zeros(len(track.detected), np.uint8)
    flags[track.detected] |= layout.FACE_DETECTED
    flags[track.interpolated] |= layout.FACE_INTERPOLATED
    return flags


def _facts(faces: Faces, seen: Sequence[Seen], choice: Choice) -> Iterator[Fact]:
    """What a person should know of the faces."""
    if len(seen) > 1:
        number = (
            f"{faces.num_faces} faces are seen" if faces.num_faces > 1 else "several faces are seen one after the other"
        )
        which = "it is not clear which one speaks, so the most prominent one was taken"
        if not choice.rivals:
            which = "the one whose lips move with the voice was taken"
        yield Fact("several_faces", f"{number}; {which}")
    height = seen[choice.order[0]].height
    if height < SMALL:
        yield Fact("small_face", f"the face is small, {height:.0f} pixels high, so its mouth shows little detail")
