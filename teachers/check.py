"""Try a teacher on a video, on raw arrays or, with neither, on a made-up clip; say what it is, what it gave and how fast.

    python -m teachers.check whisper:tiny.en@3
    python -m teachers.check avhubert:base_vox_433h.pt@9 --media talk.mp4 --output rows.npz
    python -m teachers.check avhubert-audio:base_vox_433h.pt --input arrays.npz --output rows.npz

Arrays come as the .npz keys of LAYOUT; a teacher needs those that it looks at. Every frame of theirs counts as having a face and
a voice. The output has `embedding` f4 [batch, frames, dim], rows past a clip's length 0, and `lengths` i8 [batch].
Exit codes: 0 well; 1 a value is not finite (written all the same), or an error nobody foresaw; 2 a wrong name, file or array.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

import teachers
from teachers import weights
from teachers.base import FPS, SAMPLES_PER_FRAME, VOICE, ClipMedia, Teacher, TeacherError

LAYOUT = {  # key of the input: (dtype, shape); axes of one name have one length
    "video": ("u1", ("batch", "frames", "side", "side")),
    "audio": ("i2", ("batch", "samples")),
    "lengths": ("i8", ("batch",)),  # in frames; any type of whole numbers
    "lips": ("f4", ("batch", "frames", 40, 2)),
    "blendshapes": ("f4", ("batch", "frames", 52)),
}
SIDES = (88, 96, 112)  # pixels of a mouth crop
LOOKS_AT = {"audio": ("audio",), "video": ("video",), "both": ("video", "audio")}  # by stream
MEASURED = ("lips", "blendshapes")  # teachers of the array of the same name
DETECTED, INTERPOLATED, SOUND, IN_USE = 1, 2, 4, 16  # flags
RECORD = ("name", "layer", "source", "sha256", "options", "dim", "licence")  # of a teacher's provenance
SYNTHETIC_S = 10
WARM_UP = FPS  # frames of another made-up clip before that one is timed
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class CheckError(Exception):
    """What was asked for cannot be checked: a file, an array or an option is wrong."""


@dataclass
class Given:
    """Clips to embed, of at most `frames` frames, and what to say of them."""

    clips: list[ClipMedia]
    frames: int
    text: str
    notes: list[str] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        return [clip.num_frames for clip in self.clips]


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, those of LAYOUT alone, their types and shapes in order. Raises CheckError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise CheckError(f"{path} holds one array without a name; expected .npz with {', '.join(LAYOUT)}")
            if unknown := [name for name in file.files if name not in LAYOUT]:
                raise CheckError(f"{path} has '{unknown[0]}', which is none of {', '.join(LAYOUT)}")
            arrays = {name: file[name] for name in file.files}
    except UNREADABLE as error:
        raise CheckError(f"{path} cannot be read as .npz of plain arrays: {_line(error)}") from error
    lengths: dict[str, tuple[int, str]] = {}  # axis: its length and where it was seen first
    for name, (dtype, axes) in LAYOUT.items():
        if name not in arrays:
            continue
        array, wanted = arrays[name], np.dtype(dtype)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in ("iu" if name == "lengths" else wanted.kind):
            raise CheckError(f"{path}: {name} is {_kind(array)}; expected {dtype} [{_axes(axes)}]")
        if (name != "lengths" and array.dtype.itemsize != wanted.itemsize) or array.ndim != len(axes):
            raise CheckError(f"{path}: {name} is {_kind(array)}; expected {dtype} [{_axes(axes)}]")
        for axis, length in zip(axes, array.shape, strict=True):
            expected, where = (axis, "") if isinstance(axis, int) else lengths.setdefault(axis, (length, name))
            if length != expected:
                told = f"{expected} {axis} as in {where}" if where else str(expected)
                raise CheckError(f"{path}: {name} is {_kind(array)}; expected {dtype} [{_axes(axes)}] with {told}")
        if wanted.kind == "f" and not np.isfinite(array).all():
            raise CheckError(f"{path}: {name} has values that are not finite")
        arrays[name] = array.astype(wanted, copy=False)  # also of the other byte order
    if "side" in lengths and lengths["side"][0] not in SIDES:
        raise CheckError(f"{path}: video is {_kind(arrays['video'])}; sides may be {', '.join(map(str, SIDES))} pixels")
    return arrays


def from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Given:
    """Clips of what `read` gave, each cut to its length; missing arrays become zeros. Raises CheckError."""
    notes = []
    pictured = next((arrays[name] for name in ("video", *MEASURED) if name in arrays), None)
    audio, lengths = arrays.get("audio"), arrays.get("lengths")
    if pictured is None and audio is None:
        raise CheckError(f"{path} has no clips; give video or audio, see python -m teachers.check --help")
    if pictured is not None:
        batch, frames = pictured.shape[:2]
        most = frames
    else:
        assert audio is not None
        batch, frames = len(audio), audio.shape[1] // SAMPLES_PER_FRAME
        most = -(-audio.shape[1] // SAMPLES_PER_FRAME)
    if lengths is None:
        lengths = np.full(batch, frames)
    for k, length in enumerate(lengths.tolist()):
        if not 0 <= length <= most:
            raise CheckError(f"{path}: lengths[{k}] is {length}; expected 0 to {most} frames")
    frames = max(frames, int(lengths.max(initial=0)))  # a length may count the frame that is filled in part
    if not batch or not frames:
        raise CheckError(f"{path} has no clips: batch {batch}, frames {frames} of {SAMPLES_PER_FRAME} samples")
    sound = np.zeros((batch, frames * SAMPLES_PER_FRAME), np.int16)
    if audio is not None:
        sound[:, : audio.shape[1]] = audio[:, : sound.shape[1]]
        surplus = audio.shape[1] - sound.shape[1]
        if surplus:
            done = f"{surplus} are cut off" if surplus > 0 else f"{-surplus} zeros are added"
            notes.append(
                f"audio: {audio.shape[1]} samples for {frames} frames of {SAMPLES_PER_FRAME}; at the end {done}"
            )
    else:
        notes.append("audio: none given, silence is taken")
    mouth = arrays.get("video", np.zeros((batch, frames, 96, 96), np.uint8))
    lips = arrays.get("lips", np.zeros((batch, frames, 40, 2), np.float32))
    blendshapes = arrays.get("blendshapes", np.zeros((batch, frames, 52), np.float32))
    flags = DETECTED | SOUND | VOICE | IN_USE
    clips = [
        ClipMedia(
            f"{path.name}[{k}]",
            sound[k, : n * SAMPLES_PER_FRAME],
            mouth[k, :n],
            lips[k, :n],
            blendshapes[k, :n],
            np.full(n, flags, np.uint8),
        )
        for k, n in enumerate(lengths.tolist())
    ]
    shown = ", ".join(f"{name} {_kind(array)}" for name, array in arrays.items())
    return Given(clips, frames, f"{path}: {shown}", notes)


def from_media(path: Path, stream: str) -> Given:
    """One clip of a video file as the pipeline decodes it; the face is not looked for where only sound counts."""
    from pipelines import media
    from teachers.face import FaceTracker, NoFaceError
    from teachers.voice import VoiceActivity

    notes = []
    try:
        has_audio = media.probe(path).has_audio
        if not has_audio and stream != "video":
            raise CheckError(f"{path} has no sound, which this teacher looks at")
        video = media.Video(path)
        if stream == "audio":
            frames = sum(1 for _ in video)
            mouth, lips, blendshapes = (np.zeros((frames, *s), np.float32) for s in ((96, 96), (40, 2), (52,)))
            mouth = mouth.astype(np.uint8)
            flags = np.full(frames, IN_USE, np.uint8)
            notes.append("face: not looked for")
        else:
            track = FaceTracker().track(video)
            frames, mouth, lips, blendshapes = len(track.detected), track.mouth, track.lips, track.blendshapes
            flags = np.uint8(IN_USE) | track.detected * np.uint8(DETECTED) | track.interpolated * np.uint8(INTERPOLATED)
            notes.append(
                f"face: detected in {track.detected.mean():.0%} of the frames, at most {track.num_faces} at once"
            )
        samples = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
        if has_audio:
            sound = media.sound(path, video.start_s, frames)
            samples = sound.samples
            voiced = VoiceActivity().frames(samples) & sound.present
            flags |= sound.present * np.uint8(SOUND) | voiced * np.uint8(VOICE)
            notes.append(f"voice: in {voiced.mean():.0%} of the frames")
        else:
            notes.append("audio: the file has no sound, silence is taken")
    except (media.MediaError, NoFaceError) as error:
        told = _line(error)
        raise CheckError(told if str(path) in told else f"{path}: {told}") from error
    clip = ClipMedia(path.name, samples, mouth, lips, blendshapes, flags)
    return Given([clip], frames, f"{path}: {frames} frames", notes)


def synthetic(frames: int, seed: int = 0) -> ClipMedia:
    """A clip of noise in plausible ranges: enough for speed, which does not depend on the content."""
    rng = np.random.default_rng(seed)
    return ClipMedia(
        f"synthetic{seed}",
        rng.normal(0, 3000, frames * SAMPLES_PER_FRAME).astype(np.int16),
        rng.integers(0, 256, (frames, 96, 96), np.uint8),
        rng.normal(0, 15, (frames, 40, 2)).astype(np.float32),
        rng.random((frames, 52), np.float32),
        np.full(frames, DETECTED | SOUND | VOICE | IN_USE, np.uint8),
    )


def check(name: str, media: Path | None, arrays: Path | None, output: Path | None, device: str) -> bool:
    """Load, embed, write and print; whether all values are finite. Raises CheckError, TeacherError."""
    if media is not None and arrays is not None:
        raise CheckError("give --media or --input, not both")
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CheckError(f"{output} cannot be written: it is a folder, or its folder does not exist")
    if device != "cpu":
        _try_device(device)
    given_arrays = None if arrays is None else read(arrays)  # before the weights: what is wrong here is told at once
    start = time.perf_counter()
    teacher = teachers.load(name, device)
    load_s = time.perf_counter() - start
    record = teacher.provenance()
    if absent := [key for key in RECORD if key not in record]:
        raise TeacherError(f"{name}: its provenance lacks {', '.join(absent)}")
    if given_arrays is not None:
        assert arrays is not None
        kind = name.partition(":")[0]
        for needed in (kind,) if kind in MEASURED else LOOKS_AT.get(teacher.stream, ()):
            if needed not in given_arrays:
                raise CheckError(f"{arrays} has no {needed}, which {name} looks at (stream {teacher.stream})")
        given = from_arrays(arrays, given_arrays)
    elif media is not None:
        given = from_media(media, teacher.stream)
    else:
        given = Given([synthetic(SYNTHETIC_S * FPS)], SYNTHETIC_S * FPS, f"a synthetic clip of {SYNTHETIC_S} s")
        teacher.embed([synthetic(WARM_UP, seed=1)])
    start = time.perf_counter()
    rows = teacher.embed(given.clips)
    embed_s = time.perf_counter() - start
    embedding = _joined(teacher, given, rows)
    if output is not None:
        try:
            with weights.replacing(output) as partial, partial.open("wb") as file:
                np.savez(file, embedding=embedding, lengths=np.array(given.lengths))
        except OSError as error:
            raise CheckError(f"{output} cannot be written: {error}") from error
    finite = bool(np.isfinite(embedding).all())
    _print(teacher, record, given, embedding, finite, (load_s, embed_s), output)
    return finite


def _joined(teacher: Teacher, given: Given, rows: list[np.ndarray]) -> np.ndarray:
    """f4 [batch, frames, dim], zeros past each clip's length. Raises TeacherError for rows of another number or width."""
    found = [f"{_kind(row)}" for row in rows]
    expected = [f"float32 [{length}, {teacher.dim}]" for length in given.lengths]
    if found != expected:
        k = next((k for k, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        told = f"{len(found)} results for {len(expected)} clips" if k is None else f"{found[k]}, not {expected[k]}"
        raise TeacherError(f"{teacher.name} does not keep a teacher's contract: it gave {told}")
    embedding = np.zeros((len(rows), given.frames, teacher.dim), np.float32)
    for into, row in zip(embedding, rows, strict=True):
        into[: len(row)] = row
    return embedding


def _print(
    teacher: Teacher,
    record: dict[str, Any],
    given: Given,
    embedding: np.ndarray,
    finite: bool,
    seconds: tuple[float, float],
    output: Path | None,
) -> None:
    total, (load_s, embed_s) = sum(given.lengths), seconds
    speed = total / max(embed_s, 1e-9)
    torch = sys.modules.get("torch")
    inside = np.concatenate([row[:n] for row, n in zip(embedding, given.lengths, strict=True)])
    span = f", {inside.min():.6g} to {inside.max():.6g}" if inside.size else ""
    lengths = given.lengths if len(given.lengths) <= 16 else [*given.lengths[:16], "..."]
    memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most"
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        memory += f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the GPU"
    for key, value in {
        "teacher": teacher.name,
        "stream": teacher.stream,
        "dim": teacher.dim,
        "layer": "last" if record["layer"] is None else record["layer"],
        "source": record["source"],
        "sha256": record["sha256"],
        "licence": record["licence"],
        "options": json.dumps(record["options"]),
        "input": given.text,
        **{f"note {k}": note for k, note in enumerate(given.notes)},
        "lengths": f"{', '.join(map(str, lengths))} frames",
        "output": f"embedding {_kind(embedding)}, {'finite' if finite else 'NOT FINITE'}{span}",
        **({} if output is None else {"written": output}),
        "load": f"{load_s:.2f} s",
        "embed": f"{embed_s:.3f} s, {speed:.1f} frames/s, {speed / FPS:.2f} times real time",
        "threads": torch.get_num_threads() if torch is not None else 1,
        "memory": memory,
    }.items():
        click.echo(f"{key.partition(' ')[0]:<8} {value}")


def _try_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        raise CheckError(f"device {device} cannot be used here: {_line(error)}") from error


def _kind(value: Any) -> str:
    """Type and shape of an array."""
    return (
        f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else f"no array ({type(value).__name__})"
    )


def _axes(axes: tuple[str | int, ...]) -> str:
    return ", ".join(map(str, axes))


def _line(error: BaseException) -> str:
    """An error's text as one line."""
    return " ".join(str(error).split()) or type(error).__name__


@click.command(
    epilog="\b\nArrays of --input, of which a teacher needs what it looks at:\n"
    + "".join(f"  {name:<12} {dtype} [{_axes(axes)}]\n" for name, (dtype, axes) in LAYOUT.items())
    + f"side is {', '.join(map(str, SIDES))} pixels, audio has 16,000 samples a second, frames are 25 a second.\n"
    "Exit codes: 0 well; 1 a value is not finite; 2 wrong name, file or array."
)
@click.argument("name")
@click.option("--media", type=click.Path(path_type=Path), help="Video file to embed.")
@click.option("--input", "arrays", type=click.Path(path_type=Path), help=".npz of arrays to embed.")
@click.option("--output", type=click.Path(path_type=Path), help=".npz to write embedding and lengths to.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--debug", is_flag=True, help="Tracebacks and debug logs.")
def main(name: str, debug: bool, **options: Any) -> None:
    """Load the teacher NAME, embed a video, arrays or a synthetic clip; print provenance, shapes, speed and memory."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s")
    try:
        finite = check(name, **options)
    except Exception as error:
        if debug:
            raise
        click.echo(f"check: {_line(error)}", err=True)
        sys.exit(2 if isinstance(error, CheckError | TeacherError) else 1)
    if not finite:
        click.echo(f"check: {name} gave values that are not finite", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
