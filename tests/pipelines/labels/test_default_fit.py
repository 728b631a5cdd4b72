"""The fit that the package ships: small, of the default teachers, and made to the same bytes each time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import teachers
from pipelines import default_fit
from pipelines.corpora.manifest import Row
from pipelines.job.request import ASR, VSR
from store.layout import StoreError
from store.similarity import fitfile

HALF = st.floats(-60000, 60000, width=32)


def test_it_is_small_and_of_the_default_teachers_with_these_weights():
    fit, made_by, note = fitfile.default()
    assert fitfile.DEFAULT.stat().st_size < 300 << 10
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


@pytest.mark.slow
def test_it_is_made_from_a_corpus(tmp_path, clips):
    from click.testing import CliRunner

    made = CliRunner().invoke(
        default_fit.main,
        ["--corpus", f"grid:{clips}", "--store", str(tmp_path / "s.zarr"), "--output", str(tmp_path / "fit.npz")],
    )
    assert made.exit_code == 0, made.output
    fit, _, note = fitfile.load(tmp_path / "fit.npz")
    assert fit.kind == "cca"  # four clips are too few for a network
    assert note["learned_on"] == "4 real clips of grid:grid"


def test_a_wrong_corpus_is_named(tmp_path):
    from click.testing import CliRunner

    found = CliRunner().invoke(
        default_fit.main, ["--corpus", "grid:/nowhere", "--output", str(tmp_path / "fit.npz"), "--store", str(tmp_path)]
    )
    assert found.exit_code == 2
    assert "/nowhere" in found.output
    with pytest.raises(StoreError):
        fitfile.load(tmp_path / "fit.npz")
