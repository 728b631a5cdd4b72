"""The three networks in MediaPipe's face_landmarker.task, run without MediaPipe: detector, landmarks, blendshapes.

The task file is a zip of .tflite files, which OpenVINO and LiteRT read as they are. Everything that could change a bit
is fixed: float32 (OpenVINO would choose bfloat16 where the processor has it), batch 1, one thread, one stream, no
pinning to a core (all workers would be pinned to the first one).
"""

import ctypes
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from teachers.face import graph
from teachers.quiet import quiet

NUM_POINTS = 478
LANDMARK_SIDE = 256  # pixels, of the landmark network's input
DETECTOR_SIDE = 128  # pixels, of the detector's input
_NAMES = "face_detector.tflite", "face_landmarks_detector.tflite", "face_blendshapes.tflite"
_DETECTOR, _LANDMARKS, _BLENDSHAPES = _NAMES


class Networks(Protocol):
    """The interface that the tracking loop uses. The next call may overwrite the arrays that were returned."""

    def detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From rgb u1 [128, 128, 3]: for each anchor box and key points f4 [896, 16] and logits f4 [896]."""
        ...

    def landmarks(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
        """From rgba u1 [256, 256, 4]: points f4 [2, 478] (x, y; pixels of the crop) and the logit of a face."""
        ...

    def blendshapes(self, points: np.ndarray) -> np.ndarray:
        """From points f4 [146, 2] in pixels: f4 [52], 0 to 1."""
        ...


class OpenVino:
    """The networks in OpenVINO, rewritten by `graph`; the fastest, and the default where it is installed."""

    def __init__(self, model: Path) -> None:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        # OpenVINO reads .tflite only from files.
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(model) as task, signals_keep_their_stack():
            networks = {name: core.read_model(task.extract(name, folder)) for name in _NAMES}
            landmarks = networks[_LANDMARKS]
            landmarks.reshape([1, LANDMARK_SIDE, LANDMARK_SIDE, 3])
            graph.fold_depthwise_bias(landmarks)
            landmarks = graph.planar_points(graph.planar_bytes(landmarks), NUM_POINTS)
            networks[_LANDMARKS] = graph.with_direct_kernels(landmarks, core, Path(folder))
            networks[_BLENDSHAPES] = graph.mixer(networks[_BLENDSHAPES])
            with _vectors_that_pay():
                requests = {
                    name: core.compile_model(network, "CPU", options).create_infer_request()
                    for name, network in networks.items()
                }
        self._requests = requests
        self._channels = [np.empty((LANDMARK_SIDE, LANDMARK_SIDE), np.uint8) for _ in range(4)]
        self._inputs = {name: request.get_input_tensor(0).data[0] for name, request in requests.items()}
        self._outputs = {name: [one.data for one in request.output_tensors] for name, request in requests.items()}

    def _run(self, name: str) -> list[np.ndarray]:
        self._requests[name].infer()
        return self._outputs[name]

    def detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._inputs[_DETECTOR][:] = _signed(picture)
        boxes, logits = self._run(_DETECTOR)
        return boxes[0], logits[0, :, 0]

    def landmarks(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
        import cv2

        cv2.split(crop, self._channels)
        for plane, channel in zip(self._inputs[_LANDMARKS], self._channels, strict=False):
            plane[:] = channel
        points, logit = self._run(_LANDMARKS)
        return points.reshape(2, NUM_POINTS), float(logit[0])

    def blendshapes(self, points: np.ndarray) -> np.ndarray:
        self._inputs[_BLENDSHAPES][:] = points
        return self._run(_BLENDSHAPES)[0].copy()


class LiteRt:
    """The networks in LiteRT (XNNPACK), the interpreter that MediaPipe uses itself."""

    def __init__(self, model: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreters: dict[str, Any] = {}
        with zipfile.ZipFile(model) as task, quiet():
            for name in _NAMES:
                self._interpreters[name] = Interpreter(model_content=task.read(name), num_threads=1)
                self._interpreters[name].allocate_tensors()

    def _run(self, name: str, given: np.ndarray) -> list[np.ndarray]:
        interpreter = self._interpreters[name]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given[None])
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]

    def detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, logits = self._run(_DETECTOR, _signed(picture))
        return boxes[0], logits[0, :, 0]

    def landmarks(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
        import cv2

        points, logit, _ = self._run(_LANDMARKS, cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB) * np.float32(1 / 255))
        return points.reshape(NUM_POINTS, 3)[:, :2].T, float(logit.reshape(-1)[0])

    def blendshapes(self, points: np.ndarray) -> np.ndarray:
        return self._run(_BLENDSHAPES, points)[0]


def _signed(picture: np.ndarray) -> np.ndarray:
    """Bytes as -1 to 1, f4."""
    return picture * np.float32(2 / 255) - np.float32(1)


@contextmanager
def _vectors_that_pay() -> Iterator[None]:
    """AVX2 instead of AVX-512 on processors that compute 512 bits in two halves: 3 to 8 % faster there.

    oneDNN reads the variable once, at OpenVINO's first compilation in a process; other libraries (torch) must not see
    it.
    """
    name = "ONEDNN_MAX_CPU_ISA"
    before = os.environ.get(name)
    if not _halved():
        yield
        return
    os.environ[name] = "AVX2"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def signals_keep_their_stack() -> Iterator[None]:
    """Restores the thread's alternate signal stack after the block.

    OpenVINO's CPU plugin gives the thread that loads it a new stack, and unmaps it when the plugin is unloaded. If that
    happens in another thread, or before an older plugin is unloaded, the thread still uses the stack. The next signal
    to the thread (Ctrl-C) then ends the process with SIGSEGV.
    """
    libc = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(64)  # a stack_t, which has 24 bytes
    libc.sigaltstack(None, before)
    try:
        yield
    finally:
        libc.sigaltstack(before, None)


def _halved() -> bool:
    """Whether the processor is an AMD Zen 4 or older, according to Linux."""
    try:
        processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:  # not Linux: OpenVINO chooses
        return False
    lines = (line.partition(":") for line in processor.splitlines())
    known = {key.strip(): value.strip() for key, _, value in lines}
    return known.get("vendor_id") == "AuthenticAMD" and int(known.get("cpu family", "0")) <= 25
