"""Facts of a file that a person should know, though the clip can be used: which sound was taken, how many faces there are,
a clock that was repaired. Ledger, audit and answer name them."""

from collections.abc import Iterable
from dataclasses import dataclass

from concord.text import plain

KINDS = {
    "several_tracks": "The file has several sound tracks; the text says which one was taken.",
    "channel_mix": "The mean of the channels does not carry the voice (opposite phase, one channel); another mix was taken.",
    "silent": "The sound is silent.",
    "sound_gaps": "The sound has holes of at least a tenth of its length, and half a second.",
    "several_faces": "Several faces are seen; the text says which one was taken.",
    "small_face": "The face is small or far away.",
    "held_pictures": "Pictures stand still: a photo, a slide show, a freeze, a gap or a very low frame rate.",
    "size_changes": "The size or the orientation of the picture changes.",
    "hdr": "The pictures are HDR and were tone-mapped.",
    "interlaced": "The pictures are interlaced and were deinterlaced.",
    "clock_repaired": "Time stamps jump, restart or are missing; the text says what was repaired.",
    "header_differs": "The header declares another length than the file has.",
    "mouth_crops": "The pictures are mouth crops, taken as they are.",
}


@dataclass(frozen=True)
class Fact:
    """One fact: its kind (of KINDS), and a sentence for a person, without the file's name. Line ends divide facts, so what
    cannot be printed stands as its code."""

    kind: str
    text: str

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        object.__setattr__(self, "text", plain(self.text))


def sentences(facts: Iterable[Fact]) -> str:
    """The facts as one text, a line each; "" without any."""
    return "\n".join(fact.text for fact in facts)
