"""Clips from raw arrays in an .npz file, and embeddings back into one: what `teachers.check` reads and writes.

In: `video` u1 [batch, frames, side, side] (side 88, 96 or 112), `audio` i2 [batch, samples] at 16 kHz, `lengths` integers
[batch] in frames (all frames if left out), and, for the teachers that look at them, `lips` [batch, frames, 40, 2] and
`blendshapes` [batch, frames, 52] in floating point. A batch has frames as its pictures have; sound alone has samples // 640,
so a rest shorter than a frame is dropped. Beside pictures the sound may miss up to one frame at the end, which is then zero.
Without `audio` the clips are silent, without pictures these are black; other arrays in the file are not looked at.

Out: `embedding` f4 [batch, frames, dim], rows past a clip's length 0, and `lengths` i8 [batch].
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teachers import weights
from teachers.base import FACE, SAMPLES_PER_FRAME, ClipMedia, TeacherError

SIDES = (88, 96, 112)
PICTURES = {
    "video": "[batch, frames, side, side]",
    "lips": "[batch, frames, 40, 2]",
    "blendshapes": "[batch, frames, 52]",
}
NAMES = (*PICTURES, "audio", "lengths")
FACE_DETECTED, AUDIO_PRESENT, IN_USE = FACE & -FACE, 0b100, 0b10000  # flags


class ArraysError(TeacherError):
    """A file of arrays cannot be read, or holds what no teacher takes."""


@dataclass(frozen=True)
class Batch:
    """Clips side by side, each at most `num_frames` long, which their padded arrays are; `given`: what is known of them."""

    clips: list[ClipMedia]
    num_frames: int
    given: frozenset[str] = frozenset(NAMES)


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
    samples = arrays["audio"].shape[1] if "audio" in arrays else None
    num_frames = next(iter(frames.values())) if frames else (samples or 0) // SAMPLES_PER_FRAME
    lengths = arrays.get("lengths", np.full(next(iter(sizes.values())), num_frames))
    if ((lengths < 0) | (lengths > num_frames)).any():
        raise ArraysError(
            f"{path}: lengths lie between {lengths.min()} and {lengths.max()}; expected 0 to {num_frames}"
        )
    if samples is not None and frames:
        needed = int(lengths.max(initial=0)) * SAMPLES_PER_FRAME
        if samples <= needed - SAMPLES_PER_FRAME or samples >= (num_frames + 1) * SAMPLES_PER_FRAME:
            raise ArraysError(
                f"{path}: audio has {samples} samples for {num_frames} frames; expected {num_frames * SAMPLES_PER_FRAME}, "
                f"{SAMPLES_PER_FRAME} a frame"
            )
    return Batch([_clip(arrays, i, int(n)) for i, n in enumerate(lengths)], num_frames, frozenset(arrays))


def save(path: Path, rows: list[np.ndarray], num_frames: int, dim: int) -> None:
    """Write f4 [frames, dim] of each clip, padded to num_frames; the file appears under its name only when it is whole."""
    lengths = np.array([len(row) for row in rows], np.int64)
    embedding = np.zeros((len(rows), num_frames, dim), np.float32)
    for padded, row in zip(embedding, rows, strict=True):
        padded[: len(row)] = row
    with weights.replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, embedding=embedding, lengths=lengths)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of NAMES that a file has; nothing in it is unpickled."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                return {name: content[name] for name in NAMES if name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ArraysError(f"{path} cannot be read as an .npz file: {error}") from error
    raise ArraysError(f"{path} is one array; expected an .npz file, as numpy.savez writes it")


def _check(path: Path, name: str, array: np.ndarray) -> None:
    """Raise ArraysError for a wrong type or shape of one array."""
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
    """Clip i, its arrays cut to its length, what is missing filled with zeros."""
    audio = np.zeros(length * SAMPLES_PER_FRAME, np.int16)
    flags = np.full(length, IN_USE, np.uint8)
    if "audio" in arrays:
        sound = arrays["audio"][i, : len(audio)]
        audio[: len(sound)] = sound
        flags |= AUDIO_PRESENT
    if arrays.keys() & PICTURES.keys():
        flags |= FACE_DETECTED

    def part(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return arrays[name][i, :length].astype(dtype) if name in arrays else np.zeros((length, *shape), dtype)

    return ClipMedia(
        id=f"clip {i}",
        audio=audio,
        mouth=part("video", (96, 96), np.uint8),
        lips=part("lips", (40, 2), np.float32),
        blendshapes=part("blendshapes", (52,), np.float32),
        flags=flags,
    )


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
