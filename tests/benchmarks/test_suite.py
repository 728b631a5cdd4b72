"""`python -m benchmarks --quick`: every format gives the store's own bytes, sizes grow, and nonsense is refused."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.__main__ import NAMES, main
from benchmarks.parts import Result, Row
from benchmarks.speed import store_reading
from benchmarks.suite import everything, growing, plot, reading, rivals

WAYS = rivals.ways()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    noise = np.random.default_rng(0)
    material = noise.integers(0, 256, (75, 288, 360), np.uint8), noise.integers(-900, 900, (75, 640), np.int16)
    return store_reading.build(tmp_path_factory.mktemp("formats") / "s.zarr", 4200, 25, material=material)


@pytest.mark.parametrize("name", WAYS)
def test_a_format_gives_the_bytes_of_the_store(reader, name, tmp_path):
    way = WAYS[name]
    if isinstance(way, str):
        pytest.skip(way)
    places = reading.one_of_each(reader)
    assert len(places) == len(reader) == len({clip for clip, _ in places})
    expected = list(store_reading.one_by_one(store_reading.our_reader(reader))(places))
    found = list(way(reader, tmp_path)(places))
    assert rivals.differences(expected, found) == []
    found[0][1]["audio"][3, 5] += 1
    assert rivals.differences(expected, found) == [f"audio of clip {found[0][0][0]} from frame {found[0][0][1]}"]
    assert rivals.differences(expected, found[1:]) == [f"{len(found) - 1} windows instead of {len(found)}"]
    assert rivals.megabytes(tmp_path) > 1


def test_the_least_that_reading_takes_gives_the_same_windows(reader):
    bare, ours = store_reading.bare(reader), store_reading.our_reader(reader)
    for clip, start in reading.one_of_each(reader)[:6]:
        window = bare(clip, start)
        assert all(np.array_equal(window[name], values, equal_nan=True) for name, values in ours(clip, start).items())


def test_the_codec_alone_and_the_reader_read_the_same_chunks(reader):
    places = reading.one_of_each(reader)[:3]
    ways = {
        "ours": store_reading.one_by_one(store_reading.our_reader(reader)),
        "codec": store_reading.one_by_one(store_reading.codec_alone(reader)),
    }
    found = store_reading.measure(ways, places, 2)
    assert {name: len(values) for name, values in found.items()} == {"ours": 2, "codec": 2}
    assert all(speed > 0 and busy > 0 for values in found.values() for speed, busy in values)


def test_a_package_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    found = {name: way for name, way in rivals.ways().items() if isinstance(way, str)}
    assert len(found) == len(WAYS) - 1  # numpy is always there
    assert found["litdata"] == "skipped: it needs litdata: pip install 'concord-av[benchmarks]'"


def test_a_made_corpus_is_planned_filled_and_trained_on(tmp_path, capsys):
    path = str(tmp_path / "s.zarr")
    for step in ("planned", "filled", "started"):
        growing.say(step, "400", path)
        figures = json.loads(capsys.readouterr().out)
        assert figures["mib"] >= figures["mib before"] > 0
        assert figures["clock"] > 0


def test_a_step_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(growing, "CODE", "import sys; sys.exit('no room')")
    with pytest.raises(growing.Broken, match="started with 9 clips ended with exit code 1: no room"):
        growing._apart("started", 9, str(tmp_path / "s.zarr"))


def test_the_picture_has_a_panel_for_each_part_with_figures():
    growth = {"CPU s": 1.0, "start CPU s": 2.0, "MiB": 3.0, "start MiB": 4.0}
    results = [
        Result("formats", "Formats", [Row("concord-av store", {"windows/s": 5.0}), Row("litdata", {}, "skipped")]),
        Result("growth", "Growth", [Row("10 clips", growth), Row("1,000 clips", growth)]),
        Result("workers", "Workers", [], ended="failed"),
    ]
    one, two = (Image.open(io.BytesIO(plot.png(some, "a machine"))) for some in (results[:1], results))
    assert one.height == two.height
    assert two.width == 2 * one.width
    assert two.text["Software"] == "concord-av benchmarks"


def test_the_parts_of_both_runs_are_those_that_can_be_chosen():
    for quick in (True, False):
        assert tuple(part.name for part in everything.plan(quick, None)) == NAMES
    assert set(plot.PANELS) == set(NAMES)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--quick", "--all"], "one of --quick and --all"),
        (["--plot", "x.png"], "say how much to measure"),
        (["--quick", "student"], "leave them out to run one benchmark"),
        (["--quick", "--json", "mine.txt"], "is not figures of benchmarks"),
        (["--quick", "--plot", "nowhere/x.png"], "not in a folder that exists"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(options, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("a letter")
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert text in result.output
    assert (tmp_path / "mine.txt").read_text() == "a letter"


@pytest.mark.slow
def test_one_run_prints_the_table_and_writes_both_files(tmp_path):
    files = [tmp_path / "speed.json", tmp_path / "speed.png"]
    options = ["--quick", "--minutes", "30", "--part", "formats", "--part", "teachers"]
    result = CliRunner().invoke(main, [*options, "--json", str(files[0]), "--plot", str(files[1])])
    assert result.exit_code == 0, result.output
    found = json.loads(files[0].read_text())
    rows = {row["name"]: row["figures"] for row in found["parts"][0]["rows"]}
    assert rows["concord-av store"]["x ours"] == 1
    assert rows["numpy memmap"]["MB"] > rows["concord-av store"]["MB"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
