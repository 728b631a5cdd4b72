"""Detectors as the Hub knows models: saved and loaded alike, their cards read by the Hub's own library, nothing foreign
believed, and the Hub's troubles in one sentence."""

import os
import pickle
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import _http
from safetensors.torch import load_file, save_file

import concord_av
from concord.errors import ConcordError
from store.similarity.grounds import Grounds
from store.similarity.limits import STEPS
from store.similarity.strangers import PEOPLE
from student import checkpoint
from student.checkpoint import CheckpointError
from student.header import NOT_FITTED
from student.hub import CHANGED, Detector, HubError
from student.models import build
from student.run import card
from student.run.state import Best, Validation

ROOT = Path(__file__).parents[2]
SCORES = {"levels": [k / STEPS for k in range(STEPS + 1)], "units": 25, "clips": 30}
ABOUT = {
    "threshold": 0.25, "temperature": 1.5, "fitted_on": "validation, 40 trials", "window": 25, "step": 7,
    "calibrated_on": {"real": 30, "speakers": 25, "strangers": 25, "alarms": 0.02, "corpora": {"grid:s1": 20, "lavdf:x": 10}},
    "strangers": {
        "how": PEOPLE, "guessed": False, "corpora": ["grid:s1"], "maps": {},
        "lengths": [{"frames": 25, "own": SCORES, "swaps": SCORES}],
    },
    "config": {"seed": 0, "data": {"trim": "leading"}}, "store": {"path": "/s.zarr"}, "versions": {},
}  # fmt: skip
FILES = {"model.safetensors", "config.json", "README.md"}


@pytest.fixture
def run(tmp_path):
    """The folder of a detector, as training writes it."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    checkpoint.save_model(folder, build("lite"), "lite", ABOUT)
    return folder


def example(batch=2, frames=20):
    generator = torch.Generator().manual_seed(1)
    mouth = torch.randint(0, 255, (batch, frames, 96, 96), generator=generator, dtype=torch.uint8)
    audio = torch.randint(-3000, 3000, (batch, frames * 640), generator=generator, dtype=torch.int16)
    return mouth, audio, torch.ones(batch, frames, dtype=torch.bool)


def test_a_saved_detector_gives_the_same_logits_and_keeps_its_header(run, tmp_path):
    detector = concord_av.Detector.from_pretrained(run)
    assert detector.save_pretrained(tmp_path / "saved") is None
    again = Detector.from_pretrained(str(tmp_path / "saved"))
    with torch.no_grad():
        first, second = detector(*example()), again(*example())
    assert torch.equal(first.clip_logits, second.clip_logits)
    assert not again.training
    assert again.header.told == detector.header.told
    assert again.header.grounds == Grounds.of(ABOUT["calibrated_on"]) is not None
    expected = torch.sigmoid((first.clip_logits - 0.25) / 1.5)
    assert torch.equal(again.probability(first.clip_logits), expected)
    assert {path.name for path in (tmp_path / "saved").iterdir()} == FILES
    assert again.header.strangers.lengths[0].units == 25
    first, second = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "saved"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    again.save_pretrained(tmp_path / "saved")  # over its own


def test_the_example_of_the_docs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"<!-- hub -->\n```python\n(.*?)```", (ROOT / "docs" / "train.md").read_text(), re.DOTALL)
    exec(compile(code.replace("runs/first", "run"), "train.md", "exec"), {})
    assert {path.name for path in (tmp_path / "detector").iterdir()} == FILES


def test_weights_that_were_trained_on_lose_what_was_fitted_to_others(run, tmp_path):
    detector = Detector.from_pretrained(run)
    with torch.no_grad():
        next(detector.model.parameters()).add_(0.01)
    detector.save_pretrained(tmp_path / "tuned")
    header = Detector.from_pretrained(tmp_path / "tuned").header
    assert (header.threshold, header.temperature, header.fitted_on, header.grounds) == (0, 1, NOT_FITTED, None)
    assert header.strangers is None
    text = (tmp_path / "tuned" / "README.md").read_text()
    assert ModelCard(text).data.library_name == "concord-av"
    assert text.count(CHANGED) == 1


@pytest.mark.parametrize(
    "others", [["results.json", "model.safetensors", "config.json"], ["README.md"], ["thesis.tex"]]
)
def test_a_folder_with_other_files_is_left_as_it_is(run, tmp_path, others):
    detector = Detector.from_pretrained(run)
    (tmp_path / "theirs").mkdir()
    for name in others:
        (tmp_path / "theirs" / name).write_text("{}")
    with pytest.raises(HubError, match="nothing there is replaced: give a new or an empty folder"):
        detector.save_pretrained(tmp_path / "theirs")
    assert {path.name: path.read_text() for path in (tmp_path / "theirs").iterdir()} == dict.fromkeys(others, "{}")
    (tmp_path / "file").touch()
    with pytest.raises(HubError, match="is not a folder"):
        detector.save_pretrained(tmp_path / "file")


def pickled(folder):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": [1.0]}))


def damaged(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def foreign(folder):
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")


def endless(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(checkpoint.MOST_MODEL + 1)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no model at"),
        (lambda folder: ((folder / "model.safetensors").unlink(), pickled(folder)), "no model at"),
        (damaged, "damaged"),
        (foreign, "is not a detector of this project"),
        (endless, "bytes"),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_sentence(run, harm, says):
    harm(run)
    with pytest.raises(CheckpointError, match=says) as caught:
        Detector.from_pretrained(run)
    assert len(str(caught.value).splitlines()) == 1


def test_config_and_card_decide_nothing(run, tmp_path):
    """They may be of anybody, and be anything."""
    (run / "config.json").write_text("[" * 100_000)
    (run / "README.md").write_bytes(b"\xff" * 100)
    (run / "MODEL_CARD.md").write_text("x" * (2 << 20))
    detector = Detector.from_pretrained(run)
    assert detector.text == ""
    detector.save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "README.md").read_text()
    assert ModelCard(text).data.to_dict() == yaml.safe_load(card.front_matter(["grid:s1"]).strip("-"))
    assert "under whose licences is not known here" in text


def test_the_hubs_library_reads_figures_that_say_what_they_are_of():
    best = Best((0.9, 0.1), 3, 9, "", Validation(trials=80, auc=0.91234, brier=0.1))
    read = ModelCard(card.front_matter(["lavdf:x", "grid:s1", "grid:s2"], best, "group")).data
    assert read.license == "unknown"
    assert read.datasets == ["GRID"]  # the other is gated
    assert [(one.metric_type, one.metric_value) for one in read.eval_results] == [
        ("roc_auc", 0.9123),
        ("brier_score", 0.1),
    ]
    assert read.eval_results[0].metric_name == "auc on 80 validation trials"
    assert "validation clips of its own corpora, split off by group" in read.eval_results[0].dataset_name
    bare = ModelCard(card.front_matter(["lavdf:x"], Best((0, 0), 1, 1, "", Validation()))).data
    assert (bare.eval_results, bare.metrics, bare.datasets) == (None, None, None)


# -- the Hub, as a server of this machine ----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """No cache and no login of the person who tests; nobody waits before asking again."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def at(monkeypatch, port):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    template = f"http://127.0.0.1:{port}" + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class Served(BaseHTTPRequestHandler):
    """Files of models, as the Hub answers for them; `declared` sizes in place of true ones."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    declared: dict[str, int] = {}  # noqa: RUF012

    def do_HEAD(self):
        data = self.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        if data is None:
            known = any(self.path.split("/resolve/")[0] in name for name in self.files)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{len(data or b"")}"')
        self.send_header("Content-Length", str(self.declared.get(self.path, len(data or b""))))
        self.end_headers()
        return data

    def do_GET(self):
        if data := self.do_HEAD():
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(cache, monkeypatch):
    monkeypatch.setattr(Served, "files", {})
    monkeypatch.setattr(Served, "declared", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    at(monkeypatch, server.server_port)
    yield Served
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_of_the_hub_is_fetched_once_and_comes_with_its_card(hub, cache, run, monkeypatch):
    Detector.from_pretrained(run).save_pretrained(run.parent / "saved")
    for name in FILES:
        hub.files[f"/ann/lips/resolve/main/{name}"] = (run.parent / "saved" / name).read_bytes()
    detector = Detector.from_pretrained("ann/lips")
    assert detector.header.told == Detector.from_pretrained(run).header.told
    assert detector.text == (run.parent / "saved" / "README.md").read_text()
    assert not [name for name in os.listdir(cache / "models--ann--lips" / "snapshots" / ("c" * 40)) if "config" in name]
    hub.files.clear()
    assert Detector.from_pretrained("ann/lips", local_files_only=True).text == detector.text


def test_what_the_hub_does_not_have_or_declares_too_large_is_one_sentence(hub, cache):
    hub.files["/ann/other/resolve/main/config.json"] = b"{}"
    hub.files["/ann/large/resolve/main/model.safetensors"] = b"x"
    hub.declared["/ann/large/resolve/main/model.safetensors"] = 1 << 40
    for name, says in {
        "ann/nothing": "ann/nothing is not a folder here, and the Hub has no such model",
        "ann/other": "has no model.safetensors in it",
        "ann/large": "has 1099511627776 bytes, and no detector has more than",
        "ann lips": "takes names like USER/NAME",
    }.items():
        with pytest.raises(ConcordError, match=says) as caught:
            Detector.from_pretrained(name)
        assert len(str(caught.value).splitlines()) == 1
    assert not list(cache.rglob("blobs/*"))


def test_without_a_network_the_sentence_says_so(cache, run, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        at(monkeypatch, free.getsockname()[1])
        with pytest.raises(HubError, match="ann/lips is not a folder here, and the Hub cannot be reached"):
            Detector.from_pretrained("ann/lips")
        with pytest.raises(HubError, match="ann/lips was not published: the Hub"):
            Detector.from_pretrained(run).push_to_hub("ann/lips", token="hf_" + "x" * 34)
    with pytest.raises(CheckpointError, match="no model at"):
        Detector.from_pretrained("./ann/lips")
