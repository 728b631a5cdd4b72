"""Reading: windows, pairs, other tools, and damage that is named rather than read as zeros."""

import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from click.testing import CliRunner

import store
from store import layout, similarity, staging
from store.inspect import main, verify
from store.layout import StoreError
from store.similarity import Fit

LENGTHS = (30, 22, 17, 9)
OFFSETS = (0, 30, 60, 80)  # the third leaves rows free; shards of 40 rows
CORPUS = "grid:s1"


def make(path):
    """Four clips in three shards, the last one not done, with a fit and projections."""
    rng = np.random.default_rng(0)
    writer = store.create(path, {"asr": 6, "vsr": 4}, {"created_by": "test"}, chunk_rows=5, shard_rows=40)
    writer.append_clips(
        {
            "id": ["a", "b", "c", "d"],
            "corpus": [CORPUS] * 4,
            "identities": [["p", "q"], ["p"], [], []],
            "label": [0, 1, 0, -1],
            "offset": OFFSETS,
            "capacity": (30, 30, 20, 10),
        }
    )
    writer.grow_rows(90)
    writer.ensure_projections(3)
    for k in range(3):
        arrays = writer.blank_shard()
        for name, a in arrays.items():
            if a.dtype.kind == "f":
                arrays[name] = rng.normal(size=a.shape).astype(a.dtype)
        arrays["mouth"] = rng.integers(1, 255, arrays["mouth"].shape, "u1")
        arrays["flags"] = rng.choice(np.array([16, 17, 18, 24, 25, 26, 31], "u1"), 40)
        writer.write_shard(k, arrays)
    matrices = np.zeros((4, 3), "f4"), np.zeros((6, 3), "f4")
    maps = {CORPUS: {"5": (3.0, 0.1), "25": (4.0, 0.2), "clip": (5.0, 0.3)}, "other": {"5": (9.0, 9.0)}}
    weights = np.array([0.9, 0.5, 0.2], "f4")
    fit = Fit("cca", 0, np.zeros(4, "f4"), matrices[0], np.zeros(6, "f4"), matrices[1], weights, maps)
    writer.write_fit(fit.to_arrays())
    writer.write_clips(0, {"length": LENGTHS, "done": [1, 1, 1, 0], "quality": [1, 0.5, 1, 0]})
    writer.consolidate()
    return writer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store, to be read only."""
    return make(tmp_path_factory.mktemp("store") / "s.zarr").path


@pytest.fixture
def path(whole, tmp_path):
    """A copy of the store, to be changed."""
    return shutil.copytree(whole, tmp_path / "s.zarr")


def test_a_clip_is_a_typed_row(whole):
    reader = store.open(whole)
    assert len(reader) == 4
    clip = reader.clip(1)
    assert (clip.id, clip.label, clip.offset, clip.length, clip.done) == ("b", 1, 30, 22, True)
    assert clip.identities == ("p",)
    assert clip.quality == 0.5
    assert type(clip.offset) is int
    with pytest.raises(StoreError, match="no clip 4"):
        reader.clip(4)
    with pytest.raises(StoreError, match="no clip -1"):
        reader.frames(-1, 0, 1, ["flags"])


def test_what_cannot_be_read_is_refused_by_name(whole):
    reader = store.open(whole)
    with pytest.raises(StoreError, match="clip d is not done"):
        reader.frames(3, 0, 5, ["mouth"])
    for start, stop in [(0, 31), (-1, 5), (6, 5)]:
        with pytest.raises(StoreError, match=r"clip a: frames .* not all in it, it has 30"):
            reader.frames(0, start, stop, ["mouth"])
    with pytest.raises(StoreError, match=r"clip a: .* no frames/nose; it has asr, asr_projection, audio"):
        reader.frames(0, 0, 5, ["mouth", "nose"])
    assert reader.frames(0, 5, 5, ["mouth"])["mouth"].shape == (0, 96, 96)
    assert list(reader.frames(0, 0, 5, "flags")) == ["flags"]


def test_rows_reads_slots_that_are_not_done(whole):
    reader = store.open(whole)
    np.testing.assert_array_equal(
        reader.rows(25, 45, ["mouth"])["mouth"][:5], reader.frames(0, 25, 30, ["mouth"])["mouth"]
    )
    assert reader.rows(80, 90, ["flags"])["flags"].shape == (10,)
    with pytest.raises(StoreError, match="not all in"):
        reader.rows(100, 121, ["flags"])


def test_folders_that_are_no_store_and_newer_stores_are_refused(path, tmp_path):
    for bad in (tmp_path, tmp_path / "missing", path / "zarr.json"):
        with pytest.raises(StoreError, match=r"not a store|missing does not exist"):
            store.open(bad)
    with pytest.raises(StoreError, match="not known"):
        store.open("azure://bucket/s.zarr")
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["version"] = layout.VERSION + 1
    (path / "zarr.json").write_text(json.dumps(document))
    for opener in (store.open, store.Writer.open):
        with pytest.raises(StoreError, match=r"made by a newer concord-av .*upgrade"):
            opener(path)
    document["attributes"]["format"] = "something"
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="not a concord-av store"):
        store.open(path)


def test_a_reader_pickles_and_serves_threads(whole):
    reader = pickle.loads(pickle.dumps(store.open(whole)))
    want = reader.frames(1, 0, 22, reader.names)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: reader.frames(1, 0, 22, reader.names), range(64)):
            assert all(np.array_equal(got[name], want[name], equal_nan=True) for name in want)
    error = pickle.loads(pickle.dumps(StoreError("clip a: gone")))
    assert str(error) == "clip a: gone"


# -- damage ------------------------------------------------------------------------------------------------------------


def shard_file(path, array, shard):
    start = path / "frames" / array / "c" / str(shard)
    return start if start.is_file() else next(p for p in start.rglob("*") if p.is_file())


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


def index_of(file, chunks=8):
    return np.frombuffer(file.read_bytes()[-16 * chunks - 4 : -4], "<u8").reshape(chunks, 2).astype(int)


def test_a_flipped_byte_names_clip_and_array_and_spares_the_other_chunks(path):
    offset, length = index_of(shard_file(path, "mouth", 0))[2]  # rows 10 to 15 of clip a
    flip(shard_file(path, "mouth", 0), offset + length // 2)
    reader = store.open(path)
    with pytest.raises(StoreError, match=r"clip a: frames/mouth cannot be read: .*chunk 2 fails its checksum"):
        reader.frames(0, 8, 12, ["mouth"])
    reader.frames(0, 0, 10, ["mouth"])
    reader.frames(0, 15, 30, ["mouth"])
    assert [(d.clip, d.array) for d in verify(reader)] == [("a", "frames/mouth")]


@pytest.mark.parametrize("keep", [0, 10, 500, -1])
def test_a_truncated_shard_names_clip_and_array(path, keep):
    file = shard_file(path, "mouth", 1)
    file.write_bytes(file.read_bytes()[:keep])
    reader = store.open(path)
    reader.frames(0, 0, 30, ["mouth"])
    with pytest.raises(StoreError, match=r"clip b: frames/mouth cannot be read: .*cut short"):
        reader.frames(1, 0, 22, ["mouth"])
    assert {d.clip for d in verify(reader)} == {"b", "c"}


def test_a_deleted_shard_names_clip_and_array(path):
    shard_file(path, "mouth", 1).unlink()
    reader = store.open(path)
    with pytest.raises(StoreError, match=r"clip c: frames/mouth cannot be read: .*missing"):
        reader.frames(2, 0, 17, ["mouth"])
    assert {d.clip for d in verify(reader)} == {"b", "c"}


def test_a_chunk_that_the_index_lacks_is_damage_and_not_zeros(path):
    file = shard_file(path, "flags", 0)
    data = bytearray(file.read_bytes())
    index = bytearray(data[-16 * 8 - 4 : -4])
    index[16:32] = b"\xff" * 16
    file.write_bytes(data[: -16 * 8 - 4] + index + google_crc32c.value(bytes(index)).to_bytes(4, "little"))
    with pytest.raises(StoreError, match=r"clip a: frames/flags cannot be read: .*is not the shard that the run wrote"):
        store.open(path).frames(0, 0, 30, ["flags"])
    store.Writer.open(path).begin()  # while a run writes, nothing holds shards to what was written
    with pytest.raises(StoreError, match=r"clip a: frames/flags cannot be read: .*chunk 1 is missing"):
        store.open(path).frames(0, 0, 30, ["flags"])


def test_a_chunk_of_another_size_is_damage(path):
    store.Writer.open(path).begin()  # while a run writes, nothing holds metadata to what was written
    metadata = path / "frames/mouth/zarr.json"
    metadata.write_text(metadata.read_text().replace("96", "48"))
    with pytest.raises(StoreError, match=r"clip a: frames/mouth cannot be read: .*holds 46080 bytes, expected 11520"):
        store.open(path).frames(0, 0, 5, ["mouth"])


def test_projections_that_were_never_written_point_to_refit(path):
    writer = store.Writer.open(path)
    writer.ensure_projections(5)
    with pytest.raises(StoreError, match=r"clip a: frames/asr_projection .*--refit"):
        store.open(path).frames(0, 0, 5, ["asr_projection"])


def test_a_missing_array_is_named(path):
    (path / "frames/lips/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"frames/lips is damaged; run precompute.py"):
        store.open(path)
    store.Writer.open(path).begin()
    with pytest.raises(StoreError, match=r"has lost frames/lips"):
        store.open(path)


def test_damage_in_the_table_is_named(path):
    chunk = path / "clips/label/c/0"
    data = chunk.read_bytes()
    flip(chunk, len(data) // 2)
    with pytest.raises(StoreError, match="clips/label is damaged"):
        store.open(path)
    chunk.unlink()
    with pytest.raises(StoreError, match="clips/label is damaged"):
        store.open(path)


def test_rows_that_nobody_filled_are_found_by_verify(path):
    writer = store.Writer.open(path)
    writer.write_shard(0, writer.blank_shard(["flags"]))
    found = verify(store.open(path))
    assert [(d.clip, d.array) for d in found] == [("a", "frames/flags"), ("b", "frames/flags")]


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 4, -4, 21, 40, -40])
@pytest.mark.parametrize("window", [5, 25, "clip"])
def test_pair_similarity_compares_lips_at_t_with_sound_at_t_minus_shift(whole, shift, window):
    reader = store.open(whole)
    i, j = 0, 1
    got = reader.pair_similarity(i, j, shift=shift, window=window)
    lips = reader.frames(i, 0, LENGTHS[i], ["vsr_projection", "flags"])
    sound = reader.frames(j, 0, LENGTHS[j], ["asr_projection", "flags"])
    n = min(LENGTHS[i], LENGTHS[j])
    t = np.array([t for t in range(n) if 0 <= t - shift < LENGTHS[j]], int)
    assert got.shape == (n,)
    assert got.dtype == np.float32
    assert np.flatnonzero(np.isfinite(got)).tolist() == t.tolist()
    mask = ((lips["flags"][t] & 1) > 0) & ((sound["flags"][t - shift] & 8) > 0)
    want = similarity.compare(
        lips["vsr_projection"][t], sound["asr_projection"][t - shift], reader.fit, window, mask, CORPUS
    )
    np.testing.assert_array_equal(got[t], want)
    assert ((want >= 0) & (want <= 1)).all()


def test_pair_similarity_needs_a_fit_and_done_clips(whole, tmp_path):
    with pytest.raises(StoreError, match="clip d is not done"):
        store.open(whole).pair_similarity(3, 0)
    bare = store.create(tmp_path / "bare.zarr", {"asr": 6, "vsr": 4}, {})
    bare.append_clips({"id": ["a"]})
    with pytest.raises(StoreError, match="has no fit"):
        store.open(bare.path).pair_similarity(0, 0)


# -- other tools -------------------------------------------------------------------------------------------------------


def test_pandas_has_every_clip_in_row_order(whole):
    table = store.open(whole).to_pandas()
    assert table["id"].tolist() == ["a", "b", "c", "d"]
    assert table["done"].tolist() == [1, 1, 1, 0]
    assert list(table.columns) == list(layout.CLIP_ARRAYS)


def test_xarray_reads_the_same_values(whole):
    pytest.importorskip("xarray")
    reader = store.open(whole)
    tree = reader.to_xarray()
    np.testing.assert_array_equal(tree["frames"]["mouth"][30:52].values, reader.frames(1, 0, 22, ["mouth"])["mouth"])
    assert tree["frames"]["lips"].dims == ("frame", "point", "xy")
    lips, rows = tree["frames"]["lips"], reader.rows(0, 40, ["lips"])["lips"]
    for key in (np.s_[3], np.s_[5:20:3, 2], np.s_[20:5:-3, :, 1], np.s_[[7, 1, 7], 0], np.s_[4:4], np.s_[2, 3, 1]):
        np.testing.assert_array_equal(lips[key].values, rows[key])
    assert tree["clips"]["id"].values.tolist() == ["a", "b", "c", "d"]


def test_inspect_counts_clips_and_finds_damage(path):
    run = CliRunner()
    text = run.invoke(main, [str(path), "--verify"])
    assert text.exit_code == 0, text.output
    assert "3 done, 1 not done" in text.output
    assert "by label: real 2, fake 1\n" in text.output
    assert "staged" not in text.output
    assert max(map(len, text.output.splitlines())) < 200
    assert "frames/asr_projection" in text.output
    assert "every chunk reads as written" in text.output
    flip(shard_file(path, "mouth", 2), 3)  # rows of clip d, which is not done
    assert run.invoke(main, [str(path), "--verify"]).exit_code == 0
    flip(shard_file(path, "audio", 0), 3)
    broken = run.invoke(main, [str(path), "--verify", "--json"])
    assert broken.exit_code == 1
    report = json.loads(broken.stdout)
    assert [(d["clip"], d["array"]) for d in report["damage"]] == [("a", "frames/audio")]
    assert report["clips"]["by_label"] == {"0": 2, "1": 1}
    assert report["clips"]["frames"] == sum(LENGTHS[:3])


def test_inspect_counts_what_a_run_that_was_cut_off_has_staged(path):
    for name in ("000000000000-000000000-8.npz", "000000004200-000000008-7.npz", "000000004200-000000008-7.face.npz"):
        (path / staging.FOLDER).mkdir(exist_ok=True)
        (path / staging.FOLDER / name).touch()
    said = CliRunner().invoke(main, [str(path)]).output
    assert "15 clips are staged: a run is at work or was cut off; run precompute.py again to continue" in said
    assert json.loads(CliRunner().invoke(main, [str(path), "--json"]).stdout)["staged"] == 15


def test_inspect_of_something_else_is_one_line_and_exit_2(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_reading_needs_no_torch_ray_accelerate_or_pandas():
    code = "import sys, store, store.inspect, store.staging; print([m for m in sys.modules if m in sys.argv[1:]])"
    names = ["torch", "ray", "accelerate", "pandas", "xarray", "mediapipe"]
    root = Path(store.__file__).parent.parent
    out = subprocess.run([sys.executable, "-c", code, *names], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
