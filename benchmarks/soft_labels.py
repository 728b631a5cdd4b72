"""How good a store's soft labels are on held-out GRID clips, judged by the published word times.

    python -m benchmarks.soft_labels --store grid.zarr --align GRID_ROOT/align

Own sound against the sound of other sentences and against the own sound shifted by 4 frames, over the test clips' frames
inside words, for windows of 5 and 25 frames and the clip; the Brier score of the calibrated probabilities; the same for pairs
that the shuffled-fit control scores is in the store's attributes. Word error rate where the store has words.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

import store
from pipelines.corpora.grid import words
from store.layout import FPS
from store.similarity import auc, brier

OTHERS = 5  # other sentences a clip
SHIFT = 4  # frames
DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))


@click.command()
@click.option("--store", "path", required=True, help="Store with test clips of GRID.")
@click.option("--align", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of .align files.")
@click.option("--split", default="test", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the choice of other sentences.")
def main(path: str, align: Path, split: str, seed: int) -> None:
    """Print AUC and Brier scores of the stored similarity. Example: see the module."""
    reader = store.open(path)
    columns = reader.clips
    clips = np.flatnonzero((columns["done"] == 1) & (columns["split"].astype(str) == split)).tolist()
    if len(clips) < 2:
        raise click.ClickException(f"{path} has {len(clips)} done clips in split {split}; two are needed")
    spoken = {i: words(align / f"{Path(columns['path'][i]).stem}.align") for i in clips}
    inside = {i: _inside(spoken[i], int(columns["length"][i])) for i in clips}
    click.echo(f"{len(clips)} clips of split {split}, {sum(int(m.sum()) for m in inside.values())} frames inside words")
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
    if reader.has_words:
        edits = count = 0
        for i in clips:
            truth = [word.text for word in spoken[i]]
            edits += _edits(truth, [part for word in reader.words(i) for part in _plain(word["text"])])
            count += len(truth)
        click.echo(f"word error rate {edits / count:.3f} over {count} words")


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


if __name__ == "__main__":
    main()
