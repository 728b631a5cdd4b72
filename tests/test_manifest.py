"""Manifest rows: labels, ids, groups, files in and out, and the corpora that yield them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import manifest
from pipelines.corpora import grid as grid_corpus
from pipelines.manifest import ManifestError, Row


def test_only_path_is_needed(tmp_path):
    (tmp_path / "m.csv").write_text("path\na.mp4\nsub/b.mp4\n")
    rows = manifest.load(f"csv:{tmp_path}/m.csv")
    assert [r.path for r in rows] == [str(tmp_path / "a.mp4"), str(tmp_path / "sub" / "b.mp4")]
    assert [r.id for r in rows] == ["csv:m.csv/a.mp4", "csv:m.csv/sub/b.mp4"]
    assert all((r.label, r.audio_fake, r.video_fake, r.category, r.split) == (-1, -1, -1, "", "") for r in rows)


def test_root_moves_relative_paths(tmp_path):
    (tmp_path / "m.csv").write_text("path\na.mp4\n")
    rows = manifest.load(f"csv:{tmp_path}/m.csv", root=tmp_path / "media")
    assert rows[0].path == str(tmp_path / "media" / "a.mp4")
    assert rows[0].id == "csv:m.csv/a.mp4"


def test_labels_follow_from_one_another(tmp_path):
    (tmp_path / "m.csv").write_text(
        "path,label,audio_fake,video_fake\na,0,,\nb,,1,0\nc,,0,1\nd,1,,\ne,,0,0\nf,fake,1,1\n"
    )
    rows = manifest.load(f"csv:{tmp_path}/m.csv")
    assert [(r.label, r.audio_fake, r.video_fake, r.category) for r in rows] == [
        (0, 0, 0, "RVRA"),
        (1, 1, 0, "RVFA"),
        (1, 0, 1, "FVRA"),
        (1, -1, -1, ""),
        (0, 0, 0, "RVRA"),
        (1, 1, 1, "FVFA"),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,label\na.mp4,2\n", "label"),
        ("path,split\na.mp4,dev\n", "split"),
        ("path,video_segments\na.mp4,later\n", "video_segments"),
        ('path,video_segments\na.mp4,"[[2, 1]]"\n', "ends before"),
        ("file\na.mp4\n", "no column path"),
        ("path\na.mp4\na.mp4\n", "two rows have the id"),
    ],
)
def test_a_wrong_manifest_is_an_error_that_names_it(tmp_path, text, what):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=what):
        manifest.load(f"csv:{tmp_path}/m.csv")


def test_groups_are_connected_components():
    rows = [
        Row("a", identities=("id1", "id2")),
        Row("b", identities=("id2", "id3")),
        Row("c", identities=("id4",)),
        Row("d"),
        Row("e", identities=("id3",)),
    ]
    groups = [row.group for row in manifest.complete(rows, "csv:x", manifest.Path("/data"))]
    assert groups[0] == groups[1] == groups[4]
    assert len({groups[0], groups[2], groups[3]}) == 3


text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12).map(str.strip)
spans = st.lists(st.tuples(st.floats(0, 9, allow_nan=False), st.floats(9, 20, allow_nan=False)), max_size=2).map(tuple)
rows_strategy = st.lists(
    st.builds(
        Row,
        path=text.map(lambda s: f"/data/{s}.mp4"),
        label=st.sampled_from([-1, 0, 1]),
        method=text,
        identities=st.lists(text.filter(bool), max_size=3).map(tuple),
        split=st.sampled_from(manifest.SPLITS),
        audio_segments=spans,
        video_segments=spans,
        listed_fps=st.one_of(st.none(), st.floats(1, 100)),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@given(rows=rows_strategy)
def test_writing_and_reading_is_the_identity(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.mktemp("m") / f"m{suffix}"
    manifest.write(rows, path)
    assert manifest.read(path) == rows


def test_folder_labels_by_place(tmp_path):
    for name in (
        "real/x/a.mp4",
        "fake/wav2lip/b.MP4",
        "fake/c.mkv",
        "other/d.mp4",
        "e.mp4",
        "notes.txt",
        ".cache/f.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rows = {r.id.partition("/")[2]: r for r in manifest.load(f"folder:{tmp_path}")}
    assert {k: (r.label, r.method) for k, r in rows.items()} == {
        "e.mp4": (-1, ""),
        "fake/c.mkv": (1, "fake"),
        "fake/wav2lip/b.MP4": (1, "wav2lip"),
        "other/d.mp4": (-1, ""),
        "real/x/a.mp4": (0, ""),
    }


def test_grid_is_real_and_of_one_speaker(clips):
    rows = manifest.load(f"grid:{clips}")
    assert len(rows) == 4
    assert {(r.label, r.category, r.group, r.corpus) for r in rows} == {(0, "RVRA", "grid", "grid:grid")}
    words = grid_corpus.words(clips / "align" / "bbaf2n.align")
    assert [w.text for w in words] == "bin blue at f two now".split()
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(words))


def test_ids_do_not_depend_on_how_the_root_is_spelt(clips):
    plain = manifest.load(f"grid:{clips}")
    assert manifest.load(f"grid:{clips}/clips/../../{clips.name}") == plain
    assert plain[0].id == "grid:grid/clips/bbaf2n.mp4"


def test_unknown_kind_missing_root_and_empty_folder_say_what_to_do(tmp_path):
    with pytest.raises(ManifestError, match="kinds are"):
        manifest.load(f"nosuch:{tmp_path}")
    with pytest.raises(ManifestError, match="does not exist"):
        manifest.load(f"grid:{tmp_path}/none")
    with pytest.raises(ManifestError, match="no folder clips"):
        manifest.load(f"grid:{tmp_path}")
    with pytest.raises(ManifestError, match="has no clips"):
        manifest.load(f"folder:{tmp_path}")
    with pytest.raises(ManifestError, match="KIND:ROOT"):
        manifest.load(str(tmp_path))


def test_identities_may_be_a_json_list_or_a_name():
    assert Row.of({"path": "a", "identities": json.dumps(["x", "y"])}).identities == ("x", "y")
    assert Row.of({"path": "a", "identities": "x"}).identities == ("x",)
