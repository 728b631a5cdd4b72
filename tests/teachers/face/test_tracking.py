"""The tracking loop against MediaPipe's FaceLandmarker in video mode: real clips, and awkward ones made of them."""

import configparser
import hashlib
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from teachers.base import TeacherError
from teachers.face import (
    backends,
    detector,
)
from teachers.face import (
    networks as face_networks,
)
from teachers.face.tracker import LIPS, FaceTracker
from teachers.files import face_model

ROOT = Path(__file__).parents[3]
FAST = [name for name in backends.BACKENDS if name != "mediapipe"]
OPENVINO_FIRST = [pytest.param(name, marks=[] if name == "openvino" else pytest.mark.slow) for name in FAST]
LIP_TOLERANCE = 0.1  # pixels, the worst point of the worst frame
SCORE_TOLERANCE = 0.02  # of blendshapes, which go from 0 to 1


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def model():
    return face_model.here().path


@pytest.fixture(scope="module")
def reference(model):
    return backends.load("mediapipe", model)


@pytest.fixture(scope="module", params=FAST)
def fast(request, model):
    if request.param not in backends.installed():
        pytest.skip(f"{backends.BACKENDS[request.param][1]} is not installed")
    return backends.load(request.param, model)


@pytest.fixture(scope="module")
def clip(clips):
    """u1 [75, 288, 360, 3]"""
    return frames_of(clips / "clips" / "bbaf2n.mp4")


@pytest.fixture(scope="module")
def other(clips):
    return frames_of(clips / "clips" / "lgas5a.mp4")


def read(backend, frames, num_faces=1):
    """Faces of each frame: points f4 [478, 2] in pixels, blendshapes f4 [52]."""
    with backend.landmarker(num_faces) as landmarker:
        found = [landmarker.read(np.ascontiguousarray(frame), 40 * k) for k, frame in enumerate(frames)]
    size = frames[0].shape[1::-1]
    return [[(one.points * size, one.blendshapes()) for one in faces] for faces in found]


def errors(ours, theirs):
    """Greatest distance of a lip point in pixels and of a blendshape, for each face that both see; frames that differ."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) if len(a) == len(b) for pair in zip(a, b, strict=True)]
    lips = np.array([np.abs(a[0] - b[0])[LIPS].max() for a, b in pairs])
    scores = np.array([np.abs(a[1] - b[1]).max() for a, b in pairs])
    return lips, scores, [k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if len(a) != len(b)]


def test_lips_and_blendshapes_are_those_of_mediapipe(fast, reference, clip, other):
    for frames in (clip, other):
        lips, scores, differing = errors(read(fast, frames), read(reference, frames))
        assert len(lips) == len(frames)
        assert not differing
        assert lips.max() < LIP_TOLERANCE
        assert lips.mean() < 0.02
        assert scores.max() < SCORE_TOLERANCE


@pytest.mark.slow
def test_further_clips_are_those_of_mediapipe(fast, reference, grid):
    worst = []
    for path in sorted((grid / "clips").iterdir())[::50]:
        frames = frames_of(path)
        lips, _, differing = errors(read(fast, frames), read(reference, frames))
        assert not differing
        worst.extend(lips)
    assert np.quantile(worst, 0.999) < LIP_TOLERANCE
    assert np.max(worst) < 0.15


def rolled(clip, degrees):
    """Each frame turned about its middle, in a square picture that holds all of it."""
    height, width = clip.shape[1:3]
    side = math.ceil(math.hypot(height, width))
    turned = []
    for frame, angle in zip(clip, degrees, strict=True):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        matrix[:, 2] += [(side - width) / 2, (side - height) / 2]
        turned.append(cv2.warpAffine(frame, matrix, (side, side)))
    return turned


def moved(clip, across, down):
    """Each frame shifted by so many pixels; black comes in."""
    size = clip.shape[2], clip.shape[1]
    return [
        cv2.warpAffine(frame, np.float32([[1, 0, x], [0, 1, y]]), size)
        for frame, x, y in zip(clip, across, down, strict=True)
    ]


def turned_away(clip):
    """Squeezed to two fifths of the width in the middle of the clip, and back."""
    squeeze = 0.6 * np.sin(np.linspace(0, np.pi, len(clip)))
    size = clip.shape[2], clip.shape[1]
    return [
        cv2.warpAffine(frame, np.float32([[1 - s, 0, 160 * s], [0, 1, 0]]), size)
        for frame, s in zip(clip, squeeze, strict=True)
    ]


def blanked(clip):
    frames = clip.copy()
    for gone in (slice(0, 5), slice(20, 23), slice(40, 58)):
        frames[gone] = 0
    return frames


def resized(clip, width, height):
    way = cv2.INTER_AREA if width < clip.shape[2] else cv2.INTER_CUBIC
    return [cv2.resize(frame, (width, height), interpolation=way) for frame in clip]


def noisy(clip, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, clip.shape)
    return np.clip(clip + noise, 0, 255).astype(np.uint8)


HALF_WAY = np.sin(np.linspace(0, np.pi, 75))
# Name: frames from (clip, other); the greatest distance of a lip point allowed. The faces that leave are half outside then,
# and the network sees little of them.
AWKWARD = {
    "rolls over": (lambda a, b: rolled(a, np.linspace(0, 180, 75)), 0.15),
    "rolled by 45": (lambda a, b: rolled(a[:25], [45] * 25), 0.1),
    "rolled by -90": (lambda a, b: rolled(a[:25], [-90] * 25), 0.09),
    "turns away and back": (lambda a, b: turned_away(a), 0.5),
    "leaves at the left": (lambda a, b: moved(a, -260 * HALF_WAY, 0 * HALF_WAY), 0.6),
    "leaves at the right": (lambda a, b: moved(a, 300 * HALF_WAY, 0 * HALF_WAY), 0.6),
    "leaves at the bottom": (lambda a, b: moved(a, 0 * HALF_WAY, 230 * HALF_WAY), 0.6),
    "blank for a while": (lambda a, b: blanked(a), 0.1),
    "gives way to another": (lambda a, b: np.concatenate([a[:30], b[:30]]), 0.1),
    "small": (lambda a, b: resized(a[:25], 90, 72), 0.05),
    "odd": (lambda a, b: resized(a[:25], 181, 145), 0.05),
    "large": (lambda a, b: resized(a[:15], 1440, 1152), 0.2),
    "portrait": (lambda a, b: a[:25, :, 70:273], 0.1),
    "noise": (lambda a, b: noisy(a[:25], 15), 0.25),
    "dark": (lambda a, b: (a[:25] * 0.15).astype(np.uint8), 0.25),
}


@pytest.mark.parametrize("fast", OPENVINO_FIRST, indirect=True, scope="module")
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_faces_are_those_of_mediapipe(fast, reference, clip, other, name):
    make, tolerance = AWKWARD[name]
    frames = make(clip, other)
    lips, _, differing = errors(read(fast, frames), read(reference, frames))
    assert len(lips) >= 10
    assert not differing
    assert lips.max() < tolerance
    assert np.median(lips) < 0.1


def pair(clip, other, gone=slice(0, 0)):
    """Two speakers side by side; the left one is gone for some frames."""
    frames = np.full((len(clip), 288, 640, 3), 40, np.uint8)
    frames[:, :, :360] = clip
    for k, frame in enumerate(other):
        frames[k, 40:256, 364:634] = cv2.resize(frame, (270, 216), interpolation=cv2.INTER_AREA)
    frames[gone, :, :360] = 40
    return frames


@pytest.mark.parametrize("gone", [slice(0, 0), slice(10, 20)], ids=["both", "one leaves and returns"])
def test_several_faces_come_in_the_same_order(fast, reference, clip, other, gone):
    frames = pair(clip[:30], other[:30], gone)
    lips, scores, differing = errors(read(fast, frames, 4), read(reference, frames, 4))
    assert len(lips) == 60 - len(range(*gone.indices(30)))
    assert not differing
    assert lips.max() < LIP_TOLERANCE
    assert scores.max() < SCORE_TOLERANCE


def test_faces_are_counted_as_mediapipe_counts_them(fast, reference, clip, other):
    empty = np.full((120, 160, 3), 90, np.uint8)
    for frame in (clip[0], pair(clip[:1], other[:1])[0], empty, cv2.resize(clip[3], (1440, 1152))):
        assert fast.count(frame) == reference.count(frame)
    assert fast.count(pair(clip[:1], other[:1])[0]) == 2


def test_whole_track_is_that_of_mediapipe(fast, clip):
    ours, theirs = FaceTracker(backend=fast.name).track(clip), FaceTracker(backend="mediapipe").track(clip)
    np.testing.assert_array_equal(ours.detected, theirs.detected)
    assert np.abs(ours.lips - theirs.lips).max() < LIP_TOLERANCE
    assert np.abs(ours.blendshapes - theirs.blendshapes).max() < SCORE_TOLERANCE
    different = np.abs(ours.mouth.astype(int) - theirs.mouth).mean(axis=(1, 2))  # grey levels
    assert (different < 0.2).sum() >= 68  # of 75; the others lie a whole pixel beside, for rounding a half otherwise


def digest(track):
    return hashlib.sha256(b"".join(a.tobytes() for a in (track.mouth, track.lips, track.blendshapes))).hexdigest()


def test_earlier_clips_leave_no_trace(fast, clip, other):
    tracker = FaceTracker(backend=fast.name)
    before = digest(tracker.track(clip[:30]))
    tracker.track(other[:20])
    assert digest(tracker.track(clip[:30])) == before


ELSEWHERE = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
import cv2
cv2.setNumThreads({threads})
from test_tracking import digest, frames_of
from teachers.face.tracker import FaceTracker
print(digest(FaceTracker(backend={name!r}).track(frames_of({path!r})[:30])))
assert "mediapipe" not in sys.modules
"""


def test_other_processes_and_numbers_of_threads_give_the_same_bytes_without_mediapipe(fast, clip, clips):
    here = digest(FaceTracker(backend=fast.name).track(clip[:30]))
    path = str(clips / "clips" / "bbaf2n.mp4")
    for threads in (1, 4):
        code = ELSEWHERE.format(tests=str(Path(__file__).parent), threads=threads, name=fast.name, path=path)
        numbers = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | numbers, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == here


def test_fastest_installed_backend_is_taken_and_named(model):
    environment = dict(os.environ)
    record = FaceTracker().provenance()["options"]
    assert dict(os.environ) == environment  # what OpenVINO alone shall see is gone again
    assert record["backend"] == backends.installed()[0]
    for name in backends.installed():
        distribution = backends.BACKENDS[name][1]
        assert FaceTracker(backend=name).provenance()["options"][distribution].count(".") >= 2


def test_backends_that_cannot_be_had_are_refused(model, monkeypatch, tmp_path):
    with pytest.raises(TeacherError, match=r"unknown face backend 'onnx' \(known: openvino, litert, mediapipe\)"):
        FaceTracker(backend="onnx")
    monkeypatch.setitem(backends.BACKENDS, "litert", ("no_such_module", "ai-edge-litert", "litert"))
    with pytest.raises(TeacherError, match=r"not installed on this node: pip install 'concord-av\[litert\]'"):
        FaceTracker(backend="litert")
    broken = tmp_path / "face.task"
    broken.write_bytes(b"not a zip")
    for name in backends.installed():
        with pytest.raises(TeacherError, match=f"'{name}' cannot run .*face.task: "):
            FaceTracker(broken, backend=name)


def test_next_backend_is_taken_where_the_fastest_is_missing(model, monkeypatch):
    for name in FAST:
        monkeypatch.setitem(backends.BACKENDS, name, ("no_such_module", "", ""))
    assert FaceTracker().provenance()["options"]["backend"] == "mediapipe"


def test_extras_bring_the_packages_of_backends_and_the_lock_has_them():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lock = (ROOT / "requirements.txt").read_text().splitlines()
    for _, distribution, extra in backends.BACKENDS.values():
        assert any(pin.startswith(f"{distribution}>=") for pin in setup["options.extras_require"][extra].split())
        assert any(pin.startswith(f"{distribution}==") for pin in lock)


def test_a_signal_after_networks_were_freed_is_handled(model):
    """They were freed by another thread, and in the order of their making: OpenVINO leaves a signal stack that is gone."""
    pytest.importorskip("openvino")
    script = """
import os, pathlib, signal, sys, threading
from teachers.face.networks import OpenVino
made = [OpenVino(pathlib.Path(sys.argv[1])) for _ in range(3)]
del made[0]
thread = threading.Thread(target=made.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGINT)
"""
    run = subprocess.run([sys.executable, "-c", script, str(model)], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "handled\n"), run.stderr


def test_rewritten_networks_compute_the_same(model, tmp_path):
    """A bias moved, coordinates left out, one network built anew: differences of rounding."""
    openvino = pytest.importorskip("openvino")
    import zipfile

    from teachers.face import graph

    core = openvino.Core()
    with zipfile.ZipFile(model) as task:
        landmarks, shapes = (
            task.extract(f"face_{name}.tflite", tmp_path) for name in ("landmarks_detector", "blendshapes")
        )

    draw = np.random.default_rng(0)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}

    def run(network, given):
        with face_networks.signals_keep_their_stack():
            compiled = core.compile_model(network, "CPU", options)
        found = compiled([given])
        return [found[i] for i in range(len(found))], compiled.get_runtime_model().get_ordered_ops()

    def additions(network):
        return sum(node.get_type_name() == "Add" for node in network.get_ordered_ops())

    plain, changed = (core.read_model(landmarks) for _ in range(2))
    for network in (plain, changed):
        network.reshape([1, 256, 256, 3])
    graph.fold_depthwise_bias(changed)
    assert additions(plain) - additions(changed) == 34
    changed = graph.planar_points(graph.planar_bytes(changed), 478)
    changed = graph.with_direct_kernels(changed, core, tmp_path)
    picture = draw.random((1, 256, 256, 3), np.float32)
    before, _ = run(plain, picture)
    after, steps = run(changed, 255 * picture.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(after[0].reshape(2, 478).T, before[0].reshape(478, 3)[:, :2], atol=1e-3)  # pixels
    np.testing.assert_allclose(after[1].item(), before[1].item(), atol=1e-4)
    kernels = {str(step.get_rt_info()["primitiveType"].astype(str)) for step in steps}
    if platform.machine() == "x86_64":
        assert not any(kernel.startswith("brgconv") for kernel in kernels), kernels

    points = 300 * draw.random((1, 146, 2), np.float32)
    plain = core.read_model(shapes)
    np.testing.assert_allclose(run(graph.mixer(plain), points)[0][0], run(plain, points)[0][0], atol=2e-6)


def test_detections_that_overlap_are_averaged_by_their_scores():
    boxes, logits = np.zeros((896, 16), np.float32), np.full(896, -200, np.float32)
    boxes[:, 2:4] = 64  # width and height in pixels
    near = [2 * (16 * 8 + 8), 2 * (16 * 8 + 8) + 1, 2 * (16 * 8 + 9)]  # two of one cell, one of the next
    far = 2 * (16 * 1 + 1)
    logits[near] = [2, 2, 1]
    logits[far] = 0.5
    logits[0] = -0.01  # just not sure enough
    first, second = detector.decode(boxes, logits, 0.5)
    scores = 1 / (1 + np.exp(-np.array([2, 2, 1])))
    centre = np.average([8.5 / 16, 8.5 / 16, 9.5 / 16], weights=scores)
    np.testing.assert_allclose(
        first[:2], [[centre - 0.25, 8.5 / 16 - 0.25], [centre + 0.25, 8.5 / 16 + 0.25]], atol=1e-6
    )
    np.testing.assert_allclose(second[2], [1.5 / 16, 1.5 / 16], atol=1e-6)  # an eye at its anchor
    assert detector.decode(boxes, logits - 10, 0.5) == []
