"""Stores from anyone: what metadata, chunks, indexes, links and tables claim is refused in one line before it does anything."""

import json
import os
import shutil
import struct
import sys

import google_crc32c
import numpy as np
import pytest
from click.testing import CliRunner
from numcodecs import blosc, zstd
from small_store import make_store

import store
from store.arrays import inventory
from store.inspect import main
from store.layout import StoreError
from store.place import Outside, place
from store.similarity import fitfile

HUGE = 10**12


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with a fit: 6 clips of 60 frames, one shard of 20 chunks."""
    return make_store(tmp_path_factory.mktemp("sound") / "s.zarr", {"train": 4, "val": 2}, frames=60)


@pytest.fixture
def path(sound, tmp_path):
    """Without an inventory: whoever makes a hostile store leaves it out, or makes it fit."""
    shutil.copytree(sound, tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / inventory.FILE).unlink()
    edit(tmp_path / "s.zarr/zarr.json", lambda d: d["attributes"].pop(inventory.MARK))
    return tmp_path / "s.zarr"


def everything(path):
    """All that a reader gives."""
    reader = store.open(path)
    for i in range(len(reader)):
        reader.clip(i)
        reader.frames(i, 0, 60, reader.names)
        reader.pair_similarity(i, i)
    return reader


def edit(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def sealed(data):
    return bytes(data) + google_crc32c.value(bytes(data)).to_bytes(4, "little")


def replaced_chunk(path, name, data):
    """The first chunk of a frame array put at the end of its shard, under right checksums."""
    (file,) = [p for p in (path / "frames" / name / "c").rglob("*") if p.is_file()]
    whole = file.read_bytes()
    body, index = whole[: -20 * 16 - 4], bytearray(whole[-20 * 16 - 4 : -4])
    chunk = sealed(data)
    index[:16] = struct.pack("<QQ", len(body), len(chunk))
    file.write_bytes(body + chunk + sealed(index))


def refused(path, match):
    """Reading raises one line, and the command ends with 2, or 1 where it found damage, without a traceback."""
    with pytest.raises(StoreError, match=match) as caught:
        everything(path)
    assert "\n" not in str(caught.value)
    result = CliRunner().invoke(main, [str(path), "--verify"])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception


# -- chunks and indexes ----------------------------------------------------------------------------------------------------


LIES = {  # where in the header, what it says there
    "longer than it is": (12, 0x7FFFFFF0, "it says that it has"),
    "shorter than it is": (12, 17, "it says that it has"),
    "no blocks": (8, 0, "a block has"),
    "blocks beyond the data": (8, 2**31 - 1, "a block has"),
    "more data": (4, 4001, "expected 4000"),
    "no data": (4, 0, "expected 4000"),
}


@pytest.mark.parametrize(("at", "lie", "told"), LIES.values(), ids=LIES)
def test_a_blosc_header_that_lies_is_damage_and_no_crash(path, at, lie, told):
    chunk = bytearray(blosc.compress(np.arange(2000, dtype="<f2").view("u1"), b"zstd", 5, 1, typesize=2))
    chunk[at : at + 4] = lie.to_bytes(4, "little")
    replaced_chunk(path, "lips", chunk)
    refused(path, f"frames/lips cannot be read: .*{told}")


@pytest.mark.parametrize("data", [b"", b"\2\1\1\2", bytes(16), b"\x28\xb5\x2f\xfd"])
def test_a_chunk_without_a_header_is_damage(path, data):
    other = path.with_name("other.zarr")
    shutil.copytree(path, other)
    for where, name in ((path, "lips"), (other, "mouth")):
        replaced_chunk(where, name, data)
        refused(where, f"frames/{name} cannot be read")


def test_a_zstd_frame_that_promises_more_or_nothing_is_damage(path):
    for data in (zstd.compress(bytes(1 << 22)), b"\x28\xb5\x2f\xfd\x00\x58" + zstd.compress(bytes(25 * 96 * 96))[9:]):
        replaced_chunk(path, "mouth", data)
        refused(path, "frames/mouth cannot be read")


@pytest.mark.parametrize(
    "entry", [(0, HUGE), (HUGE, 4), (2**63, 2**63), (1, 2), (0, 0)], ids=["long", "far", "overflow", "overlap", "empty"]
)
def test_an_index_that_lies_is_damage(path, entry):
    (file,) = [p for p in (path / "frames/asr/c").rglob("*") if p.is_file()]
    whole = file.read_bytes()
    index = bytearray(whole[-20 * 16 - 4 : -4])
    index[16:32] = struct.pack("<QQ", *entry)
    file.write_bytes(whole[: -20 * 16 - 4] + sealed(index))
    refused(path, "frames/asr cannot be read")


# -- metadata --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", ["clips/id", "clips/done", "fit/vsr_mean", "frames/lips"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d.update(codecs=[{"name": "numcodecs.pickle", "configuration": {}}]), id="pickle"),
        pytest.param(lambda d: d.update(shape=[HUGE]), id="huge"),
        pytest.param(lambda d: d.update(shape=[-6]), id="negative"),
        pytest.param(lambda d: d.update(shape=[True]), id="bool"),
        pytest.param(lambda d: d.update(shape=[6.0]), id="float"),
        pytest.param(lambda d: d.update(shape="6"), id="text"),
        pytest.param(lambda d: d.update(shape=None), id="null"),
        pytest.param(lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0]), id="empty chunks"),
        pytest.param(lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[HUGE]), id="huge chunks"),
        pytest.param(lambda d: d.update(data_type="object"), id="object"),
        pytest.param(lambda d: d.update(data_type={"name": "x"}), id="odd type"),
        pytest.param(lambda d: d["chunk_key_encoding"]["configuration"].update(separator="/../../x/"), id="separator"),
        pytest.param(lambda d: d.update(codecs=[]), id="no codecs"),
        pytest.param(lambda d: d.clear(), id="nothing"),
    ],
)
def test_metadata_that_no_writer_of_ours_writes_is_refused(path, array, change):
    edit(path / array / "zarr.json", change)
    refused(path, array.rpartition("/")[2])


def test_a_codec_that_runs_code_does_not_run_it_when_a_store_is_written_to(path):
    edit(
        path / "clips/id/zarr.json", lambda d: d["codecs"].insert(0, {"name": "numcodecs.pickle", "configuration": {}})
    )
    writer = store.Writer(path)
    with pytest.raises(StoreError, match="clips"):
        writer.append_clips({"id": ["new"]})


def test_texts_that_are_more_than_their_rows_take_no_memory(path):
    said = struct.pack("<I", 2**32 - 1) + bytes(4 * 16384)
    (path / "clips/path/c/0").write_bytes(sealed(zstd.compress(said)))
    refused(path, "clips/path is damaged")
    (path / "clips/path/c/0").write_bytes(sealed(b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + bytes(20)))
    refused(path, "clips/path is damaged")


def test_many_small_files_cannot_fill_the_memory(path):
    for name in (path / "clips").iterdir():
        if name.is_dir():
            edit(name / "zarr.json", lambda d: d.update(shape=[16384 * 4000]))
            for k in range(1, 50):
                shutil.copy(name / "c/0", name / f"c/{k}")
    refused(path, "takes more than .* in memory")


TEXTS = ("[" * 200_000, '{"a":' * 200_000, "[]", "7", "nan", "", '{"attributes": []}', '{"attributes": null}')


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
def test_documents_that_are_deep_or_none_are_one_line(path, text):
    for name in ("zarr.json", "clips/zarr.json", "clips/done/zarr.json", "frames/asr/zarr.json", "fit/zarr.json"):
        copy = path.with_name(f"{name.replace('/', '-')}.zarr")
        shutil.copytree(path, copy)
        (copy / name).write_text(text)
        refused(copy, "zarr")


WRONG = (
    *({"teachers": ["a"]}, {"teachers": {"asr": 3}}, {"teachers": {"asr": {"name": []}}}),
    *({"similarity": "cca"}, {"similarity": {"kind": 1}}, {"similarity": {"clip_frames": -5}}),
    *({"layout": None}, {"layout": {"chunk_rows": 0, "shard_rows": 1}}),
    {"layout": {"chunk_rows": 25.0, "shard_rows": 500}},
    *({"version": True}, {"version": "1"}, {"version": -1}, {"format": ["concord-av"]}),
    *({"corpora": {"a": 1}}, {"corpora": [1]}, {"fps": "25"}, {"words": []}),
)


@pytest.mark.parametrize("attrs", WRONG, ids=str)
def test_attributes_of_the_wrong_type_are_one_line(path, attrs):
    edit(path / "zarr.json", lambda d: d["attributes"].update(attrs))
    refused(path, "zarr.json|attribute|version|not a store|not a concord-av store")


def test_half_of_a_surrogate_pair_is_spelled_out(path):
    edit(path / "zarr.json", lambda d: d["attributes"].update(command="x\ud800y"))
    assert store.open(path).attrs["command"] == "x\\ud800y"
    store.Writer(path).update_attrs({"command": os.fsdecode(b"caf\xe9.mp4"), "\udcff": 1})
    assert store.open(path).attrs["command"] == "caf\\udce9.mp4"
    store.Writer(path).append_clips({"id": ["a\udcff"], "path": ["\ud800"]})
    assert store.open(path).clips["id"][-1] == "a\\udcff"


# -- what leads out --------------------------------------------------------------------------------------------------------


LINKED = (
    *("zarr.json", "clips", "clips/id", "clips/id/c/0", "fit", "fit/vsr_mean/c/0"),
    *("frames", "frames/lips", "frames/lips/c/0/0/0", "frames/asr/zarr.json"),
)


@pytest.mark.parametrize("part", LINKED)
def test_links_that_leave_the_store_are_not_followed(path, tmp_path, part):
    away = tmp_path / "outside" / "moved"
    away.parent.mkdir()
    shutil.move(path / part, away)
    (path / part).symlink_to(away)
    opened = []
    hook = Hook(away.parent, opened)
    try:
        refused(path, "is a symbolic link|is missing|is not a store|has no fit|has no")
    finally:
        hook.off = True
    assert opened == []


class Hook:
    """Notes every file that is opened below a folder, links resolved; audit hooks cannot be taken away, only silenced."""

    def __init__(self, folder, opened):
        self.folder, self.opened, self.off = str(folder), opened, False
        sys.addaudithook(self)

    def __call__(self, event, args):
        if not self.off and event == "open" and isinstance(args[0], str):
            self.off = True
            real = os.path.realpath(args[0])
            self.off = False
            if real.startswith(self.folder):
                self.opened.append(real)


def test_xarray_reads_by_the_same_rules(path):
    pytest.importorskip("xarray")
    chunk = bytearray(blosc.compress(np.arange(2000, dtype="<f2").view("u1"), b"zstd", 5, 1, typesize=2))
    chunk[12:16] = (2**31 - 16).to_bytes(4, "little")
    replaced_chunk(path, "lips", chunk)
    lips = store.open(path).to_xarray()["frames"]["lips"]
    with pytest.raises(StoreError, match="frames/lips cannot be read"):
        lips[:30].load()
    assert lips[30:60].values.shape == (30, 40, 2)


def test_a_link_to_the_store_is_followed_and_one_within_it_is_not(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert len(everything(tmp_path / "link")) == 6
    shutil.move(path / "frames/lips/c", path / "elsewhere")
    (path / "frames/lips/c").symlink_to(path / "elsewhere")
    refused(tmp_path / "link", "frames/lips/c is a symbolic link")


def test_writing_does_not_follow_links_that_leave_the_store(path, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(path / "frames/fake", outside)
    (path / "frames/fake").symlink_to(outside)
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}
    with pytest.raises(Outside, match="is a symbolic link"):
        store.Writer(path).write_shard(0, {"fake": np.zeros(500, "i1")})
    part = place(path).confined() / "frames" / "fake" / "c" / "0"
    for act in (
        part.delete,
        lambda: part.write(b"x"),
        part.read,
        part.names,
        lambda: list(part.walk()),
    ):
        with pytest.raises(Outside):
            act()
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before
    with pytest.raises(Outside):
        (place(path).confined() / ".." / "outside").exists()


def test_a_pipe_in_place_of_a_file_does_not_wait(path):
    for name in ("frames/lips/c/0/0/0", "clips/id/c/0", "zarr.json"):
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(StoreError):
            everything(path)


def test_files_with_holes_are_not_read_whole(path):
    os.truncate(path / "clips/id/c/0", 1 << 40)
    refused(path, "clips")
    os.truncate(path / "zarr.json", 1 << 40)
    refused(path, "at most")


# -- tables ----------------------------------------------------------------------------------------------------------------


CELLS = (
    *(("offset", -5), ("offset", 2**62), ("length", 2**31 - 1), ("length", -1)),
    *(("identities", "[" * 9999), ("identities", "{}"), ("identities", "[1]"), ("identities", "no JSON")),
)


@pytest.mark.parametrize(("column", "wrong"), CELLS, ids=lambda value: str(value)[:20])
def test_cells_that_cannot_be_are_one_line(path, column, wrong):
    store.Writer(path).write_clips(0, {column: [wrong]})
    reader = store.open(path)

    def read():
        reader.clip(0)
        reader.frames(0, 0, max(int(reader.clips["length"][0]), 1), ["flags"])

    with pytest.raises(StoreError, match="clip train000r"):
        read()
    result = CliRunner().invoke(main, [str(path), "--verify"])
    assert isinstance(result.exception, SystemExit | None), result.exception


def test_a_column_of_another_type_is_one_line(path):
    for name in ("zarr.json", "c"):
        shutil.rmtree(path / "clips/label" / name, ignore_errors=True)
    shutil.rmtree(path / "clips/label")
    shutil.copytree(path / "clips/id", path / "clips/label")
    refused(path, "clips/label holds string")


# -- fits ------------------------------------------------------------------------------------------------------------------


def header_of_default():
    with np.load(fitfile.DEFAULT) as file:
        return json.loads(str(file["header"])), {name: file[name] for name in file.files if name != "header"}


def saved(path, header, arrays):
    np.savez_compressed(path, header=np.array(header if isinstance(header, str) else json.dumps(header)), **arrays)
    return path


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda h: h["tree"]["attrs"]["attrs"].update(context=10**9), id="context"),
        pytest.param(lambda h: h["tree"]["attrs"]["attrs"].update(kind=["cca"]), id="kind"),
        pytest.param(lambda h: h.update(tree=[]), id="tree"),
        pytest.param(lambda h: h["tree"].update(calibration={"array": "a0"}), id="calibration"),
        pytest.param(lambda h: h["tree"].update(vsr_mean={}), id="empty"),
        pytest.param(lambda h: h.update(teachers=[]), id="teachers"),
        pytest.param(lambda h: h.update(note="x"), id="note"),
        pytest.param(lambda h: h.update(version=None), id="version"),
        pytest.param(lambda h: h["tree"].update(correlations=h["tree"]["vsr_matrix"]), id="shapes"),
    ],
)
def test_fits_with_odd_headers_are_one_line(tmp_path, change):
    header, arrays = header_of_default()
    change(header)
    with pytest.raises(StoreError, match="is not a concord-av fit, or is damaged"):
        fitfile.load(saved(tmp_path / "fit.npz", header, arrays))


def test_fits_that_are_deep_not_finite_or_bombs_are_one_line(tmp_path):
    header, arrays = header_of_default()
    name = header["tree"]["vsr_mean"]["array"]
    for text, given in (
        ("[" * 100_000, arrays),
        (header, {**arrays, name: arrays[name] * np.nan}),
        (header, {**arrays, "bomb": np.zeros(300 << 20, "u1")}),
    ):
        with pytest.raises(StoreError, match="is not a concord-av fit"):
            fitfile.load(saved(tmp_path / "fit.npz", text, given))
