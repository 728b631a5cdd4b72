"""Checks on one machine whether it can precompute: `python -m pipelines.doctor.checks`, a request in, findings out,
both JSON.

It runs in a separate process, on this machine or on a node of a cluster (pipelines.doctor starts it): a library that
crashes, prints or is missing must not end the doctor. For the same reason only the standard library is imported at the
start. Each check is a function that returns findings; errors of a broken machine become findings. Nothing is
downloaded, but a model that a package ships may be converted into the cache.
"""

import contextlib
import ctypes
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from pipelines.doctor import packages
from pipelines.doctor.machine import GIB, Finding, disk, first_line, gpu, memory, open_files, shared_memory, version_of

HERE = packages.HERE
PYTHONS = ((3, 11), (3, 12), (3, 13))
LIBRARIES = {  # libraries that opencv loads: Debian's package
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
}
OF_MEDIAPIPE = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}


@dataclass(frozen=True)
class Request:
    """What to check in addition to the machine itself."""

    object_store: int = 2 * GIB  # bytes of Ray's object store in /dev/shm
    teachers: tuple[str, ...] = ()  # names of teachers to load
    media: tuple[str, ...] = ()  # paths or URLs to read from
    probe: str = ""  # file or object that the doctor wrote; the node writes another one next to it, called `mark`
    mark: str = ""
    options: dict[str, str] = field(default_factory=dict, repr=False)  # options of object stores
    needs: tuple[str, ...] = ()  # extras of concord-av without which the request cannot be fulfilled


def run(request: Request) -> list[Finding]:
    """All checks of this machine."""
    parts = packages.check(needs=request.needs, here=HERE)
    findings = [python(), *parts, libraries(), *entry_points(), code()]
    complete = {part.check for part in parts if part.level == "ok"}
    if "predict" in complete:
        found = models()
        findings += found
        if all(f.level != "fail" for f in findings) and all(f.level == "ok" for f in found):
            findings.append(face())  # it needs all of the above
    findings += [teacher(name) for name in request.teachers]
    findings += [disk(), memory()]
    findings += [shared_memory(request.object_store)] if "precompute" in complete else []
    findings += [open_files(), gpu()]
    findings += [media(request.media, request.options)] if request.media else []
    findings += [shared_place(request)] if request.probe else []
    return findings


def python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """The interpreter."""
    says = ".".join(map(str, version))
    if version[:2] not in PYTHONS:
        known = ", ".join(".".join(map(str, one)) for one in PYTHONS)
        how = "make install PYTHON=python3.11, or a new environment of one of these"
        return Finding("python", "fail", f"{says}, expected one of {known}", how)
    return Finding("python", "ok", f"{says} at {sys.executable}")


def libraries(wanted: dict[str, str] | None = None) -> Finding:
    """Loads the system libraries."""
    if wanted is None:
        wanted = LIBRARIES | (OF_MEDIAPIPE if find_spec("mediapipe") else {})
    missing = {}
    for name, package in wanted.items():
        try:
            ctypes.CDLL(name)
        except OSError:
            missing[name] = package
    if missing:
        how = f"sudo apt-get install -y {' '.join(missing.values())}"
        return Finding("libraries", "fail", f"cannot be loaded: {', '.join(missing)}", how)
    return Finding("libraries", "ok", f"{len(wanted)} system libraries load")


def entry_points() -> list[Finding]:
    """Teachers and corpora: all loadable, and registered as in the project's setup.cfg, if it is there."""
    listed = packages.setup(HERE)
    findings = []
    for group in ("concord.teachers", "concord.corpora"):
        kind, broken = group.partition(".")[2], []
        points = metadata.entry_points(group=group)
        expected = listed.get("options.entry_points", group, fallback="").split("\n")
        names = {line.partition("=")[0].strip() for line in expected if line.strip()}
        if not points or names - set(points.names):
            gone = f"not registered: {', '.join(sorted(names - set(points.names))) or 'any'}"
            findings.append(Finding(kind, "fail", gone, "make install, or pip install --no-deps -e ."))
            continue
        for point in points:
            try:
                point.load()
            except Exception as error:  # a teacher or corpus of another package may raise anything
                broken.append(f"{point.name} ({first_line(error)})")
        if broken:
            findings.append(Finding(kind, "fail", f"cannot be loaded: {'; '.join(broken)}", "make install"))
        else:
            findings.append(Finding(kind, "ok", ", ".join(sorted(points.names))))
    return findings


def code() -> Finding:
    """This package's own code, by a hash of its text, because the version of an editable installation does not change
    with it."""
    digest = hashlib.sha256()
    files = [f for top in ("concord", "pipelines", "store", "teachers") for f in sorted((HERE / top).rglob("*.py"))]
    for file in files:
        digest.update(f"{file.relative_to(HERE)}\0".encode() + file.read_bytes() + b"\0")
    mark = digest.hexdigest()[:12]
    return Finding(
        "code", "ok", f"{packages.DISTRIBUTION} {version_of(packages.DISTRIBUTION)}, {mark}", facts={"code": mark}
    )


def models() -> list[Finding]:
    """Models of the default stages and teachers, searched for as in a run, but without downloads."""
    try:
        from concord.extras import install
        from teachers import TeacherError, voice
        from teachers.files import face_model, weights
        from teachers.whisper.teacher import DEFAULT, PACKAGES
    except Exception as error:  # a broken package may raise anything
        return [Finding("models", "fail", f"teachers cannot be imported: {first_line(error)}", install("predict"))]
    wanted: dict[str, Callable[[], Any]] = {
        "face model": face_model.here,
        "whisper": lambda: weights.resolve(f"{DEFAULT}.pt", package=PACKAGES[DEFAULT]),
        "voice": lambda: weights.resolve(voice.MODEL, package=voice.PACKAGE),
    }
    findings = []
    for name, find in wanted.items():
        try:
            found = find()
        except (TeacherError, OSError) as error:
            wrong = "mismatch" in str(error)
            how = "concord fetch" if name == "face model" else install("offline")
            if name == "face model" and isinstance(error, TeacherError) and not wrong:
                findings.append(Finding(name, "warn", "not here yet; the first run fetches it", how))
                continue
            findings.append(Finding(name, "fail", first_line(error), f"{'remove that file, then ' * wrong}{how}"))
        else:
            says = f"{found.source} (sha256 {found.sha256[:12]})"
            findings.append(Finding(name, "ok", says, facts={f"weights of {name}": found.sha256}))
    return findings


def face() -> Finding:
    """Builds the face stage and runs it on a picture."""
    try:
        import numpy as np

        from teachers.face.tracker import FaceTracker, NoFaceError

        tracker = FaceTracker()
        with contextlib.suppress(NoFaceError):
            tracker.track([np.zeros((96, 96, 3), np.uint8)])
        told = tracker.provenance()
    except Exception as error:  # a broken backend raises anything
        return Finding("face stage", "fail", first_line(error), "pip install --force-reinstall --no-deps openvino")
    facts = {"face stage": json.dumps([told["name"], told["options"]], sort_keys=True)}
    backend = told["options"].get("backend")
    says = f"{told['name']} runs" + (f" by {backend}" if backend else "")
    return Finding("face stage", "ok", says, facts=facts)


def teacher(name: str) -> Finding:
    """Loads a teacher as in a run."""
    try:
        import teachers

        told = teachers.load(name).provenance()
    except Exception as error:
        return Finding(name, "fail", first_line(error), "put its weights where $CONCORD_WEIGHTS points, on every node")
    sha256 = str(told.get("sha256"))
    return Finding(name, "ok", f"{told.get('source')} (sha256 {sha256[:12]})", facts={f"weights of {name}": sha256})


def media(paths: Iterable[str], options: dict[str, str]) -> Finding:
    """Reads the first bytes of some files of the corpus."""
    from store.place import place

    paths = list(paths)
    for path in paths:
        try:
            opened = place(path, options).open()
            if opened.size and not opened.read(0, 1):
                raise OSError("nothing can be read")
        except Exception as error:  # file systems and networks raise many classes
            return Finding(
                "corpus", "fail", f"{path}: {first_line(error)}", "give every node the same path, or credentials"
            )
    return Finding("corpus", "ok", f"{len(paths)} of its files read, {paths[0]} and others" if paths[1:] else paths[0])


def shared_place(request: Request) -> Finding:
    """Checks the store's place: reads the doctor's file there and writes another file next to it."""
    from store.place import place

    probe = place(request.probe, request.options)
    how = "mount the same disk under the same path on every node, or use a store in a bucket"
    try:
        if not probe.read():
            raise OSError("it is empty")
    except Exception as error:
        return Finding(
            "store", "fail", f"the doctor's file in {probe.parent} is not visible here: {first_line(error)}", how
        )
    try:
        (probe.parent / request.mark).write(b"here")
    except Exception as error:
        return Finding(
            "store",
            "fail",
            f"{probe.parent} cannot be written to: {first_line(error)}",
            "check its owner and credentials",
        )
    return Finding("store", "ok", f"{probe.parent} can be read and written")


def main() -> None:
    """A request on standard input, findings on standard output."""
    asked = json.load(sys.stdin)
    for name in ("teachers", "media", "needs"):
        asked[name] = tuple(asked[name])
    answer, sys.stdout = sys.stdout, sys.stderr  # output of libraries must not mix with the answer
    findings = run(Request(**asked))
    json.dump([asdict(finding) for finding in findings], answer)


if __name__ == "__main__":
    main()
