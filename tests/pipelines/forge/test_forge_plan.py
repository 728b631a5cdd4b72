"""Which clips are forged and from whom they take; and folders that are not ours are never written to."""

import json
from dataclasses import replace

import pytest

from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row, with_groups
from pipelines.errors import UsageError
from pipelines.forge import folder, plan, run, sheet
from pipelines.forge.plan import Source
from pipelines.forging import methods


def clips(people: str, split: str = "") -> list[Source]:
    rows = [
        Row(path=f"/a/{k}.mp4", label=0, id=f"x/{split}{k}.mp4", identities=(who,), split=split)
        for k, who in enumerate(people.split())
    ]
    return [Source.of(row) for row in with_groups(rows)]


def usable(sources: list[Source], length: int = 100) -> dict:
    return {source.name: (source, length) for source in sources}


def test_a_clip_takes_from_the_same_person_where_it_can():
    found = plan.donors(usable(clips("ann ann bob bob")), 0)
    for name, pool in found.items():
        (own,) = [source for source in clips("ann ann bob bob") if source.name == name]
        assert {source.row.identities for source in pool} == {own.row.identities}
        assert name not in {source.name for source in pool}


@pytest.mark.parametrize("number", [2, 3, 4, 7])
def test_strangers_take_from_one_partner_so_that_groups_stay_small(number):
    sources = clips(" ".join(f"p{k}" for k in range(number)))
    found = plan.donors(usable(sources), 3)
    rows = [
        Row(path=f"{source.name}/{donor.name}", identities=(*source.row.identities, *donor.row.identities))
        for source in sources
        for donor in found[source.name]
    ]
    sizes = [sum(row.group == name for row in with_groups(rows)) for name in {row.group for row in with_groups(rows)}]
    assert len(rows) == number
    assert max(sizes) <= 3


def test_nobody_takes_from_another_split():
    sources = clips("a b c", "train") + clips("d e", "test")
    for name, pool in plan.donors(usable(sources), 0).items():
        (split,) = {source.row.split for source in sources if source.name == name}
        assert pool
        assert {donor.row.split for donor in pool} == {split}


def test_a_lone_clip_has_no_donor():
    assert list(plan.donors(usable(clips("a")), 0).values()) == [[]]


def test_donors_do_not_depend_on_the_order():
    sources = clips("a b c d e f g")
    there, back = plan.donors(usable(sources), 5), plan.donors(usable(sources[::-1]), 5)
    assert there == back
    assert there != plan.donors(usable(sources), 6)


def test_names_of_files_are_unique_and_plain():
    rows = [Row(path=p, id=p) for p in ("a/x.mp4", "b/x.mp4", "b/x.mov", "c/ä ß/../..mp4", "d/" + "y" * 200 + ".mp4")]
    names = [Source.of(row).name for row in rows]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() and name.isascii() and len(name) < 60 for name in names)


def test_methods_are_chosen_by_name_or_by_its_beginning():
    assert [method.name for method in methods.chosen("partial,revoice")] == ["revoice-same", "revoice-other", "partial"]
    assert len(methods.chosen("all")) == len(methods.METHODS)
    with pytest.raises(UsageError, match='"lipsync" is no method; methods are audio-swap'):
        methods.chosen("portrait,lipsync")


def request(seed: int = 0) -> plan.Request:
    return plan.Request(tuple(clips("a b")), seed, ("time-shift",))


@pytest.mark.parametrize("name", ["holiday.mp4", "real/holiday.mp4", "sheets/mine.png", "more/"])
def test_a_folder_with_anything_else_is_refused_and_untouched(tmp_path, name):
    folder.prepare(tmp_path / "out", request())
    foreign = tmp_path / "out" / name
    foreign.mkdir() if name.endswith("/") else foreign.write_bytes(b"mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(UsageError, match="is not of this command"):
        folder.prepare(tmp_path / "out", request())
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_a_folder_of_videos_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / f"{request().sources[0].name}.mp4").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds real, which is not of this command"):
        folder.prepare(tmp_path, request())
    assert [path.name for path in tmp_path.iterdir()] == ["real"]


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder.prepare(tmp_path / "out", request())
    (tmp_path / "videos").mkdir()
    (tmp_path / "out" / "portrait").rmdir()
    (tmp_path / "out" / "portrait").symlink_to(tmp_path / "videos")
    with pytest.raises(UsageError, match="holds portrait, which"):
        folder.prepare(tmp_path / "out", request())


def test_another_seed_needs_another_folder(tmp_path):
    folder.prepare(tmp_path / "out", request())
    folder.prepare(tmp_path / "out", request())
    with pytest.raises(UsageError, match="its seed is 0"):
        folder.prepare(tmp_path / "out", request(1))
    assert json.loads((tmp_path / "out" / "forge.json").read_text())["seed"] == 0


def test_a_folder_that_another_run_is_writing_to_is_refused(tmp_path):
    with folder.prepare(tmp_path / "out", request()) as _, pytest.raises(UsageError, match="another run is writing"):
        folder.prepare(tmp_path / "out", request())


def test_a_run_that_was_killed_before_its_mark_begins_again(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    folder.prepare(tmp_path / "out", request())
    assert (tmp_path / "out" / "forge.json").exists()


def test_other_people_are_other_clips():
    one = request()
    row = replace(one.sources[0].row, identities=("somebody",))
    other = replace(one, sources=(replace(one.sources[0], row=row), *one.sources[1:]))
    assert one.digest() != other.digest()


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    folder.prepare(tmp_path / "out", request())
    left = tmp_path / "out" / "real" / ".concord-partial-0123456789ab"
    left.write_bytes(b"half a clip")
    folder.prepare(tmp_path / "out", request())
    assert not left.exists()


@pytest.mark.parametrize("text", [b"", b"{}", b'{"seed": 0}', b"[1]", b"\xff"])
def test_a_clip_without_its_whole_note_is_not_finished(tmp_path, text):
    folder.prepare(tmp_path / "out", request())
    name = request().sources[0].name
    plan.place(tmp_path / "out", "partial", name).write_bytes(b"a clip")
    folder.note(tmp_path / "out", "partial", name).write_bytes(text)
    assert not folder.is_finished(tmp_path / "out", "partial", name)
    run.write_manifest(tmp_path / "out", request())
    sheet.write(tmp_path / "out", "partial", [name])
    assert not manifest.read(tmp_path / "out" / "manifest.csv")
    assert not (tmp_path / "out" / "sheets" / "partial.png").exists()
