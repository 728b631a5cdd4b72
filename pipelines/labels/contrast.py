"""Fits the network of `contrast`: the choice of training clips, the noise added to their sound, and the control.

A tenth of the real training clips is held out for early stopping and for calibration. Noise is added to the sound of
some clips, 0 to 20 dB below the voice: voices of other training clips (babble) or coloured noise. The ASR teacher
embeds the noisy sound, so that the fit learns how its rows change. Everything random depends only on the seed and the
clip's row, so the same store and seed give the same fit, independently of the workers.
"""

from __future__ import annotations

import logging
import time

import numpy as np

import store
from concord.text import counted
from pipelines.labels import projection
from pipelines.workers import stages
from pipelines.workers.chain import Spread
from store import layout, similarity
from store.place import Place
from teachers import ClipMedia, TeacherError

log = logging.getLogger(__name__)

CLIPS = 2000  # clips that a fit learns from, evenly chosen
NOISY_CLIPS = 500  # of them with added noise
SOUNDS = 3  # noisy sounds of each
EXCERPT = 250  # frames used of a longer clip: those with the most voice
BABBLE = 2 / 3  # share of babble among the noises
VOICES = (2, 8)  # number of voices in babble
COLOUR = (0.0, 2.0)  # exponent of 1/f in the power spectrum of other noise: white to brown
SNR_DB = (0.0, 20.0)
PART = 16  # clips embedded by one task


def excerpt(label: np.ndarray) -> slice:
    """Up to EXCERPT frames of a clip, those with the most labelled frames, [frames] bool; the first of equals."""
    if len(label) <= EXCERPT:
        return slice(0, len(label))
    total = np.r_[0, np.cumsum(label)]
    start = int((total[EXCERPT:] - total[:-EXCERPT]).argmax())
    return slice(start, start + EXCERPT)


def noisy_embeddings(
    reader: store.Reader, clips: list[int], spread: Spread, seed: int
) -> dict[int, tuple[np.ndarray, ...]]:
    """By clip row, SOUNDS embeddings f2 [frames, Da] of its excerpt with noise; empty, with a warning, if the teacher
    is missing."""
    some = evenly(clips, NOISY_CLIPS)
    name = reader.attrs["teachers"]["asr"]["name"]
    jobs = [(reader.place, some[k : k + PART], clips, name, seed) for k in range(0, len(some), PART)]
    begun = time.perf_counter()
    log.info("embedding the sound of %s again, with %d noises each", counted(len(some), "clip"), SOUNDS)
    try:
        found = [answer for part in spread(embed_noisy, jobs, gpu=True) for answer in part]
    except TeacherError as error:
        log.warning(
            "the fit learns from clean sound only, because its ASR teacher cannot embed noisy sound here: %s", error
        )
        return {}
    log.info("embedded %s again with noise: %.1f s", counted(len(some), "clip"), time.perf_counter() - begun)
    return dict(zip(some, found, strict=True))


def embed_noisy(
    root: Place, clips: list[int], pool: list[int], teacher_name: str, seed: int
) -> list[tuple[np.ndarray, ...]]:
    """A task: the SOUNDS noisy embeddings of each clip; babble is made of clips in `pool`."""
    teacher = stages.teacher(teacher_name)
    reader = store.open(root)
    media = []
    for clip in clips:
        sound, flags = _sound(reader, clip)
        draw = np.random.default_rng([seed, clip])
        for _ in range(SOUNDS):
            none = np.zeros((len(flags), 0))
            laid = mix(sound, _noise(reader, clip, pool, len(sound), draw), draw.uniform(*SNR_DB))
            media.append(ClipMedia(str(reader.clips["id"][clip]), laid, none, none, none, flags))
    rows = [row.astype(np.float16) for row in teacher.embed(media)]
    return [tuple(rows[k : k + SOUNDS]) for k in range(0, len(rows), SOUNDS)]


def mix(sound: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Sound i2 [samples] with noise f8 [samples] added, `snr_db` below it by mean power; quieter if it would clip."""
    loud, other = (np.sqrt(np.mean(np.square(x, dtype=np.float64)) + 1e-9) for x in (sound, noise))
    both = sound + noise * (loud / other) * 10 ** (-snr_db / 20)
    peak = np.abs(both).max(initial=0.0)
    return (both * min(1.0, 32767 / max(peak, 1.0))).round().astype(np.int16)


def train(
    root: Place,
    clips: list[int],
    held_out: list[int],
    partners: dict[int, int],
    noisy: dict[int, tuple[np.ndarray, ...]],
    seed: int,
) -> tuple[dict[str, np.ndarray], tuple[int, ...], float]:
    """A task: the networks' arrays, the steps of each, and the seconds it took; the sound is that of a clip's partner if
    it has one."""
    from teachers import learn_projector, lips

    reader = store.open(root)
    mirror = lips.MIRROR if reader.attrs["teachers"]["vsr"]["name"] == lips.Lips.name else None
    begun = time.perf_counter()
    learned = learn_projector.learn(
        [_example(reader, clip, partners.get(clip, clip), noisy.get(clip, ())) for clip in clips],
        [_example(reader, clip, partners.get(clip, clip)) for clip in held_out],
        seed,
        mirror,
    )
    return learned.arrays, learned.steps, time.perf_counter() - begun


def _example(reader: store.Reader, clip: int, partner: int, noisy: tuple[np.ndarray, ...] = ()):
    from teachers.learn_projector import Example

    own = projection.levelled(reader.frames(clip, 0, int(reader.clips["length"][clip]), ["vsr", "asr", "flags"]))
    other = own
    if partner != clip:
        found = reader.frames(partner, 0, int(reader.clips["length"][partner]), ["asr", "flags"])
        other = projection.levelled(found)
    length = min(len(own["flags"]), len(other["flags"]))
    label = layout.labelled(own["flags"][:length], other["flags"][:length])
    rows = excerpt(label)
    voice = (own["flags"][:length][rows] & layout.VOICE_ACTIVE) > 0
    noisy = tuple(similarity.level_sound(sound, voice) for sound in noisy)
    return Example(own["vsr"][:length][rows], other["asr"][:length][rows], label[rows], noisy)


def _sound(reader: store.Reader, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples i2 and flags of a clip's excerpt."""
    got = reader.frames(clip, 0, int(reader.clips["length"][clip]), ["flags"])
    rows = excerpt(layout.labelled(got["flags"], got["flags"]))
    return reader.frames(clip, rows.start, rows.stop, ["audio"])["audio"].reshape(-1), got["flags"][rows]


def _noise(reader: store.Reader, clip: int, pool: list[int], samples: int, draw: np.random.Generator) -> np.ndarray:
    """f8 [samples] of babble or of coloured noise."""
    others = [other for other in pool if other != clip]
    if draw.random() < BABBLE and len(others) >= VOICES[0]:
        voices = draw.choice(others, min(int(draw.integers(VOICES[0], VOICES[1] + 1)), len(others)), replace=False)
        total = np.zeros(samples)
        for voice in voices.tolist():
            sound = _sound(reader, voice)[0].astype(np.float64)
            sound = np.resize(np.roll(sound, int(draw.integers(len(sound)))), samples)
            total += sound / np.sqrt(np.mean(sound**2) + 1.0)
        return total
    spectrum = np.fft.rfft(draw.standard_normal(samples))
    return np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** (-draw.uniform(*COLOUR) / 2), samples)


def evenly(clips: list[int], most: int) -> list[int]:
    """At most `most` of the clips, evenly spaced."""
    return [clips[k] for k in np.unique(np.linspace(0, len(clips) - 1, min(len(clips), most)).round().astype(int))]
