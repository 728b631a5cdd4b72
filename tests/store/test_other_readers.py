"""Other programs read a store, as docs/store.md says, without a warning."""

import re
import shutil
import warnings

import numpy as np
import pytest
import readers
import xarray
import zarr

import store
from store.place import place


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, and what its arrays hold by zarr-python."""
    root = readers.example(tmp_path_factory.mktemp("readers") / "s.zarr")
    return root, readers.zarr_python(root)


@pytest.mark.parametrize("name", readers.READERS)
def test_a_reader_reads_what_the_page_says(made, name):
    root, right = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = readers.READERS[name](root)
        except readers.Missing as error:
            pytest.skip(str(error))
    assert readers.row(name, readers.can(root, found, right)) in readers.PAGE.read_text().splitlines()


def test_our_own_reader_agrees_with_the_others(made):
    root, right = made
    reader = store.open(root)
    assert all(
        reader.clips[name].tolist() == right[f"clips/{name}"].tolist() for name in ("id", "path", "corpus", "split")
    )
    assert reader.words_table["text"].tolist() == right["words/text"].tolist()
    np.testing.assert_array_equal(reader.frames(0, 0, 40, ["vsr"])["vsr"], right["frames/vsr"][:40])


def test_every_dimension_has_a_name_and_one_length_in_its_branch(made):
    """xarray demands the first; a tree demands the second of every group and those above it."""
    root, right = made

    def check(group, above):
        lengths = dict(above)
        for name, array in group.arrays():
            assert len(array.metadata.dimension_names or ()) == array.ndim, name
            for dimension, length in zip(array.metadata.dimension_names or (), array.shape, strict=True):
                assert dimension
                assert lengths.setdefault(dimension, length) == length, f"{name}: {dimension}"
        for _, below in group.groups():
            check(below, lengths)

    check(zarr.open_group(str(root), mode="r"), {})
    assert any(name.startswith("fit/") for name in right)


def test_text_without_a_reader_of_text(made):
    """The recipe on the page."""
    root, right = made
    recipe = re.search(r"<!-- text -->\n```python\n(.*?)```", readers.PAGE.read_text(), re.DOTALL)[1]
    names = {}
    exec(recipe.replace("/data/labels.zarr", str(root)), names)
    assert names["ids"] == right["clips/id"].tolist()
    assert names["texts"](root / "words" / "text") == right["words/text"].tolist()


def test_the_tables_beside_the_arrays_disturb_nobody_who_opens_the_store(made, tmp_path):
    """They are no nodes of Zarr; only who lists the folder instead of reading its consolidated metadata meets them."""
    root = tmp_path / "s.zarr"
    shutil.copytree(made[0], root)
    for name in ("ledger.parquet", "manifest.parquet", "errors.jsonl", "report.html", "report.json", "audit.json"):
        (place(root) / name).write(b"{}")
    assert set(zarr.open_group(str(root), mode="r").group_keys()) == {"clips", "frames", "fit", "words"}
    with xarray.open_datatree(str(root), engine="zarr") as tree:
        assert set(tree.children) == {"clips", "frames", "fit", "words"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        listed = set(zarr.open_group(str(root), mode="r", use_consolidated=False).group_keys())
    assert listed == {"clips", "frames", "fit", "words"}
    assert any("ledger.parquet is not recognized as a component of a Zarr hierarchy" in str(w.message) for w in warned)
