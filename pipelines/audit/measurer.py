"""Measures the files of a clip, independently of its list: lengths, silences, loudness, rates and codecs from one
decode, and faults.

One clip gives numbers (`NUMBERS`, `WORDS`; some may be unknown), faults, and the fingerprint of its content. All times
come from time stamps. A damaged file gives the numbers of its decodable part and a fault.
"""

from __future__ import annotations

import logging
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
from pipelines.media import levels, local
from pipelines.media.facts import Fact
from pipelines.media.files import MediaError, choose_stream, open_media
from pipelines.media.mix import Channels, Mix, mixed
from pipelines.media.picture import Video
from pipelines.media.sound import sound_frames
from pipelines.media.tally import Tally, container_s, declared_s
from pipelines.seeing.looks import Pictures, face_backend
from pipelines.workers.threads import fix_threads
from pipelines.workers.watch import Watcher
from store.layout import FPS, SAMPLE_RATE
from store.place import is_url, place
from teachers import TeacherError
from teachers.face.tracker import NoFaceError

log = logging.getLogger(__name__)

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
OF_FACES = ("several_faces", "small_face", "held_pictures", "mouth_crops")  # facts that need the face to be followed
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
        self.faces = face_backend()
        self.voice = installed_voice()
        self.watcher: Watcher | None = None  # loaded for the first clip that needs it
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
        """One pass over the picture, as precompute sees it. Clips whose faces or motion are out of the ordinary are
        watched as precompute does it (`_watch`)."""
        video, seen = Video(path), Pictures(self.faces, fingerprint.SPAN_S * FPS)
        header = _Header()
        with _noted(found, row):
            for picture in video:
                assert video.tally is not None
                if not seen.num_frames:
                    header = _Header.of(video.tally)
                    seen.look_at(header.declared)
                seen.add(picture)
        found.values |= header.values
        found.faults += [_said(row, fact) for fact in video.facts]
        tally = video.tally
        if tally is None or not seen.num_frames:
            return None
        span = _Seen(tally.start, max(tally.end, tally.start), thumbs=seen.thumbs)
        counted = tally.good
        found.values["frame_count"] = counted
        if span.length > 0:
            found.values["frame_rate"] = round(float(counted / span.length), 3)
        found.faults += _declared(row, header, counted, found.values.get("frame_rate"))
        found.faults += _cuts(row, seen.cuts)
        if self.faces is None:
            return span
        if (height := seen.face_height) is not None:
            found.values["face_size"] = round(height, 2)
        if seen.is_odd:
            self._watch(found, row, seen)
        return span

    def _watch(self, found: Measured, row: Row, seen: Pictures) -> None:
        """Watch a clip as precompute will, for the facts of its faces and the fault no_face."""
        sound = place(row.audio_path, self.options) if row.audio_path else None
        try:
            self.watcher = self.watcher or Watcher()
            track = row.audio_track or AUTO
            facts = self.watcher.watch(place(row.path, self.options), sound, row.id, track).facts
        except NoFaceError as error:
            found.faults.append(ClipFault(error.reason, row.id, f"{row.path}: {error}; or leave it out"))
        except (MediaError, TeacherError) as error:  # what is wrong with the file is noted where it is measured
            log.debug("%s: faces were not followed: %s", row.id, error)
            if seen.face_height is None:
                text = f"{row.path} shows no face at {seen.looks} moments spread over it; leave it out"
                found.faults.append(ClipFault("no_face", row.id, text))
        else:
            found.faults += [_said(row, fact) for fact in facts if fact.kind in OF_FACES]

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
            found.faults += [_said(row, fact) for fact in facts]
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


def _said(row: Row, fact: Fact) -> ClipFault:
    """A fact of the media as a fault of the clip: something that a person should know of it."""
    return ClipFault(fact.kind, row.id, f"{row.path}: {fact.text}")


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


@dataclass(frozen=True)
class _Header:
    """What a file says of its picture: values by column, declared length in seconds, frames per second, number of frames;
    0 for what it does not say."""

    values: dict[str, float | str] = field(default_factory=dict)
    declared: float = 0.0
    rate: float = 0.0
    frames: int = 0

    @classmethod
    def of(cls, tally: Tally) -> _Header:
        container, stream = tally.container, tally.stream
        program = container.metadata.get("encoder", container.metadata.get("software", "")) or "none"
        values = {
            "width": stream.width,
            "height": stream.height,
            "codec": stream.codec_context.name,
            "encoder": program,
        }
        declared = declared_s(container, stream) or container_s(container) or 0
        return cls(values, float(declared), float(stream.average_rate or 0), stream.frames)


def _declared(row: Row, header: _Header, counted: int, rate: Any) -> Iterator[ClipFault]:
    """Frame rates and counts in list or header that decoding does not confirm."""
    for who, said in (("the list", row.listed_fps), ("its header", header.rate)):
        if said and rate and counted >= 10 and abs(said / rate - 1) > RATE_OFF:
            text = f"{who} says {said:g} frames per second, time stamps say {rate:g}"
            yield ClipFault("declared_rate", row.id, text)
            break
    for who, count in (("the list", row.listed_frames), ("its header", header.frames)):
        if count and abs(count - counted) > COUNT_OFF:
            yield ClipFault("count_mismatch", row.id, f"{who} says {count:g} frames, decoding gave {counted}")
            break


def _cuts(row: Row, found: Sequence[int]) -> Iterator[ClipFault]:
    if found:
        times = ", ".join(f"{k / FPS:.2f}" for k in found[:5])
        text = f"the picture jumps at {times} s: another shot, or damage; a clip should show one speaker throughout"
        yield ClipFault("several_shots", row.id, text)
