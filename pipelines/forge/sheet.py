"""One picture for each method: frames of real clips, and below them the same frames of the forgery, as they were encoded.

Only the face is shown; a red border marks frames whose picture was forged. Below them lies the sound of the clip, red
where it was forged.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from concord import files
from pipelines.forge import folder, plan
from pipelines.media.files import MediaError
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound
from store import output
from store.layout import FPS, SAMPLES_PER_FRAME

COMMAND = "pipelines.forge"
CLIPS, FRAMES = 3, 8  # shown for a method
SIDE = 176  # pixels of a face, at most
SOUND = 36  # pixels of the line of sound
BORDER = 4
MARKED, PLAIN, PAPER, INK = (200, 40, 40), (90, 100, 110), (255, 255, 255), (30, 30, 30)


def write(root: Path, method: str, names: Sequence[str]) -> dict[str, MediaError]:
    """The sheet of a method, of the first clips that have it; none if no clip has.

    Returns {METHOD/NAME: why} of the clips that had to be left out because they cannot be read.
    """
    kinds = plan.REAL, method
    unread: dict[str, MediaError] = {}
    blocks: list[np.ndarray] = []
    for name in names:
        if len(blocks) < CLIPS and all(folder.is_finished(root, kind, name) for kind in kinds):
            blocks += _clip(root, method, name, unread)
    if not blocks:
        return unread
    width = max(block.shape[1] for block in blocks)
    page = np.concatenate([_wide(block, width) for block in blocks])
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import image

    packed = io.BytesIO()
    image.imsave(packed, page, format="png", metadata=output.picture_metadata(COMMAND, "png"))
    files.write(root / folder.SHEETS / f"{method}.png", packed.getvalue())
    return unread


def _clip(root: Path, method: str, name: str, unread: dict[str, MediaError]) -> list[np.ndarray]:
    """The rows of a clip as one picture; nothing where a file cannot be read, which `unread` then has."""
    about = folder.read_note(folder.note(root, method, name)) or {}
    num = int(about["frames"])
    video, audio = (_forged(about, kind, num) for kind in ("video", "audio"))
    shown = _frames(num, video | audio)
    rows = []
    for kind in (plan.REAL, method):
        path = plan.place(root, kind, name)
        marks = (video, audio) if kind == method else (np.zeros(num, bool), np.zeros(num, bool))
        try:
            pictures, sound = _decoded(path, shown)
        except MediaError as error:
            unread[f"{kind}/{name}"] = error
            return []
        left, top, right, bottom = about["face"]
        pictures = [picture[top:bottom, left:right] for picture in pictures]
        cells = [_cell(picture, bool(marks[0][k]), k) for picture, k in zip(pictures, shown, strict=True)]
        row = np.concatenate(cells, axis=1)
        rows += [_title(f"{kind}   {name}   {about['note'] if kind == method else ''}", row.shape[1]), row]
        rows.append(_waves(sound, marks[1], shown, row.shape[1]))
    rows.append(np.full((14, rows[0].shape[1], 3), PAPER, np.uint8))
    return [np.concatenate(rows)]


def _forged(about: dict, kind: str, num: int) -> np.ndarray:
    """bool [frames]: which frames of picture or sound are forged."""
    segments = about[f"{kind}_segments"]
    found = np.full(num, bool(about[f"{kind}_fake"]) and not segments)
    for start, end in segments:
        found[round(start * FPS) : round(end * FPS)] = True
    return found


def _frames(num: int, forged: np.ndarray) -> list[int]:
    """Which frames are shown: spread over the clip, or around a forged part."""
    at = np.flatnonzero(forged)
    low, high = 0, num - 1
    if 0 < len(at) < num:
        reach = max(len(at) // 3, 3)
        low, high = max(at[0] - reach, 0), min(at[-1] + reach, num - 1)
    return [int(k) for k in np.linspace(low, high, FRAMES).round()]


def _decoded(path: Path, shown: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    video = Video(path)
    wanted = set(shown)
    kept = {k: picture for k, picture in enumerate(video) if k in wanted}
    if wanted - kept.keys():
        raise MediaError("truncated", f"{path} has {video.num_frames} frames, fewer than were written")
    return [kept[k] for k in shown], decode_sound(path, video.start_s, video.num_frames).samples


def _cell(picture: np.ndarray, marked: bool, number: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    colour = MARKED if marked else PAPER
    found = cv2.copyMakeBorder(small, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_CONSTANT, value=colour)
    return cv2.putText(found, str(number), (BORDER + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, PAPER, 1, cv2.LINE_AA)


def _title(text: str, width: int) -> np.ndarray:
    line = np.full((22, width, 3), PAPER, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    return cv2.putText(line, plain, (BORDER, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)


def _waves(sound: np.ndarray, forged: np.ndarray, shown: Sequence[int], width: int) -> np.ndarray:
    """The sound of the whole clip as a line of bars; ticks are the frames shown."""
    line = np.full((SOUND, width, 3), PAPER, np.uint8)
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    for x in range(width):
        level = float(np.abs(sound[edges[x] : max(edges[x + 1], edges[x] + 1)].astype(int)).max()) / 32768
        reach = max(round(level**0.5 * (SOUND // 2 - 3)), 1)
        frame = min(edges[x] // SAMPLES_PER_FRAME, len(forged) - 1)
        line[SOUND // 2 - reach : SOUND // 2 + reach, x] = MARKED if forged[frame] else PLAIN
    for k in shown:
        line[-3:, min(int((k + 0.5) / len(forged) * width), width - 1)] = INK
    return line


def _wide(block: np.ndarray, width: int) -> np.ndarray:
    missing = width - block.shape[1]
    return cv2.copyMakeBorder(block, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=PAPER)
