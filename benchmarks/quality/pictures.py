"""Forgeries of sources that training has not seen, told by their pictures alone, from real clips and their pseudo-fakes.

Each source of the corpora that have forgeries (the column `source`: a page, a repository) is judged by networks that have
learned from real clips of all other sources, never from a forgery. The network is the one of `lite`'s texture branch with
its loss; each seed has its own pairs of a real window and its pseudo-fake. Sources are drawn equally often. Beside the
picture stands half the teachers' margin (no offset of the sound stands out), each by its deviation over the real clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
import torch

import store
from concord.command import Command, put, say
from concord.errors import ConcordError
from store.dataset.spans import spans
from store.layout import evident
from store.similarity.intervals import auc_by_cluster
from student.data import drawn, pseudo_fakes
from student.data.pseudo_fakes import Window
from student.experiment.folds import Clips
from student.experiment.trivial import Numbers
from student.models.texture import Texture, measures
from student.scoring import score
from student.scoring.metrics import auc
from student.training.learner import TEXTURE_WIDTH
from student.training.losses import drawn_right

FRAMES = 25  # of a window
LEAST = 10  # of them with a face
OF_A_SOURCE = 300  # pairs, if a clip then gives between FEWEST and MOST
FEWEST, MOST = 2, 12
BATCH, EPOCHS, RATE = 64, 12, 2e-3
HALF = 0.5  # of the margin: chosen on other clips, as in benchmarks.wild


@dataclass(frozen=True)
class Pairs:
    """Mean measures f4 [n, 2, MEASURES] of real windows and of pseudo-fakes of them, the redrawn share f4 [n] of these, and
    the source [n]."""

    found: np.ndarray
    share: np.ndarray
    source: np.ndarray


def pairs(reader: store.Reader, clips: Clips, seed: int) -> Pairs:
    """Of each source about OF_A_SOURCE pairs of its real clips."""
    rng = np.random.default_rng(seed)
    real = np.flatnonzero(~clips.is_fake)
    names = where(clips)
    count = Counter(names[real].tolist())
    rows = clips.rows[real]
    found, share, source = [], [], []
    for k, row in zip(real.tolist(), rows.tolist(), strict=True):
        for _ in range(int(np.clip(OF_A_SOURCE / count[names[k]], FEWEST, MOST))):
            window, face = _window(reader, row, rng)
            if face.sum() < LEAST:
                continue
            made = drawn.of_real(window, face, lambda draw: _other(reader, rows, draw), rng)
            found.append([_mean(one.picture, face) for one in made])
            share.append(made[1].forged[face].mean())
            source.append(names[k])
    if not found:
        raise ConcordError(f"{reader.path} has no real clip with {LEAST} frames of a face")
    return Pairs(np.array(found, np.float32), np.array(share, np.float32), np.array(source))


def where(clips: Clips) -> np.ndarray:
    """The source of each clip [n], or its corpus where none is known."""
    return np.where(clips.source == "", clips.corpus, clips.source)


def _window(reader: store.Reader, row: int, rng: np.random.Generator) -> tuple[Window, np.ndarray]:
    length = int(reader.clips["length"][row])
    frames = min(FRAMES, length)
    first = int(rng.integers(length - frames + 1))
    got = reader.frames(row, first, first + frames, ["mouth", "lips", "flags"])
    face = evident(got["flags"])
    if not np.isfinite(got["lips"][face]).all():
        face = np.zeros(frames, bool)
    return Window(got["mouth"], pseudo_fakes.in_crop(got["lips"])), face


def _other(reader: store.Reader, rows: np.ndarray, rng: np.random.Generator) -> Window:
    return _window(reader, int(rows[rng.integers(len(rows))]), rng)[0]


def _mean(picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    return _frames(picture, face).mean(0)


def _frames(picture: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Measures f4 [frames with a face, MEASURES]."""
    with torch.no_grad():
        found: np.ndarray = measures(torch.from_numpy(picture[None]), torch.from_numpy(face[None]))[0].numpy()
    return found[face]


def learned(of: Pairs, use: np.ndarray, seed: int) -> torch.nn.Module:
    """A network that has learned from the pairs in `use` bool [n], sources equally often. ConcordError if they are too few."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Texture(TEXTURE_WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    places = np.flatnonzero(use)
    _, number, counts = np.unique(of.source[places], return_inverse=True, return_counts=True)
    chance = 1 / counts[number] / len(counts)
    steps = EPOCHS * 2 * len(places) // BATCH
    if not steps:
        raise ConcordError(
            f"{len(places)} pairs of other sources are too few to learn from; add real clips of other sources"
        )
    own = torch.arange(0, BATCH, 2)  # places of the real windows; the pseudo-fake of each follows it
    twin = torch.stack([torch.full_like(own, -1), own], 1).flatten()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        picked = places[rng.choice(len(places), BATCH // 2, p=chance)]
        share = np.stack([np.zeros(len(picked)), of.share[picked]], 1).astype(np.float32)
        logits = model.of_means(torch.from_numpy(of.found[picked]).flatten(0, 1))
        loss = drawn_right(logits, torch.from_numpy(share).flatten(), torch.ones(BATCH), twin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.head.eval()


def judged(reader: store.Reader, clips: Clips) -> Iterator[tuple[int, np.ndarray]]:
    """Places of the clips of corpora with both classes, and the measures of their frames."""
    for k in np.flatnonzero(clips.comparable).tolist():
        row = int(clips.rows[k])
        got = reader.frames(row, 0, int(reader.clips["length"][row]), ["mouth", "flags"])
        face = evident(got["flags"])
        if face.sum() >= LEAST:
            yield k, _frames(got["mouth"], face)


def margins(reader: store.Reader, rows: np.ndarray) -> np.ndarray:
    """How little the best offset of each clip's sound stands out, f8 [n]; NaN where it cannot be said."""
    items = score.trials(reader, rows, spans(reader, rows, "none"), 0, swaps=0, shifts=0)
    found = dict(zip((t.lips for t in items), score.teacher_scores(reader, items)[2], strict=True))
    return np.array([found.get(int(row), np.nan) for row in rows])


@click.command(cls=Command)
@click.option(
    "--store", "path", required=True, metavar="PATH|URL", help="Store with real and forged clips and sources."
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="Pairs, and networks of each source."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def main(path: str, seeds: int, threads: int) -> None:
    """Rank forgeries of unseen sources by the picture alone.

    Example: python -m benchmarks pictures --store news-grid-wild.zarr
    """
    torch.set_num_threads(threads)
    reader = store.open(path)
    clips = Clips.of(reader)
    names = where(clips)
    found = list(judged(reader, clips))
    at, frames = np.array([k for k, _ in found], int), [each for _, each in found]
    if len(set(clips.is_fake[at].tolist())) < 2:
        raise ConcordError(f"{path}: the clips with {LEAST} frames of a face are not of both classes, real and forged")
    logits = np.zeros((seeds, len(at)))
    for seed in range(seeds):
        of = pairs(reader, clips, seed)
        for name in sorted(set(names[at].tolist())):
            head = learned(of, of.source != name, seed)
            with torch.no_grad():
                for n in np.flatnonzero(names[at] == name).tolist():
                    logits[seed, n] = float(head(torch.from_numpy(frames[n]))[:, 0].mean())
        say(f"seed {seed}: {len(of.share)} pairs of {len(set(of.source.tolist()))} sources", err=True)
    margin = margins(reader, clips.rows[at])
    table = figures(reader, clips, at, logits, margin)
    put("\n".join(lines(table)))


def figures(
    reader: store.Reader, clips: Clips, at: np.ndarray, logits: np.ndarray, margin: np.ndarray
) -> dict[str, dict]:
    """AUC of all clips, of each source that has both classes, and of each method against all real clips."""
    fake, source, method = clips.is_fake[at], where(clips)[at], clips.method[at]
    parts = {"all": np.ones(len(at), bool)}
    parts |= {f"within {name}": source == name for name in sorted(set(source.tolist()))}
    parts |= {str(name): ~fake | (method == name) for name in np.unique(method[fake])}
    numbers, found = Numbers(reader), {}
    for name, use in parts.items():
        if len(set(fake[use].tolist())) < 2:
            continue
        both = use & np.isfinite(margin)
        seeds = [auc(row[use], fake[use].astype(int)) for row in logits]
        joined = [np.nan] * len(logits)  # without soft labels no margin is known
        if len(set(fake[both].tolist())) == 2:
            joined = [auc(_with(row, margin, ~fake & both)[both], fake[both].astype(int)) for row in logits]
        low, high = auc_by_cluster(logits.mean(0)[use], fake[use], source[use])
        best = numbers.strongest(clips.rows[at][use].tolist())
        found[name] = {
            "real": int((use & ~fake).sum()),
            "forged": int((use & fake).sum()),
            "picture": float(np.mean(seeds)),
            "by_seed": seeds,
            "mean_logit": {"auc": auc(logits.mean(0)[use], fake[use].astype(int)), "low": low, "high": high},
            "with_half_the_margin": float(np.mean(joined)),
            "trivial": best.to_json() if best else None,
        }
    return found


def _with(logit: np.ndarray, margin: np.ndarray, real: np.ndarray) -> np.ndarray:
    return np.asarray(logit / logit[real].std() + HALF * margin / margin[real].std())


def lines(table: dict[str, dict]) -> Iterator[str]:
    """The table in Markdown."""
    heads = (
        "forgeries",
        "real, forged",
        "picture: mean; by seed",
        "mean logit",
        "and half the margin",
        "best trivial number",
    )
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for name, f in table.items():
        each, mean, best = ", ".join(f"{x:.3f}" for x in f["by_seed"]), f["mean_logit"], f["trivial"]
        trivial = f"{best['auc']:.3f} {best['number']}" if best else "-"
        yield (
            f"| {name} | {f['real']}, {f['forged']} | {f['picture']:.3f}; {each} | {mean['auc']:.3f} ({mean['low']:.3f} to "
            f"{mean['high']:.3f}) | {f['with_half_the_margin']:.3f} | {trivial} |"
        )


if __name__ == "__main__":
    main()
