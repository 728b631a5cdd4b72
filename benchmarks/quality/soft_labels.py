"""Quality of a store's soft labels on held-out GRID clips, with the published word times.

    python -m benchmarks soft_labels --store grid.zarr --align GRID_ROOT/align [--babble 5]

Own sound against the sound of other sentences and against the own sound shifted by 4 frames, over the test clips' frames inside
words, for windows of 5 and 25 frames and the clip; the Brier score of the calibrated probabilities; the same for pairs that the
shuffled-fit control scores is in the store's attributes. With --babble, the same with six voices of other test clips mixed into
the sound at that signal-to-noise ratio (dB), embedded again by the store's ASR teacher. Word error rate where the store has
words.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

import store
import teachers
from pipelines.corpora.grid import words
from pipelines.labels import contrast, projection
from store.layout import FPS, labelled
from store.similarity import auc, brier, scores

OTHERS = 5  # other sentences a clip
SHIFT = 4  # frames
VOICES = 6  # that babble
DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))


@click.command(epilog="Example: python -m benchmarks soft_labels --store grid.zarr --align GRID_ROOT/align")
@click.option("--store", "path", required=True, help="Store with test clips of GRID.")
@click.option("--align", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of .align files.")
@click.option("--split", default="test", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the choice of other sentences, and of voices.")
@click.option("--babble", type=float, help="Also with babble, that many dB below the voice.")
def main(path: str, align: Path, split: str, seed: int, babble: float | None) -> None:
    """Print AUC and Brier scores of the stored similarity."""
    reader = store.open(path)
    columns = reader.clips
    clips = np.flatnonzero((columns["done"] == 1) & (columns["split"].astype(str) == split)).tolist()
    if len(clips) < 2:
        raise click.ClickException(f"{path} has {len(clips)} done clips in split {split}; two are needed")
    spoken = {i: words(align / f"{Path(columns['path'][i]).stem}.align") for i in clips}
    inside = {i: _inside(spoken[i], int(columns["length"][i])) for i in clips}
    click.echo(f"{len(clips)} clips of split {split}, {sum(int(m.sum()) for m in inside.values())} frames inside words")
    click.echo(f"{store.seen.Seen.count(store.seen.by_fit(reader, np.array(clips)), np.array(clips)).text()}")
    for window in (5, 25, "clip"):
        rng = np.random.default_rng(seed)
        own, other, shifted = [], [], []
        for i in clips:
            own.append(_pick(reader.pair_similarity(i, i, window=window), inside[i], window))
            for j in rng.choice([c for c in clips if c != i], min(OTHERS, len(clips) - 1), replace=False):
                other.append(_pick(reader.pair_similarity(i, int(j), window=window), inside[i], window))
            for shift in (SHIFT, -SHIFT):
                shifted.append(_pick(reader.pair_similarity(i, i, shift=shift, window=window), inside[i], window))
        a, b, c = (np.concatenate(x) for x in (own, other, shifted))
        click.echo(
            f"window {window!s:>4}: AUC other sentences {auc(a, b):.4f}, {SHIFT}-frame shift {auc(a, c):.4f}; "
            f"Brier {brier(a, b):.4f}"
        )
    click.echo(f"control fitted on shuffled pairs, AUC by window: {reader.attrs['similarity'].get('shuffled_control')}")
    if babble is not None:
        _in_babble(reader, clips, inside, babble, seed)
    if reader.has_words:
        edits = count = 0
        for i in clips:
            truth = [word.text for word in spoken[i]]
            edits += _edits(truth, [part for word in reader.words(i) for part in _plain(word["text"])])
            count += len(truth)
        click.echo(f"word error rate {edits / count:.3f} over {count} words")


def _in_babble(reader: store.Reader, clips: list[int], inside: dict[int, np.ndarray], db: float, seed: int) -> None:
    """Print the AUC of own sound against other sentences', all of it in babble of other test clips."""
    rng = np.random.default_rng(seed)
    rows = {i: reader.frames(i, 0, int(reader.clips["length"][i]), ["audio", "flags", "vsr"]) for i in clips}
    media = []
    for i in clips:
        own = rows[i]["audio"].reshape(-1)
        voices = np.zeros(len(own))
        for j in rng.choice([c for c in clips if c != i], min(VOICES, len(clips) - 1), replace=False):
            voice = np.resize(rows[int(j)]["audio"].reshape(-1), len(own)).astype(np.float64)
            voices += voice / np.sqrt(np.mean(voice**2) + 1)
        none = np.zeros((len(rows[i]["flags"]), 0))
        media.append(teachers.ClipMedia(str(i), contrast.mix(own, voices, db), none, none, none, rows[i]["flags"]))
    fit = reader.fit
    to_vsr, to_asr = projection.maps(fit)
    heard = dict(zip(clips, teachers.load(reader.attrs["teachers"]["asr"]["name"]).embed(media), strict=True))
    lips = {i: to_vsr(rows[i]["vsr"], rows[i]["flags"]) for i in clips}
    sound = {i: to_asr(heard[i], rows[i]["flags"]) for i in clips}
    for window in (5, 25):
        own, other = [], []
        for i in clips:
            others = rng.choice([c for c in clips if c != i], min(OTHERS, len(clips) - 1), replace=False)
            for j, into in ((i, own), *((int(j), other) for j in others)):
                n = min(len(lips[i]), len(sound[j]))
                mask = labelled(rows[i]["flags"][:n], rows[j]["flags"][:n])
                into.append(scores(lips[i][:n], sound[j][:n], fit, window, mask)[inside[i][:n]])
        click.echo(
            f"in babble {db:g} dB below, window {window:>2}: AUC {auc(np.concatenate(own), np.concatenate(other)):.4f}"
        )


def _inside(spoken: list, length: int) -> np.ndarray:
    """Frames [length] bool whose middle lies inside a word."""
    middle = (np.arange(length) + 0.5) / FPS
    return np.any([(middle >= w.start_s) & (middle < w.end_s) for w in spoken], axis=0)


def _pick(similarity: np.ndarray, inside: np.ndarray, window: int | str) -> np.ndarray:
    use = inside[: len(similarity)] & np.isfinite(similarity)
    return similarity[use][:1] if window == "clip" else similarity[use]


def _plain(text: str) -> list[str]:
    """Words as .align spells them: "F2" is two, digits are words."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    both = re.fullmatch(r"([a-z])(\d)", letters)
    return [DIGITS.get(part, part) for part in (both.groups() if both else [letters]) if part]


def _edits(truth: list[str], heard: list[str]) -> int:
    """Levenshtein distance of two lists of words."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(truth, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
