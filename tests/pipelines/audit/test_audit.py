"""The audit command: its JSON's layout, exit codes, and a page that stands alone."""

import dataclasses
import html.parser
import json

import pytest
from click.testing import CliRunner
from published import cmdfd
from test_leaks import clean

from pipelines.audit.__main__ import main
from pipelines.audit.found import audit, of_media
from pipelines.corpora import manifest
from pipelines.corpora.faults import Fault


def rows(cue: float = 0.0, leak: bool = False) -> list[manifest.Row]:
    """Clips of 20 people split by person; fakes' sound runs on for `cue` seconds; the first test clip is also in train."""
    made = []
    for k, row in enumerate(clean(0, 240)):
        frames = 75.0 + k * 7 % 40
        samples = (frames / 25 + row.label * cue + k * 13 % 11 / 1000) * 16000
        made.append(
            dataclasses.replace(
                row, corpus="c", method="swap" if row.label else "", group=row.identities[0],
                listed_frames=frames, listed_fps=25.0, listed_samples=samples, listed_sample_rate=16000.0,
            )
        )  # fmt: skip
    if leak:
        row = next(row for row in made if row.split == "test")
        path = row.path.replace("/home/b/set/TEST", "/data2/a/set/TRAIN")
        made.append(dataclasses.replace(row, path=path, split="train", id="c/again"))
    return made


def run(tmp_path, clips, *options):
    manifest.write(clips, tmp_path / "m.csv")
    return CliRunner().invoke(main, ["--manifest", str(tmp_path / "m.csv"), *map(str, options)])


def test_json_has_the_layout_that_scripts_rely_on():
    clips = rows(0.2, leak=True)
    clips[0] = dataclasses.replace(clips[0], faults=(Fault("not_listed", "the corpus's list does not name it"),))
    found = json.loads(json.dumps(audit(clips).to_json()))
    assert (found["rows"], found["distinct"]) == (241, 240)
    assert found["counts"]["label"] == {"fake": 120 + clips[-1].label, "real": 121 - clips[-1].label}
    for short in found["shortcuts"]:
        assert {"corpus", "nuisance", "method", "auc", "low", "high", "reals", "fakes"} <= set(short)
        assert short["low"] <= short["auc"] <= short["high"]
    best = next(s for s in found["shortcuts"] if s["nuisance"] == "length_difference")
    assert (best["corpus"], best["method"], best["auc"]) == ("c", "swap", 1.0)
    assert {"kind", "splits", "count", "of", "examples"} <= set(found["leaks"][0])
    assert [(x["kind"], x["splits"], x["count"]) for x in found["leaks"]] == [
        ("file", ["train", "test"], 1),
        ("identity", ["train", "test"], 1),
    ]
    assert found["faults"] == [
        {
            "kind": "not_listed",
            "count": 1,
            "examples": [{"id": clips[0].id, "text": "the corpus's list does not name it"}],
        }
    ]


@pytest.mark.parametrize(
    ("cue", "leak", "options", "code"),
    [
        (0.0, False, ["--strict"], 0),
        (0.2, False, ["--strict"], 1),
        (0.0, True, ["--strict"], 1),
        (0.2, True, [], 0),
        (0.2, False, ["--strict", "--allow", "1"], 0),
    ],
)
def test_strict_exits_1_for_a_leak_or_a_shortcut_above_allow(tmp_path, cue, leak, options, code):
    done = run(tmp_path, rows(cue, leak), *options)
    assert done.exit_code == code, done.output
    *_, counts, hint = done.output.splitlines()
    assert counts.startswith(f"not checked: fingerprints; {2 if leak else 0} leaks, ")
    assert hint.startswith("next: No media file was opened")


def test_nothing_to_read_exits_2_with_one_line(tmp_path):
    for options in (["--manifest", str(tmp_path / "none.csv")], []):
        done = CliRunner().invoke(main, options)
        assert done.exit_code == 2
        assert "Error: " in done.output
        assert "Traceback" not in done.output


def test_json_goes_to_a_file_or_to_standard_output(tmp_path):
    told = json.loads(run(tmp_path, rows(0.2), "--json", "-").stdout)
    run(tmp_path, rows(0.2), "--json", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == told


def test_media_that_are_here_are_compared_by_bytes(tmp_path):
    clips = []
    for split, said in (("train", b"one"), ("test", b"two")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "song.mp4").write_bytes(said)
        clips.append(manifest.Row(str(tmp_path / split / "song.mp4"), split=split, id=split))
    assert [leak.kind for leak in audit(clips).leaks] == ["file"]
    assert audit(clips, of_media(clips, workers=1)).leaks == []


def test_a_missing_file_that_the_adapter_noted_is_counted_once(tmp_path):
    noted = Fault("missing_media", "listed, but not there")
    clips = [manifest.Row(str(tmp_path / f"{k}.mp4"), id=f"c/{k}", faults=(noted,) * (k == 0)) for k in range(2)]
    (kind,) = audit(clips, of_media(clips, workers=1)).faults
    assert (kind.kind, kind.count, [one.id for one in kind.examples]) == ("missing_media", 2, ["c/0", "c/1"])


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.out = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.out += [value for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize(("cue", "leak"), [(0.0, False), (0.2, True)])
def test_page_stands_alone_and_escapes_names(tmp_path, cue, leak):
    clips = [
        dataclasses.replace(row, method=row.method and "<script>alert(1)</script>", faults=(Fault("odd", '"<b>"'),))
        for row in rows(cue, leak)
    ]
    done = run(tmp_path, clips, "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    said = (tmp_path / "a.html").read_text()
    links = Links()
    links.feed(said)
    assert links.out == []
    assert "script" not in links.tags
    assert "svg" in links.tags
    assert ("No leak and no shortcut found" in said) == (not leak)
    assert ("Some test clips were seen in training" in said) == leak


@pytest.mark.golden
def test_the_published_cmdfd_lists_have_8792_distinct_clips(shared):
    clips = cmdfd(shared)
    found = audit(clips)
    assert (found.rows, found.distinct) == (8792, 8792)
    assert found.counts["label"] == {"fake": 7792, "real": 1000}
