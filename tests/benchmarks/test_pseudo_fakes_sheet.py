"""The contact sheet of pseudo-fakes: a row for each kind, and one line for what cannot be drawn."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_store import make_store

from benchmarks.quality.pseudo_fakes import NAMES, SHOWN, main
from student.data.pseudo_fakes import KINDS, SIDE


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("sheet") / "s.zarr", {"train": 3}, frames=40)


def test_every_kind_has_a_row(path, tmp_path):
    result = CliRunner().invoke(main, ["--store", str(path), "--output", str(tmp_path / "kinds.png")])
    assert result.exit_code == 0, result.output
    picture = np.asarray(Image.open(tmp_path / "kinds.png").convert("RGB"))
    assert picture.shape == (SIDE * (1 + len(KINDS)), NAMES + SIDE * SHOWN, 3)
    red = (picture.astype(int) @ [1, -1, 0] > 80).reshape(1 + len(KINDS), SIDE, -1).any((1, 2))
    assert red.tolist() == [False] + [True] * len(KINDS)


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--clip", "nobody"], "has no clip nobody"), (["--output", "/nowhere/x.png"], "cannot write")],
)
def test_what_cannot_be_drawn_is_one_line(path, tmp_path, options, said):
    result = CliRunner().invoke(main, ["--store", str(path), "--output", str(tmp_path / "kinds.png"), *options])
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
