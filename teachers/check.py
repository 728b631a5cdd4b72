"""Try a teacher by its name: `python -m teachers.check NAME [--media FILE | --input arrays.npz] [--output out.npz]`.

The command loads the teacher, from whichever package, says where its weights come from, embeds one input and prints
shapes, range, speed and memory. The input is a media file (decoded, its face tracked and its voice detected as in the
pipeline), raw arrays (see teachers/files/arrays.py) or, with neither, ten seconds of synthetic media. Loading, reading
and embedding are timed separately. A short clip is embedded first and not timed, so that one-time work of a library
does not count.

    python -m teachers.check whisper:tiny.en@3 --media clip.mp4 --output rows.npz
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import logging
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from concord import extras
from concord.arrays.held import held
from concord.command import Command, log_to_stderr, say, told
from concord.errors import ConcordError
from concord.frames import (
    AUDIO_PRESENT,
    FACE_DETECTED,
    FACE_INTERPOLATED,
    FPS,
    HELD,
    IN_USE,
    SAMPLES_PER_FRAME,
    VOICE_ACTIVE,
)
from teachers.base import ClipMedia, Teacher, TeacherError, load
from teachers.files import arrays
from teachers.testing import synthetic

COMMAND = "teachers.check"
PICTURE = {"lips": "lips", "blendshapes": "blendshapes"}  # input of a video teacher, if not the mouth
PROVENANCE = ("name", "layer", "source", "sha256", "options", "dim", "licence")
WARMING = 75  # frames of the warm-up clip, at most
SYNTHETIC = 10 * FPS  # frames of the synthetic clip
FILE = click.Path(path_type=Path)


@click.command(
    cls=Command,
    epilog="Example: python -m teachers.check whisper:tiny.en@3 --media clip.mp4 --output rows.npz",
)
@click.argument("name")
@click.option("--media", type=FILE, help="A video file with sound.")
@click.option("--input", "input_", type=FILE, help="An .npz file: video, audio, lengths, lips, blendshapes.")
@click.option("--output", type=FILE, help="An .npz file for `embedding` [batch, frames, dim] f4 and `lengths`.")
@click.option("--device", default="cpu", show_default=True, help="Where the teacher computes, e.g. cuda.")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug logs.")
def main(name: str, media: Path | None, input_: Path | None, output: Path | None, device: str, debug: bool) -> None:
    """Load the teacher called NAME, embed one input with it, and print its properties and speed.

    NAME is a name that `precompute --asr` and `--vsr` accept. Exit code 2, with a message of one line, if anything
    fails.
    """
    log_to_stderr()
    logging.getLogger("teachers").setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.getLogger("teachers.files.weights").setLevel(
        logging.INFO
    )  # show downloads and conversions while the user waits
    try:
        if media is not None and input_ is not None:
            raise TeacherError("--media and --input cannot be used together; give one of them")
        check(name, media, input_, output, device)
    except ConcordError:
        raise
    except OSError as error:
        raise TeacherError(told(error)) from error
    except Exception as error:  # another package's teacher may raise anything
        if isinstance(error, ImportError) and (missing := extras.told(error)):
            raise TeacherError(missing) from error
        raise TeacherError(f"{type(error).__name__}: {error}") from error


def check(name: str, media: Path | None, input_: Path | None, output: Path | None, device: str) -> None:
    """The work of the command. Raises ConcordErrors, OSError, and whatever a teacher from another package raises."""
    from store import output as outputs

    if output is not None:
        read = [path for path in (media, input_) if path is not None]
        outputs.check([outputs.Output(output, outputs.arrays(COMMAND))], read)
    clock = [time.perf_counter()]
    batch = arrays.Batch([synthetic.clip(SYNTHETIC)], SYNTHETIC) if input_ is None else arrays.load(input_)
    clock.append(time.perf_counter())
    teacher = load(name, _device(device))
    clock.append(time.perf_counter())
    _check_given(teacher, batch.given, input_)
    if media is not None:
        batch = _decoded(media, teacher)
    clock.append(time.perf_counter())
    longest = max((clip.num_frames for clip in batch.clips), default=0)
    teacher.embed([synthetic.clip(min(longest, WARMING))])
    began = time.perf_counter()
    rows = teacher.embed(batch.clips)
    embedded_s = time.perf_counter() - began
    low, high = _checked(teacher, batch.clips, rows)
    if output is not None:
        outputs.write(output, outputs.npz(arrays.packed(rows, batch.num_frames, teacher.dim), COMMAND))
    read_s, loaded_s, decoded_s = np.diff(clock)

    _say_what(teacher)
    total = sum(len(row) for row in rows)
    _say("clips", f"{_frames(rows)}, {media or input_ or 'made up'}{_voice(batch.clips) if media else ''}")
    for note in batch.notes:
        _say("note", note)
    _say("embedding", f"[{len(rows)}, {batch.num_frames}, {teacher.dim}] float32, finite, {low:.4g} to {high:.4g}")
    speed = total / max(embedded_s, 1e-9)
    _say("speed", f"{speed:.0f} frames/s, {speed / FPS:.1f} x real time: {total} frames in {embedded_s:.3g} s")
    _say("computed on", _where(device))
    _say("time apart", f"loading {loaded_s:.3g} s, reading and decoding {read_s + decoded_s:.3g} s")
    _say("peak memory", _memory(device))
    if output is not None:
        _say("written", str(output))


def _decoded(path: Path, teacher: Teacher) -> arrays.Batch:
    """A media file as the pipeline's first stage reads it; the face is tracked only for a teacher that needs it."""
    from pipelines.media import probe
    from pipelines.media.picture import Video
    from pipelines.media.sound import decode_sound
    from teachers.face.tracker import FaceTracker
    from teachers.voice import VoiceActivity

    heard = probe.probe(path).has_audio
    if not heard and teacher.stream != "video":
        raise TeacherError(f"{path} has no sound, which {teacher.name} needs")
    video = Video(path)
    if teacher.stream == "audio":
        frames = sum(1 for _ in video)
        mouth, lips, shapes = np.zeros((frames, 96, 96), np.uint8), np.zeros((frames, 40, 2)), np.zeros((frames, 52))
        flags = np.full(frames, IN_USE, np.uint8)
    else:
        track = FaceTracker().track(video)
        frames, mouth, lips, shapes = len(track.detected), track.mouth, track.lips, track.blendshapes
        flags = (
            np.full(frames, IN_USE, np.uint8)
            | track.detected * np.uint8(FACE_DETECTED)
            | track.interpolated * np.uint8(FACE_INTERPOLATED)
        )
        flags |= held(mouth, flags) * np.uint8(HELD)
    audio = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    if heard:
        sound = decode_sound(path, video.start_s, frames)
        audio = sound.samples
        flags |= sound.present * np.uint8(AUDIO_PRESENT)
        flags |= (VoiceActivity().frames(audio) & sound.present) * np.uint8(VOICE_ACTIVE)
    clip = ClipMedia(path.name, audio, mouth, lips.astype(np.float32), shapes.astype(np.float32), flags)
    return arrays.Batch([clip], frames)


def _check_given(teacher: Teacher, given: frozenset[str], path: Path | None) -> None:
    """Raise TeacherError if a file of arrays lacks the teacher's input."""
    kind = teacher.name.partition(":")[0]
    needed = {"audio"} if teacher.stream in ("audio", "both") else set()
    if teacher.stream != "audio":
        needed.add(PICTURE.get(kind, "video"))
    if missing := needed - given:
        raise TeacherError(f"{teacher.name} looks at {' and '.join(sorted(missing))}, which {path} does not hold")


def _checked(teacher: Teacher, clips: list[ClipMedia], rows: list[np.ndarray]) -> tuple[float, float]:
    """(lowest, highest) value of an embedding; TeacherError if the embedding breaks the contract."""
    shapes, expected = [row.shape for row in rows], [(clip.num_frames, teacher.dim) for clip in clips]
    if shapes != expected:
        raise TeacherError(f"{teacher.name} gave rows of shape {shapes}; expected {expected}")
    for clip, row in zip(clips, rows, strict=True):
        if row.dtype != np.float32 or not np.isfinite(row).all():
            raise TeacherError(f"clip {clip.id}: {teacher.name} gave {row.dtype} that is not finite float32 throughout")
    filled = [row for row in rows if row.size]
    return min((float(row.min()) for row in filled), default=0.0), max(
        (float(row.max()) for row in filled), default=0.0
    )


def _device(device: str) -> str:
    """The device's name; TeacherError if this machine does not have it."""
    if device == "cpu":
        return device
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, depending on the kind of device
        raise TeacherError(f"no device '{device}' here ({str(error).splitlines()[0]}); try --device cpu") from error
    return device


def _say_what(teacher: Teacher) -> None:
    record = teacher.provenance()
    if absent := [key for key in PROVENANCE if key not in record]:
        raise TeacherError(f"{teacher.name}: provenance lacks {', '.join(absent)}")
    layer = "last" if record["layer"] is None else record["layer"]
    _say("teacher", f"{teacher.name}: {teacher.stream}, {teacher.dim} columns, layer {layer}")
    for key, label in (("source", "weights from"), ("sha256", "sha256"), ("licence", "licence")):
        _say(label, "none" if record[key] is None else record[key])
    _say("options", json.dumps(record["options"]))


def _say(label: str, value: Any) -> None:
    say(f"{label:13}{value}")


def _frames(rows: list[np.ndarray]) -> str:
    lengths = {len(row) for row in rows} or {0}
    span = f"{min(lengths)} to {max(lengths)}" if len(lengths) > 1 else f"{max(lengths)}"
    return f"{len(rows)} of {span} frames"


def _voice(clips: list[ClipMedia]) -> str:
    share = float(np.mean(np.concatenate([clip.flags & VOICE_ACTIVE for clip in clips]) > 0))
    return f", voice in {share:.0%} of them"


def _where(device: str) -> str:
    """The device, and torch's number of threads if the teacher uses torch."""
    torch = sys.modules.get("torch")
    if device != "cpu" and torch is not None:
        return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return f"{platform.machine()}, {os.cpu_count()} CPUs" + (f", {torch.get_num_threads()} threads" if torch else "")


def _memory(device: str) -> str:
    """Peak memory of this process so far, and torch's peak on the GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f} MB of this process"
    if device.startswith("cuda"):
        import torch

        text += f", {torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB on {device}"
    return text


if __name__ == "__main__":
    main()
