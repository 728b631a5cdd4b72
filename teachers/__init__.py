"""Frozen models that turn clips into embeddings, and the face and voice stages that feed them.

Names are imported when they are first used, so that a command can handle signals and missing packages before heavy imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concord.frames import FACE, VOICE_ACTIVE
    from concord.frames import VOICE_ACTIVE as VOICE  # its name in version 0.1
    from teachers.base import ClipMedia, Teacher, TeacherError, known, load

__all__ = ["FACE", "VOICE", "VOICE_ACTIVE", "ClipMedia", "Teacher", "TeacherError", "known", "load"]
_HOMES = {
    "concord.frames": ("FACE", "VOICE", "VOICE_ACTIVE"),
    "teachers.base": ("ClipMedia", "Teacher", "TeacherError", "known", "load"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), "VOICE_ACTIVE" if name == "VOICE" else name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
