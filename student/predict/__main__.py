"""A decision for single videos: `python -m student.predict VIDEO... --checkpoint RUN`, or `--teacher-only` without a
student.

Every video gets one answer (`student.predict.answer`): real, fake, or "cannot decide" with the reason. The probability
is the student's, at the threshold and temperature that were fitted on validation, or else the teachers' clip
similarity. A verdict on anybody's video needs a measurement of enough people whom the model had not seen: the score is
held against limits for --false-alarms. Or the user states (--corpus) that the video is from the corpus used for
calibration. A file that cannot be read gets its own answer and does not affect the others.

Of several people the one is judged whose lips move with the voice, or fit it clearly better than the others'
(`student.predict.agreement`). Not examined: identity, and artefacts of the picture.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concord.command import Command, json_option, log_to_stderr, put, say, told
from concord.extras import need
from concord.text import plain
from pipelines.errors import UsageError
from pipelines.hearing.option import audio_track
from store import output
from store.output import Output
from store.place import is_url
from store.similarity.limits import RATE
from student.config import to_json
from student.predict.agreement import settled
from student.predict.answer import SEVERAL_FACES, answer, refusal
from student.predict.basis import Basis, basis
from student.predict.records import CANNOT_DECIDE, UNLICENSED, Answer

if TYPE_CHECKING:
    from student.predict.evidence import Evidence, Witness

log = logging.getLogger("student")

FORMAT, VERSION = "concord-av prediction", 1
PAGES = (".html", ".htm")
INDEX, TABLE = "index.html", "index.csv"  # of a folder of pages: lists of them
MOST_WORDS = 5  # of a line
STEM = 180  # bytes of a video's name that the name of its page keeps
ANSWERS = output.marked("answers of student.predict", b'{\n  "format": "concord-av prediction"')


def predict(
    paths: Sequence[str],
    on: Basis,
    words: bool = True,
    audio_track: int = 0,
    mouth_crops: bool = False,
    references: Sequence[str] = (),
) -> Iterator[tuple[Answer, Evidence | None, Witness]]:
    """For each file in order: its answer, its evidence (None if there is none) and the witness that gave it.
    `audio_track` is the number of the sound track to take, 0 = chosen for each file; `mouth_crops`: the videos are mouth
    crops already; `references` are genuine videos of the person in them (`student.predict.reference`).

    Raises TeacherError and WeightsError before the first file; TeacherError also if the weights found are not those of
    the fit.
    """
    from student.predict import reference
    from student.predict.evidence import Unusable, Witness
    from teachers import TeacherError
    from teachers.files.weights import OtherWeights

    records = {side: on.teachers.get(side) or {} for side in ("asr", "vsr")}
    device = str(on.detector.device) if on.detector else "cpu"
    arrays = ["face"] if on.detector and on.detector.header.picture == "face" else []
    other = f"the weights found here are not those that the fit of {on.source} was learned with"
    helps = "restore the same file, or name another fit with --fit-from"
    try:
        witness = Witness(on.fit, records, device, on.clip_frames, arrays, audio_track, mouth_crops)
    except OtherWeights as error:
        raise TeacherError(f"{other}: {error}; {helps}") from error
    with witness:
        for side, mine in witness.provenance().items():
            if mine.get("sha256") != records[side].get("sha256"):
                raise TeacherError(f"{other}: {mine['name']} has others; {helps}")
        known = reference.gathered(references, witness, on.fit, on.map_of, on.false_alarms) if references else None
        for path in paths:
            begun = time.perf_counter()
            try:
                found, seconds = witness.hear_and_see(path, words)
            except Unusable as error:
                yield refusal(path, error.reason, str(error)), None, witness
                continue
            before = time.perf_counter()
            found = settled(found, on.fit)
            if known:
                said, found = reference.answered(known, found, on.fit, on.map_of, on.calibration())
            else:
                said = answer(found, on.fit, on.map_of, on.calibration(), on.detector.judge if on.detector else None)
            seconds["answer"] = time.perf_counter() - before
            told = ", ".join(f"{name} {spent:.2f}" for name, spent in seconds.items())
            log.info("%s: took %.2f s (%s)", os.path.basename(path), time.perf_counter() - begun, told)
            yield said, found, witness


def line(said: Answer) -> str:
    """Print one answer."""
    name = plain(said.path)
    if said.decision == CANNOT_DECIDE:
        why = [] if said.reason in (UNLICENSED, SEVERAL_FACES) else [said.reason]
        notes = [plain("; ".join(note.text for note in said.notes))] if said.notes else []
        if said.reference is not None:
            notes = [plain(said.reference.text), *notes]
        return "; ".join([": ".join([name, CANNOT_DECIDE, *why, plain(said.message)]), *notes])
    assert said.calibration is not None
    assert said.teachers is not None
    found = f"{name}: {said.decision}, probability of fake {said.probability:.2f} by the {said.rests_on}"
    found += f" ({said.limits.text if said.limits else plain(said.calibration.text)})"
    if said.reference is not None and not said.reference.used:
        found += f"; {plain(said.reference.text)}"
    if said.contradicted and said.teachers.probability is not None:
        found += f"; the teachers contradict it, with {said.teachers.probability:.2f}"
    if said.notes:
        found += f"; {plain('; '.join(note.text for note in said.notes))}"
    if doubted := said.disagreeing_words:
        more = f" and {len(doubted) - MOST_WORDS} more" if len(doubted) > MOST_WORDS else ""
        found += f"; lips disagree with: {plain(', '.join(doubted[:MOST_WORDS]))}{more}"
    return found


def exit_code(said: Sequence[Answer]) -> int:
    """0 = all decided, 3 = some not, 2 = nothing could be read."""
    if all(one.reason in ("unreadable", "no track") for one in said):
        return 2
    return 3 if any(one.reason for one in said) else 0


def _pages(target: Path, paths: Sequence[str]) -> list[Path]:
    """The page of each video: `target` itself, or one page per video in that folder. Raises UsageError."""
    is_file = target.suffix.lower() in PAGES or (target.exists() and not target.is_dir())
    if len(paths) == 1 and is_file and not target.is_dir():
        return [target]
    if is_file:
        raise click.UsageError(f"--html must be a folder if there are several videos; {target} is a file name")
    found = [target / INDEX]
    for path in paths:
        name = os.fsencode(os.path.splitext(os.path.basename(path))[0])[:STEM]
        stem = name.decode(errors="ignore") if len(name) == STEM else os.fsdecode(name)
        names = [f"{stem}.html", *(f"{stem}-{k}.html" for k in range(2, len(paths) + 3))]
        found.append(next(target / name for name in names if target / name not in found))
    return found[1:]


def _check_outputs(json_file: Path | None, html: Path | None, pages: Sequence[Path], inputs: Sequence[Any]) -> None:
    """Make the folder of pages, if one is needed; raises output.Refused for an output that would overwrite other
    data."""
    from student.predict import page as predict_page

    page = output.page(predict_page.COMMAND)
    outputs = [Output(path, page) for path in pages]
    if json_file:
        outputs.append(Output("/dev/stdout" if str(json_file) == "-" else json_file, ANSWERS))
    folder = html if pages and pages != [html] else None
    if folder:
        outputs += [Output(folder / INDEX, page), Output(folder / TABLE, predict_page.LISTS)]
    output.check(outputs, inputs, [(folder, page)] if folder else [])
    if folder:
        folder.mkdir(exist_ok=True)


def _share(context: click.Context, option: click.Parameter, value: float) -> float:
    """A share above 0 and at most .5. Raises BadParameter."""
    if not 0 < value <= 0.5:  # also of NaN, which click's own ranges let pass
        raise click.BadParameter(f"{value:g} is not above 0 and at most 0.5")
    return value


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m student.predict interview.mp4 --checkpoint runs/first --html interview.html\n"
    "Exit codes: 0 all decided; 3 some cannot be decided; 2 nothing could be read, or wrong options; 1 failed.",
)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="--output folder of a training run.")
@click.option("--teacher-only", is_flag=True, help="Decide by the teachers' similarity, without a student.")
@click.option("--fit-from", help="Store or file whose fit to use.  [default: the student's store, or the package's]")
@click.option(
    "--corpus",
    help="Name of a calibrated corpus in the store: states that these videos show the same people.",
)
@click.option(
    "--false-alarms",
    type=float,
    callback=_share,
    default=RATE,
    show_default=True,
    metavar="SHARE",
    help="Share of real videos that may be called fake: of strangers or, with --reference, of this person. Not with --corpus.",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="VIDEO|DIR",
    help="Genuine video of the person to be judged, or a folder of them, to calibrate by; may repeat.",
)
@audio_track()
@click.option("--no-words", is_flag=True, help="Do not transcribe, which takes most of the time.")
@json_option("Write all answers as JSON; - for standard output.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Write a page: FILE.html for one video; for several DIR, with a page for each and index.html, index.csv.",
)
@click.option("--mouth-crops", is_flag=True, help="The videos are mouth crops already; take them as they are.")
@click.option("--cpu", is_flag=True, help="Do not use a GPU.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    videos: tuple[str, ...], *, checkpoint: Path | None, teacher_only: bool, fit_from: str | None, corpus: str | None,
    false_alarms: float, references: tuple[str, ...], audio_track: int | None, no_words: bool, json_file: Path | None,
    html: Path | None,
    mouth_crops: bool, cpu: bool, debug: bool,
) -> None:  # fmt: skip
    """Decide for each video, or each in a folder, whether its lips say what its voice says."""
    if (checkpoint is None) != teacher_only:
        raise click.UsageError("name a student with --checkpoint RUN, or use --teacher-only without one")
    if references and (checkpoint or corpus):
        raise click.UsageError(
            "--reference calibrates the teachers' comparison by itself: use it with --teacher-only alone"
        )
    for name in (*videos, *references):
        if is_url(name):
            raise UsageError(
                f"{name} is an address, and only files on this machine are judged: download the video first, then give its file"
            )
    need("predict", "onnxruntime")
    log_to_stderr()
    for name in ("student", "pipelines.ui.progress"):
        logging.getLogger(name).setLevel(logging.INFO)
    if debug:
        for name in ("pipelines", "student"):
            logging.getLogger(name).setLevel(logging.DEBUG)
    import torch

    from student.predict import evidence

    paths, genuine = evidence.videos(list(videos)), evidence.videos(list(references))
    pages = _pages(html, paths) if html else []
    _check_outputs(json_file, html, pages, [*paths, *genuine, *filter(None, (checkpoint, fit_from))])
    on = basis(checkpoint, fit_from, corpus, "cuda" if torch.cuda.is_available() and not cpu else "cpu", false_alarms)
    answers = predict(paths, on, not no_words, audio_track or 0, mouth_crops, genuine)
    folder = html if pages and pages != [html] else None
    sys.exit(_answer_all(paths, on, answers, json_file, pages, folder))


def _answer_all(
    paths: Sequence[str],
    on: Basis,
    given: Iterator[tuple[Answer, Evidence | None, Witness]],
    json_file: Path | None,
    pages: Sequence[Path],
    folder: Path | None,
) -> int:
    """Answer each video with lines, pages (listed in `folder`, if they are in one) and JSON, from what `predict` gives.
    Returns the exit code."""
    from pipelines.ui import progress
    from student.predict import page as predict_page

    to_stdout = str(json_file) == "-"
    is_written = True
    answers: list[Answer] = []

    def found() -> dict[str, Any]:
        said = [one.to_json() for one in answers]
        return {"format": FORMAT, "version": VERSION, "basis": on.told(), "videos": said}

    try:
        with progress.shown(progress.Pass("videos", len(paths), unit="videos")) as shown:
            for said, seen, witness in given:
                answers.append(said)
                if pages:
                    shots = predict_page.shots(said, seen, witness)
                    text = predict_page.page(said, on.told(), shots, seen.clip.audio if seen else None)
                    is_written &= _written(pages[len(answers) - 1], text.encode("utf-8", "backslashreplace"))
                if not to_stdout:
                    say(line(said))
                shown.advance()
    finally:  # answers given before a signal or a full disk are kept
        if json_file and not to_stdout:
            is_written &= _written(json_file, to_json(found()))
        if folder and answers:
            listed = [predict_page.Listed(said, file.name) for said, file in zip(answers, pages, strict=False)]
            text = predict_page.index(listed, len(paths), on.told())
            is_written &= _written(folder / INDEX, text.encode("utf-8", "backslashreplace"))
            is_written &= _written(folder / TABLE, predict_page.table(listed))
    if to_stdout:
        put(json.dumps(found(), indent=2, allow_nan=False))
    return exit_code(answers) if is_written else 1


def _written(path: Path, data: bytes) -> bool:
    """Whether an output could be written; a line says why not. The remaining videos still get their answers."""
    try:
        output.write(path, data)
        return True
    except OSError as error:
        say(f"Error: {told(error)}", err=True)
        return False


if __name__ == "__main__":
    main()
