"""Of several sound tracks the one is taken that a person would hear, recorded with the picture, and the clip says so."""

import numpy as np
import pytest
from sounds import RATE, Track, hiss, music, voice_of, write

from pipelines.hearing.tracks import AUTO, choose_track, tracks_of
from pipelines.media.facts import Fact, sentences
from pipelines.media.files import MediaError, open_media


@pytest.fixture(scope="module")
def other(clips):
    return 0.5 * voice_of(clips / "clips" / "lgas5a.mp4")


def deaf(_):
    raise AssertionError("marks decide: nothing had to be decoded")


# name: tracks of (sound, title, language, marks), number of the right one, words of the reason
SOUND = {
    "silence first": ([("silence", "", "", "default"), ("voice", "", "", "")], 2, "the voice is there"),
    "hiss first": ([("hiss", "", "", "default"), ("voice", "", "", "")], 2, "the voice is there"),
    "music first": ([("music", "Desktop", "", "default"), ("voice", "Mic", "", "")], 2, "the voice is there"),
    "a trace of the voice first": ([("trace", "", "", "default"), ("voice", "", "", "")], 2, "the voice is there"),
    "opposite phase second": ([("hiss", "", "", "default"), ("opposite", "", "", "")], 2, "the voice is there"),
    "quiet voice second": ([("silence", "", "", "default"), ("quiet", "", "", "")], 2, "the voice is there"),
    "two voices": ([("voice", "", "", ""), ("other", "", "", "default")], 2, "the default one"),
    "two voices, no default": ([("voice", "", "", ""), ("other", "", "", "")], 1, "the first one"),
    "three": ([("silence", "", "", ""), ("hiss", "", "", "default"), ("voice", "", "", "")], 3, "the voice is there"),
    "none speaks": ([("hiss", "", "", "default"), ("silence", "", "", "")], 1, "no voice is heard in any"),
}
MARKS = {
    "dub first": ([("other", "", "deu", "default dub"), ("voice", "", "eng", "original")], 2, "marked as the original"),
    "dub first, original not marked": (
        [("other", "", "deu", "default dub"), ("voice", "", "eng", "")],
        2,
        "the others are dubs",
    ),
    "dub by its title": ([("other", "German dub", "deu", "default"), ("voice", "", "eng", "")], 2, "others are dubs"),
    "original by its title": ([("other", "", "deu", "default"), ("voice", "Original", "eng", "")], 2, "the original"),
    "comment first": ([("other", "", "", "default comment"), ("voice", "", "", "")], 2, "comments or descriptions"),
    "comment by its title": (
        [("other", "Director's commentary", "", "default"), ("voice", "", "", "")],
        2,
        "comments or descriptions",
    ),
    "for the blind": ([("other", "", "", "default visual_impaired"), ("voice", "", "", "")], 2, "comments or desc"),
}


@pytest.fixture(scope="module")
def sounds(voice, other):
    silence = np.zeros_like(voice)
    return {
        "silence": silence[None],
        "hiss": hiss(len(voice), 0.02)[None],
        "music": music(len(voice), 0.1)[None],
        "voice": voice[None],
        "other": other[None],
        "trace": 0.003 * voice[None],
        "quiet": 0.003 * voice[None],
        "opposite": np.stack([voice, -voice]),
    }


def made(path, source, sounds, tracks):
    return write(
        path,
        source,
        *(
            Track(sounds[sound], "aac", language=language, title=title, marks=tuple(marks.split()))
            for sound, title, language, marks in tracks
        ),
    )


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_track_with_the_voice_is_taken(name, suffix, source, sounds, hears, tmp_path):
    tracks, number, why = SOUND[name]
    if suffix == "mp4" and name in ("two voices", "two voices, no default"):
        pytest.skip("MP4 gives the first track the mark of the default one by itself")
    choice = choose_track(made(tmp_path / f"clip.{suffix}", source, sounds, tracks), AUTO, hears)
    assert choice.track.number == number
    (fact,) = choice.facts
    assert fact.kind == "several_tracks"
    assert f"track {number} was taken" in fact.text
    assert why in fact.text
    assert f"{len(tracks)} sound tracks" in fact.text


@pytest.mark.parametrize("name", MARKS)
def test_marks_decide_without_decoding(name, source, sounds, tmp_path):
    tracks, number, why = MARKS[name]
    choice = choose_track(made(tmp_path / "clip.mkv", source, sounds, tracks), AUTO, deaf)
    assert choice.track.number == number
    assert why in choice.facts[0].text


def test_what_a_header_says_of_a_track_stays_one_short_line(source, sounds, tmp_path):
    title = 'forged", aac), 2\nthe sound is silent\x1b[31m\u202e' + "B" * 3000
    tracks = [("voice", title, "eng", "default"), ("other", "B" * 3000, "deu", "dub")]
    (fact,) = choose_track(made(tmp_path / "clip.mkv", source, sounds, tracks), AUTO, deaf).facts
    assert fact.text.isprintable()
    assert len(fact.text) < 400
    assert 'forged", aac' not in fact.text
    assert "B" * 57 + "..." in fact.text


def test_no_fact_holds_the_line_end_that_divides_facts():
    assert sentences([Fact("silent", "a\nb\x1b"), Fact("hdr", "c")]) == "a\\nb\\x1b\nc"


def test_the_language_of_the_picture_tells_the_original(source, sounds, hears, tmp_path):
    tracks = [("other", "", "eng", "default"), ("voice", "", "fra", "")]
    path = made(tmp_path / "clip.mkv", source, sounds, tracks)
    assert choose_track(path, AUTO, hears).track.number == 1
    data = path.read_bytes()
    picture = data.index(b"\x22\xb5\x9c\x83und")  # the language of the first entry, that of the picture
    path.write_bytes(data[:picture] + b"\x22\xb5\x9c\x83fra" + data[picture + 7 :])
    choice = choose_track(path, AUTO, hears)
    assert choice.track.number == 2
    assert "in the language of the picture" in choice.facts[0].text


def test_one_track_is_taken_without_a_word(source, sounds, tmp_path):
    choice = choose_track(made(tmp_path / "clip.mkv", source, sounds, [("hiss", "", "", "comment")]), AUTO, deaf)
    assert (choice.track.number, choice.facts) == (1, ())


def test_a_number_chooses_and_a_wrong_one_lists_the_tracks(source, sounds, tmp_path):
    tracks = [("other", "Dub", "deu", "default dub"), ("voice", "Original", "eng", "original")]
    path = made(tmp_path / "clip.mkv", source, sounds, tracks)
    assert choose_track(path, 1, deaf).track.number == 1
    assert "track 1 was taken (as asked for)" in choose_track(path, 1, deaf).facts[0].text
    with pytest.raises(MediaError, match="has no sound track 3") as error:
        choose_track(path, 3, deaf)
    assert error.value.reason == "no_track"
    assert '1 (deu, "Dub", aac, dub, default), 2 (eng, "Original", aac, original)' in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_sound_has_no_track_at_all(source, tmp_path):
    path = write(tmp_path / "clip.mkv", source)
    for number in (AUTO, 1):
        with pytest.raises(MediaError) as error:
            choose_track(path, number, deaf)
        assert error.value.reason == "no_audio"


def test_titles_that_programs_write_are_no_titles(source, sounds, tmp_path):
    with open_media(made(tmp_path / "clip.mp4", source, sounds, [("voice", "", "", "")])) as container:
        (track,) = tracks_of(container)
    assert str(track) == "1 (aac, default)"


def test_long_tracks_are_heard_only_at_their_beginning(source, voice, tmp_path):
    heard = []

    def hears(sound):
        heard.append(len(sound))
        return np.zeros(len(sound) // 640, bool)

    long = np.tile(voice, 240)[: 12 * 60 * RATE]  # 12 minutes
    path = write(tmp_path / "clip.mkv", None, *[Track(long[None], "pcm_s16le")] * 2)
    assert choose_track(path, AUTO, hears).track.number == 1
    assert max(heard) < 62 * 16_000
    assert sum(heard) < 21 * 60 * 16_000


def test_a_short_track_does_not_end_the_comparison(source, voice, hears, tmp_path):
    late = np.concatenate([np.zeros(80 * RATE, np.float32), voice])  # somebody speaks in the second minute
    tracks = [Track(x[None], "pcm_s16le") for x in (np.zeros(RATE, np.float32), np.zeros_like(late), late)]
    assert choose_track(write(tmp_path / "clip.mkv", None, *tracks), AUTO, hears).track.number == 3


@pytest.mark.parametrize(("name", "number"), [("first_silent.mp4", 2), ("first_hiss.mov", 2), ("dub_first.mkv", 2)])
def test_shared_cases(name, number, shared, hears):
    choice = choose_track(shared / "cases" / name, AUTO, hears)
    assert choice.track.number == number
    assert "2 sound tracks" in choice.facts[0].text
