"""The texts on the page of one video: the answer, what to do next, and the limits of the method.

They are for readers who know nothing about detectors. Every sentence states only what `student.predict.answer` found;
none calls a video genuine.
"""

from __future__ import annotations

from concord.commands import as_called
from store.similarity.grounds import LEAST, number
from store.similarity.limits import one_in
from student.predict.records import BETWEEN, UNLICENSED, Answer, Ruled
from student.predict.ruling import OTHERS

SURE, UNSURE = 0.9, 0.1  # probability of fake: beyond these the headline has no "probably"
# Answers in one or two words, from the most to the least suspicious: tone, and a sign that needs no colour.
SHORT = {
    "fake": ("bad", "≠"),
    "probably fake": ("likely-bad", "≉"),
    "unclear": ("warn", "?"),
    "undecided": ("plain", "–"),
    "probably real": ("likely-good", "≈"),
    "real": ("good", "="),
}

LIMITS = (
    "It hears words and sees lips. It does not look at skin, light or compression, and it does not identify people: it "
    "cannot see another person's face, or hear another person's voice, on lips that really said these words.",
    "Agreement does not prove that a video is genuine, nor disagreement that it was forged: dubbing, translation, a second "
    "speaker off screen and sound added to silent pictures disagree, too.",
    "If there are several people in the picture, only the one who seems to be speaking is judged; if that is not clear, there "
    "is no answer.",
    "Sound more than 0.6 seconds away from its lips is not matched and counts as disagreement.",
    "The method was measured on English read in good light. A small model transcribes the words and often mishears them; "
    "whether lips agree is judged by the sound, not by the text.",
)
HEADS = {
    "not finite": "No answer: the models gave no valid number",
    "no face": "No answer: no face is seen speaking",
    "mouth only": "No answer: the pictures seem to show only a mouth",
    "several faces": "No answer: it is not clear which face speaks",
    "still picture": "No answer: the picture stands still",
    "no speech": "No answer: nobody is heard speaking",
    "too short": "No answer: the video is too short",
    "no track": "No answer: the file has no sound track of that number",
    "unreadable": "No answer: the file cannot be read",
}  # of answers without a decision, by reason

NEXT = {
    "not finite": ("Restore the models' weights and the fit from an intact copy, and try again.", ""),
    "several faces": (
        "Use a part that shows only the speaker, or cut out the speaker's half of the picture.",
        "",
    ),
    "no face": ("Use a part in which the speaker's face is large and visible while speaking.", ""),
    "mouth only": (
        "Use the original with the whole face. If there is none, judge it as a mouth crop, with a fit of such clips "
        "(precompute.py --mouth-crops --vsr avhubert:PATH makes one):",
        "python -m student.predict VIDEO --teacher-only --mouth-crops --fit-from STORE",
    ),
    "no track": ("Give --audio-track the number of a track that the file has, or leave it out.", ""),
    "still picture": (
        "Use a part in which the speaker is filmed: a photograph, a slide show or a frozen picture shows no lips "
        "that could be compared with the voice. If the video stutters, look for a copy with all its pictures.",
        "",
    ),
    "no speech": ("Use a part in which somebody is heard speaking, or a copy that still has its sound.", ""),
    "too short": ("Use a longer part: at least one second of speech, better a whole sentence.", ""),
    "unreadable": (
        "Check that it is a video and the right file. If it plays elsewhere, convert it:",
        "ffmpeg -i VIDEO -c:v libx264 -c:a aac COPY.mp4",
    ),
}  # what to do about a video without a decision, and a command or "", by reason


def short(said: Answer) -> str:
    """One of SHORT."""
    if said.reason:
        return "undecided"
    tone = headline(said)[0]
    if tone == "warn":  # the models disagree, or lips and voice do in some passages
        return "unclear"
    return f"probably {said.decision}" if tone.startswith("likely") else said.decision


def _by_limits(said: Answer, limits: Ruled) -> tuple[str, str, str]:
    """The same for a decision by what strangers score."""
    share = one_in(limits.false_alarms if said.decision == "fake" else limits.misses)
    if said.decision == "fake":
        return (
            "bad",
            "Lips and voice do not belong together",
            f"They agree less than in all but {share} real videos of strangers. A forged mouth or a replaced voice looks "
            "like this; so does dubbing.",
        )
    return (
        "good",
        "Lips and voice say the same thing",
        f"They agree more than in all but {share} {OTHERS[said.limits_of]}. That alone does not make the video genuine.",
    )


def headline(said: Answer) -> tuple[str, str, str]:
    """Tone (good, likely-good, warn, likely-bad, bad, plain), the answer in a few words, and in a sentence."""
    fake, reason = said.probability, said.reason
    if said.offset and reason == "out of sync":
        late = said.offset.sound_late_ms
        how = f"{abs(late)} milliseconds too {'late' if late > 0 else 'early'}"
        return (
            "warn",
            f"No answer: the sound comes {how}",
            "Moved into place, it fits the lips well. A careless copy can shift a genuine video's sound, so this is not "
            "a sign of a forgery, but the video cannot be judged as it is.",
        )
    if said.calibration and reason == UNLICENSED:
        lacks = said.calibration.lacks or said.message
        return (
            "plain",
            f"No answer: {lacks}",
            "How well lips and voice agree differs from person to person, camera to camera and room to room. The calibration "
            "clips do not show what is usual for the people in this one, so nothing is said for or against it.",
        )
    if reason == BETWEEN and said.reference is not None and said.reference.used:
        return "plain", "No answer: it could be either", f"{said.message[:1].upper()}{said.message[1:]}."
    if reason == BETWEEN:
        return (
            "plain",
            "No answer: it is like neither real videos nor others"
            if said.limits is not None and said.limits.gap
            else "No answer: real videos look like this, and so do others",
            "How well lips and voice agree is measured against videos of people whom the models had not seen. This video is "
            f"{_usual(said)}, so nothing is said for or against it.",
        )
    if reason:
        return "plain", HEADS[reason], f"{said.message[:1].upper()}{said.message[1:]}."
    assert fake is not None
    if said.contradicted:
        sides = ("belong together", "do not") if said.decision == "real" else ("do not belong together", "do")
        return (
            "warn",
            "Unclear: the detector and the models that taught it disagree",
            f"The detector says that lips and voice {sides[0]}, the models say that they {sides[1]}. "
            "Treat the video as unchecked.",
        )
    if said.limits is not None:
        return _by_limits(said, said.limits)
    if fake >= 0.5:
        sure = "do" if fake >= SURE else "probably do"
        return (
            "bad" if fake >= SURE else "likely-bad",
            f"Lips and voice {sure} not belong together",
            "The mouth does not form what is heard. A forged mouth or a replaced voice looks like this; so does dubbing.",
        )
    return _agreeing(said, fake)


def _agreeing(said: Answer, fake: float) -> tuple[str, str, str]:
    """The same for lips and voice that agree, by the probability of fake."""
    if said.passages:
        where = ", ".join(f"{p.start:.1f} to {p.end:.1f} s" for p in said.passages[:3])
        return (
            "warn",
            "Lips and voice agree, but not everywhere",
            f"On the whole they belong together. Look closely at {where}: there they do not.",
        )
    if fake > UNSURE:
        return (
            "likely-good",
            "Lips and voice probably belong together",
            "They agree, but less clearly than they usually do.",
        )
    return (
        "good",
        "Lips and voice say the same thing",
        "No sign that the voice was replaced or the mouth re-animated. That alone does not make the video genuine.",
    )


def _usual(said: Answer) -> str:
    limits = said.limits
    if limits is None:
        return "between the limits"
    share, others = one_in(limits.false_alarms), OTHERS[said.limits_of]
    low = f"as low as 3 in 4 of the {others}" if limits.usual else f"among the lowest {share} of their real videos"
    high = (
        f"the lowest {share} of their real videos" if limits.gap else f"all but {one_in(limits.misses)} of the {others}"
    )
    return f"not {low}, nor above {high}"


def advice(said: Answer) -> list[tuple[str, str]]:
    """What to do next: sentences, each with a command or ""."""
    reason = said.reason
    if said.offset and reason == "out of sync":
        seconds = said.offset.sound_late_ms / 1000
        moved = f"ffmpeg -i VIDEO -itsoffset {-seconds:g} -i VIDEO -map 0:v -map 1:a -c copy MOVED.mp4"
        return [
            ("Look for a copy closer to the original, and try again with that.", ""),
            ("Or move the sound, and try again:", moved),
        ]
    if said.calibration and reason in (UNLICENSED, BETWEEN):
        compare = (
            "Compare it with videos of the same person, filmed in the same way, that you know to be genuine: run all of them "
            "together and see whether this one's number is among theirs. With 20 s of their speech or more the command does so:"
        )
        found = [(compare, as_called("python -m student.predict VIDEO --teacher-only --reference FOLDER"))]
        if reason == BETWEEN and said.reference is not None and said.reference.used:
            more = "Give more or longer genuine videos of this person, filmed in the same way, with --reference."
            found = [(more, ""), ("Or use a longer part of this one.", "")]
        elif reason == BETWEEN:
            found.append(("Or use a longer part: the more is heard and seen, the closer the limits are.", ""))
        elif named := said.calibration.named:
            name = max(named, key=lambda one: named[one])
            same = f"If it shows the same people and recordings as {name}, "
            few = f"that does not help: {number(named[name], 'real clip')} of it calibrated this; {LEAST} are needed."
            found.append((f"{same}say so:", f"--corpus {name}") if named[name] >= LEAST else (f"{same}{few}", ""))
        return [*found, ("The video is neither suspected nor cleared.", "")]
    if reason:
        what, command = NEXT[reason]
        return [(as_called(what), as_called(command)), ("The video is neither suspected nor cleared.", "")]
    if said.decision == "fake":
        return [
            ("Do not attribute these words to this person because of this video alone.", ""),
            ("Watch the marked words below slowly, without sound first.", ""),
            (
                "Look for the earliest copy and for another recording of the same moment; find out whether it was dubbed.",
                "",
            ),
        ]
    closer = [("Watch those passages slowly, without sound first; look for cuts there.", "")] if said.passages else []
    return [
        *closer,
        ("Check source, place and date as for any video: who filmed it, where it was first seen.", ""),
        ("Who is shown, and whether the pictures were changed in other ways, is not judged here.", ""),
    ]
