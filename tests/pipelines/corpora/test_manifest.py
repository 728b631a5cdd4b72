"""Manifest rows: labels, ids, groups, files in and out, and the corpora that yield them."""

import itertools
import json
import os
import shutil
from dataclasses import replace

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpora import folder as folder_corpus
from pipelines.corpora import grid as grid_corpus
from pipelines.corpora import manifest
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.media import probe
from store.place import place


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
        split=st.sampled_from(("", *manifest.SPLITS)),
        audio_segments=spans,
        video_segments=spans,
        listed_fps=st.one_of(st.none(), st.floats(1, 100)),
        faults=st.lists(text.filter(bool).map(Fault.of), max_size=2).map(tuple),
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


def test_faults_are_read_from_text_and_written_as_text(tmp_path):
    said = ["listed_twice: a: b", "no kind at all", "no_sound: an older name", "other: x"]
    row = Row.of({"path": "/a", "faults": json.dumps(said)})
    assert row.faults == (
        Fault("listed_twice", "a: b"),
        Fault("other", "no kind at all"),
        Fault("no_audio", "an older name"),
        Fault("other", "x"),
    )
    manifest.write([row], tmp_path / "m.csv")
    assert manifest.read(tmp_path / "m.csv") == [row]
    assert (
        '""listed_twice: a: b"", ""no kind at all"", ""no_audio: an older name"", ""x""'
        in (tmp_path / "m.csv").read_text()
    )
    (done,) = manifest.complete([Row("a", faults=("listed_twice: by an adapter of others",))], "c", tmp_path)
    assert done.faults == (Fault("listed_twice", "by an adapter of others"),)


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


def test_a_grid_name_spells_its_sentence_and_times_of_another_are_refused(clips, tmp_path):
    assert grid_corpus.sentence("lgas5a") == "lay green at s five again"
    assert [grid_corpus.sentence(name) for name in ("bbaf2", "xbaf2n", "my clip")] == ["", "", ""]
    other = tmp_path / "lgas5a.align"
    other.write_bytes((clips / "align" / "bbaf2n.align").read_bytes())
    with pytest.raises(ManifestError, match='the times of "bin blue at f two now", but its name encodes "lay green'):
        grid_corpus.words(other)


def test_alignments_of_the_published_package_are_found_under_another_speakers_name():
    """As lhotse's recipe moves them: what lies in s5 are the times of s6, what lies in s10 those of s13."""
    found = {
        speaker: grid_corpus.published_folder(speaker) for speaker in ("s1", "s6", "s5", "s13", "s10", "s21", "s34")
    }
    assert found == {"s1": "s1", "s6": "s5", "s5": "s6", "s13": "s10", "s10": "s11", "s21": "s20", "s34": "s34"}
    speakers = [f"s{k}" for k in range(1, 35) if k != 20]
    assert len({grid_corpus.published_folder(speaker) for speaker in speakers}) == len(speakers)
    with pytest.raises(ManifestError, match="no word times of speaker s20"):  # in its folder lie those of s21
        grid_corpus.published_folder("s20")


def test_ids_do_not_depend_on_how_the_root_is_spelt(clips):
    plain = manifest.load(f"grid:{clips}")
    assert manifest.load(f"grid:{clips}/clips/../../{clips.name}") == plain
    assert plain[0].id == "grid:grid/clips/bbaf2n.mp4"


@pytest.mark.parametrize("inside", ["real", "fake", "fake/swap", "real/", "fake/../real"])
def test_a_folder_inside_real_or_fake_is_refused_because_nothing_would_have_a_label(tmp_path, inside):
    trees.touch(tmp_path, "set/real/ann/a.mp4", "set/fake/swap/ann/b.mp4")
    with pytest.raises(ManifestError, match=f"name the folder that holds real/ and fake/, folder:{tmp_path}/set$"):
        manifest.load(f"folder:{tmp_path}/set/{inside}")
    assert [row.label for row in manifest.load(f"folder:{tmp_path}/set")] == [1, 0]
    trees.touch(tmp_path, "real/real/a.mp4", "clips/a.mp4")
    assert [row.label for row in manifest.load(f"folder:{tmp_path}/real")] == [0]
    assert [row.label for row in manifest.load(f"folder:{tmp_path}/clips")] == [-1]
    assert len(list(folder_corpus.videos(f"{tmp_path}/set/{inside}"))) == 1  # to judge them, no label is needed


def test_unknown_kind_missing_root_and_empty_folder_say_what_to_do(tmp_path):
    with pytest.raises(ManifestError, match="kinds are"):
        manifest.load(f"nosuch:{tmp_path}")
    with pytest.raises(ManifestError, match="did you mean folder\\?"):
        manifest.load(f"foldr:{tmp_path}")
    with pytest.raises(ManifestError, match=f"did you mean folder:{tmp_path}\\?"):
        manifest.load(str(tmp_path))
    with pytest.raises(ManifestError, match="does not exist"):
        manifest.load(f"grid:{tmp_path}/none")
    with pytest.raises(ManifestError, match="no folder clips"):
        manifest.load(f"grid:{tmp_path}")
    with pytest.raises(ManifestError, match=r"no videos .mp4, mov, .* in "):
        manifest.load(f"folder:{tmp_path}")
    with pytest.raises(ManifestError, match="KIND:ROOT"):
        manifest.load(str(tmp_path))


def test_identities_may_be_a_json_list_or_a_name():
    assert Row.of({"path": "a", "identities": json.dumps(["x", "y"])}).identities == ("x", "y")
    assert Row.of({"path": "a", "identities": "x"}).identities == ("x",)


# -- buckets -----------------------------------------------------------------------------------------------------------


def corpus(s3, names):
    for name in names:
        place(f"{s3}/set/{name}").write(b"x")
    return f"{s3}/set"


def test_a_folder_in_a_bucket_yields_what_it_yields_on_a_disk(s3, tmp_path):
    names = [
        "real/x/a.mp4",
        "real-2/b.mp4",
        "fake/wav2lip/b.MP4",
        "fake/c.mkv",
        "e ü#%.mp4",
        "notes.txt",
        ".cache/f.mp4",
    ]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    url = corpus(s3, names)
    here, there = manifest.load(f"folder:{tmp_path}/set"), manifest.load(f"folder:{url}/")
    assert [replace(row, path="") for row in there] == [replace(row, path="") for row in here]
    assert [row.path for row in there] == [row.path.replace(f"{tmp_path}", s3) for row in here]
    assert "folder:set/e ü#%.mp4" in {row.id for row in there}
    assert [place(row.path).read() for row in there] == [b"x"] * 5


def test_grid_in_a_bucket(s3, clips):
    url = corpus(s3, ["clips/b.mp4", "clips/a.mp4", "clips/a.txt", "align/a.align"])
    assert [(r.path, r.id, r.group) for r in manifest.load(f"grid:{url}")] == [
        (f"{url}/clips/a.mp4", "grid:set/clips/a.mp4", "set"),
        (f"{url}/clips/b.mp4", "grid:set/clips/b.mp4", "set"),
    ]
    place(f"{url}/align/a.align").write((clips / "align" / "bbaf2n.align").read_bytes())
    assert grid_corpus.words(place(f"{url}/align/a.align")) == grid_corpus.words(clips / "align" / "bbaf2n.align")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_in_a_bucket_and_media_elsewhere(s3, tmp_path, suffix):
    rows = [Row("a.mp4"), Row("../b.mp4", audio_path="c.wav"), Row("/data/d.mp4"), Row("s3://other//e.mp4")]
    manifest.write(rows, place(f"{s3}/sub/m{suffix}"))
    found = manifest.load(f"csv:{s3}/sub/m{suffix}")
    assert [r.path for r in found] == [f"{s3}/sub/a.mp4", f"{s3}/b.mp4", "/data/d.mp4", "s3://other/e.mp4"]
    assert found[1].audio_path == f"{s3}/sub/c.wav"
    assert found[0].id == f"csv:m{suffix}/a.mp4"
    assert manifest.load(f"csv:{s3}/sub/m{suffix}", root=tmp_path)[0].path == str(tmp_path / "a.mp4")
    local = tmp_path / f"m{suffix}"
    manifest.write(rows, local)
    assert manifest.load(f"csv:{local}")[3].path == "s3://other/e.mp4"
    assert manifest.load(f"csv:file://{local}")[0].path == str(tmp_path / "a.mp4")
    assert manifest.load(f"csv:{local}", root=f"{s3}/media")[0].path == f"{s3}/media/a.mp4"
    manifest.write([Row("../../../x.mp4")], local)
    with pytest.raises(ManifestError, match="leads out of the bucket"):
        manifest.load(f"csv:{local}", root=f"{s3}")
    manifest.write([Row("http://a/x.mp4")], local)
    with pytest.raises(ManifestError, match=r"row of http://a/x.mp4: .*not known"):
        manifest.load(f"csv:{local}")


def test_what_cannot_be_read_from_a_bucket_says_so(s3, monkeypatch):
    with pytest.raises(ManifestError, match=f"corpus root {s3}/none does not exist"):
        manifest.load(f"folder:{s3}/none")
    url = corpus(s3, ["a.txt"])
    with pytest.raises(ManifestError, match=r"no videos .mp4, mov, .* in "):
        manifest.load(f"folder:{url}")
    with pytest.raises(ManifestError, match="is a folder; name the manifest file"):
        manifest.load(f"csv:{url}")
    with pytest.raises(ManifestError, match="is not a folder; for a list of clips"):
        manifest.load(f"folder:{url}/a.txt")
    with pytest.raises(ManifestError, match="corpora of kind demo can only be read from a disk"):
        manifest.load(f"demo:{url}")
    with pytest.raises(ManifestError, match="ftp:// is not known"):
        manifest.load("folder:ftp://x/y")


def test_a_name_that_is_not_utf8_is_kept_as_an_address_that_opens(tmp_path, clips):
    real = tmp_path / "real"
    real.mkdir()
    odd = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(next((clips / "clips").glob("*.mp4")), real / odd)
    (row,) = manifest.load(f"folder:{tmp_path}")
    assert row.path.endswith("/real/caf%E9.mp4")
    assert row.id.endswith("/real/caf\\xe9.mp4")
    assert probe.probe(place(row.path)).num_frames == 75
    manifest.write([row], tmp_path / "m.parquet")
    assert manifest.read(tmp_path / "m.parquet")[0].path == row.path


def test_adapters_of_other_packages_find_the_row_where_it_was():
    from pipelines import manifest as package

    assert package.Row is manifest.Row
    assert package.ManifestError is manifest.ManifestError
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_files_without_a_videos_suffix_are_counted_aloud(tmp_path, caplog):
    for name in ("a.mp4", "a.wav", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    assert len(manifest.load(f"folder:{tmp_path}")) == 1
    assert [(r.levelname, r.getMessage().partition(": ")[2]) for r in caplog.records] == [
        ("WARNING", "2 files without a video's suffix (mp4, mov, mkv, webm, avi, mpg ...) skipped")
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_a_manifest_that_is_missing_is_said_not_to_exist(tmp_path, name):
    with pytest.raises(ManifestError, match=rf"{name} does not exist"):
        manifest.read(tmp_path / name)


def test_a_list_without_a_row_says_so(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\n")
    with pytest.raises(ManifestError, match=r"m\.csv has no rows below its header line"):
        manifest.load(f"csv:{tmp_path / 'm.csv'}")
