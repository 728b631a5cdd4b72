"""Which of a file's sound tracks is taken: the one that a person would hear, recorded with the picture.

Tracks are numbered from 1 in the order of the file, as players show them. Comments, descriptions for the blind and sound
without dialogue are passed over, and dubs, because no lips say them; then tracks without a voice (recorders keep the
screen's sound and the microphone apart); of the others the default one is taken, else the first. Marks are ffmpeg's
dispositions, and words in titles, because many programs set no disposition. Tracks are decoded only if marks leave
several, and only for their first minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import av

from concord.text import plain
from pipelines.hearing.listen import MEAN, Heard, Voice, listen, speeches
from pipelines.hearing.mixes import CARRIES, FAINT, LEAST
from pipelines.media.facts import Fact
from pipelines.media.files import Media, MediaError, choose_stream, decodable, open_media, reached, shown

AUTO = 0  # instead of a track's number: the choice is made here
MOST_PIECES = 10  # of a minute, of each track
ENOUGH = 125  # frames with voice, 5 s, after which the tracks are compared
ASIDE = {
    "comment": r"\bcomment",
    "visual_impaired": r"\baudio ?description|\bvisual(ly)? impaired|\bdescri(bed|ptive)\b",
    "descriptions": "",
    "clean_effects": r"\bmusic (and|&) effects\b|\bm ?& ?e\b",
    "karaoke": r"\bkaraoke\b",
}  # sound that is not what is spoken in the picture: disposition, and words in a title
DUB = {"dub": r"\bdub"}
ORIGINAL = {"original": r"\boriginal\b|\bo-ton\b"}
SAID = {
    "comment": "comment",
    "visual_impaired": "for the blind",
    "descriptions": "descriptions",
    "clean_effects": "without dialogue",
    "karaoke": "karaoke",
    "dub": "dub",
    "original": "original",
    "hearing_impaired": "for the hard of hearing",
}
MAX_WORDS = 60  # characters of a title, 20 of a language, that are told
MAX_LISTED = 10  # tracks that are told
NO_LANGUAGE = ("", "und", "mul", "zxx", "mis")


@dataclass(frozen=True)
class Track:
    """A sound track of a file: its number from 1, its stream's index in the file, and what the header says of it."""

    number: int
    index: int
    codec: str = ""
    language: str = ""  # as in the header, fit for a line
    title: str = ""  # the same
    marks: frozenset[str] = frozenset()  # of SAID
    default: bool = False
    usable: bool = True

    def __str__(self) -> str:
        title = f'"{self.title}"' if self.title else ""
        about = [self.language, title, self.codec, *(SAID[mark] for mark in SAID if mark in self.marks)]
        about += ["default"] if self.default else []
        return f"{self.number} ({', '.join(filter(None, about))})"


@dataclass(frozen=True)
class Choice:
    """The track that is taken, and what a person should know of it."""

    track: Track
    facts: tuple[Fact, ...] = ()


def choose_track(path: Media, asked: int, voice: Voice) -> Choice:
    """The sound track of a local file to take: number `asked`, or with AUTO the one with the voice.

    Raises MediaError: no_audio, no_track (the file has none of that number), unreadable, limit.
    """
    with reached(path), open_media(path) as container:
        tracks = tracks_of(container)
        if not any(track.usable for track in tracks):
            raise MediaError("no_audio", f"{shown(path)} has no sound; name its sound as audio_path")
        if asked != AUTO:
            track = next((track for track in tracks if track.number == asked), None)
            if track is None and tracks:
                text = f"{shown(path)} has no sound track {asked}; {_listed(tracks)}"
                raise MediaError("no_track", f"{text}; choose another number, or auto")
            if track is not None:
                choose_stream(container, "audio", path, track.index)
                return _told(tracks, track, "as asked for", "")
        usable = [track for track in tracks if track.usable]
        if len(usable) < 2:
            stream = choose_stream(container, "audio", path)
            track = next(track for track in tracks if track.index == stream.index)
            return _told(tracks, track, "the only one that can be decoded")
        usual = next((track for track in usable if track.default), usable[0])
        left, why = _by_marks(usable, usual, _language(container))
        if len(left) == 1:
            return _told(tracks, left[0], why)
        heard = _hear(container, path, left, voice)
    speaking = _speaking(heard)
    spoken = [track for track in left if track.index in speaking]
    if spoken and usual in left and usual not in spoken:
        why = "the voice is there"
    left = spoken or left
    track = usual if usual in left else next((track for track in left if track.default), left[0])
    if not spoken:
        why = f"{why}; no voice is heard in any of them"
    return _told(tracks, track, why)


def tracks_of(container: Any) -> list[Track]:
    """The sound tracks of an open file, in its order."""
    found = []
    for number, stream in enumerate(container.streams.audio, 1):
        title = stream.metadata.get("title") or stream.metadata.get("name") or _handler(stream.metadata)
        marks = {name for name in SAID if _has(stream, name)}
        for name, words in {**ASIDE, **DUB, **ORIGINAL}.items():
            if words and re.search(words, title, re.IGNORECASE):
                marks.add(name)
        language = stream.metadata.get("language", "")
        context = stream.codec_context
        found.append(
            Track(
                number,
                stream.index,
                context.name if context is not None else "unknown codec",
                "" if language in NO_LANGUAGE else _told_text(language, 20),
                _told_text(title, MAX_WORDS),
                frozenset(marks),
                _has(stream, "default"),
                decodable(stream),
            )
        )
    return found


def _told_text(text: str, most: int) -> str:
    """What is told of a header's text, which anyone may write: one line, cut, that cannot end its quotation marks."""
    text = plain(text[: 2 * most]).replace('"', "'")
    return text if len(text) <= most else text[: most - 3] + "..."


def _has(stream: Any, name: str) -> bool:
    return bool(stream.disposition & getattr(av.stream.Disposition, name))


def _handler(metadata: Mapping[str, str]) -> str:
    """The title that MP4 keeps as the name of a handler, unless a program put its own there."""
    name = metadata.get("handler_name", "")
    return (
        ""
        if re.search(r"handler|gpac|core media|apple|mainconcept|alias data|l-smash|^iso media", name, re.I)
        else name
    )


def _language(container: Any) -> str:
    """The language of the picture, "" if unknown. Matroska's "eng" also means that nothing was said."""
    stream = next(iter(container.streams.video), None)
    language = stream.metadata.get("language", "") if stream is not None else ""
    doubtful = language == "eng" and "matroska" in container.format.name
    return "" if language in NO_LANGUAGE or doubtful else language


def _by_marks(tracks: list[Track], usual: Track, language: str) -> tuple[list[Track], str]:
    """The tracks that can be what the people in the picture say, and why `usual`, the default one, is or is not among
    them."""
    why = "the default one" if usual.default else "the first one"
    steps: list[tuple[str, Callable[[Track], bool]]] = [
        ("the others are comments or descriptions", lambda track: not track.marks & ASIDE.keys()),
        ("marked as the original", lambda track: "original" in track.marks),
        ("the others are dubs", lambda track: "dub" not in track.marks),
        ("in the language of the picture", lambda track: track.language == language != ""),
    ]
    for reason, keep in steps:
        kept = [track for track in tracks if keep(track)]
        if kept and usual in tracks and usual not in kept:
            why = reason
        tracks = kept or tracks
    return tracks, why


@dataclass
class _Ears:
    """What was heard of a track so far: frames with voice and power of the voice, by piece."""

    frames: list[int] = field(default_factory=list)
    loud: list[float] = field(default_factory=list)

    def add(self, piece: Heard, voice: Voice) -> None:
        heard = speeches(Heard(piece.mono, piece.channels[:, :0], ()), voice)
        if heard[MEAN].frames < LEAST and piece.channels.shape[1]:  # the mean may have lost it
            heard = speeches(piece, voice)
        best = max(heard.values(), key=lambda speech: (speech.frames, speech.loud))
        self.frames.append(best.frames)
        self.loud.append(best.loud)


def _hear(container: Any, path: Media, tracks: Sequence[Track], voice: Voice) -> dict[int, _Ears]:
    """What is heard in the first minutes of each track, by the index of its stream."""
    streams = [choose_stream(container, "audio", path, track.index) for track in tracks]
    heard = {track.index: _Ears() for track in tracks}
    for stream, piece in listen(container, streams, MOST_PIECES):
        heard[stream.index].add(piece, voice)
        least = min(len(ears.frames) for ears in heard.values())
        if max(sum(ears.frames[:least]) for ears in heard.values()) >= ENOUGH:
            for ears in heard.values():  # all are compared over the same time
                del ears.frames[least:], ears.loud[least:]
            break
    return heard


def _speaking(heard: Mapping[int, _Ears]) -> set[int]:
    """Those in which a voice is heard that is not only a trace of what another track has."""
    frames = {index: sum(ears.frames) for index, ears in heard.items()}
    loud = {index: sum(ears.loud) for index, ears in heard.items()}
    best, loudest = max(frames.values()), max(loud.values())
    return {k for k in heard if frames[k] >= max(LEAST, CARRIES * best) and loud[k] >= FAINT * loudest}


def _listed(tracks: Sequence[Track]) -> str:
    return f"its sound track is {tracks[0]}" if len(tracks) == 1 else f"its sound tracks are {_names(tracks)}"


def _names(tracks: Sequence[Track]) -> str:
    more = f" and {len(tracks) - MAX_LISTED} more" if len(tracks) > MAX_LISTED else ""
    return ", ".join(map(str, tracks[:MAX_LISTED])) + more


def _told(tracks: Sequence[Track], track: Track, why: str, do: str = "; --audio-track N takes another") -> Choice:
    if len(tracks) < 2:
        return Choice(track)
    text = f"the file has {len(tracks)} sound tracks, {_names(tracks)}; track {track.number} was taken ({why}){do}"
    return Choice(track, (Fact("several_tracks", text),))
