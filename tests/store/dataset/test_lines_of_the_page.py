"""The lines of docs/dataset.md run as they are written, on a small store, and the ten of them learn; so does the notebook."""

import json
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from notebooks import FOLDER, ROOT, executed
from small_store import make_store

import store

PAGE = ROOT / "docs" / "dataset.md"
BLOCKS = dict(re.findall(r"<!-- (.*?) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
NOTEBOOK = FOLDER / "a_store_of_labels.ipynb"
MOST_BYTES = 300_000  # of a notebook with its plots
PLOTS = 3


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr", {"train": 8}, frames=60)


def run(name, path):
    """The names that a block leaves, run with this store in place of the page's."""
    space = {}
    exec(compile(BLOCKS[name].replace("/tmp/grid.zarr", str(path)), name, "exec"), space)
    return space


def test_there_are_ten_lines():
    lines = [line for line in BLOCKS["ten lines"].splitlines() if line and not re.match("import|from", line)]
    assert len(lines) == 10


def test_the_ten_lines_learn(path):
    torch.manual_seed(0)
    space = run("ten lines", path)

    def agreement(swaps):
        found = []
        for w in store.Stream(store.Dataset(path, ["lips", "audio", "similarity"], window=25, swaps=swaps)):
            seen, heard = w["lips"].flatten(2).mT, torch.fft.rfft(w["audio"].float()).abs().log1p()[..., :80].mT
            with torch.no_grad():
                sides = space["lips"].eval()(seen), space["sound"].eval()(heard)
            found.append(torch.cosine_similarity(*sides, dim=1)[w["mask"]].mean())
        return float(np.mean(found))

    assert agreement(0.0) > agreement(1.0) + 0.2


def test_clips_by_name(path):
    space = run("clips by name", path)
    assert space["same"].row == space["first"].row == 0
    assert len(space["real"]) == 8


def test_a_transform(path):
    data = run("transform", path)["data"]
    plain = store.Dataset(path, ["audio", "similarity"], window=25)
    ratio = data[0]["audio"].sum() / plain[0]["audio"].sum()
    assert 0.5 <= ratio <= 2
    assert data[0]["audio"].dtype == np.float32


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_stream(path):
    space = run("stream", path)
    assert space["batch"]["mouth"].shape[1:] == (25, 96, 96)
    assert space["data"].epoch == 1


# -------------------------------------------------------------------------------------------------------- the notebook


def outputs(notebook):
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def printed(notebook):
    return "".join(one.get("text", "") for one in outputs(notebook))


def test_the_notebook_as_it_is_kept():
    """Its outputs are there, small, and of no machine; its ten lines are those of the page."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert sum("image/png" in one.get("data", {}) for one in outputs(notebook)) == PLOTS
    assert {one.output_type for one in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert not any(one.get("name") == "stderr" for one in outputs(notebook))
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # from top to bottom, once
    assert not re.search(r"/(home|root|work|Users)/", json.dumps(notebook))
    lines = BLOCKS["ten lines"].rstrip().replace('"/tmp/grid.zarr"', "PATH")
    assert lines in [cell.source for cell in notebook.cells]
    own, others = re.search(r"own sound (\S+), sound of another clip (\S+)$", printed(notebook).strip()).groups()
    assert float(own) > float(others)


def test_the_light_cells_of_the_notebook_run(path, monkeypatch):
    """All but the ten lines and what follows, on a made store and without a kernel."""
    monkeypatch.setenv("CONCORD_STORE", str(path))
    monkeypatch.setattr(plt, "show", lambda: None)
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    light = cells[: next(k for k, source in enumerate(cells) if "optimizer.step()" in source)]
    space = {}
    for source in light:
        exec(compile(source, NOTEBOOK.name, "exec"), space)
    drawn = len(plt.get_fignums())
    plt.close("all")
    assert drawn == PLOTS - 1
    assert (np.diag(space["pairs"]) > space["pairs"].mean()).all()  # every clip's own sound fits it


@pytest.mark.slow
def test_the_notebook_makes_its_store_and_runs(tmp_path):
    """With the models, Ray and a kernel, as a reader's first run does."""
    notebook = executed(NOTEBOOK, tmp_path / "grid.zarr")
    assert len(store.open(tmp_path / "grid.zarr")) == 4
    assert sum("image/png" in one.get("data", {}) for one in outputs(notebook)) == PLOTS
    own, others = re.search(r"own sound (\S+), sound of another clip (\S+)$", printed(notebook).strip()).groups()
    assert float(own) > float(others)
