"""A store's clips again with corrupted picture and sound, through the whole pipeline: decoding, face, teachers.

Each chosen clip is decoded, corrupted, written as a video and watched like any other file, so darkness or blur can also
mislead the face stage, and noise the detection of voices. The new store has the rows of the old one; clips that were not
chosen, or in which no face is found, are not done. Finished clips are kept in a folder until the store is complete.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import store
from store import Reader, layout, similarity
from student.data import degrade_picture, degrade_sound
from student.experiment.asked import ExperimentError

log = logging.getLogger(__name__)

VOICES = 6  # of babble
TALLEST = 480  # lines of a picture: a clip is in memory as a whole
KEPT = ("mouth", "audio", "flags", "vsr", "asr", "lips", "blendshapes")  # of a corrupted clip
RIGHT = ("flags", "vsr", "asr", "lips", "blendshapes")  # that the second store has from the clean clip

Picture = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # u1 [frames, height, width, 3] to the same
Sound = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # i2 [samples], talk of others, to i2


def _planes(change: Callable[[np.ndarray], np.ndarray]) -> Picture:
    """The change made to each colour."""
    return lambda picture, _: np.stack([change(np.ascontiguousarray(picture[..., k])) for k in range(3)], -1)


def _dark(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An eighth of the light, and a sensor's noise."""
    faint = np.rint(picture * 0.125).astype(np.uint8)
    return degrade_picture.sensor_noise(faint.reshape(len(faint), -1, 3), 4.0, rng).reshape(picture.shape)


def _babble(sound: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """VOICES pieces of other talk, together as loud as the voice."""
    from pipelines.labels.contrast import mix

    starts = rng.integers(0, max(1, len(others) - len(sound)), VOICES)
    return mix(sound, np.sum([np.resize(others[a:], len(sound)).astype(np.float64) for a in starts], axis=0), 0.0)


def _noise(sound: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise as loud as the voice."""
    from pipelines.labels.contrast import mix

    return mix(sound, rng.standard_normal(len(sound)), 0.0)


PICTURES: dict[str, Picture] = {
    "darkness": _dark,
    "blur": _planes(lambda plane: degrade_picture.blur(plane, max(1.0, plane.shape[1] / 64))),
    "compression": _planes(lambda plane: degrade_picture.h264(plane, 44, "ultrafast")),
}
SOUNDS: dict[str, Sound] = {
    "babble": _babble,
    "noise": _noise,
    "mp3": lambda sound, _, __: degrade_sound.lossy(sound, "mp3", 8_000),
}


@dataclass(frozen=True)
class Corrupted:
    """Paths of two stores with the same corrupted inputs: `theirs` has what the teachers made of them, `right` what they
    made of the clean clips. `picture` and `sound` name what was done to each row, "" for others; `lost` counts clips in
    which nothing could be found."""

    theirs: Path
    right: Path
    picture: np.ndarray
    sound: np.ndarray
    lost: int


def kinds(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The picture's and the sound's corruptions of those names; all without any. Raises ExperimentError."""
    unknown = sorted(set(names) - set(PICTURES) - set(SOUNDS))
    if unknown:
        raise ExperimentError(f"no corruption {unknown[0]}; there are {', '.join([*PICTURES, *SOUNDS])}")
    wanted = set(names) or {*PICTURES, *SOUNDS}
    return [n for n in PICTURES if n in wanted], [n for n in SOUNDS if n in wanted]


def make(reader: Reader, rows: np.ndarray, folder: Path, names: Sequence[str] = ()) -> Corrupted:
    """Both stores in `folder`, or those that an earlier run made there of the same clips.

    Each clip gets one corruption of the picture and one of the sound, in turns. Raises ExperimentError if the videos are
    gone or the folder holds other clips, TeacherError if the store's teachers cannot be loaded here.
    """
    pictures, sounds = kinds(names)
    picture, sound = np.full(len(reader), "", object), np.full(len(reader), "", object)
    for k, row in enumerate(rows.tolist()):
        picture[row] = pictures[k % len(pictures)] if pictures else ""
        sound[row] = sounds[(k // max(1, len(pictures))) % len(sounds)] if sounds else ""
    paths = folder / "corrupted.zarr", folder / "right.zarr"
    about = {"of": str(reader.path), "rows": rows.tolist(), "kinds": [*pictures, *sounds]}
    if not all(_is_there(path, about) for path in paths):
        parts = _watched(reader, rows, folder / "parts", picture, sound)
        for path, theirs in zip(paths, (True, False), strict=True):
            if not _is_there(path, about):
                now = path.with_name(f"unfinished-{path.name}")
                shutil.rmtree(now, ignore_errors=True)  # of a run that was stopped
                _write(reader, rows, parts, now, theirs, about)
                now.rename(path)
        shutil.rmtree(folder / "parts")
    done = np.asarray(store.open(paths[0]).clips["done"])
    return Corrupted(*paths, picture, sound, int((done[rows] == 0).sum()))


def _is_there(path: Path, about: Mapping[str, Any]) -> bool:
    """Whether a store of these clips is at `path`. Raises ExperimentError if another is."""
    if not path.exists():
        return False
    if store.open(path).attrs.get("corrupted") != about:
        raise ExperimentError(f"{path} holds other clips or corruptions: choose another --output")
    return True


# -- clips ----------------------------------------------------------------------------------------------------------------


def _watched(reader: Reader, rows: np.ndarray, folder: Path, picture: np.ndarray, sound: np.ndarray) -> Path:
    """A file of arrays for each clip, `ROW.npz`, empty where nothing was found."""
    from pipelines.media.files import MediaError
    from pipelines.workers.watch import Watcher
    from teachers import recorded
    from teachers.face.tracker import NoFaceError

    folder.mkdir(parents=True, exist_ok=True)
    records = reader.attrs["teachers"]
    asr, vsr = (recorded.load(records[side], "cpu", foreign=True) for side in ("asr", "vsr"))
    watcher, found = Watcher(), 0
    for k, row in enumerate(rows.tolist()):
        if k % 25 == 0:
            log.info("corrupting clip %d of %d", k + 1, len(rows))
        target = folder / f"{row}.npz"
        if target.exists():
            continue
        arrays: dict[str, np.ndarray] = {}
        try:
            others = _talk(reader, rows, row)
            video = folder / "now.mkv"
            length = int(reader.clips["length"][row])
            made = _corrupt(str(reader.clips["path"][row]), video, (picture[row], sound[row]), others, row)
            clip = watcher.watch(str(video), clip_id=str(reader.clips["id"][row])).clip if made else None
            if clip is not None and clip.num_frames == length <= layout.SHARD:
                arrays = {"mouth": clip.mouth, "audio": clip.audio.reshape(clip.num_frames, -1), "flags": clip.flags}
                arrays |= {"lips": clip.lips, "blendshapes": clip.blendshapes}
                arrays |= {"asr": asr.embed([clip])[0], "vsr": vsr.embed([clip])[0]}
                found += 1
        except NoFaceError:
            pass
        except (MediaError, OSError) as error:
            raise ExperimentError(f"{error}; the videos that the store was made from are needed") from error
        with (folder / "now.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        (folder / "now.npz").rename(target)
    return folder


def _talk(reader: Reader, rows: np.ndarray, row: int) -> np.ndarray:
    """Sound i2 [samples] of up to 20 other clips of `rows`, one after another."""
    at = int(np.flatnonzero(rows == row)[0])
    near = [int(r) for r in np.roll(rows, -at)[1:21]]
    sounds = [reader.frames(r, 0, int(reader.clips["length"][r]), ["audio"])["audio"].reshape(-1) for r in near]
    return np.concatenate(sounds) if sounds else np.zeros(layout.SAMPLE_RATE, np.int16)


def _small(frame: np.ndarray) -> np.ndarray:
    """The picture u1 [height, width, 3] with at most TALLEST lines."""
    import cv2

    height, width = frame.shape[:2]
    if height <= TALLEST:
        return frame
    size = round(width * TALLEST / height), TALLEST
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def _corrupt(path: str, target: Path, names: tuple[str, str], others: np.ndarray, row: int) -> bool:
    """Write the video at `path` with its picture and sound corrupted, on the clock of 25 frames a second; False where
    its pictures change their size."""
    import av

    from pipelines.media.picture import Video
    from pipelines.media.sound import decode_sound

    video = Video(path)
    pictures = [_small(frame) for frame in video]
    if len({picture.shape for picture in pictures}) > 1:
        return False
    frames = np.stack(pictures)
    sound = decode_sound(path, video.start_s, len(frames)).samples
    rng = np.random.default_rng([0, row])
    frames = PICTURES[names[0]](frames, rng) if names[0] else frames
    sound = SOUNDS[names[1]](sound, others, rng) if names[1] else sound
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with av.open(str(target), "w", format="matroska") as out:
        stream = out.add_stream("libx264", layout.FPS, options={"crf": "8", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, layout.FPS)
        heard = out.add_stream("pcm_s16le", layout.SAMPLE_RATE, layout="mono")
        for k, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            shown.pts, shown.time_base = k, Fraction(1, layout.FPS)
            out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
        packed = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        packed.sample_rate, packed.pts, packed.time_base = layout.SAMPLE_RATE, 0, Fraction(1, layout.SAMPLE_RATE)
        out.mux(heard.encode(packed))
        out.mux(heard.encode(None))
    return True


# -- the stores -----------------------------------------------------------------------------------------------------------


def _write(reader: Reader, rows: np.ndarray, parts: Path, path: Path, theirs: bool, about: Mapping[str, Any]) -> None:
    """A store with every row of `reader`; its fit is the clean store's."""
    from pipelines.labels.projection import half, maps

    fit = reader.fit
    assert fit is not None
    to_vsr, to_asr = maps(fit)
    offset, length = np.full(len(reader), -1), np.zeros(len(reader), int)
    row_now = 0
    for row in rows.tolist():
        with np.load(parts / f"{row}.npz") as file:
            if "flags" not in file:
                continue
        size = int(reader.clips["length"][row])
        if row_now % layout.SHARD + size > layout.SHARD:
            row_now = -(-row_now // layout.SHARD) * layout.SHARD
        offset[row], length[row] = row_now, size
        row_now += size
    told = dict(reader.attrs)
    attrs = {key: told[key] for key in ("teachers", "similarity", "corpora") if key in told} | {
        "corrupted": dict(about)
    }
    widths = {side: reader.array(side).shape[1] for side in ("asr", "vsr")}
    writer = store.create(path, widths, attrs)
    table = {name: np.asarray(values).tolist() for name, values in reader.clips.items()}
    table |= {"offset": offset.tolist(), "capacity": length.tolist(), "length": length.tolist()}
    table["done"] = (offset >= 0).astype(int).tolist()
    writer.append_clips(table)
    writer.grow_rows(row_now)
    writer.ensure_projections(fit.dims)
    writer.write_fit(fit.to_arrays())
    for shard in range(writer.num_rows // layout.SHARD):
        block = writer.blank_shard()
        for row in np.flatnonzero(offset // layout.SHARD == shard).tolist():
            if offset[row] < 0:
                continue
            with np.load(parts / f"{row}.npz") as file:
                own = {name: file[name] for name in KEPT if name in block}
            if not theirs:
                own |= reader.frames(row, 0, int(length[row]), [name for name in RIGHT if name in reader.names])
            corpus = str(reader.clips["corpus"][row])
            own["vsr_projection"], own["asr_projection"] = half(to_vsr(own["vsr"])), half(to_asr(own["asr"]))
            mask = layout.labelled(own["flags"], own["flags"])
            own["similarity"] = similarity.compare(own["vsr_projection"], own["asr_projection"], fit, 5, mask, corpus)
            own["fake"] = reader.frames(row, 0, int(length[row]), ["fake"])["fake"]
            first = int(offset[row]) % layout.SHARD
            for name, values in own.items():
                block[name][first : first + len(values)] = values
        writer.write_shard(shard, block)
    writer.consolidate()
