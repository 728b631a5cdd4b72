"""Exports: what WebDataset and Hugging Face datasets read is what the store has; kills, other folders, hostile names."""

import json
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from command_runs import ROOT, contents, ran

import store
from concord import files
from store import layout
from store.export import folder as folders
from store.export.__main__ import main
from store.export.plan import MOST_FRAMES, Request, plan
from store.layout import StoreError
from store.similarity import Fit, fitfile

IDS = [
    "../x", "/etc/passwd", "a.b.c/d.e.mp4", "ünï/三👄", ".hidden", "a\nb", " ", "-rf", "000000001", 'q",{{x}}|<b>', "y" * 300,
    "json", "failed",
]  # fmt: skip
SPLITS = ("train", "", "val", "test")
SECRET = "/home/somebody"
KINDS = ("webdataset", "datasets")
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by webdataset


def make(path, ids=IDS, learned=True):
    """A store of random values whose clips have those ids, the last one not done."""
    rng, count = np.random.default_rng(0), len(ids)
    about = {
        "teachers": {
            "asr": {"name": f"avhubert:{SECRET}/w.pt@12", "sha256": "ab", "dim": 6, "source": f"{SECRET}/w.pt"},
            "vsr": {"name": "lips", "sha256": "cd", "dim": 4},
        },
        "command": f"precompute.py --store {SECRET}",
        "corpora": ["grid:s1", "<b>[x](y)"],
    }
    if learned:
        about["similarity"] = {"kind": "cca", "complete": True, "fit_from": f"{SECRET}/fit.npz"}
    writer = store.create(path, {"asr": 6, "vsr": 4}, about, chunk_rows=5, shard_rows=40)
    lengths = [int(x) for x in rng.integers(3, 7, count)]
    offsets = [40 * (k // 6) + 6 * (k % 6) for k in range(count)]  # six in a shard
    writer.append_clips(
        {
            "id": ids,
            "path": [f"{SECRET}/{k}.mp4" for k in range(count)],
            "corpus": [("grid:s1", "other")[k % 2] for k in range(count)],
            "split": [SPLITS[k % 4] for k in range(count)],
            "method": ["" if k % 3 else "swap=1" for k in range(count)],
            "identities": [["p", "ü"][: k % 3] for k in range(count)],
            "label": [k % 3 - 1 for k in range(count)],
            "offset": offsets,
            "capacity": [6] * count,
        }
    )
    rows = writer.grow_rows(offsets[-1] + 6)
    if learned:
        writer.ensure_projections(3)
        writer.write_fit(Fit("cca", 0, *(np.ones(s, "f4") for s in (4, (4, 3), 6, (6, 3), 3)), {}).to_arrays())
    for k in range(rows // 40):
        block = writer.blank_shard()
        for name, a in block.items():
            block[name] = rng.normal(size=a.shape).astype(a.dtype) if a.dtype.kind == "f" else a
        block["mouth"] = rng.integers(0, 256, block["mouth"].shape, "u1")
        block["audio"] = rng.integers(-9999, 9999, block["audio"].shape, "i2")
        block["flags"] = rng.integers(16, 64, 40).astype("u1")
        block["fake"] = rng.integers(-1, 2, 40).astype("i1")
        block["similarity"][:2] = np.nan
        writer.write_shard(k, block)
    writer.write_clips(0, {"length": lengths, "duration": [n / 25 for n in lengths], "done": [1] * (count - 1) + [0]})
    words = {"clip": [0, 0, 3], "start": [0, 0.1, 0.2], "end": [0.1, 0.2, 0.3], "probability": [1, 0.5, 0]}
    writer.write_words({**words, "text": ["bin", "ü,三", ""]})
    writer.consolidate()
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store with hostile names; to be read only."""
    return make(tmp_path_factory.mktemp("store") / "s.zarr")


@pytest.fixture(scope="module")
def exported(path, tmp_path_factory):
    """{format: folder} of both exports, in several shards."""
    top = tmp_path_factory.mktemp("exports")
    made = {}
    for kind in KINDS:
        request = Request(kind, shard_bytes=120_000, licence="CC-BY-4.0", attribution="Somebody & <Co>")
        made[kind] = write(path, top / kind, request)
    return made


def write(path, out, request, shards=None):
    """The export, or its first shards alone."""
    reader = store.open(path)
    export = folders.claim(out, plan(reader, request))
    for shard in export.waiting[:shards]:
        export.write(reader, shard)
    if shards is None:
        export.close(reader)
    return out


def expected(path):
    """{id: (record, arrays)} of the clips that are done, in the order of the store, as the reader gives them."""
    reader = store.open(path)
    names = [name for name in reader.names if name not in layout.SECOND_ARRAYS]
    return {clip.id: (clip, reader.frames(clip.row, 0, clip.length, names)) for clip in reader if clip.done}


def same(record, clip, words):
    """A clip's record is the table's row."""
    for name in ("row", "id", "corpus", "method", "label", "audio_fake", "length", "num_faces", "source"):
        assert record[name] == getattr(clip, name), name
    assert list(record["identities"]) == list(clip.identities)
    assert record["duration"] == pytest.approx(clip.duration)
    assert record["quality"] is None or np.isnan(record["quality"])  # not known
    assert [word["text"] for word in record["words"]] == [word["text"] for word in words]
    for name in ("start", "end", "probability"):
        assert [word[name] for word in record["words"]] == [word[name] for word in words]


# -------------------------------------------------------------------------------------------- read by the libraries


@UNCLOSED
def test_webdataset_reads_what_the_store_has(path, exported):
    import webdataset

    reader, wanted = store.open(path), expected(path)
    shards = sorted(exported["webdataset"].glob("*.tar"))
    assert len(shards) > 4
    found = list(webdataset.WebDataset([str(file) for file in shards], shardshuffle=False).decode())
    assert len({sample["__key__"] for sample in found}) == len(found) == len(wanted)
    for sample in found:
        clip, arrays = wanted.pop(sample["json"]["id"])
        same(sample["json"], clip, reader.words(clip.row))
        assert Path(sample["__url__"]).name.startswith(clip.split or "train")
        assert {name for name in sample if name.endswith(".npy")} == {f"{name}.npy" for name in arrays}
        for name, values in arrays.items():
            np.testing.assert_array_equal(sample[f"{name}.npy"], values, err_msg=name, strict=True)
    assert wanted == {}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The library, with its cache in a folder of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import datasets

        datasets.disable_progress_bars()
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield datasets


def test_datasets_reads_what_the_store_has(path, exported, datasets):
    reader, wanted = store.open(path), expected(path)
    loaded = datasets.load_dataset(str(exported["datasets"]))
    assert list(loaded) == ["train", "val", "test"]
    for split, rows in loaded.items():
        assert rows.features["mouth"] == datasets.Array3D((None, 96, 96), "uint8")
        for plain, row in zip(rows.remove_columns(["mouth", "audio"]), rows.with_format("numpy"), strict=True):
            clip, arrays = wanted.pop(plain["id"])
            assert (clip.split or "train") == split
            same(plain, clip, reader.words(clip.row))
            for name, values in arrays.items():
                kind = rows.features[name]
                kind = kind.feature if isinstance(kind, datasets.List) else kind
                assert kind.dtype == values.dtype, name  # numpy's format widens them
                np.testing.assert_array_equal(row[name], values, err_msg=name)
    assert wanted == {}


def test_any_reader_of_parquet_gets_lists(path, exported):
    table = pyarrow.parquet.read_table(exported["datasets"] / "data")
    _, arrays = expected(path)["../x"]
    (row,) = [row for row in table.select(["id", "audio", "similarity"]).to_pylist() if row["id"] == "../x"]
    assert row["audio"] == arrays["audio"].tolist()
    assert json.loads(table.schema.metadata[b"concord-av"])["licence"] == "CC-BY-4.0"


@UNCLOSED
@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_the_card_run(kind, exported, datasets):
    text = (exported[kind] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    *lines, last = code.replace("path/of/this/folder", str(exported[kind])).splitlines()
    space = {}
    exec("\n".join([*lines, f"found = {last}"]), space)
    assert space["found"].ndim == 1


# ------------------------------------------------------------------------------------- names, licences, the machine's own


def test_hostile_names_stay_in_the_folder(exported):
    for file in exported["webdataset"].glob("*.tar"):
        with tarfile.open(file) as tar:
            for name in tar.getnames():
                assert re.fullmatch(r"\d{9}\.(json|\w+\.npy)", name), name


@pytest.mark.parametrize("kind", KINDS)
def test_card_and_note_carry_licence_attribution_and_store(kind, path, exported):
    text = (exported[kind] / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0"
    assert "Licence: CC-BY-4.0" in text
    assert "Attribution: Somebody &amp; &lt;Co&gt;" in text
    assert "&lt;b&gt;\\[x\\](y)" in text  # a corpus's name: no tag, no link
    note = json.loads((exported[kind] / "export.json").read_text())
    assert note["complete"] is True
    assert note["store"]["name"] == "s.zarr"
    assert note["store"]["corpora"] == ["grid:s1", "<b>[x](y)"]
    assert note["store"]["teachers"]["asr"] == {"name": "avhubert:w.pt@12", "sha256": "ab", "dim": 6}
    assert note["clips"] == len(IDS) - 1
    assert sum(one["clips"] for one in note["shards"].values()) == len(IDS) - 1
    for name, one in note["shards"].items():
        assert (exported[kind] / name).stat().st_size == one["bytes"]
    fit, teachers, about = fitfile.load(exported[kind] / "fit.npz")
    assert fit.dims == store.open(path).fit.dims
    assert teachers["vsr"]["name"] == "lips"
    assert "fit_from" not in about


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_machine_that_made_it_is_in_it(kind, exported):
    for name, data in contents(exported[kind]).items():
        assert SECRET.encode() not in data, name
        assert str(exported[kind]).encode() not in data, name


@pytest.mark.parametrize(
    ("licence", "head"),
    [
        ("", {}),
        ("CC0-1.0", {"license": "cc0-1.0"}),
        ("for: research\n- only", {"license": "other", "license_name": "for: research\n- only"}),
    ],
)
def test_any_text_may_be_the_licence(path, tmp_path, licence, head):
    write(path, tmp_path / "out", Request("webdataset", ("fake",), licence=licence))
    text = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == {**head, "pretty_name": "s.zarr"}
    assert ("Not stated by whoever made this export" in text) == (not licence)


def test_the_identity_is_that_of_the_content(path, tmp_path):
    one, again = make(tmp_path / "a/s.zarr", IDS[:4]), make(tmp_path / "b/s.zarr", IDS[:4])
    other = make(tmp_path / "c/s.zarr", ["other", *IDS[1:4]])
    sha256 = [plan(store.open(p), Request("webdataset")).about["store"]["sha256"] for p in (one, again, other)]
    assert sha256[0] == sha256[1] != sha256[2]


# ----------------------------------------------------------------------------------------------- kills and full disks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 2])
def test_a_kill_leaves_whole_shards_and_the_next_run_the_rest(kind, after, path, exported, tmp_path, monkeypatch):
    request = Request(kind, shard_bytes=120_000, licence="CC-BY-4.0", attribution="Somebody & <Co>")
    out = write(path, tmp_path / "out", request, shards=after)
    whole = contents(exported[kind])

    def cut(partial, *given):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folders, "WRITERS", {kind: cut})
        with pytest.raises(KeyboardInterrupt):
            write(path, out, request)
    there = contents(out)
    assert {name for name in there if name.endswith((".tar", ".parquet"))} == set(
        json.loads(there["export.json"])["shards"]
    )
    assert len(there) == 1 + after
    assert all(there[name] == whole[name] for name in there.keys() - {"export.json"})
    files.unfinished(out).write_bytes(b"of a run that was killed")
    write(path, out, request)
    assert contents(out) == whole  # as one run makes it, to the byte


def test_a_shard_that_was_changed_is_written_again(path, tmp_path):
    request = Request("webdataset", ("fake", "similarity"), shard_bytes=100)
    out = write(path, tmp_path / "out", request)
    whole = contents(out)
    first, second, *_ = sorted(out.glob("*.tar"))
    first.write_bytes(first.read_bytes()[:-512])
    second.unlink()
    write(path, out, request)
    assert contents(out) == whole


@pytest.mark.parametrize("name", ["train-000000.tar", "fit.npz"])
def test_damage_that_keeps_the_size_is_written_again(path, tmp_path, name):
    request = Request("webdataset", ("fake",), shard_bytes=100)
    out = write(path, tmp_path / "out", request)
    whole = contents(out)
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    assert not folders.claim(out, plan(store.open(path), request)).complete
    write(path, out, request)
    assert contents(out) == whole


def test_a_card_that_somebody_completed_stays(path, tmp_path):
    out, words = tmp_path / "out", ("--format", "webdataset", "--arrays", "fake")
    first = ran(main, path, out, *words)
    assert "stays" not in first.stderr
    own = (out / "README.md").read_text() + "\nWe asked all speakers.\n"
    (out / "README.md").write_text(own)
    (out / "train-000000.tar").unlink()
    for _ in range(2):  # with something to write, and without
        done = ran(main, path, out, *words)
        assert done.exit_code == 0, done.output
        assert f"{out}/README.md is not as it was written, so it stays as it is" in done.stderr
        assert "the card states no licence" not in done.stderr
        assert (out / "README.md").read_text() == own
    (out / "README.md").unlink()
    assert "stays" not in ran(main, path, out, *words).stderr
    assert own.startswith((out / "README.md").read_text())


def test_a_card_that_was_there_before_the_last_file_stays(path, tmp_path):
    request = Request("webdataset", ("fake",), shard_bytes=100)
    out = write(path, tmp_path / "out", request, shards=1)
    (out / "README.md").write_text("ours")
    write(path, out, request)
    assert (out / "README.md").read_text() == "ours"


@pytest.mark.parametrize("one", [None, {}, [], {"bytes": "x"}, {"bytes": 1, "sha256": 2}])
def test_a_note_that_says_nothing_of_a_file_costs_that_file(path, tmp_path, one):
    request = Request("webdataset", ("fake",), shard_bytes=100)
    out = write(path, tmp_path / "out", request)
    whole = contents(out)
    note = json.loads(whole["export.json"])
    note["shards"]["train-000000.tar"] = one
    note["files"] = {"README.md": one} if one is not None else None
    (out / "export.json").write_text(json.dumps(note))
    write(path, out, request)
    assert contents(out) == whole


def test_other_files_in_the_folder_of_an_export_are_not_touched(path, tmp_path):
    request = Request("datasets", ("fake",), shard_bytes=100)
    out = write(path, tmp_path / "out", request, shards=1)
    others = {"notes.txt": b"mine", "data/more.parquet": b"mine too"}
    for name, data in others.items():
        (out / name).write_bytes(data)
    write(path, out, request)
    write(path, out, request)
    assert others.items() <= contents(out).items()


def test_a_full_disk_says_so_and_leaves_no_half(path, tmp_path, monkeypatch):
    def full(partial, *given):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "WRITERS", {"webdataset": full})
    done = ran(main, path, tmp_path / "out", "--format", "webdataset")
    assert done.exit_code == 1
    assert "No space left on device; make room and run it again" in done.stderr
    assert list(contents(tmp_path / "out")) == ["export.json"]


def test_a_damaged_clip_is_named_and_finished_shards_stay(tmp_path):
    path = make(tmp_path / "s.zarr")
    (path / "frames/mouth/c/1/0/0").unlink()
    options = ("--format", "datasets", "--shard-size", "1", "--arrays", "mouth")
    done = ran(main, path, tmp_path / "out", *options)
    assert done.exit_code == 1
    assert re.search(r"Error: clip .* frames/mouth cannot be read: .* stays: run it again to go on", done.stderr)
    assert not list((tmp_path / "out").rglob("*README*"))
    assert json.loads((tmp_path / "out/export.json").read_text())["complete"] is False


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_it_wrote(path, tmp_path):
    options = ("--format", "webdataset", "--arrays", "similarity, fake,fake", "--storage-option", "aws_region=x")
    done = ran(main, path, tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r".*out: 12 clips in 3 files, [\d.]+ kB; 1 clip that is not done left out\n", done.stdout)
    assert "train-000000.tar: 6 clips, " in done.stderr
    assert "the card states no licence: give --licence" in done.stderr
    before = contents(tmp_path / "out")
    again = ran(main, path, tmp_path / "out", *options)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert "train-000000.tar" not in again.stderr
    assert contents(tmp_path / "out") == before


def refused(path, out, *options):
    """What the command says, having changed nothing."""
    before = contents(out.parent)
    done = ran(main, path, out, *(options or ("--format", "webdataset")))
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1 or "Usage" in done.stderr
    assert contents(out.parent) == before
    return done.stderr


def test_other_folders_are_refused(path, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    assert "is not empty (mine.txt ...) and holds no export of ours" in refused(path, out)
    (out / "mine.txt").rename(out / "export.json")
    assert "cannot be read as the note of an export" in refused(path, out)
    (out / "export.json").write_text('{"format": "concord-av export", "shards": 3}')
    assert "it is not the note of an export" in refused(path, out)
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in refused(path, file)
    assert "is not in a folder that exists" in refused(path, tmp_path / "no" / "out")


def test_an_export_of_another_store_or_request_is_refused(path, tmp_path):
    out = write(path, tmp_path / "out", Request("webdataset", ("fake",)))
    other = make(tmp_path / "other.zarr", IDS[:3])
    for source, *options in (
        (path, "--format", "datasets", "--arrays", "fake"),
        (path, "--format", "webdataset", "--arrays", "flags"),
        (path, "--format", "webdataset", "--arrays", "fake", "--licence", "cc0-1.0"),
        (other, "--format", "webdataset", "--arrays", "fake"),
    ):
        assert "has an export of another store, or one with other options" in refused(source, out, *options)


def test_a_place_in_a_store_is_refused(path):
    done = ran(main, path, path / "out", "--format", "webdataset")
    assert done.exit_code == 2
    assert "lies in the store" in done.stderr
    assert not (path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arrays", "nothing"], "has no frames/nothing; it has asr"),
        (["--arrays", ""], "has no frames/; it has asr"),
        (["--shard-size", "0"], "0 is not in the range"),
        (["--format", "zip"], "'zip' is not one of 'webdataset', 'datasets'"),
    ],
)
def test_options_that_cannot_be(path, tmp_path, options, said):
    assert said in refused(path, tmp_path / "out", "--format", "webdataset", *options)


def test_stores_that_cannot_be_exported(tmp_path):
    empty = store.create(tmp_path / "empty.zarr", {"asr": 2, "vsr": 2}, {})
    empty.consolidate()
    assert "has no clip that is done, so there is nothing to export" in refused(
        tmp_path / "empty.zarr", tmp_path / "out"
    )
    path = make(tmp_path / "s.zarr", IDS[:5])
    writer = store.Writer.open(path)
    writer.write_clips(0, {"split": ["../up"]})
    assert "is not closed: a run writes to it, or was cut off" in refused(path, tmp_path / "out")
    writer.consolidate()
    assert "clip ../x: unknown split '../up'; use train, val, test" in refused(path, tmp_path / "out")
    assert "is not a store" in refused(tmp_path, tmp_path / "out")


def test_a_store_without_a_fit_can_be_exported(tmp_path):
    out = write(
        make(tmp_path / "s.zarr", IDS[:4], learned=False), tmp_path / "out", Request("webdataset", ("similarity",))
    )
    assert not (out / "fit.npz").exists()
    assert "fit.npz" not in (out / "README.md").read_text()


def test_clips_that_a_parquet_list_cannot_hold(path, monkeypatch):
    reader = store.open(path)
    reader.clips["length"][2] = MOST_FRAMES + 1
    with pytest.raises(StoreError, match=r"clip a.b.c/d.e.mp4 has 233017 frames, .* take --format webdataset"):
        plan(reader, Request("datasets"))
    assert plan(reader, Request("webdataset")).shards


def test_writing_needs_neither_library():
    code = "import sys, store.export.__main__; print({'webdataset', 'datasets', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@UNCLOSED
def test_the_commands_and_lines_of_the_page(path, tmp_path, datasets):
    """docs/dataset.md, with other folders."""
    folders = {"/tmp/grid.zarr": path, "/tmp/shards": tmp_path / "shards", "/tmp/hub": tmp_path / "hub"}
    page = (ROOT / "docs" / "dataset.md").read_text()
    for name, own in folders.items():
        page = page.replace(name, str(own))
    commands = re.findall(r"^    python -m store.export (.*)$", page, re.MULTILINE)
    assert [ran(main, *shlex.split(words)).exit_code for words in commands] == [0, 0]
    (code,) = re.findall(r"<!-- exports -->\n```python\n(.*?)```", page, re.DOTALL)
    space = {}
    exec(compile(code, "dataset.md", "exec"), space)
    assert len(space["clips"]) == 6
