"""Checks of the machine itself: disk, memory, open files, GPU."""

import os
import re
import resource
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from concord.text import byte_size

GIB = 1024**3
FULL = 0.95  # share of a disk above which Ray accepts no more objects
LOW_DISK = 10 * GIB  # batches go to disk if memory is short; staging holds the shards in progress
LOW_MEMORY, LEAST_MEMORY = 2 * GIB, 1 * GIB  # free memory: for a driver and its Ray; for one worker
CORE_MEMORY = 1 * GIB  # for a face worker (one per core) with its isolated child
FILES = 4096  # open at the same time: a raylet needs some for each worker and each connection
DRIVERS = {13: 580, 12: 525, 11: 450}  # CUDA's major version: oldest NVIDIA driver that supports it


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    level: str  # ok, warn, fail
    says: str
    mend: str = ""  # a command, or what to do
    facts: dict[str, str] = field(default_factory=dict)  # must be equal on every node of a cluster


def disk() -> Finding:
    """Disk space for objects that do not fit into Ray's memory."""
    place = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    usage = shutil.disk_usage(place)
    says = f"{byte_size(usage.free)} free of {byte_size(usage.total)} in {place}"
    how = f"free space in {place}, or start Ray with RAY_TMPDIR on a larger disk"
    if usage.free < (1 - FULL) * usage.total:
        return Finding("disk", "fail", f"{says}: Ray stops at {FULL:.0%}", how)
    if usage.free < LOW_DISK:
        return Finding("disk", "warn", says, how)
    return Finding("disk", "ok", says)


def memory() -> Finding:
    """Free memory; within the container's limit, if there is one."""
    total, free = _memory()
    cores = len(os.sched_getaffinity(0))
    says = f"{byte_size(free)} free of {byte_size(total)}, {cores} cores"
    how = "end other programs, or give Ray fewer cores: ray start --num-cpus N"
    if free < LEAST_MEMORY:
        return Finding("memory", "fail", says, how)
    if free < LOW_MEMORY or total < CORE_MEMORY * cores:
        return Finding(
            "memory", "warn", f"{says}; a face worker (one per core) needs about {byte_size(CORE_MEMORY)}", how
        )
    return Finding("memory", "ok", says)


def shared_memory(need: int, place: Path = Path("/dev/shm")) -> Finding:
    """Space for Ray's object store, which falls back to a slow file without it."""
    has = shutil.disk_usage(place).total if place.exists() else 0
    says = f"{byte_size(has)} in {place}, Ray's object store takes {byte_size(need)}"
    if has < need:
        how = f"sudo mount -o remount,size={-(-need // GIB) + 1}G {place}; in a container --shm-size, in Kubernetes an emptyDir"
        return Finding("object store", "warn", f"{says}: it will be on disk and slow", how)
    return Finding("object store", "ok", says)


def open_files() -> Finding:
    """The number of files that a process may open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < FILES:
        return Finding(
            "open files", "warn", f"{soft} at most", "ulimit -n 65536 before `ray start` and before precompute"
        )
    return Finding("open files", "ok", f"{soft} at most")


def gpu() -> Finding:
    """GPUs: tests whether torch can use them."""
    try:
        import torch
    except Exception as error:
        return Finding("gpu", "fail", f"torch cannot be imported: {first_line(error)}", "make install")
    present = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    built = torch.version.cuda
    if not present and not (built and torch.cuda.is_available()):
        return Finding("gpu", "ok", f"none here; teachers run on the CPU (torch {torch.__version__})")
    version = Path("/proc/driver/nvidia/version")
    found = re.search(r"\s(\d+\.[\d.]+)\s", version.read_text()) if version.exists() else None
    driver = found.group(1) if found else "unknown"
    if not built:
        says = f"{len(present)} here (driver {driver}), and torch {torch.__version__} is built without CUDA"
        release = torch.__version__.partition("+")[0]
        return Finding(
            "gpu", "warn", says, f"pip install --force-reinstall torch=={release}, from an index with CUDA builds"
        )
    try:
        torch.cuda.init()
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        torch.ones(2, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        says = f"torch {torch.__version__} for CUDA {built} cannot use the GPU (driver {driver}): {first_line(error)}"
        least = DRIVERS.get(int(built.partition(".")[0]))
        return Finding("gpu", "fail", says, f"install an NVIDIA driver that runs CUDA {built}: {least or '?'} or newer")
    memory_bytes = torch.cuda.get_device_properties(0).total_memory
    says = f"{len(names)} x {names[0]}, {byte_size(memory_bytes)}, driver {driver}, CUDA {built}"
    return Finding("gpu", "ok", says)


def version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> tuple[int, int]:
    """Bytes in all and free."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, free = values["MemTotal"], values["MemAvailable"]
    group = Path("/sys/fs/cgroup")  # a container sees its own group here
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()).isdecimal():
        cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        used = int((group / "memory.current").read_text()) - (int(cached.group(1)) if cached else 0)
        total, free = min(total, int(limit)), min(free, int(limit) - used)
    return total, free


def first_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
