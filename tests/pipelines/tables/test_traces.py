"""Causes are kept beside the ledger: tracebacks of unexpected errors, once each, within bounds and without secrets."""

import json

import pytest

from pipelines.tables import traces
from pipelines.tables.traces import Trace
from pipelines.workers import work
from pipelines.workers.work import DeviceError, check_device, reason_of, traceback_of, unforeseen
from store.place import place


def raised(kind, text):
    try:
        raise kind(text)
    except kind as error:
        return traceback_of(error)


def lines(root):
    return [json.loads(line) for line in (root / traces.FILE).read().decode().splitlines()]


def test_the_same_traceback_comes_once_with_the_clips_that_it_hit(tmp_path):
    root = place(tmp_path)
    texts = [raised(ValueError, f"row {k} at 0x7f{k:06x}") for k in range(30)]
    traces.add(root, [Trace(f"clip{k}", "face", text) for k, text in enumerate(texts[:15])])
    traces.add(root, [Trace(f"clip{k}", "face", text) for k, text in enumerate(texts[15:], 15)])
    traces.add(root, [Trace("clip3", "asr", texts[3]), Trace("clip4", "face", raised(KeyError, "x"))])
    found = lines(root)
    assert [(one["stage"], one["times"]) for one in found] == [("face", 30), ("asr", 1), ("face", 1)]
    assert found[0]["error"] == "ValueError: row 0 at 0x7f000000"
    assert "in raised" in found[0]["traceback"]
    assert found[0]["clips"] == [f"clip{k}" for k in range(traces.CLIPS)]


def test_the_file_stays_small_and_keeps_the_last(tmp_path):
    root = place(tmp_path)
    kinds = [type(f"Error{k}X", (Exception,), {}) for k in range(traces.MOST + 40)]
    for part in (kinds[:70], kinds[70:]):
        traces.add(root, [Trace("", "run", raised(kind, "y" * 50_000)) for kind in part])
    found = lines(root)
    assert len(found) == traces.MOST
    assert max(len(one["traceback"]) for one in found) <= work.TRACE + 10
    assert all("in raised" in one["traceback"] for one in found)
    assert (root / traces.FILE).open().size < traces.BYTES


def test_what_is_there_already_may_be_damaged(tmp_path):
    root, good = place(tmp_path), Trace("a", "vsr", raised(ValueError, "x"))
    traces.add(root, [good])
    first = (root / traces.FILE).read()
    (root / traces.FILE).write(
        b'{"times": 1}\n[[[\n\xff\xfe\n3\n{"stage": 1, "times": "x"}\n' + b"[" * 100_000 + b"\n" + first
    )
    traces.add(root, [good])
    assert [one["times"] for one in lines(root)] == [2]


def test_secrets_are_left_out(tmp_path):
    root = place(str(tmp_path), {"aws_secret_access_key": "sesame-sesame", "aws_region": "eu"})
    text = (
        "PermissionError: eu https://me:pass@host/x?X-Amz-Signature=abc&X-Amz-Credential=d sesame-sesame "
        "s3://bucket/key?versions"
    )
    traces.add(root, [Trace("", "run", text)])
    kept = (root / traces.FILE).read().decode()
    for secret in ("sesame", "pass@", "abc", "Credential=d"):
        assert secret not in kept
    assert "eu https://...@host/x?..." in kept


def test_nothing_to_keep_makes_no_file(tmp_path):
    assert traces.add(place(tmp_path), [Trace("a", "face", "")]) == 0
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert traces.add(place(tmp_path / "file" / "store"), [Trace("a", "face", raised(ValueError, "x"))]) == 0
    assert "cannot be kept" in caplog.text


class AcceleratorError(RuntimeError):
    """Named as torch names it."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        AcceleratorError("an illegal memory access was encountered"),
        DeviceError("gone"),
    ],
)
def test_errors_of_a_broken_device_are_told_from_a_clips(error):
    with pytest.raises(DeviceError) as caught:
        check_device(error)
    assert "\n" not in str(caught.value)


def test_errors_of_a_clip_are_not_taken_for_a_devices():
    class OutOfMemoryError(RuntimeError):
        pass

    memory = OutOfMemoryError("CUDA out of memory. Tried to allocate")
    for error in (RuntimeError("clip x: CUDA error"), ValueError("CUDA error: no"), memory, MemoryError()):
        check_device(error)
    assert reason_of(memory) == "memory"


def test_the_ledger_tells_our_errors_from_the_files():
    assert "the program's own error" in unforeseen(IndexError("3"))
    assert "the program's own error" not in unforeseen(OSError("disk"))
