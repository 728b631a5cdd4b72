"""What a dying child writes is kept with its clip, and does not reach the terminal."""

import ctypes
import os
import signal
import sys
import threading

import pytest

from pipelines.workers.isolation import Child, ChildLost


def abort():
    os.abort()


def fault():
    ctypes.string_at(0)


def free_twice():
    """glibc writes why it gives up; it must not look at the block first, so others are freed between."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(2000) for _ in range(3)]
    libc.free(blocks[1])
    libc.free(blocks[1])


def shout():
    """As a library that reports an error by itself."""
    os.write(1, b"library: to standard output\n")
    os.write(2, b"library: to standard error\n")
    print("from Python", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGSEGV)


DEATHS = {"abort": abort, "fault": fault, "free twice": free_twice, "shout": shout}


def build():
    def call(name):
        threading.Thread(target=threading.Event().wait, daemon=True).start()  # another thread, for the dump
        return DEATHS[name]() if name in DEATHS else name

    return call


def noisy():
    def call(text):
        os.write(2, text.encode())
        if text == "end":
            os.abort()

    return call


@pytest.mark.parametrize(
    ("death", "name", "words"),
    [
        ("abort", "SIGABRT", ["Fatal Python error", "in abort"]),
        ("fault", "SIGSEGV", ["in string_at"]),
        ("free twice", "SIGABRT", ["double free", "in free_twice"]),
        ("shout", "SIGSEGV", ["library: to standard output", "library: to standard error", "from Python"]),
    ],
)
def test_last_words_are_kept_and_not_shown(death, name, words, capfd):
    child = Child(build)
    with pytest.raises(ChildLost) as lost:
        child(death, 60)
    assert str(lost.value) == f"its worker crashed ({name})"
    assert all(word in lost.value.trace for word in words), lost.value.trace
    assert child("still there", 60) == "still there"
    child.close()
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_only_the_last_value_is_kept():
    child = Child(noisy)
    for _ in range(3):
        child("earlier " * 1000, 60)
    with pytest.raises(ChildLost) as lost:
        child("end", 60)
    child.close()
    assert lost.value.trace.startswith("end")
    assert "earlier" not in lost.value.trace
