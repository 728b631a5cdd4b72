"""cost: what an answer takes with teachers and without, and where it goes.

The same videos are answered in turns, A B A B: A by a student alone, B by a student with both teachers beside it. Both
read the video, follow the face and cut the mouth; only B embeds sound and lips and compares them. Processor time of all
threads of this process is counted, so other work on the machine disturbs little. The student's weights are random: its
time does not depend on them. Peak memory is measured in fresh processes, one a way.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import store
from store.layout import FPS, labelled
from student.experiment.asked import Asked, ExperimentError
from student.experiment.tables import Result, Table

log = logging.getLogger(__name__)

VIDEOS, ROUNDS = 8, 4  # videos at most; rounds, each with every way once
WINDOW = 75  # frames that the student reads at once
PARTS = {
    "decode and face": "reading the file, following the face, mouth crops, voice activity",
    "sound teacher": "ASR embedding",
    "lip teacher": "VSR embedding",
    "comparison": "projections, similarity",
    "student": "logit of the clip",
}
A, B = "student alone", "with teachers"
WAYS = {A: ("decode and face", "student"), B: tuple(PARTS)}

QUESTION = "what does an answer cost with teachers and without?"
LIMITS = [
    "the time of loading models, which is paid once for many videos",
    "GPUs, where the parts weigh differently",
    "transcripts: predict's list of disagreeing words costs far more than an embedding, and is not in these figures",
    "how good an answer without teachers is (see soft-labels)",
]


@dataclass
class Spent:
    """Processor seconds by part, and seconds of video, of one way in one round."""

    seconds: dict[str, float] = field(default_factory=dict)
    video: float = 0.0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        begun = time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - begun

    @property
    def each(self) -> dict[str, float]:
        """Processor seconds a second of video, by part."""
        return {part: seconds / self.video for part, seconds in self.seconds.items()}


class Answerer:
    """The models of one way, loaded once."""

    def __init__(self, way: str, records: Mapping[str, Any], model: str, fit: Any) -> None:
        """`records` are a store's notes on its teachers; `fit` is the fit that answers compare with."""
        from pipelines.labels import projection
        from pipelines.workers.watch import Watcher
        from student.models import build
        from teachers import recorded

        self.way = way
        self.watcher = Watcher()
        self.student = build(model).eval()
        if way == B:
            self.asr, self.vsr = (recorded.load(records[side], "cpu", foreign=True) for side in ("asr", "vsr"))
            self.maps = projection.maps(fit)
            self.fit = fit

    def answer(self, path: str, spent: Spent) -> None:
        """Answer one video and add what it took. Raises MediaError, NoFaceError."""
        import torch

        from student.scoring import score

        with spent.timed("decode and face"):
            clip = self.watcher.watch(path).clip
        if self.way == B:
            with spent.timed("sound teacher"):
                asr = self.asr.embed([clip])[0]
            with spent.timed("lip teacher"):
                vsr = self.vsr.embed([clip])[0]
            with spent.timed("comparison"):
                lips, sound = self.maps[0](vsr, clip.flags), self.maps[1](asr, clip.flags)
                with suppress(ValueError):  # no frame has both a face and a voice
                    store.similarity.best_offset(lips, sound, self.fit, labelled(clip.flags, clip.flags))
        with spent.timed("student"):
            trial = score.Trial(path, 0, 0, 0, 0, clip.num_frames, 0, "real")
            score.logits(self.student, _Clip(clip.mouth, clip.audio), [trial], WINDOW, torch.device("cpu"))
        spent.video += clip.num_frames / FPS


class _Clip:
    """A watched clip as the source of a trial's frames."""

    def __init__(self, mouth: np.ndarray, audio: np.ndarray) -> None:
        self.arrays = {"mouth": mouth, "audio": audio.reshape(len(mouth), -1)}

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self.arrays[name][start:stop] for name in names}


def run(asked: Asked) -> Result:
    """Time both ways in turns. Raises ExperimentError without videos, or where none can be answered."""
    paths = _videos(asked)
    records, fit = _teachers(asked)
    rounds = 1 if asked.quick else ROUNDS
    every = {way: Answerer(way, records, asked.model, fit) for way in WAYS}
    videos, lost = _usable(every[B], paths)
    spent: dict[str, list[Spent]] = {way: [] for way in WAYS}
    for k in range(rounds):
        for way, answerer in every.items():
            log.info("round %d of %d: %s", k + 1, rounds, way)
            one = Spent()
            for path in videos:
                answerer.answer(path, one)
            spent[way].append(one)
    memory = {way: _memory(way, records, asked.model, fit, videos) for way in WAYS}
    tables, figures = _told(spent, memory)
    figures |= {"videos": len(videos), "seconds_of_video": spent[A][0].video, "lost": lost, "rounds": rounds}
    names = {side: records[side]["name"] for side in ("asr", "vsr")}
    note = (
        f"{len(videos)} videos of {spent[A][0].video:.0f} s together, {rounds} rounds; teachers {names['asr']} and "
        f"{names['vsr']}; {lost} videos could not be read."
    )
    return Result(QUESTION, tables, figures, LIMITS, (note,))


def _teachers(asked: Asked) -> tuple[Mapping[str, Any], Any]:
    """The records of the teachers and the fit: those of the store, or of the packaged fit."""
    if asked.stores:
        reader = store.open(asked.stores[0])
        if reader.fit is None:
            raise ExperimentError(
                f"{asked.stores[0]} has no fit to compare with; run precompute.py --refit, or leave it out"
            )
        return reader.attrs["teachers"], reader.fit
    from store.similarity import fitfile

    fit, records, _ = fitfile.load(fitfile.DEFAULT)
    return records, fit


def _videos(asked: Asked) -> list[str]:
    """The videos that were named, else those of the store, evenly spaced. Raises ExperimentError if there are none."""
    paths = list(asked.videos)
    if not paths and asked.stores:
        reader = store.open(asked.stores[0])
        paths = [str(p) for p in reader.clips["path"][np.asarray(reader.clips["done"]) == 1]]
    if not paths:
        raise ExperimentError("cost needs videos: give --corpus KIND:ROOT, --manifest FILE, or --store with done clips")
    most = min(2 if asked.quick else VIDEOS, len(paths))
    return [paths[k] for k in np.linspace(0, len(paths) - 1, most).round().astype(int)]


def _usable(answerer: Answerer, paths: Sequence[str]) -> tuple[list[str], int]:
    """The videos that can be answered, which also warms everything up, and how many cannot."""
    from pipelines.media.files import MediaError
    from teachers.face.tracker import NoFaceError

    kept, last = [], ""
    for path in paths:
        try:
            answerer.answer(path, Spent())
            kept.append(path)
        except (MediaError, NoFaceError, OSError) as error:
            last = str(error)
            log.warning("%s", error)
    if not kept:
        raise ExperimentError(f"none of {len(paths)} videos can be answered: {last}")
    return kept, len(paths) - len(kept)


def _memory(way: str, records: Mapping[str, Any], model: str, fit: Any, videos: Sequence[str]) -> int:
    """Peak resident memory in MiB of a fresh process that answers the videos this way."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (way, dict(records), model, fit, list(videos)))


def _peak(way: str, records: Mapping[str, Any], model: str, fit: Any, videos: Sequence[str]) -> int:
    answerer = Answerer(way, records, model, fit)
    for path in videos:
        answerer.answer(path, Spent())
    return _high_water()


def _high_water() -> int:
    """Peak resident memory of this process in MiB. What getrusage tells would include the process that started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)
    except (OSError, StopIteration):  # not Linux
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _told(spent: Mapping[str, Sequence[Spent]], memory: Mapping[str, int]) -> tuple[list[Table], dict[str, Any]]:
    each = {way: [one.each for one in rounds] for way, rounds in spent.items()}
    whole = {way: np.array([sum(parts.values()) for parts in rounds]) for way, rounds in each.items()}
    ratio = whole[B] / whole[A]
    rows, figures = [], {}
    for part, what in PARTS.items():
        cells, shares = [], {}
        for way in WAYS:
            values = [parts[part] for parts in each[way]] if part in WAYS[way] else []
            cells.append(_median(values) if values else "-")
            shares[way] = values
        rows.append((f"{part}: {what}", *cells))
        figures[part] = shares
    rows.append(("all", *(_median(whole[way]) for way in WAYS)))
    rows.append(("peak memory, MiB", *(str(memory[way]) for way in WAYS)))
    rows.append(("ratio to the student alone", "1", _median(ratio)))
    columns = ("processor seconds a second of video, median (range) over rounds", *WAYS)
    told = {
        "parts": figures,
        "all": {way: values.tolist() for way, values in whole.items()},
        "ratio": ratio.tolist(),
        "memory_mib": dict(memory),
    }
    return [Table("an answer, A B A B", columns, rows)], told


def _median(values: Sequence[float] | np.ndarray) -> str:
    return f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
