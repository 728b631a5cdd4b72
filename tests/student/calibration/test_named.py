"""Which fit answers rest on: a file, a name in the cache, the default one there, or the package's."""

import pytest
from click.testing import CliRunner

import store
from store.similarity import fitfile
from student.calibration import named
from student.predict.__main__ import main
from student.predict.basis import basis
from teachers.files import fits
from teachers.files.weights import WeightsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("CONCORD_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "concord-av" / "fits").mkdir(parents=True)
    return tmp_path / "cache" / "concord-av" / "fits"


def put(path, **note):
    fit, made_by, told = fitfile.default()
    fitfile.save(path, fit, made_by, {**told, **note})
    return path


def test_without_a_fit_in_the_cache_it_is_the_packages():
    assert basis(None).source.startswith("the package, learned on 486 real clips")


def test_a_fit_called_default_replaces_the_packages_and_is_named(cache):
    path = put(cache / "default.npz", learned_on="900 real clips of 60 speakers of people")
    on = basis(None)
    assert on.source == (
        f"{path}, the default here in place of the package's, learned on 900 real clips of 60 speakers of people"
    )
    assert on.told()["fit"]["from"] == on.source
    assert basis(None, "package").source.startswith("the package")


def test_a_fit_is_found_by_its_name_in_the_folder_for_weights_first(cache, tmp_path, monkeypatch):
    mine = put(cache / "mine.npz")
    assert basis(None, "mine").source.startswith(f"{mine} (mine)")
    monkeypatch.setenv("CONCORD_WEIGHTS", str(tmp_path / "w"))
    (tmp_path / "w" / "fits").mkdir(parents=True)
    other = put(tmp_path / "w" / "fits" / "mine.npz")
    assert basis(None, "mine").source.startswith(str(other))
    assert fits.names() == ["mine"]


def test_a_name_that_is_nearly_one_of_a_fit_is_told_that(cache):
    put(cache / "mine.npz")
    with pytest.raises(store.StoreError, match="did you mean mine"):
        basis(None, "mien")


def test_a_path_is_a_path(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(cache / "mine.npz")
    put(tmp_path / "mine")
    assert basis(None, "mine").source == "mine"


@pytest.mark.parametrize("name", ["other", "../default", "", ".hidden", "a/b", "x" * 200, "\0"])
def test_what_is_neither_file_nor_store_nor_name_is_refused_with_the_names_there_are(cache, name):
    put(cache / "default.npz")
    put(cache.parent / "default.npz")
    if name:
        with pytest.raises(store.StoreError, match=r"no fit of that name \(default, package\)"):
            named.asked(name)
    with pytest.raises(WeightsError):
        fits.cached(name if name != "other" else "package")


def test_a_damaged_default_is_named_with_what_to_do(cache, clips):
    (cache / "default.npz").write_bytes(b"not a fit")
    for _ in range(2):
        found = CliRunner().invoke(main, [str(clips / "clips" / "bbaf2n.mp4"), "--teacher-only"])
        assert found.exit_code == 2
        assert f"{cache / 'default.npz'} is not a concord-av fit" in found.output
        assert "remove it, or name another fit with --fit-from (package)" in found.output


def test_what_a_file_says_of_itself_is_short_and_plain(cache):
    put(cache / "default.npz", learned_on="\x1b[31m" + "x" * 5000)
    source = basis(None).source
    assert "\x1b" not in source
    assert len(source) < 600
    put(cache / "default.npz", learned_on=["a", 7])
    assert "learned on" not in basis(None).source
