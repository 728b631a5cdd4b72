"""All ways of forging, by name: a new one is one function `Given -> Forged` and one line here."""

from __future__ import annotations

from pipelines.errors import UsageError
from pipelines.forging import partly, pictured, sounds
from pipelines.forging.kinds import Method

ALL = "all"
METHODS = {
    method.name: method
    for method in (
        Method("audio-swap", sounds.swap, "speech of another clip, in the rhythm of this one"),
        Method("time-shift", sounds.shift, "the clip's own sound, 5 to 15 frames early or late"),
        Method("revoice-same", sounds.same_words, "a synthetic voice says the clip's own words", speaks=True),
        Method("revoice-other", sounds.other_words, "a synthetic voice says another clip's words", speaks=True),
        Method("mouth-rewrite", pictured.mouth, "the speaker's own mouth says what another clip's lips say"),
        Method("portrait", pictured.portrait, "one still picture, its lips and jaw moved as the clip's"),
        Method("self-reenact", pictured.reenact, "the face of other moments, moved as the clip's"),
        Method("partial", partly.make, "mouth-rewrite or audio-swap for 0.4 to 1.2 s"),
    )
}


def chosen(text: str) -> list[Method]:
    """The methods that "all" or a list of names means; a name also means all that continue it with a dash (revoice). Raises
    UsageError."""
    wanted = set()
    for name in (part.strip() for part in text.split(",")):
        found = {one for one in METHODS if name in (ALL, one) or one.startswith(f"{name}-")}
        if not found:
            raise UsageError(f'--methods: "{name}" is no method; methods are {", ".join(METHODS)}, or {ALL}')
        wanted |= found
    return [method for name, method in METHODS.items() if name in wanted]
