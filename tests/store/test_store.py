"""Writing: what goes in comes out, growing keeps what is there, kills and wrong input do no harm."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from concord import files
from store import layout, staging
from store.inspect import verify
from store.layout import StoreError
from store.similarity import Fit

WIDTHS = {"asr": 6, "vsr": 4}


def random_shard(writer, rng):
    """A shard of random values for every array, flags marked as in use."""
    arrays = writer.blank_shard()
    for name, a in arrays.items():
        if a.dtype.kind == "f":
            arrays[name] = rng.random(a.shape).astype(a.dtype)
        else:
            info = np.iinfo(a.dtype)
            arrays[name] = rng.integers(info.min, info.max, a.shape, a.dtype, endpoint=True)
    arrays["flags"] |= layout.IN_USE
    return arrays


def small(path, **options):
    return store.create(path, WIDTHS, {"created_by": "test"}, **{"chunk_rows": 5, "shard_rows": 20, **options})


@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=3),
    chunk_rows=st.integers(3, 7),
    chunks=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window_reads_back_as_written(tmp_path_factory, lengths, chunk_rows, chunks, seed):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    rng = np.random.default_rng(seed)
    writer = small(path, chunk_rows=chunk_rows, shard_rows=chunk_rows * chunks)
    offsets = np.cumsum([0, *lengths])[:-1]
    writer.append_clips({"id": [f"c{k}" for k in range(len(lengths))], "offset": offsets, "capacity": lengths})
    rows = writer.grow_rows(sum(lengths))
    written = [random_shard(writer, rng) for _ in range(rows // writer.shard_rows)]
    for k, arrays in enumerate(written):
        writer.write_shard(k, arrays)
    writer.write_clips(0, {"length": lengths, "done": [1] * len(lengths)})
    whole = {name: np.concatenate([w[name] for w in written]) for name in written[0]}
    reader = store.open(path)
    for i, length in enumerate(lengths):
        start, stop = sorted(rng.integers(0, length, 2, endpoint=True).tolist())
        for name, got in reader.frames(i, start, stop, reader.names).items():
            np.testing.assert_array_equal(got, whole[name][offsets[i] + start : offsets[i] + stop], name)
            assert got.dtype == whole[name].dtype


def test_plain_zarr_reads_the_same_values_and_lists_the_contract(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a", "ü"], "identities": [["p", "q"], []], "offset": [0, 7]})
    writer.grow_rows(20)
    writer.ensure_projections(3)
    arrays = random_shard(writer, np.random.default_rng(0))
    writer.write_shard(0, arrays)
    writer.consolidate()
    plain = zarr.open(tmp_path / "s.zarr", mode="r")
    for name, values in arrays.items():
        np.testing.assert_array_equal(plain["frames"][name][:], values)
    assert plain["clips/id"][:].tolist() == ["a", "ü"]
    assert plain["clips/identities"][:].tolist() == ['["p", "q"]', "[]"]
    assert plain["clips/id"].metadata.to_dict()["data_type"] == "string"
    tree = str(plain.tree())
    for name in [*layout.FRAME_ARRAYS, *layout.EMBEDDINGS, *layout.PROJECTIONS, *layout.CLIP_ARRAYS]:
        assert name in tree
    assert plain.attrs["format"] == "concord-av"
    assert plain.attrs["layout"] == {"chunk_rows": 5, "shard_rows": 20}
    assert plain["frames/audio"].shape == (20, 640)


def test_default_sizes_hold_whole_windows(tmp_path):
    writer = store.create(tmp_path / "s.zarr", WIDTHS, {}, {"face": ("u1", (112, 112)), "box": ("f4", (4,))})
    assert layout.SHARD % layout.CHUNK == 0
    assert layout.SHARD % 75 == 0
    assert writer.frame_arrays["face"] == ("u1", (112, 112))
    assert writer.frame_arrays["asr"] == ("f2", (6,))
    assert zarr.open(tmp_path / "s.zarr")["frames/mouth"].shards == (4200, 96, 96)


def test_unused_rows_hold_the_fill_value_and_compress_to_nothing(tmp_path):
    writer = store.create(tmp_path / "s.zarr", WIDTHS, {})
    writer.grow_rows(1)
    blank = writer.blank_shard(["mouth", "asr", "fake"])
    assert blank["mouth"].max() == 0
    assert np.isnan(blank["asr"]).all()
    assert (blank["fake"] == layout.UNKNOWN).all()
    writer.write_shard(0, blank)
    assert (tmp_path / "s.zarr/frames/mouth/c/0/0/0").stat().st_size < 20_000  # of 38.7 million


def test_the_same_data_gives_the_same_bytes(tmp_path):
    trees = []
    for name in ("one", "two"):
        writer = small(tmp_path / name)
        writer.append_clips({"id": ["a"]})
        writer.grow_rows(40)
        for k in (1, 0) if name == "one" else (0, 1):
            writer.write_shard(k, random_shard(writer, np.random.default_rng(k)))
        writer.write_fit({"attrs": {"kind": "cca"}, "m": np.arange(6.0).reshape(2, 3)})
        writer.consolidate()
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        trees.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    assert trees[0] == trees[1]


def test_growing_keeps_earlier_rows_and_files(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a"], "offset": [0], "capacity": [20], "length": [20], "done": [1]})
    writer.grow_rows(20)
    writer.write_shard(0, random_shard(writer, np.random.default_rng(0)))
    writer.consolidate()
    reader = store.open(writer.path)
    before = reader.frames(0, 0, 20, reader.names)
    files = {p: p.read_bytes() for p in writer.path.glob("frames/*/c/**/*") if p.is_file()}
    assert writer.append_clips({"id": ["b"], "offset": [20], "capacity": [5]}) == 1
    assert writer.grow_rows(25) == 40
    assert writer.grow_rows(3) == 40
    writer.write_shard(1, random_shard(writer, np.random.default_rng(1)))
    after = store.open(writer.path).frames(0, 0, 20, reader.names)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert all(p.read_bytes() == data for p, data in files.items())


def test_growing_after_consolidation_does_not_mislead_plain_readers(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a"]})
    writer.consolidate()
    writer.append_clips({"id": ["b"]})
    writer.grow_rows(20)
    writer.ensure_projections(3)
    plain = zarr.open(writer.path, mode="r")  # as a run killed here would leave it
    assert plain["clips/id"].shape == (2,)
    assert plain["frames/mouth"].shape[0] == 20
    assert plain["frames/asr_projection"].shape == (20, 3)
    assert len(store.open(writer.path)) == 2


def test_attributes_are_replaced_one_by_one_and_survive_consolidation(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.consolidate()
    writer.update_attrs({"similarity": {"brier": {"5": np.float32(0.5), "25": float("nan")}}})
    assert writer.attrs["created_by"] == "test"
    assert zarr.open(writer.path).attrs["similarity"] == {"brier": {"5": 0.5, "25": None}}
    with pytest.raises(StoreError, match="JSON cannot"):
        writer.update_attrs({"bad": object()})


def test_consolidating_is_silent_about_what_is_no_zarr_node(tmp_path, recwarn):
    writer = small(tmp_path / "s.zarr")
    (writer.path / "ledger.parquet").write_bytes(b"not Zarr")
    staging.stage(writer.path, "000000000000-000000000-3", [], [])
    writer.write_words({name: [] for name in layout.WORD_ARRAYS})
    writer.consolidate()
    assert "words" in str(zarr.open(writer.path, mode="r").tree())
    assert not recwarn.list
    assert staging.staged(writer.path) == {"000000000000-000000000-3"}


def test_a_table_whose_growth_was_cut_off_is_as_before_and_grows_again(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a"]})
    array = zarr.open_array(writer.path / "clips/id")  # what a kill leaves: the first column grown, the rest not
    array.resize((3,))
    reader = store.open(writer.path)
    assert reader.clips["id"].tolist() == ["a"]
    assert writer.append_clips({"id": ["b"]}) == 1
    assert store.open(writer.path).clips["id"].tolist() == ["a", "b"]


def test_clip_columns_that_do_not_fit_are_refused(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a"]})
    with pytest.raises(StoreError, match="clip a is in"):
        writer.append_clips({"id": ["a"]})
    with pytest.raises(StoreError, match="no column colour"):
        writer.append_clips({"id": ["b"], "colour": [1]})
    with pytest.raises(StoreError, match="differ in length"):
        writer.append_clips({"id": ["b"], "label": [1, 0]})
    with pytest.raises(StoreError, match="not all in"):
        writer.write_clips(1, {"done": [1]})
    assert writer.num_clips == 1


def test_shards_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.grow_rows(20)
    good = np.zeros(20, "u1")
    with pytest.raises(StoreError, match=r"frames/lips: a shard is \[20, 40, 2\]"):
        writer.write_shard(0, {"flags": good, "lips": np.zeros((19, 40, 2), "f2")})
    with pytest.raises(StoreError, match="frames/mouth is uint8, not float32"):
        writer.write_shard(0, {"flags": good, "mouth": np.zeros((20, 96, 96), "f4")})
    with pytest.raises(StoreError, match=r"frames/asr: row 3 .* too large"):
        writer.write_shard(0, {"flags": good, "asr": np.full((20, 6), np.where(np.arange(20) == 3, 1e5, 0)[:, None])})
    with pytest.raises(StoreError, match="no frames/nose"):
        writer.write_shard(0, {"flags": good, "nose": good})
    with pytest.raises(StoreError, match="no shard 1"):
        writer.write_shard(1, {"flags": good})
    assert not (writer.path / "frames/flags/c").exists()


def test_a_store_is_not_made_over_something_else(tmp_path):
    small(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="exists already"):
        small(tmp_path / "s.zarr")
    (tmp_path / "empty").mkdir()
    small(tmp_path / "empty")
    with pytest.raises(StoreError, match="not known"):
        small("azure://bucket/s.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "s.zarr"]


def test_projections_are_made_anew_only_for_another_width(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.grow_rows(20)
    writer.ensure_projections(3)
    writer.write_shard(0, writer.blank_shard(["asr_projection", "vsr_projection"]))
    shard = writer.path / "frames/asr_projection/c/0/0"
    writer.ensure_projections(3)
    assert shard.is_file()
    writer.ensure_projections(4)
    assert not shard.exists()
    assert writer.frame_arrays["vsr_projection"] == ("f2", (4,))
    assert writer.num_rows == 20


def fit_of(corpus, slope=2.0):
    rng = np.random.default_rng(0)
    a, b, c = rng.random((3, 3)).astype("f4"), rng.random((4, 3)).astype("f4"), rng.random(3).astype("f4")
    return Fit("cca", 0, np.zeros(3, "f4"), a, np.zeros(4, "f4"), b, c, {corpus: {"5": (slope, 0.5), "clip": (1, 0)}})


@pytest.mark.parametrize("corpus", ["grid:s1", "a/b%2F", "..", "__x", "Männer"])
def test_a_fit_reads_back_whatever_the_corpus_is_called(tmp_path, corpus):
    writer = small(tmp_path / "s.zarr")
    assert store.open(writer.path).fit is None
    writer.write_fit(fit_of("other").to_arrays())
    writer.write_fit(fit_of(corpus).to_arrays())
    writer.consolidate()
    fit = store.open(writer.path).fit
    assert fit.calibration == {corpus: {"5": (2.0, 0.5), "clip": (1.0, 0.0)}}
    np.testing.assert_array_equal(fit.vsr_matrix, fit_of(corpus).vsr_matrix)
    assert not (writer.path / "_staging").exists()


def test_a_fit_whose_swap_was_cut_off_is_put_in_place_by_tidy(tmp_path, monkeypatch):
    writer = small(tmp_path / "s.zarr")
    writer.write_fit(fit_of("old").to_arrays())
    with monkeypatch.context() as cut:
        cut.setattr(writer, "_finish_swap", lambda name: None)
        writer.write_fit(fit_of("new", slope=7.0).to_arrays())
    assert set(store.open(writer.path).fit.calibration) == {"old"}
    partial = writer.path / f"frames/mouth/.zarr.json.{'0' * 32}.partial"
    partial.write_bytes(b"half")
    files.unfinished(writer.path / "frames").write_bytes(b"half")
    (writer.path / "notes.partial").write_text("somebody's")
    writer.tidy()
    assert store.open(writer.path).fit.calibration["new"]["5"] == (7.0, 0.5)
    assert list(writer.path.rglob("*partial*")) == [writer.path / "notes.partial"]
    assert not any((writer.path / "_staging").iterdir())


def test_words_come_back_by_clip(tmp_path):
    writer = small(tmp_path / "s.zarr")
    writer.append_clips({"id": ["a", "b", "c"]})
    with pytest.raises(StoreError, match="--words"):
        store.open(writer.path).words(0)
    columns = {"clip": [0, 2, 2], "start": [0, 0.5, 1], "end": [1, 1, 2], "text": ["hé", "x", "y"]}
    writer.write_words({**columns, "probability": [0.5, 0.25, 1]})
    reader = store.open(writer.path)
    assert reader.words(0) == [{"start": 0, "end": 1, "text": "hé", "probability": 0.5}]
    assert reader.words(1) == []
    assert [w["text"] for w in reader.words(2)] == ["x", "y"]
    with pytest.raises(StoreError, match="clip order"):
        writer.write_words({**{k: v[::-1] for k, v in columns.items()}, "probability": [1, 1, 1]})


KILLED = """
import sys, numpy as np, store
writer = store.Writer.open(sys.argv[1])
arrays = writer.blank_shard()
arrays["mouth"] = np.random.default_rng(0).integers(0, 255, arrays["mouth"].shape, "u1")
arrays["flags"][:] = 16
arrays["asr"][:] = arrays["vsr"][:] = 0
k = 0
while True:
    writer.write_shard(k % 4, arrays)
    print(k, flush=True)
    k += 1
"""


def test_a_writer_that_is_killed_leaves_whole_shards(tmp_path):
    writer = small(tmp_path / "s.zarr", chunk_rows=25, shard_rows=200)
    writer.grow_rows(800)
    root = Path(store.__file__).parent.parent
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(writer.path)], stdout=subprocess.PIPE, cwd=root)
    with child:
        for _ in range(5):  # each shard once, and one of them again
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    writer.append_clips({"id": ["a"], "offset": [0], "capacity": [800], "length": [800], "done": [1]})
    writer.tidy()
    assert verify(store.open(writer.path)) == []
    assert not [path for path in writer.path.rglob("*") if files.is_unfinished(path.name)]


# -- staging -----------------------------------------------------------------------------------------------------------


def test_metadata_on_disk_is_standard_json(tmp_path):
    writer = small(tmp_path / "s.zarr")
    for file in writer.path.rglob("zarr.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)  # called for NaN and Infinity
