"""The names that programs of others use, in one place: `import concord_av`, then `concord_av.open_store(path)`.

Each is imported when it is first used, so this costs nothing. The packages that define them are where they always were
(`store.open`, `teachers.load` ...), and the same objects.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concord import ConcordError, __version__
    from store import Dataset, Reader, StoreError, Stream, Writer, collate
    from store import create as create_store
    from store import open as open_store
    from student.hub import Detector
    from teachers import ClipMedia, Teacher, TeacherError
    from teachers import load as load_teacher

__all__ = [
    "ClipMedia",
    "ConcordError",
    "Dataset",
    "Detector",
    "Reader",
    "StoreError",
    "Stream",
    "Teacher",
    "TeacherError",
    "Writer",
    "__version__",
    "collate",
    "create_store",
    "load_teacher",
    "open_store",
]
_RENAMED = {"open_store": "open", "create_store": "create", "load_teacher": "load"}
_HOMES = {
    "concord": ("ConcordError", "__version__"),
    "store": ("Dataset", "Reader", "StoreError", "Stream", "Writer", "collate", "create_store", "open_store"),
    "student.hub": ("Detector",),
    "teachers": ("ClipMedia", "Teacher", "TeacherError", "load_teacher"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), _RENAMED.get(name, name))
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
