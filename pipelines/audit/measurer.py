"""Measures the files of a clip, independently of its list: lengths, silences, loudness, rates and codecs from one
decode, and faults.

One clip gives numbers (`NUMBERS`, `WORDS`; some may be unknown), faults, and the fingerprint of its content. All times
come from time stamps. A damaged file gives the numbers of its decodable part and a fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from pipelines.audit import fingerprint
from pipelines.corpora.faults import ClipFault, names_no_file
from pipelines.corpora.manifest import Row
from pipelines.hearing.listen import installed_voice
from pipelines.hearing.mixes import SILENT, choose_mix
from pipelines.hearing.tracks import AUTO, choose_track
from pipelines.media import levels, local, shots
from pipelines.media.convert import Converter
from pipelines.media.facts import Fact
from pipelines.media.files import MediaError, choose_stream, open_media
from pipelines.media.mix import Channels, Mix, mixed
from pipelines.media.picture import MIN_S, convertible, pictures, select_frames
from pipelines.media.sound import sound_frames
from pipelines.media.tally import Tally, container_s, declared_s
from pipelines.workers.threads import fix_threads
from store.layout import FPS, SAMPLE_RATE
from store.place import is_url, place

NUMBERS = (
    "length_difference",
    "length_difference_abs",
    "duration",
    "sound_duration",
    "frame_count",
    "start_skew",
    *levels.COLUMNS,
    "sample_rate",
    "frame_rate",
    "width",
    "height",
    "bit_rate",
    "face_size",
)
WORDS = ("codec", "audio_codec", "encoder")
THUMB = 64  # pixels; averaged to 16, because small changes of a picture are fractions of a grey level
FACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # positions, in fractions of the declared length, where a face is looked for
RATE_OFF = 0.02  # relative tolerance of a declared frame rate: 25 is accepted for 24.9, not for 24
COUNT_OFF = 1  # frames by which a declared count may differ
SOUND_OFF_S = 0.15  # by which a declared length of sound may differ: codecs pad and prime
CONFLICT_S = 0.5  # between the lengths of picture and sound


@dataclass
class Measured:
    """The measurements of a clip's files: values by column, in seconds, pixels, Hz and bit/s; faults; fingerprint, if
    there is one."""

    values: dict[str, float | str] = field(default_factory=dict)
    faults: list[ClipFault] = field(default_factory=list)
    print: fingerprint.Print | None = None


@dataclass
class _Seen:
    """A stream's decoded span in seconds and the beginning of its content: pictures as thumbnails, sound as samples."""

    start: Fraction
    end: Fraction
    thumbs: np.ndarray | None = None  # f4 [frames, 16, 16] from the beginning
    sound: np.ndarray | None = None  # i2 [samples] at 16 kHz of the beginning

    @property
    def length(self) -> Fraction:
        return self.end - self.start


class Measurer:
    """Measures clips, one after the other. Face sizes and the fault no_face need the face model, which is not downloaded."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        """`options` are for media in buckets."""
        self.options = options
        self.faces = _face_backend()
        self.voice = installed_voice()
        fix_threads()

    def __call__(self, row: Row) -> Measured:
        found = Measured()
        if names_no_file(row):
            return found
        for kind, file in (("missing_media", row.path), ("missing_sound", row.audio_path)):
            if file and not is_url(file) and not os.path.exists(file):
                found.faults.append(ClipFault(kind, row.id, f"{file} is not here; copy it, or correct the list"))
                return found
        with _noted(found, row), local.local_copy(place(row.path, self.options)) as path:
            size = os.stat(path).st_size  # type: ignore[arg-type]
            picture = self._look(found, row, path)
            if row.audio_path:
                sound = None
                with _noted(found, row), local.local_copy(place(row.audio_path, self.options)) as other:
                    size += os.stat(other).st_size  # type: ignore[arg-type]
                    sound = self._hear(found, row, other, Fraction(0))
            else:
                sound = self._hear(found, row, path, picture.start if picture else None)
        if picture or sound:
            _lengths(found, row, picture, sound, size)
        return found

    def _look(self, found: Measured, row: Row, path: Any) -> _Seen | None:
        """One pass over the picture."""
        with _noted(found, row), open_media(path) as container:
            stream = choose_stream(container, "video", path)
            tally = Tally(path, container, stream)
            values = found.values
            values |= {"width": stream.width, "height": stream.height, "codec": stream.codec_context.name}
            values["encoder"] = container.metadata.get("encoder", container.metadata.get("software", ""))
            values["encoder"] = values["encoder"] or "none"
            declared = declared_s(container, stream) or container_s(container)
            small, whole = Converter(stream, THUMB), Converter(stream)
            counted = 0

            def spans() -> Iterator[tuple[Fraction, Fraction, Any]]:
                nonlocal counted
                for span in pictures(container, stream, tally):
                    counted += 1
                    yield span

            fine: list[np.ndarray] = []  # thumbnails from the beginning
            coarse: list[np.ndarray] = []
            faces: list[np.ndarray] = []
            looks = [float(declared) * share for share in FACES] if declared else [0.2, 1.0, 2.0]
            held = thumb = grey = None
            try:
                for k, frame in enumerate(select_frames(spans(), tally.check_limit)):
                    with convertible(path):
                        if frame is not held:
                            held, thumb = frame, fingerprint.shrink(small(frame)[None])[0]
                            grey = np.round(thumb).astype(np.uint8)
                        if self.faces and looks and k / FPS >= looks[0]:
                            looks.pop(0)
                            faces.append(np.ascontiguousarray(whole(frame)))
                    assert thumb is not None
                    assert grey is not None
                    if len(fine) < fingerprint.SPAN_S * FPS:
                        fine.append(thumb)
                    coarse.append(grey)
                tally.check_complete()
            except MediaError as error:
                found.faults.append(ClipFault(error.reason, row.id, str(error)))
            if not counted:
                return None
            seen = _Seen(tally.start, tally.end, thumbs=np.stack(fine) if fine else None)
            values["frame_count"] = counted
            if seen.length > 0:
                values["frame_rate"] = round(float(counted / seen.length), 3)
            found.faults += _declared(row, stream, counted, values.get("frame_rate"))
            found.faults += _cuts(row, coarse)
            if faces:
                self._faces(found, row, faces)
            return seen
        return None

    def _faces(self, found: Measured, row: Row, frames: Sequence[np.ndarray]) -> None:
        """Median height of the face in the frames that show one."""
        heights = []
        for frame in frames:
            with self.faces.landmarker(1) as landmarker:  # a new landmarker for each frame: the frames are far apart
                for face in landmarker.read(frame, 0):
                    heights.append(float(np.ptp(face.points[:, 1])) * frame.shape[0])
        if heights:
            found.values["face_size"] = round(float(np.median(heights)), 2)
        else:
            text = f"{row.path} shows no face in {len(frames)} frames spread over it; leave it out"
            found.faults.append(ClipFault("no_face", row.id, text))

    def _hear(self, found: Measured, row: Row, path: Any, t0: Fraction | None) -> _Seen | None:
        """The sound of the track and in the mix that precompute takes; `t0` is where the picture starts on the sound's
        clock, None without a picture."""
        with _noted(found, row):
            choice = choose_track(path, row.audio_track or AUTO, self.voice)
            facts = list(choice.facts)
            measured, seen, odd = _measure_sound(row, path, t0, choice.track.index)
            mix = choose_mix(path, choice.track.index, self.voice) if odd else None
            if mix is not None:
                measured, seen, _ = _measure_sound(row, path, t0, choice.track.index, mix)
                facts.append(Fact("channel_mix", mix.text))
            found.values |= measured.values
            found.faults += measured.faults
            if seen and float(measured.values["peak"]) * 32768 <= SILENT:
                facts.append(Fact("silent", "the sound is silent"))
            found.faults += [ClipFault(fact.kind, row.id, f"{row.path}: {fact.text}") for fact in facts]
            return seen
        return None


def _measure_sound(
    row: Row, path: Any, t0: Fraction | None, track: int, mix: Mix | None = None
) -> tuple[Measured, _Seen | None, bool]:
    """One pass over a sound track, and whether another mix of its channels may carry the voice better.

    A separate sound file starts with the picture, as in `decode_sound`; if its clock does not start at 0, its first
    sample counts.
    """
    found, channels = Measured(), Channels()
    with open_media(path) as container:
        stream = choose_stream(container, "audio", path, track)
        tally = Tally(path, container, stream)
        found.values |= {"audio_codec": stream.codec_context.name, "sample_rate": stream.codec_context.sample_rate}
        level, kept, num = levels.Levels(), [], 0
        try:
            for samples in mixed(sound_frames(stream, tally), path, mix, channels):
                level.add(samples)
                if num < fingerprint.SPAN_S * SAMPLE_RATE:
                    kept.append(samples)
                num += len(samples)
                tally.check_limit(tally.end - tally.start)
            tally.check_complete()
        except MediaError as error:
            found.faults.append(ClipFault(error.reason, row.id, str(error)))
        if not num:
            return found, None, False
        if row.audio_path and container.format.name in ("mp3", "mpeg", "mpegts"):
            t0 = tally.start
        skew = float(tally.start - t0) if t0 is not None else 0.0
        if t0 is not None:
            found.values["start_skew"] = round(skew, 6)
        found.values |= level.values(before_s=skew)
        return found, _Seen(tally.start, tally.end, sound=np.concatenate(kept)), mix is None and channels.odd


def _face_backend() -> Any:
    """The face reader, if its model is already on this machine; else None."""
    from teachers import TeacherError
    from teachers.face import backends, tracker
    from teachers.files import weights

    try:
        model = weights.resolve(tracker.MODEL, package=tracker.PACKAGE, sha256=tracker.MODEL_SHA256)
        return backends.load(None, model.path)
    except TeacherError:
        return None


@contextmanager
def _noted(found: Measured, row: Row) -> Iterator[None]:
    """Turns a MediaError into a fault of the clip, and continues."""
    try:
        yield
    except MediaError as error:
        found.faults.append(ClipFault(error.reason, row.id, str(error)))


def _lengths(found: Measured, row: Row, picture: _Seen | None, sound: _Seen | None, size: int) -> None:
    """Everything that needs both streams: lengths, bit rate, their conflict, and the fingerprint."""
    values = found.values
    if picture:
        values["duration"] = round(float(picture.length), 6)
        if picture.length < MIN_S:
            text = f"{row.path} lasts {float(picture.length):.2f} s, too short for a word; leave it out"
            found.faults.append(ClipFault("too_short", row.id, text))
    if sound:
        values["sound_duration"] = round(float(sound.length), 6)
        listed = row.listed_samples and row.listed_sample_rate and row.listed_samples / row.listed_sample_rate
        if listed and abs(listed - float(sound.length)) > SOUND_OFF_S:
            text = f"the list says {listed:.2f} s of sound, decoding gave {float(sound.length):.2f} s"
            found.faults.append(ClipFault("count_mismatch", row.id, text))
    longest = max(float(s.length) for s in (picture, sound) if s)
    if longest > 0:
        values["bit_rate"] = round(size * 8 / longest)
    if not picture or not sound:
        return
    difference = round(float(picture.length - sound.length), 6)
    values |= {"length_difference": difference, "length_difference_abs": abs(difference)}
    if abs(difference) > CONFLICT_S:
        text = f"{float(picture.length):.2f} s of picture and {float(sound.length):.2f} s of sound do not match"
        found.faults.append(ClipFault("length_conflict", row.id, text))
    if picture.thumbs is not None and sound.sound is not None:
        late = round(float(values.get("start_skew", 0.0)) * SAMPLE_RATE)
        late = min(late, fingerprint.SPAN_S * SAMPLE_RATE)
        samples = np.concatenate([np.zeros(max(late, 0), np.int16), sound.sound[max(-late, 0) :]])
        found.print = fingerprint.of(samples, picture.thumbs, float(picture.length))


def _declared(row: Row, stream: Any, counted: int, rate: Any) -> Iterator[ClipFault]:
    """Frame rates and counts in list or header that decoding does not confirm."""
    header = float(stream.average_rate) if stream.average_rate else None
    for who, said in (("the list", row.listed_fps), ("its header", header)):
        if said and rate and counted >= 10 and abs(said / rate - 1) > RATE_OFF:
            text = f"{who} says {said:g} frames per second, time stamps say {rate:g}"
            yield ClipFault("declared_rate", row.id, text)
            break
    for who, count in (("the list", row.listed_frames), ("its header", stream.frames)):
        if count and abs(count - counted) > COUNT_OFF:
            yield ClipFault("count_mismatch", row.id, f"{who} says {count:g} frames, decoding gave {counted}")
            break


def _cuts(row: Row, thumbs: Sequence[np.ndarray]) -> Iterator[ClipFault]:
    found = shots.cuts(np.stack(thumbs)) if thumbs else []
    if found:
        times = ", ".join(f"{k / FPS:.2f}" for k in found[:5])
        text = f"the picture jumps at {times} s: another shot, or damage; a clip should show one speaker throughout"
        yield ClipFault("several_shots", row.id, text)
