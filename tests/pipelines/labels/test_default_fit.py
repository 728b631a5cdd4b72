"""The fit that the package ships: small, of the default teachers, and made to the same bytes each time."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import teachers
from pipelines import default_fit
from pipelines.corpora.manifest import Row
from pipelines.job.request import ASR, VSR
from store.layout import StoreError
from store.similarity import fitfile
from student.predict.basis import basis
from teachers.files import weights

HALF = st.floats(-60000, 60000, width=32)


def test_it_is_small_and_of_the_default_teachers_with_these_weights():
    fit, made_by, note = fitfile.default()
    assert fitfile.DEFAULT.stat().st_size < 700 << 10
    assert fit.kind == "fused"
    assert list(fit.calibration) == ["grid:grid_s1"]
    assert set(fit.calibration["grid:grid_s1"]) == {"5", "25", "clip"}
    assert note["learned_on"] == "486 real clips of grid:grid_s1"
    for side, name in (("asr", ASR), ("vsr", VSR)):
        here = teachers.load(name).provenance()
        assert (made_by[side]["name"], made_by[side]["sha256"]) == (name, here["sha256"])


def test_it_computes_in_single_precision():
    fit, _, _ = fitfile.default()
    assert {a.dtype for a in (fit.vsr_matrix, fit.asr_mean, *fit.network.values())} == {np.dtype(np.float32)}


@given(arrays.arrays(np.float32, 8, elements=HALF))
def test_rounding_is_to_the_nearest_number_of_so_many_bits(x):
    found = default_fit._rounded(x)
    assert found.dtype == np.float16
    assert not (found.view(np.uint16) & 0b111).any()
    half = x.astype(np.float16)
    normal = np.abs(half) >= np.finfo(np.float16).tiny
    error = np.abs(found.astype(float) - half.astype(float))
    assert (error[normal] <= np.abs(half.astype(float))[normal] * 2.0 ** -(default_fit.BITS + 1)).all()
    assert np.array_equal(default_fit._rounded(found), found)


def test_a_number_outside_half_precision_is_refused():
    with pytest.raises(ValueError, match="half precision"):
        default_fit._rounded(np.array([1e6], np.float32))


def test_every_tenth_clip_stays_unseen():
    rows = default_fit.held_out([Row(f"{k}.mp4") for k in range(30)])
    assert [k for k, row in enumerate(rows) if row.split == "test"] == [5, 15, 25]
    assert {row.split for row in rows} == {"train", "test"}


def test_the_same_fit_gives_the_same_bytes(tmp_path):
    fit, made_by, note = fitfile.default()
    for name in ("a.npz", "b.npz"):
        fitfile.save(tmp_path / name, default_fit.small(fit), made_by, note)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes() == fitfile.DEFAULT.read_bytes()


def test_splits_of_the_list_are_kept():
    rows = [Row(f"{k}.mp4", split="val" if k == 3 else "") for k in range(30)]
    assert default_fit.held_out(rows) == rows


@pytest.fixture
def cache(tmp_path, monkeypatch):
    mine = tmp_path / "cache" / "concord-av"
    mine.mkdir(parents=True)
    for file in weights.cache_dir().glob("[!.]*"):  # the models; a run must not find fits that were put there
        if file.is_file():
            (mine / file.name).symlink_to(file)
    monkeypatch.delenv("CONCORD_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "concord-av" / "fits"


def listed(folder, clips, label="0", split=""):
    """A manifest of the four clips by two people."""
    names = sorted((clips / "clips").glob("*.mp4"))
    people = [f'"[""{k % 2}""]"' for k in range(len(names))]
    rows = [f"{name},{label},{who},{split}" for name, who in zip(names, people, strict=True)]
    path = folder / "people.csv"
    path.write_text("\n".join(["path,label,identities,split", *rows]) + "\n")
    return path


def made(*options):
    return CliRunner().invoke(default_fit.main, [str(option) for option in options])


@pytest.mark.slow
def test_it_is_made_from_a_manifest_and_is_the_default_then(tmp_path, clips, cache):
    path, at = listed(tmp_path, clips), tmp_path / "s.zarr"
    found = made("--manifest", path, "--store", at)
    assert found.exit_code == 0, found.output
    assert "learned on 4 real clips of 2 speakers of csv:people.csv" in found.output
    assert "no verdict on strangers: calibrated on 2 speakers" in found.output
    assert "predict now uses it where no fit is named" in found.output
    fit, _, note = fitfile.load(cache / "default.npz")
    assert fit.kind == "cca"  # four clips are too few for a network
    assert note["fitted_on"]["speakers"] == 2
    assert note["clip_frames"] == 75
    assert basis(None).source.startswith(f"{cache / 'default.npz'}, the default here")
    again = made("--manifest", path, "--store", at, "--output", tmp_path / "again.npz")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.npz").read_bytes() == (cache / "default.npz").read_bytes()
    other = made("--corpus", f"grid:{clips}", "--store", at, "--output", tmp_path / "other.npz")
    assert other.exit_code == 2
    assert "name another --store" in other.output


def test_a_wrong_corpus_is_named(tmp_path):
    found = made("--corpus", "grid:/nowhere", "--output", tmp_path / "fit.npz", "--store", tmp_path)
    assert found.exit_code == 2
    assert "/nowhere" in found.output
    with pytest.raises(StoreError):
        fitfile.load(tmp_path / "fit.npz")


@pytest.mark.parametrize(
    ("label", "split", "says"),
    [
        ("", "", "(4 clips) is known to be real"),
        ("1", "", "(4 clips) is known to be real"),
        ("0", "test", "a fit learns from train alone"),
    ],
)
def test_a_list_without_clips_to_learn_from_is_refused_before_anything_runs(tmp_path, clips, cache, label, split, says):
    found = made("--manifest", listed(tmp_path, clips, label, split))
    assert found.exit_code == 2
    assert says in found.output
    assert not list(cache.glob("*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--manifest FILE or --corpus"),
        (["--manifest", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--corpus", "grid:x", "--name", "a", "--output", "b.npz"], "give one of them"),
        (["--corpus", "grid:x", "--name", "../a"], "is not a name for a fit"),
        (["--corpus", "grid:x", "--name", "package"], "choose another"),
    ],
)
def test_wrong_options_say_what_to_do(cache, options, says):
    found = made(*options)
    assert found.exit_code == 2
    assert says in found.output


def test_the_same_clips_twice_are_refused(clips, cache):
    found = made("--corpus", f"grid:{clips}", "--corpus", f"grid:{clips}")
    assert found.exit_code == 2
    assert "name each once" in found.output


def test_a_file_of_another_kind_is_not_replaced(tmp_path, clips):
    (tmp_path / "mine.npz").write_bytes(b"mine")
    found = made("--corpus", f"grid:{clips}", "--output", tmp_path / "mine.npz")
    assert found.exit_code == 2
    assert (tmp_path / "mine.npz").read_bytes() == b"mine"
