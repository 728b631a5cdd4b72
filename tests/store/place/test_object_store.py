"""Stores in a folder and in a bucket keep one contract; networks that fail twice and kills between any two steps do no harm."""

import io
import json
import pickle
import zipfile
from contextlib import suppress
from datetime import timedelta

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from object_server import BUCKET, ENVIRONMENT, Flaky, gcs
from test_staging import batch
from test_store import fit_of, random_shard, small

import store
from store import inspect, staging
from store.arrays import inventory
from store.layout import StoreError
from store.place import Folder, folder, lease, place
from store.place import bucket as buckets

FOLDER_FIRST = ["folder", pytest.param("bucket", marks=pytest.mark.slow)]  # what a bucket has in common with it


def filled(where):
    """A store of three shards of 20 rows with three clips, two of them done, fit, words and projections; and what is in it."""
    writer = small(where)
    writer.append_clips(
        {
            "id": ["a", "ü", "c"],
            "corpus": ["x/y"] * 3,
            "offset": [0, 20, 40],
            "capacity": [20, 20, 20],
            "label": [0, 1, 0],
        }
    )
    writer.grow_rows(60)
    writer.ensure_projections(3)
    written = [random_shard(writer, np.random.default_rng(k)) for k in range(3)]
    for k, arrays in enumerate(written):
        writer.write_shard(k, arrays)
    writer.write_fit(fit_of("x/y").to_arrays())
    writer.write_words(
        {
            "clip": [0, 1, 1],
            "start": [0, 0.5, 1],
            "end": [1, 1, 2],
            "text": ["hé", "x", "y"],
            "probability": [0.5, 0.25, 1],
        }
    )
    writer.write_clips(0, {"length": [20, 15, 0], "done": [1, 1, 0]})
    writer.update_attrs({"corpora": ["x/y"]})
    writer.consolidate()
    return writer, {name: np.concatenate([w[name] for w in written]) for name in written[0]}


def emptied(where):
    where.map(lambda key: (where / key).delete(), list(where.files()))
    where.prune()


def dead(where):
    """The lock of a driver that was killed."""
    gone = lease._Lease(place(where))
    gone.take()
    return gone


# -- places ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_listed_and_deleted(root):
    assert root.files() == {}
    assert root.names() == []
    (root / "b" / "c").write(b"123")
    (root / "b-d").write(b"")
    with (root / "b" / "ü 1%2F#.x").writing() as file:
        file.write(b"0123456789")
    assert list(root.files().items()) == [("b/c", 3), ("b/ü 1%2F#.x", 10), ("b-d", 0)]  # by parts: "b" before "b-d"
    assert root.names() == ["b", "b-d"]
    assert (root / "b" / "c").exists()
    assert not (root / "b").exists()
    assert (root / "b" / "c").read() == b"123"
    (root / "b" / "c").write(b"4")
    assert (root / "b" / "c").read() == b"4"
    assert ((root / "b" / "c").name, (root / "b" / "c").parent) == ("c", root / "b")
    (root / "b" / "c").delete()
    (root / "b" / "c").delete()
    assert root.names() == ["b", "b-d"]
    emptied(root / "b")
    emptied(root / "b")
    assert list(root.files()) == ["b-d"]
    for gone in (lambda p: p.read(), lambda p: p.open(), lambda p: p.open(4)):
        with pytest.raises(FileNotFoundError, match="gone"):
            gone(root / "gone")


def test_parts_of_what_is_opened_are_read(root):
    (root / "x").write(bytes(range(100)))
    opened = (root / "x").open(10)
    assert (opened.size, opened.tail) == (100, bytes(range(90, 100)))
    assert opened.read(5, 3) == bytes([5, 6, 7])
    assert opened.read(98, 10) == bytes([98, 99])
    assert opened.read(100, 10) == b""
    assert (root / "x").open(1000).tail == bytes(range(100))
    assert (root / "x").open().tail == b""
    (root / "empty").write(b"")
    assert (lambda o: (o.size, o.tail))((root / "empty").open(4)) == (0, b"")
    file = opened.file(16)
    assert file.read(3) == bytes([0, 1, 2])
    assert file.seek(-2, io.SEEK_END) == 98
    assert file.read() == bytes([98, 99])


def test_writing_that_fails_leaves_what_was_there(root):
    (root / "x").write(b"old")
    with suppress(ZeroDivisionError), (root / "x").writing() as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (root / "x").read() == b"old"
    assert root.names() == ["x"]


def test_a_large_object_goes_in_parts(s3, monkeypatch):
    monkeypatch.setattr(buckets, "WHOLE", 1 << 20)
    monkeypatch.setattr(buckets, "PART", 5 << 20)
    data = np.random.default_rng(0).bytes(12 << 20)
    with (place(s3) / "x").writing() as file:
        file.write(data)
    assert (place(s3) / "x").read() == data
    (place(s3) / "y").write(data)
    assert (place(s3) / "y").read() == data


def test_places_are_named_by_path_or_url(tmp_path):
    assert isinstance(place(tmp_path), Folder)
    assert place(f"file://{tmp_path}/a%20b").path == tmp_path / "a b"
    assert isinstance(place("a:/b"), Folder)
    assert str(place("s3://bucket//x/") / "y") == "s3://bucket/x/y"
    assert str(place("gs://bucket") / "y") == "gs://bucket/y"
    for bad in ("azure://b/x", "s3://", "s3://key:secret@b/x", "s3://b/../c", "gs:///x"):
        with pytest.raises(StoreError) as caught:
            place(bad)
        assert "secret" not in str(caught.value)


def test_options_travel_with_a_pickled_place_and_are_never_shown(s3_address):
    where = place(f"s3://{BUCKET}/nothing", {"aws_secret_access_key": "hush", "google_x": "not for S3"})
    again = pickle.loads(pickle.dumps(where / "x"))
    assert (again, again.options) == (where / "x", where.options)
    options = {k.lower(): v for k, v in ENVIRONMENT.items()} | {"aws_endpoint_url": s3_address}
    where = place(f"s3://{BUCKET}/nothing", {**options, "aws_secret_access_key": "hush"})
    with pytest.raises(FileNotFoundError) as caught:
        where.read()
    shown = f"{where} {where!r} {caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(StoreError, match="no bucket nowhere") as caught:
        place("s3://nowhere/x", where.options).write(b"")
    assert "hush" not in f"{shown} {caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(StoreError, match=r"s3://tests cannot be used as asked: .*'colour'") as caught:
        place(f"s3://{BUCKET}/x", {"colour": "hush"}).read()
    assert "hush" not in str(caught.value)


def test_a_network_that_stays_away_is_an_error_that_says_what_to_do(s3, monkeypatch):
    monkeypatch.setattr(buckets, "RETRY", {**buckets.RETRY, "max_retries": 1})
    where = place(f"{s3}/s.zarr", {"aws_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StoreError, match=r"s3://.*/s.zarr/zarr.json cannot be reached .*check the network") as caught:
        store.open(where)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


# -- stores ------------------------------------------------------------------------------------------------------------


def test_a_store_reads_back_as_written(root):
    writer, whole = filled(root)
    reader = pickle.loads(pickle.dumps(store.open(root)))
    assert reader.path == root.path
    assert reader.names == sorted(whole)
    for i, (start, stop) in enumerate([(3, 17), (0, 15)]):
        for name, got in reader.frames(i, start, stop, reader.names).items():
            np.testing.assert_array_equal(got, whole[name][20 * i + start : 20 * i + stop], name)
    np.testing.assert_array_equal(reader.rows(5, 55, ["mouth"])["mouth"], whole["mouth"][5:55])
    assert reader.clips["id"].tolist() == ["a", "ü", "c"]
    assert reader.attrs["corpora"] == writer.attrs["corpora"] == ["x/y"]
    assert reader.fit.calibration == fit_of("x/y").calibration
    np.testing.assert_array_equal(reader.fit.vsr_matrix, fit_of("x/y").vsr_matrix)
    assert [w["text"] for w in reader.words(1)] == ["x", "y"]
    assert reader.pair_similarity(0, 1).shape == (15,)
    with pytest.raises(StoreError, match="exists already"):
        small(root)


@pytest.mark.slow
def test_both_kinds_hold_the_same_bytes(tmp_path, s3):
    for where in (place(tmp_path / "s.zarr"), place(f"{s3}/s.zarr")):
        filled(where)
    folder, bucket = place(tmp_path / "s.zarr"), place(f"{s3}/s.zarr")
    assert folder.files() == bucket.files()
    assert all((folder / key).read() == (bucket / key).read() for key in folder.files())


def test_google_storage_keeps_a_store_and_its_lock(tmp_path, quick):
    account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    with gcs() as address:
        key = json.dumps({"gcs_base_url": address, **account})
        options = {"google_service_account_key": key, "google_skip_signature": "true", "allow_http": "true"}
        bucket, folder = (
            place(f"gs://{BUCKET}/s.zarr", {**options, "aws_region": "not for this"}),
            place(tmp_path / "s.zarr"),
        )
        for where in (folder, bucket):
            filled(where)
        assert folder.files() == bucket.files()
        assert all((folder / key).read() == (bucket / key).read() for key in folder.files())
        reader = store.open(bucket)
        assert inspect.verify(reader) == []
        assert reader.damaged_shards() == {}
        store.Writer.open(bucket).write_shard(0, store.Writer.open(bucket).blank_shard(["flags"]))
        with pytest.raises(StoreError, match="was changed by a run since it was opened"):
            reader.frames(0, 0, 20, ["flags"])
        reader = store.open(bucket)
        assert reader.frames(0, 0, 20, ["flags"])["flags"].tolist() == [0] * 20
        dead(bucket)
        with lease.held(bucket), pytest.raises(lease.Held), lease.held(bucket):
            pass
        emptied(bucket)
        assert bucket.files() == {}


def test_a_window_takes_one_request_an_array_and_opening_few_in_turn(s3, monkeypatch):
    filled(f"{s3}/s.zarr")
    reader = store.open(f"{s3}/s.zarr")
    names = ["mouth", "audio", "flags", "asr_projection", "vsr_projection", "similarity"]
    reader.frames(0, 0, 5, names)  # reads the indexes
    asked = []
    ask = buckets.Bucket.ask
    monkeypatch.setattr(buckets.Bucket, "ask", lambda self, request: asked.append(str(self)) or ask(self, request))
    reader.frames(0, 3, 18, names)
    assert len(asked) == len(names)
    asked.clear()
    reader.frames(1, 0, 15, ["mouth"])  # another shard: its index, its chunks
    assert len(asked) == 2


def test_plain_zarr_and_xarray_read_a_bucket(s3):
    _, whole = filled(f"{s3}/s.zarr")
    reader = store.open(f"{s3}/s.zarr")
    tree = reader.to_xarray()
    np.testing.assert_array_equal(tree["frames"]["mouth"][10:30].values, whole["mouth"][10:30])
    assert tree["clips"]["id"].values.tolist() == ["a", "ü", "c"]
    plain = zarr.open_group(reader.place.zarr(), mode="r")  # by its consolidated metadata
    np.testing.assert_array_equal(plain["frames/asr"][:], whole["asr"])
    assert "words" in str(plain.tree())


def test_inspect_counts_verifies_and_finds_damage(root):
    filled(root)
    run = CliRunner()
    text = run.invoke(inspect.main, [str(root), "--verify"])
    assert text.exit_code == 0, text.output
    assert "2 done, 1 not done" in text.output
    shard = root / "frames/audio/c/0/0"
    data = bytearray(shard.read())
    data[3] ^= 0x10
    shard.write(bytes(data))
    broken = run.invoke(inspect.main, [str(root), "--verify"])
    assert broken.exit_code == 1
    assert "damaged: clip a: frames/audio" in broken.output
    shard.delete()
    with pytest.raises(StoreError, match=rf"clip a: frames/audio cannot be read: {root}.* is missing"):
        store.open(root).frames(0, 0, 5, ["audio"])


@pytest.mark.slow
def test_inspect_takes_storage_options(s3, monkeypatch, tmp_path):
    filled(f"{s3}/s.zarr")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    (tmp_path / "options").write_text("aws_secret_access_key=hush\n")
    (tmp_path / "options").chmod(0o600)
    address = ["--storage-options-file", str(tmp_path / "options"), "--storage-option", "timeout=9s"]
    text = CliRunner().invoke(inspect.main, [f"{s3}/s.zarr", *address, "--json"])
    assert text.exit_code == 0, text.output
    assert "hush" not in text.output
    wrong = CliRunner().invoke(inspect.main, [f"{s3}/s.zarr", "--storage-option", "hush"])
    assert wrong.exit_code == 2
    assert "KEY=VALUE" in wrong.output


@pytest.mark.parametrize("root", FOLDER_FIRST, indirect=True)
def test_growing_keeps_earlier_rows(root):
    writer, whole = filled(root)
    writer.append_clips({"id": ["d"], "offset": [60], "capacity": [5]})
    assert writer.grow_rows(65) == 80
    writer.write_shard(3, writer.blank_shard())
    reader = store.open(root)
    assert reader.clips["id"].tolist() == ["a", "ü", "c", "d"]
    np.testing.assert_array_equal(reader.rows(0, 60, ["asr"])["asr"], whole["asr"])


def test_batches_are_staged_loaded_and_discarded(root):
    clips, receipts = batch()
    staging.stage(root, "000000000000-000000000-3", clips, receipts)
    assert staging.staged(root) == {"000000000000-000000000-3"}
    got, notes = staging.load(root, "000000000000-000000000-3")
    assert notes == receipts
    np.testing.assert_array_equal(got[1]["mouth"], clips[1]["mouth"])
    file = root / staging.FOLDER / "000000000000-000000000-3.npz"
    whole = file.read()
    file.write(whole[:-30])
    assert staging.staged(root) == set()
    assert not file.exists()
    file.write(whole[:-30])
    with pytest.raises(StoreError, match="000000000000-000000000-3 is torn"):
        staging.load(root, "000000000000-000000000-3")
    assert not file.exists()
    staging.stage(root, "000000000000-000000000-3", clips, receipts)
    staging.discard(root, ["000000000000-000000000-3", "000000000000-000000009-1"])
    with pytest.raises(StoreError, match="000000000000-000000000-3 is not staged"):
        staging.load(root, "000000000000-000000000-3")


def test_a_reader_sees_shards_that_were_replaced_since_it_opened_them(s3):
    """Where no inventory holds it to what was written: while a run writes."""
    writer, _ = filled(f"{s3}/s.zarr")
    writer.begin()
    reader = store.open(f"{s3}/s.zarr")
    before = reader.frames(0, 0, 20, ["mouth"])["mouth"]
    new = random_shard(writer, np.random.default_rng(9))
    new["mouth"][:10] = 7  # packs smaller, so that nothing lies where it lay
    writer.write_shard(0, new)
    after = reader.frames(0, 0, 20, ["mouth"])["mouth"]
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, new["mouth"])


# -- damage ------------------------------------------------------------------------------------------------------------


def cut_index(root, shard, entry):
    """Rewrite an index entry of frames/flags, with the right checksum."""
    import google_crc32c

    file = root / f"frames/flags/c/{shard}"
    data = file.read()
    index = bytearray(data[-16 * 4 - 4 : -4])
    index[16:32] = entry
    file.write(data[: -16 * 4 - 4] + index + google_crc32c.value(bytes(index)).to_bytes(4, "little"))


@pytest.mark.parametrize("root", FOLDER_FIRST, indirect=True)
def test_damaged_shards_are_found_by_their_size_and_index_alone(root, monkeypatch):
    writer, _ = filled(root)
    reader = store.open(root)
    assert reader.shards_in_use() == [0, 1]
    assert reader.damaged_shards() == {}
    (root / "frames/mouth/c/0/0/0").delete()
    (root / "frames/mouth/c/2/0/0").delete()  # of a clip that is not done
    cut = root / "frames/lips/c/1/0/0"
    cut.write(cut.read()[:-1])
    cut_index(root, 0, b"\xff" * 16)
    cut_index(root, 1, (10**6).to_bytes(8, "little") * 2)
    changed = root / "frames/asr/c/1/0"
    changed.write(bytes([changed.read()[0] ^ 1]) + changed.read()[1:])  # inside a chunk: not for this to find
    (root / "frames/vsr/c/0/0").write(b"")
    read = []
    for kind in (folder._File, buckets._Object):
        original = kind.read
        monkeypatch.setattr(kind, "read", lambda *a, original=original: read.append(a[2]) or original(*a))
    for write in (None, writer.begin):  # by what the inventory tells of them, and without it
        if write:
            write()
        reader = store.open(root)
        assert reader.damaged_shards() == {"flags": [0, 1], "lips": [1], "mouth": [0], "vsr": [0]}
        assert reader.damaged_shards(["lips", "asr"]) == {"lips": [1]}
        assert max(read, default=0) <= inventory.TAIL
    assert "chunk 1 is missing" in reader.shard_damage("flags", 0)
    assert "outside the file" in reader.shard_damage("flags", 1)
    assert reader.shard_damage("flags", 2) == ""
    assert reader.shard_damage("flags", 3) == "frames/flags ends before it"


@pytest.mark.parametrize("root", FOLDER_FIRST, indirect=True)
def test_a_lost_chunk_that_no_done_clip_uses_is_no_damage(root):
    writer, _ = filled(root)
    writer.write_clips(0, {"length": [5, 5, 0]})
    cut_index(root, 0, b"\xff" * 16)
    assert store.open(root).damaged_shards() == {}


# -- networks that fail ------------------------------------------------------------------------------------------------


EVERY_WAY = (500, "drop", "half", "late", 503)


@pytest.mark.parametrize(
    "how", [EVERY_WAY, *(pytest.param((one,), marks=pytest.mark.slow) for one in EVERY_WAY)], ids=str
)
def test_a_network_that_fails_twice_for_every_object_does_no_harm(s3, s3_address, how, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "RETRY", {**buckets.RETRY, "backoff": {"init_backoff": timedelta(milliseconds=2)}})
    flaky = Flaky(s3_address, how)
    with flaky.running() as address:
        where = place(f"{s3}/s.zarr", {"aws_endpoint_url": address})
        filled(where)
        staging.stage(where, "000000000000-000000000-3", *batch())
        staging.load(where, "000000000000-000000000-3")
        assert staging.staged(where) == {"000000000000-000000000-3"}
        staging.discard(where, ["000000000000-000000000-3"])
        assert inspect.verify(store.open(where)) == []
    assert flaky.failed > 200
    filled(tmp_path / "s.zarr")
    folder, bucket = place(tmp_path / "s.zarr"), place(f"{s3}/s.zarr")
    assert folder.files() == bucket.files()
    assert all((folder / key).read() == (bucket / key).read() for key in folder.files())


def test_zip_of_a_staged_batch_is_plain(s3):
    staging.stage(s3, "000000000000-000000000-3", *batch())
    with zipfile.ZipFile(io.BytesIO((place(s3) / "_staging/000000000000-000000000-3.npz").read())) as archive:
        assert archive.testzip() is None
