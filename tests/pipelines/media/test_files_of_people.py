"""Every kind of file in `made`, with parameters drawn from seeds, and every file in the shared folder of cases: frames,
lips, sound, held pictures and facts are right."""

import random
from functools import lru_cache

import made
import numpy as np
import pytest
from made import boxes, judging
from made.kinds import Right, tell

from pipelines.media.probe import probe

SEEDS = 11  # of each kind: 300 files and more
FAST = 1  # of them in the ordinary run
ALL = np.arange(75)


@pytest.fixture(scope="module")
def bases(watcher, clips, request, tmp_path_factory):
    """A clip and what is seen in it, by seed: the project's own clips, and those of the reference data where they exist."""
    found = sorted((clips / "clips").iterdir())

    @lru_cache(maxsize=2)
    def base(seed):
        pool = found
        if seed >= FAST:
            pool = sorted((request.getfixturevalue("grid") / "clips").iterdir())
        clip = made.read(random.Random(seed).choice(pool))
        return clip, watcher.watch(made.base(clip, tmp_path_factory.mktemp("base")))

    return base


SEEDED = [
    pytest.param(kind, seed, marks=[pytest.mark.slow] if seed >= FAST else [])
    for seed in range(SEEDS)
    for kind in made.KINDS
]


@pytest.mark.parametrize(("kind", "seed"), SEEDED)
def test_a_file_of_this_kind_is_read_right(watcher, bases, kind, seed, tmp_path):
    clip, base = bases(seed)
    it = made.make(kind, clip, seed, tmp_path)
    seen = watcher.watch(it.path, it.audio_path, **it.options)
    assert not judging.faults(it.right, seen, base), (it.params, [fact.text for fact in seen.facts])
    assert probe(it.path, it.audio_path).num_frames <= 2 * len(it.right.source) + 250, "rows are reserved for a lie"


CASES = {
    # In both, the stamps of the sound are 7 ms before those of the picture.
    "size_turns_portrait.webm": Right(ALL, facts=tell("size_changes"), lag_ms=-6.5),
    "size_grows.webm": Right(ALL, facts=tell("size_changes"), contrast=False, lag_ms=-6.5, lips=0.9),  # from 90x72
    "stale_duration_tag.mkv": Right(ALL),
    "b_frames_without_ctts.mp4": Right(ALL, facts=tell("clock_repaired")),
    "clock_starts_anew.ts": Right(ALL, facts=tell("clock_repaired")),
    "clock_jumps_10s.ts": Right(ALL, facts=tell("clock_repaired")),
    "clock_jumps_1h.ts": Right(ALL, facts=tell("clock_repaired")),
    "avi_without_index.avi": Right(ALL),
    "crash_7_1_pcm.mov": Right(ALL[:30], lips=0.9),  # ends in the middle of a word
    "antiphase_stereo.mp4": Right(ALL, facts=tell("channel_mix")),
    "first_silent.mp4": Right(ALL, facts=tell("several_tracks")),
    "first_hiss.mov": Right(ALL, facts=tell("several_tracks")),
    "dub_first.mkv": Right(ALL, facts=tell("several_tracks")),
    "two_faces_equal.mp4": Right(ALL, facts=tell("several_faces"), lips=0),  # both speak, one is heard
    "two_faces_smaller_speaks.mp4": Right(ALL, facts=tell("several_faces"), lips=0),  # both speak, one is heard
    "still_photo.mp4": Right(ALL, facts=tell("held_pictures"), held=ALL >= 4, lips=0),
    "one_picture_a_second.mp4": Right(ALL, facts=tell("held_pictures"), held=ALL % 25 >= 4, lips=0),
    "freezes_at_1_2s.mp4": Right(ALL, facts=tell("held_pictures"), held=ALL >= 35, lips=0),
    "small_face_corner_1080p.mp4": Right(ALL, contrast=False),
    "small_face_far_1080p.mp4": Right(ALL, contrast=False, lips=0.9),  # 34 pixels high
    "hdr_pq.mp4": Right(ALL, facts=tell("hdr")),
    "hdr_hlg.mov": Right(ALL, facts=tell("hdr")),
}
PIECES = {"delay_then.mp4": [(0, 100)], "two_pieces.mp4": [(25, 75), (150, 200)]}  # frames of the media that are shown


@pytest.fixture(scope="module")
def cases(shared):
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}")
    return folder


@pytest.fixture(scope="module")
def of_cases(watcher, cases, tmp_path_factory):
    """The clip that the cases were made from: pictures of one file, sound of another's voice."""
    clip = made.read(cases / "freezes_at_1_2s.mp4")
    pictures = made.read(cases / "antiphase_stereo.mp4").pictures
    return watcher.watch(made.base(made.Clip(pictures, clip.sound), tmp_path_factory.mktemp("base")))


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_read_right(watcher, cases, of_cases, name):
    seen = watcher.watch(cases / name)
    assert not judging.faults(CASES[name], seen, of_cases), [fact.text for fact in seen.facts]
    assert probe(cases / name).num_frames <= 3600 * 26


def test_the_header_of_a_cut_film_reserves_what_is_there(cases):
    assert probe(cases / "stale_duration_tag.mkv").num_frames == 75


@pytest.mark.parametrize("name", PIECES)
def test_the_pieces_of_an_edit_list_stay_in_step(watcher, cases, name, tmp_path):
    plain = tmp_path / name
    plain.write_bytes((cases / name).read_bytes())
    boxes.show_all(plain, [1024, 0])  # the first picture in display order has this stamp
    whole = watcher.watch(plain)
    source = np.concatenate([np.arange(*piece) for piece in PIECES[name]])
    assert not judging.faults(Right(source), watcher.watch(cases / name), whole)
