"""Loads teachers from the record in a store, a fit or a detector (`Teacher.provenance`).

The record may come from anyone. So weights are used only if their SHA-256 is the recorded one, which is compared before
anything in them is parsed. A file that another person's record names is looked for by its name, only in the folders for
weights (`weights.recorded`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from teachers import base
from teachers.base import Teacher, TeacherError
from teachers.files import weights


def load(record: Mapping[str, Any], device: str = "cpu", *, foreign: bool) -> Teacher:
    """The teacher of the record, its weights on `device`. `foreign`: the record is not from the user's own store.

    Raises TeacherError if it cannot be loaded, OtherWeights if the weights found are not the recorded ones.
    """
    name = record.get("name")
    if not isinstance(name, str):
        raise TeacherError("a teacher is recorded without its name")
    kind, _, argument = name.partition(":")
    if foreign and ("/" in argument or "\\" in argument) and not _is_ours(kind):
        raise TeacherError(
            f"{name}: a teacher of another package would open the path in its name, and a path is opened only where you give "
            "it: make a fit of your own with precompute.py --asr, --vsr"
        )
    with weights.recorded(_sums(record), foreign):
        try:
            return base.load(name, device)
        except weights.OtherWeights:
            raise
        except weights.WeightsError as error:
            raise weights.WeightsError(f"the teacher {name} is needed: {error}") from error


def _is_ours(kind: str) -> bool:
    return base.entry_point(kind).value.startswith(f"{__package__}.")


def _sums(record: Any) -> Iterator[str]:
    """Every SHA-256 in a record: of the weights, and of a second file among the options."""
    if isinstance(record, Mapping):
        for key, value in record.items():
            if key == "sha256" and isinstance(value, str):
                yield value
            else:
                yield from _sums(value)
