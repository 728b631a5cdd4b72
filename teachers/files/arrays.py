"""Clips from raw arrays in an .npz file, and embeddings back into one: what `teachers.check` reads and writes.

In: `video` u1 [batch, frames, side, side] (side 88, 96 or 112), `audio` i2 [batch, samples] at 16 kHz, `lengths`
integers [batch] in frames (all frames if left out), and, for the teachers that use them, `lips` [batch, frames, 40, 2]
and `blendshapes` [batch, frames, 52] in floating point. A batch has as many frames as its pictures. A batch with only
sound has samples // 640 frames, or one more if `lengths` counts the remainder too. Sound that does not match its frames
is cut or padded with zeros at the end, and `Batch.notes` says so. Without `audio` the clips are silent; without `video`
the pictures are black. Every frame counts as having a face and a voice.

Out: `embedding` f4 [batch, frames, dim], rows past a clip's length 0, and `lengths` i8 [batch].
"""

import io
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from concord.frames import AUDIO_PRESENT, FACE_DETECTED, IN_USE, SAMPLES_PER_FRAME, VOICE_ACTIVE
from teachers.base import ClipMedia, TeacherError

SIDES = (88, 96, 112)
UNPACKED_LIMIT = 1 << 28  # bytes that a file of any size may unpack to: ten minutes of pictures
RATIO_LIMIT = 4  # above that: unpacked bytes per byte of the file
PICTURES = {
    "video": "[batch, frames, side, side]",
    "lips": "[batch, frames, 40, 2]",
    "blendshapes": "[batch, frames, 52]",
}
NAMES = (*PICTURES, "audio", "lengths")


class ArraysError(TeacherError):
    """A file of arrays cannot be read, or holds something that teachers do not accept."""


@dataclass(frozen=True)
class Batch:
    """Clips of a batch; `num_frames` is the length of their padded arrays, `given` the names of the arrays that the
    file has."""

    clips: list[ClipMedia]
    num_frames: int
    given: frozenset[str] = frozenset(NAMES)
    notes: tuple[str, ...] = ()  # for the user: shapes, and changes to the sound


def load(path: Path) -> Batch:
    """Clips called "clip 0", "clip 1", ... from a file. Raises ArraysError."""
    arrays = _read(path)
    for name, array in arrays.items():
        _check(path, name, array)
    if not arrays.keys() - {"lengths"}:
        raise ArraysError(f"{path} holds no clips: it needs at least one of video, audio, lips, blendshapes")
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise ArraysError(f"{path}: arrays differ in their first axis, the batch: {_listed(sizes)}")
    frames = {name: array.shape[1] for name, array in arrays.items() if name in PICTURES}
    if len(set(frames.values())) > 1:
        raise ArraysError(f"{path}: arrays differ in their second axis, the frames: {_listed(frames)}")
    samples = arrays["audio"].shape[1] if "audio" in arrays else 0
    num_frames = most = next(iter(frames.values()), samples // SAMPLES_PER_FRAME)
    if not frames:
        most = -(-samples // SAMPLES_PER_FRAME)
    lengths = arrays.get("lengths", np.full(next(iter(sizes.values())), num_frames))
    if ((lengths < 0) | (lengths > most)).any():
        raise ArraysError(f"{path}: lengths lie between {lengths.min()} and {lengths.max()}; expected 0 to {most}")
    num_frames = max(num_frames, int(lengths.max(initial=0)))
    notes = [", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())]
    if "audio" in arrays and (surplus := samples - num_frames * SAMPLES_PER_FRAME):
        done = f"{surplus} are cut off" if surplus > 0 else f"{-surplus} zeros are added"
        notes.append(f"audio has {samples} samples for {num_frames} frames of {SAMPLES_PER_FRAME}: at the end {done}")
    return Batch([_clip(arrays, i, int(n)) for i, n in enumerate(lengths)], num_frames, frozenset(arrays), tuple(notes))


def packed(rows: list[np.ndarray], num_frames: int, dim: int) -> io.BytesIO:
    """Write an .npz file of f4 [frames, dim] for each clip, padded to num_frames, and their lengths."""
    lengths = np.array([len(row) for row in rows], np.int64)
    embedding = np.zeros((len(rows), num_frames, dim), np.float32)
    for padded, row in zip(embedding, rows, strict=True):
        padded[: len(row)] = row
    file = io.BytesIO()
    np.savez(file, embedding=embedding, lengths=lengths)
    return file


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, whose names must be in NAMES; nothing is unpickled."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                if unknown := [name for name in content.files if name not in NAMES]:
                    raise ArraysError(f"{path} has '{unknown[0]}', which is not one of {', '.join(NAMES)}")
                assert content.zip is not None
                _check_size(content.zip, path.stat().st_size)
                return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ArraysError(f"{path} cannot be read as an .npz file: {error}") from error
    except (
        MemoryError,
        RecursionError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:  # numpy raises these for invalid headers
        raise ArraysError(
            f"{path} cannot be read as an .npz file: an array's header is {type(error).__name__}"
        ) from error
    raise ArraysError(f"{path} is one array; expected an .npz file, as numpy.savez writes it")


def _check_size(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError, before anything is unpacked, if the result would be too large for a file of that size."""
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > max(UNPACKED_LIMIT, RATIO_LIMIT * size):
        raise ValueError(f"it unpacks to {total} bytes, too many for a file of {size}")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("it holds two arrays of one name")
    for info in infos:
        if not info.filename.endswith(".npy"):
            continue  # numpy returns its bytes, which `_check` refuses
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in a way that numpy does not use")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
                version
            )
            if read is None:
                raise ValueError(f"{info.filename} is of version {version}")
            shape, _, dtype = read(member)
            if dtype.hasobject:
                raise ValueError(f"{info.filename} holds objects; nothing in a file is unpickled")
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
                raise ValueError(f"{info.filename} says that it is {dtype} {list(shape)}, which does not fit its size")


def _check(path: Path, name: str, array: np.ndarray) -> None:
    """Raise ArraysError for a wrong type or shape of one array."""
    if not isinstance(array, np.ndarray):  # numpy returns the bytes of a member that is not an .npy file
        raise ArraysError(f"{path}: {name} is not an array; expected an .npz file, as numpy.savez writes it")
    kinds = {"video": "uint8", "audio": "int16", "lengths": "an integer type"}
    shapes = {"audio": "[batch, samples]", "lengths": "[batch]", **PICTURES}
    right_kind = {
        "video": array.dtype == np.uint8,
        "audio": array.dtype == np.int16,
        "lengths": array.dtype.kind in "iu",
    }.get(name, array.dtype.kind == "f")
    if not right_kind:
        raise ArraysError(f"{path}: {name} is {array.dtype}; expected {kinds.get(name, 'floating point')}")
    right_shape = array.ndim == shapes[name].count(",") + 1 and {
        "video": array.ndim == 4 and array.shape[2] == array.shape[3] and array.shape[2] in SIDES,
        "lips": array.shape[2:] == (40, 2),
        "blendshapes": array.shape[2:] == (52,),
    }.get(name, True)
    if not right_shape:
        sides = f", side {', '.join(map(str, SIDES[:-1]))} or {SIDES[-1]}" if name == "video" else ""
        raise ArraysError(f"{path}: {name} has shape {list(array.shape)}; expected {shapes[name]}{sides}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArraysError(f"{path}: {name} holds values that are not finite")


def _clip(arrays: dict[str, np.ndarray], i: int, length: int) -> ClipMedia:
    """Clip i, with its arrays cut to its length and missing arrays filled with zeros."""
    audio = np.zeros(length * SAMPLES_PER_FRAME, np.int16)
    if "audio" in arrays:
        sound = arrays["audio"][i, : len(audio)]
        audio[: len(sound)] = sound

    def part(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return arrays[name][i, :length].astype(dtype) if name in arrays else np.zeros((length, *shape), dtype)

    return ClipMedia(
        id=f"clip {i}",
        audio=audio,
        mouth=part("video", (96, 96), np.uint8),
        lips=part("lips", (40, 2), np.float32),
        blendshapes=part("blendshapes", (52,), np.float32),
        flags=np.full(length, IN_USE | AUDIO_PRESENT | FACE_DETECTED | VOICE_ACTIVE, np.uint8),
    )


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
