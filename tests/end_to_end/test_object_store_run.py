"""The command from end to end, from a bucket into a bucket: equal to a run on the disk, also where the network fails twice."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from object_server import ENVIRONMENT, Flaky
from small_store import make_store
from test_precompute import GOOD, ROOT, precompute, wait_until
from test_train import assert_same_bits, train

import store
from benchmarks.survival.same import differences, faults
from store.place import place
from student.evaluate import main as evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory, clips):
    """Four real clips in a folder, and a store made of them on the disk."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "set" / "real").mkdir(parents=True)
    for clip in sorted((clips / "clips").glob("*.mp4")):
        shutil.copy(clip, folder / "set" / "real")
    precompute("--corpus", f"folder:{folder}/set", "--store", folder / "s.zarr", "--words")
    return folder


def upload(folder, url):
    for key in place(folder).files():
        (place(url) / key).write((place(folder) / key).read())


def download(url, folder):
    for key in place(url).files():
        (place(folder) / key).write((place(url) / key).read())
    return folder


def assert_same(local, url, tmp_path):
    copy = download(url, tmp_path / "copy.zarr")
    (found,) = differences(local / "s.zarr", copy)
    assert found.startswith("clips/path differs")  # as it should
    assert faults(copy) == []
    here, there = store.open(local / "s.zarr"), store.open(copy)
    assert there.attrs["similarity"] == here.attrs["similarity"]
    assert [p.removeprefix(f"{url.rpartition('/')[0]}/") for p in there.clips["path"]] == [
        p.removeprefix(f"{local}/") for p in here.clips["path"]
    ]
    assert there.has_words


def test_a_run_from_bucket_to_bucket_equals_one_on_the_disk(local, s3, tmp_path, monkeypatch):
    upload(local / "set", f"{s3}/set")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")  # this one comes as an option, to driver and workers
    secret = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "options.json").write_text(json.dumps({"aws_secret_access_key": secret}))
    (tmp_path / "options.json").chmod(0o600)
    options = ["--store", f"{s3}/s.zarr", "--storage-options-file", str(tmp_path / "options.json")]
    done = precompute("--corpus", f"folder:{s3}/set", *options, "--words")
    again = precompute("--corpus", f"folder:{s3}/set", *options)
    assert "nothing to do" in again.stdout
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    assert_same(local, f"{s3}/s.zarr", tmp_path)
    assert not any(secret.encode() in (place(s3) / key).read() for key in place(s3).files())
    assert not any(secret in run.stdout + run.stderr for run in (done, again))
    (tmp_path / "one").mkdir()
    shutil.copy(local / "set" / "real" / GOOD, tmp_path / "one")
    precompute("--corpus", f"folder:{tmp_path}/one", "--store", tmp_path / "b.zarr", "--fit-from", f"{s3}/s.zarr")
    assert store.open(tmp_path / "b.zarr").attrs["similarity"]["fit_from"] == f"{s3}/s.zarr"


def test_a_run_over_a_network_that_fails_twice_for_every_object_equals_a_calm_one(local, s3, s3_address, tmp_path):
    upload(local / "set", f"{s3}/set")
    flaky = Flaky(s3_address, (500, "drop", "half", "late", 503))
    with flaky.running() as address:
        option = ["--storage-option", f"aws_endpoint_url={address}"]
        precompute("--corpus", f"folder:{s3}/set", "--store", f"{s3}/s.zarr", "--words", *option)
    assert flaky.failed > 300
    assert_same(local, f"{s3}/s.zarr", tmp_path)


def test_a_driver_killed_by_a_signal_frees_the_bucket_and_the_next_goes_on(local, s3, tmp_path):
    upload(local / "set", f"{s3}/set")
    command = ["--corpus", f"folder:{s3}/set", "--store", f"{s3}/s.zarr", "--words"]
    with subprocess.Popen([sys.executable, str(ROOT / "precompute.py"), *command], cwd=ROOT) as run:
        wait_until(lambda: (place(s3) / "s.zarr" / "ledger.parquet").exists(), run)
        second = precompute(*command, code=2)
        assert "another run" in second.stderr
        run.send_signal(signal.SIGKILL)
    precompute(*command)  # waits until the lock is stale
    assert_same(local, f"{s3}/s.zarr", tmp_path)


def test_training_and_evaluation_read_a_bucket(s3, tmp_path):
    splits = {"train": 26, "test": 6}
    for where in (f"{s3}/s.zarr", tmp_path / "s.zarr"):
        make_store(where, splits, frames=(30, 45), fakes=4)
    train(f"{s3}/s.zarr", tmp_path / "there", "--num-workers", "2")
    train(tmp_path / "s.zarr", tmp_path / "here")
    assert_same_bits(tmp_path / "here", tmp_path / "there")
    scores = []
    for where in (f"{s3}/s.zarr", tmp_path / "s.zarr"):
        options = [
            "--store",
            where,
            "--checkpoint",
            tmp_path / "there",
            "--split",
            "test",
            "--output",
            tmp_path / "r.json",
        ]
        result = CliRunner().invoke(evaluate, list(map(str, options)))
        assert result.exit_code == 0, result.output
        scores.append(json.loads((tmp_path / "r.json").read_text()))
    there, here = ({k: v for k, v in s.items() if k not in ("store", "trained_on", "seconds")} for s in scores)
    assert there == here
