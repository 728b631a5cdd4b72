"""The sound track that a manifest or an option names for a clip."""

import pandas as pd
import pytest

from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.errors import UsageError
from pipelines.job import request
from pipelines.job.request import Config


@pytest.mark.parametrize(
    ("text", "track"), [("", None), ("auto", 0), ("AUTO", 0), ("1", 1), ("2", 2), ("3.0", 3), (" 4 ", 4), ("64", 64)]
)
def test_a_track_is_read_from_text(text, track, tmp_path):
    (tmp_path / "m.csv").write_text(f"path,audio_track\na.mp4,{text}\nb.mp4,\n")
    assert [row.audio_track for row in manifest.load(f"csv:{tmp_path / 'm.csv'}")] == [track, None]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "first", "65", "nan", "inf", "1e99", "true", "²"])
def test_a_wrong_track_is_named_with_its_row(text, tmp_path):
    (tmp_path / "m.csv").write_text(f"path,audio_track\na.mp4,{text}\n")
    with pytest.raises(ManifestError, match=r"a\.mp4: audio_track is .*; use auto, or the number of a sound track"):
        manifest.load(f"csv:{tmp_path / 'm.csv'}")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tracks_are_written_as_they_are_read(suffix, tmp_path):
    rows = [Row("a.mp4"), Row("b.mp4", audio_track=0), Row("c.mp4", audio_track=12)]
    manifest.write(rows, tmp_path / f"m{suffix}")
    assert manifest.read(tmp_path / f"m{suffix}") == rows


def test_numbers_in_parquet_are_tracks(tmp_path):
    pd.DataFrame({"path": ["a.mp4", "b.mp4"], "audio_track": [2.0, None]}).to_parquet(tmp_path / "m.parquet")
    assert [row.audio_track for row in manifest.read(tmp_path / "m.parquet")] == [2, None]


def test_a_row_beats_the_option():
    rows = [Row("a.mp4"), Row("b.mp4", audio_track=0), Row("c.mp4", audio_track=3)]
    assert [row.audio_track for row in manifest.with_track(rows, 2)] == [2, 0, 3]
    assert manifest.with_track(rows, None) == rows


def config(track):
    return Config("/data/s.zarr", audio_track=track)


def test_a_store_keeps_its_track():
    assert request._audio_track(config(None), None) == 0
    assert request._audio_track(config(2), None) == 2
    assert request._audio_track(config(None), {"audio_track": 2}) == 2
    assert request._audio_track(config(2), {"audio_track": 2}) == 2
    assert request._audio_track(config(0), {}) == 0
    for asked, has, said in (
        (1, {"audio_track": 2}, "2, not 1"),
        (1, {}, "auto, not 1"),
        (0, {"audio_track": 2}, "2, not auto"),
    ):
        with pytest.raises(UsageError, match=f"was made with --audio-track {said}: "):
            request._audio_track(config(asked), has)
