"""Draws a contact sheet of the pseudo-fakes that training makes of one clip: a row of frames of each kind, below the real ones.

The changed frames of a row have a red edge. With --nuisance each row is as training shows it, all under one draw.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

import store
from concord.command import Command, say
from concord.errors import ConcordError
from store.layout import evident
from student.data import drawn, pseudo_fakes
from student.data.pseudo_fakes import SIDE, Window

FRAMES = 25
SHOWN = 7  # every fourth frame
NAMES = 128  # pixels for the names
RED, WHITE = (200, 30, 30), (255, 255, 255)


def window(reader: store.Reader, row: int) -> Window:
    """The first FRAMES frames of a clip with faces throughout. ConcordError if there are none."""
    face = evident(reader.frames(row, 0, int(reader.clips["length"][row]), ["flags"])["flags"])
    whole = np.convolve(face, np.ones(FRAMES, int), "valid") == FRAMES
    if len(face) < FRAMES or not whole.any():
        raise ConcordError(f"clip {reader.clips['id'][row]} has no {FRAMES} frames with a face; name another by --clip")
    first = int(np.argmax(whole))
    found = reader.frames(row, first, first + FRAMES, ["mouth", "lips"])
    return Window(found["mouth"], pseudo_fakes.in_crop(found["lips"]))


def sheet(one: Window, other: Window, seed: int, nuisance: bool) -> np.ndarray:
    """The picture u1 [height, width, 3]."""
    rows = [_row("real", one.mouth, np.zeros(FRAMES, bool), seed, nuisance)]
    for k, kind in enumerate(pseudo_fakes.KINDS):
        made = pseudo_fakes.forge(one, other, np.random.default_rng([seed, k]), kind)
        rows.append(_row(kind, made.mouth, made.changed, seed, nuisance))
    return np.concatenate(rows)


def _row(name: str, mouth: np.ndarray, changed: np.ndarray, seed: int, nuisance: bool) -> np.ndarray:
    import cv2

    if nuisance:
        mouth = drawn.disturb(mouth, seed)
    label = np.full((SIDE, NAMES, 3), 255, np.uint8)
    cv2.putText(label, name, (6, SIDE // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    tiles = [label]
    for k in range(0, SHOWN * 4, 4):
        tile = np.pad(np.repeat(mouth[k, :, :, None], 3, 2)[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0)))
        colour = RED if changed[k] else WHITE
        tile[[0, -1]], tile[:, [0, -1]] = colour, colour
        tiles.append(tile)
    return np.concatenate(tiles, 1)


@click.command(cls=Command)
@click.option("--store", "path", required=True, metavar="PATH|URL", help="Store with real clips.")
@click.option("--clip", help="Id of the clip.  [default: the first real one]")
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
@click.option("--seed", default=0, show_default=True, help="Seed of the strengths.")
@click.option("--nuisance", is_flag=True, help="Also show what happens to pictures after they are drawn.")
def main(path: str, clip: str | None, output: Path, seed: int, nuisance: bool) -> None:
    """Draw every kind of pseudo-fake of one clip.

    Example: python -m benchmarks pseudo_fakes --store grid.zarr --output kinds.png
    """
    from PIL import Image

    reader = store.open(path)
    ids = reader.clips["id"].astype(str)
    real = np.flatnonzero((reader.clips["label"] == 0) & (reader.clips["done"] == 1))
    if len(real) < 2:
        raise ConcordError(f"{path} has {len(real)} real clips; two are needed")
    rows = np.flatnonzero(ids == clip) if clip else real[:1]
    if not len(rows):
        raise ConcordError(f"{path} has no clip {clip}")
    row = int(rows[0])
    mates = real[(reader.clips["corpus"][real] == reader.clips["corpus"][row]) & (real != row)]
    if not len(mates):
        raise ConcordError(f"clip {ids[row]} is the only real one of its corpus; another lends its mouth")
    other = int(mates[len(mates) // 2])
    picture = sheet(window(reader, row), window(reader, other), seed, nuisance)
    try:
        Image.fromarray(picture).quantize(96).save(output, "png")
    except OSError as error:
        raise ConcordError(f"cannot write {output}: {error.strerror}; choose a folder that exists") from error
    say(f"{output}: {len(pseudo_fakes.KINDS)} kinds, {ids[row]} and {ids[other]}")


if __name__ == "__main__":
    main()
