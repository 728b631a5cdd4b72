"""What the page of one video says in words: the answer, what to do next, and what cannot be told from it.

For people who know nothing of detectors. Every sentence keeps to what `student.predict.answer` found; none calls a video
genuine.
"""

from __future__ import annotations

from student.predict.records import Answer

SURE, UNSURE = 0.9, 0.1  # probability of fake: beyond them the headline has no "probably"

LIMITS = (
    "It hears words and sees lips. It does not look at skin, light or compression, and does not know who is who: another's "
    "face, or another's voice, on lips that really said these words is invisible to it.",
    "Agreement is no proof that a video is genuine, and disagreement none of ill will: dubbing, translation, a second speaker "
    "off screen and sound laid under silent pictures disagree, too.",
    "Of several people in the picture the most prominent face alone is followed.",
    "Sound more than 0.6 seconds away from its lips is not found again and reads as disagreement.",
    "The method was measured on English read in good light. Words are written down by a small model and are often misheard; "
    "whether lips agree is judged by the sound, not by the text.",
)


def headline(said: Answer) -> tuple[str, str, str]:
    """Tone (good, warn, bad, plain), the answer in a few words, and in a sentence."""
    fake, reason = said.probability, said.reason
    if said.offset and reason == "out of sync":
        late = said.offset.sound_late_ms
        how = f"{abs(late)} milliseconds too {'late' if late > 0 else 'early'}"
        return (
            "warn",
            f"No answer: the sound comes {how}",
            "Moved into place, it fits the lips well. A careless copy does that to a genuine video: by itself it is no sign of "
            "a forgery, but the video cannot be judged as it is.",
        )
    if said.calibration and reason == "uncalibrated":
        lacks = said.calibration.lacks
        return (
            "plain",
            f"No answer: {lacks}",
            "How well lips and voice agree differs from person to person, camera to camera and room to room. What was measured "
            "on those clips does not say what is usual for the people in this one, so nothing is said for or against it.",
        )
    if reason:
        heads = {
            "not finite": "No answer: the models gave no number",
            "no face": "No answer: no face is seen speaking",
            "no speech": "No answer: nobody is heard speaking",
            "too short": "No answer: there is too little of it",
            "unreadable": "No answer: the file cannot be read",
        }
        return "plain", heads[reason], f"{said.message[:1].upper()}{said.message[1:]}."
    assert fake is not None
    theirs = said.teachers.probability if said.teachers else None
    if theirs is not None and (theirs >= 0.5) != (fake >= 0.5):
        sides = ("belong together", "do not") if fake < 0.5 else ("do not belong together", "do")
        return (
            "warn",
            "Unclear: the detector and the models that taught it disagree",
            f"For the detector lips and voice {sides[0]}, for the models they {sides[1]}. Treat the video as unchecked.",
        )
    if fake >= 0.5:
        sure = "do" if fake >= SURE else "probably do"
        return (
            "bad" if fake >= SURE else "warn",
            f"Lips and voice {sure} not belong together",
            "What the mouth forms is not what is heard. A forged mouth or a replaced voice looks like this; so does dubbing.",
        )
    if said.passages:
        where = ", ".join(f"{p.start:.1f} to {p.end:.1f} s" for p in said.passages[:3])
        return (
            "warn",
            "Lips and voice agree, but not everywhere",
            f"On the whole they belong together. Look closely at {where}: there they do not.",
        )
    if fake > UNSURE:
        return "warn", "Lips and voice probably belong together", "They agree, but less clearly than they usually do."
    return (
        "good",
        "Lips and voice say the same thing",
        "No sign that the voice was replaced or the mouth re-animated. That alone does not make the video genuine.",
    )


def advice(said: Answer) -> list[tuple[str, str]]:
    """What to do next: sentences, each with a command or ""."""
    reason = said.reason
    if said.offset and reason == "out of sync":
        seconds = said.offset.sound_late_ms / 1000
        moved = f"ffmpeg -i VIDEO -itsoffset {-seconds:g} -i VIDEO -map 0:v -map 1:a -c copy MOVED.mp4"
        return [
            ("Look for a copy nearer to the original, and ask again with that.", ""),
            ("Or move the sound, and ask again:", moved),
        ]
    if said.calibration and reason == "uncalibrated":
        compare = (
            "Compare it with videos of the same person, filmed alike, that you know to be genuine: ask about all of them "
            "together and see whether this one's number lies among theirs."
        )
        found = [(compare, "python -m student.predict FOLDER --teacher-only")]
        if corpora := said.calibration.corpora:
            found.append(
                (f"If it is of the same people and recordings as {corpora[0]}, say so:", f"--corpus {corpora[0]}")
            )
        return [*found, ("The video is neither suspected nor cleared.", "")]
    if reason:
        other = {
            "not finite": ("Bring the models' weights and the fit back from a sound copy, and ask again.", ""),
            "no face": ("Take a part in which the speaker's face is large and in the picture while speaking.", ""),
            "no speech": ("Take a part in which somebody is heard speaking, or a copy that still has its sound.", ""),
            "too short": ("Take a longer part: a second of speech at least, better a whole sentence.", ""),
            "unreadable": (
                "Check that the file plays, or convert it:",
                "ffmpeg -i VIDEO -c:v libx264 -c:a aac COPY.mp4",
            ),
        }[reason]
        return [other, ("The video is neither suspected nor cleared.", "")]
    if said.decision == "fake":
        return [
            ("Do not quote these words as this person's on the strength of this video.", ""),
            ("Watch the marked words below slowly, without sound first.", ""),
            ("Look for the earliest copy and for another recording of the same moment; ask whether it was dubbed.", ""),
        ]
    closer = (
        [("Watch those passages slowly, without sound first; ask what was cut in there.", "")] if said.passages else []
    )
    return [
        *closer,
        ("Check source, place and date as for any video: who filmed it, where it was first seen.", ""),
        ("Who is shown, and whether the pictures were changed otherwise, is not judged here.", ""),
    ]
