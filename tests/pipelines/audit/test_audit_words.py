"""An audit's texts report what was checked, on how many clips, or why not; and say so if there are few clips or
people."""

import dataclasses
import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_audit import rows

from pipelines.audit import coverage, leaks
from pipelines.audit import page as audit_page
from pipelines.audit import words as audit_words
from pipelines.audit.__main__ import main
from pipelines.audit.found import audit
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from store.similarity.intervals import auc_bounds
from student.scoring import metrics


def grouped(count=60, shared=2, people=20):
    """Clips of people who stand in `group` alone, some of them on both sides of the split."""
    found = []
    for k in range(count):
        who = k % people
        split = "test" if who < people // 3 or (who == people - 1 and k < shared * people) else "train"
        name = f"{split}/{k:x}clip{k * 7919 % 9973:x}.mp4"
        found.append(
            Row(f"/d/{name}", label=k // people % 2, group=f"person {who}", split=split, id=f"c/{k}", corpus="c")
        )
    return found


def by_name(found):
    return {check.what: check for check in audit_words.checks(found)}


def few(fakes=6, reals=40, **more):
    """Lists of a corpus of few fakes, the number of which nearly tells them."""
    made = []
    for k in range(fakes + reals):
        frames = 50.0 + (k * 5 % 20 if k >= fakes else 8 + 2 * (k % 6))
        made.append(Row(f"/c/{k}.mp4", label=int(k < fakes), id=f"c/{k}", corpus="c", listed_frames=frames, listed_fps=25.0,
                        **more))  # fmt: skip
    return made


def test_people_who_stand_in_the_group_column_are_found_on_both_sides(tmp_path):
    manifest.write(grouped(), tmp_path / "m.csv")
    done = CliRunner().invoke(main, ["--manifest", str(tmp_path / "m.csv"), "--json", "-", "--strict"])
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    (leak,) = [leak for leak in found["leaks"] if leak["kind"] == "identity"]
    assert (leak["who"], leak["column"], leak["count"], leak["of"]) == ("group", "group", 1, 7)
    assert leak["examples"][0]["what"] == "person 19"
    assert "column group" in leak["text"]
    assert found["checked"]["people"]["why"] == coverage.NO_PEOPLE
    assert (found["checked"]["sources"]["on"], found["checked"]["sources"]["names"]) == (60, 20)


def test_groups_that_follow_from_identities_are_no_second_leak():
    clips = manifest.with_groups([dataclasses.replace(row, identities=(row.group,), group="") for row in grouped()])
    found = audit(clips)
    assert [(leak.who, leak.column) for leak in found.leaks] == [("any", "identities")]
    assert found.checked["sources"].why == coverage.FOLLOW
    assert "sources" not in by_name(found)


def test_a_clip_with_people_and_one_with_its_group_alone_are_compared():
    a = Row("/d/train/song a.mp4", identities=("x",), group="g", split="train", id="1", corpus="c")
    b = Row("/d/test/talk b.mp4", group="g", split="test", id="2", corpus="c")
    (leak,) = leaks.find(manifest.with_groups([a, b]))
    assert (leak.kind, leak.who, leak.count) == ("identity", "group", 1)


def test_clips_that_are_groups_of_their_own_are_no_sources():
    clips = manifest.with_groups([dataclasses.replace(row, group="") for row in grouped()])
    assert coverage.checked(clips)["sources"].to_json() == {
        "on": 0, "of": 60, "by": "group", "why": coverage.NO_SOURCES, "names": 0, "fewest": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("clips", "kind", "why"),
    [
        (grouped(), "people", coverage.NO_PEOPLE),
        (grouped(), "fingerprints", coverage.NOT_ASKED),
        ([dataclasses.replace(row, split="") for row in grouped()], "sources", "rows name fewer than two splits"),
        ([dataclasses.replace(row, path=f"/d/{row.split}/{k:04d}.mp4") for k, row in enumerate(grouped())], "files",
         coverage.NO_NAMES),
        ([dataclasses.replace(row, identities=("a",) if row.split == "test" else ()) for row in grouped()], "people",
         "only clips of test can be compared (identities)"),
    ],
)  # fmt: skip
def test_what_was_not_checked_says_why(clips, kind, why):
    told = coverage.checked(clips)[kind]
    assert (told.on, told.why) == (0, why)
    check = by_name(audit(clips))[kind]
    assert (check.state, check.text) == ("unchecked", f"not checked: {why}")


def test_six_fakes_are_too_few_to_say():
    found = audit(few())
    assert all(short.few for short in found.shortcuts)
    assert not found.above
    worst = max(found.shortcuts, key=lambda s: s.auc)
    assert worst.high - worst.low > 0.2
    tone, head, _ = audit_words.headline(found)
    assert tone == "warn"
    assert (
        head == "Shared clips and people were not looked for, too few clips or people to say anything about shortcuts"
    )
    page = audit_page.page(found)
    for claim in ("No leak", "No shortcut", "no shortcut found", "about 50 in 100", "cannot be told", "Nothing shared"):
        assert claim not in page
    assert "Too few to say" in page
    assert f"{100 * worst.auc:.1f} times in 100" in page
    assert "6 fakes, 20 are needed" in page


def test_too_few_is_said_and_is_no_finding(tmp_path):
    manifest.write(few(), tmp_path / "m.csv")
    done = CliRunner().invoke(main, ["--manifest", str(tmp_path / "m.csv"), "--strict"])
    assert done.exit_code == 0, done.output
    last = [line for line in done.output.splitlines() if not line.startswith("next: ")][-1]
    assert last.startswith("not checked: people, files, fingerprints; too few to say: shortcuts of c")
    assert last.endswith("; 0 leaks, 0 shortcuts above 0.6 in the rest")
    (one,) = [line for line in done.output.splitlines() if "too few to say: 6 fakes, 20 are needed" in line]
    assert "numbers, but" in one


def test_an_audit_of_lists_says_what_comes_next(tmp_path):
    """A folder names no splits, and its media were not opened."""
    for name in ("real/a.mp4", "fake/x/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    said = CliRunner().invoke(main, ["--corpus", f"folder:{tmp_path}"]).output
    assert "There was nothing to check" in said
    assert "none in the lists; no media file was opened" in said
    steps = [line for line in said.splitlines() if line.startswith("next: ")]
    assert len(steps) == 2
    assert "python -m pipelines.manifest" in steps[0]
    assert "--media" in steps[1]


def test_a_complete_audit_names_no_next_step():
    found = dataclasses.replace(audit(rows()), opened=True)
    assert audit_words.next_steps(found) == []


def test_few_people_are_too_few_whatever_their_clips():
    clips = [dataclasses.replace(row, identities=(f"p{k % 3}",)) for k, row in enumerate(few(60, 60))]
    clips = [dataclasses.replace(row, listed_frames=50.0 + k % 7) for k, row in enumerate(clips)]
    assert {(short.people, short.few) for short in audit(clips).shortcuts} == {(3, True)}
    assert "3 people, 10 are needed" in "".join(check.text for check in by_name(audit(clips)).values())


def test_the_cards_figure_is_the_measured_one_and_says_on_how_many():
    found = audit(rows())
    page = audit_page.page(found)
    worst = max(found.shortcuts, key=lambda s: s.auc)
    assert f"{100 * worst.auc:.1f} in 100 at most" in page
    assert "about 50 in 100" not in page
    assert "on 120 fakes and 120 reals of 20 people" in page
    assert audit_words.headline(found)[1] == "No leak and no shortcut found"
    assert "Not checked: fingerprints." in audit_words.headline(found)[2]


def test_one_method_of_few_fakes_is_named():
    clips = [
        dataclasses.replace(row, method="rare" if row.label and k < 35 else row.method) for k, row in enumerate(rows())
    ]
    found = audit(clips)
    checks = by_name(found)
    assert checks["shortcuts of c (rare)"].state == "few"
    assert checks["shortcuts of c (swap)"].state == "none"
    assert "too few" in audit_words.headline(found)[1]
    assert "Too few clips to say for rare." in audit_page.page(found)


def test_no_leak_does_not_stand_beside_not_checked():
    """Splits are named, and nobody and no file can be compared."""
    clips = [
        dataclasses.replace(row, identities=(), group="", path=f"/d/{row.split}/{k:04d}.mp4", listed_frames=None,
                            listed_samples=None) for k, row in enumerate(rows())
    ]  # fmt: skip
    found = audit(clips)
    assert found.leaks == []
    assert audit_words.headline(found)[1] == "There was nothing to check"
    page = audit_page.page(found)
    assert "Shared people not checked" in page
    assert "Shared clips not checked" in page
    for claim in ("No leak", "Nothing shared", "share no"):
        assert claim not in page


def test_groups_alone_do_not_say_that_no_person_is_shared():
    """A folder names groups and nobody: one person may have two folders."""
    found = audit(
        [dataclasses.replace(row, identities=(), group=f"{row.split} {k % 12}") for k, row in enumerate(rows())]
    )
    assert by_name(found)["sources"].state == "none"
    tone, head, _ = audit_words.headline(found)
    assert tone == "warn"
    assert "shared person found" not in head
    assert "people were not checked, only groups" in head
    (card,) = [card for card in audit_page.cards(found) if "people" in card.title]
    assert (card.tone, card.title) == ("warn", "Shared people not checked")


def test_a_protocol_says_what_it_could_not_compare():
    from pipelines.manifest.protocols import Splits
    from pipelines.manifest.summary import protocol

    clips = [dataclasses.replace(row, path=f"/d/{row.split}/{k:04d}.mp4", group="") for k, row in enumerate(grouped())]
    said = "\n".join(protocol(clips, Splits({row.id: row.split for row in clips})))
    assert "no clip and no person" not in said
    assert "people: not checked" in said


# -- intervals ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1))
def test_no_interval_is_a_point(fakes, reals, value):
    low, high = auc_bounds(value, fakes, reals)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 1 / (2 * (fakes + reals))


def test_an_interval_narrows_with_clips_and_needs_some():
    widths = [high - low for low, high in (auc_bounds(0.8, n, n) for n in (1, 3, 10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
    assert auc_bounds(1.0, 1, 60)[0] < 0.5
    with pytest.raises(ValueError, match="0 fakes"):
        auc_bounds(1.0, 0, 5)


@pytest.mark.parametrize(("fakes", "reals"), [(1, 30), (1, 1), (3, 3), (30, 30)])
def test_a_detectors_interval_has_a_width_where_it_makes_no_mistake(fakes, reals):
    import numpy as np

    scores, labels = np.r_[np.zeros(reals), np.ones(fakes)], np.r_[np.zeros(reals, int), np.ones(fakes, int)]
    low, high = metrics.auc_interval(scores, labels, np.arange(fakes + reals))
    assert high == 1
    assert low < 1 - 1 / (fakes + reals)
