"""What a player needs of one clip: its frames as numbers in parts, its mouth crops as pictures, its sound as WAV.

A part is at most PART frames, so that a clip of hours is read bit by bit. Mouth crops come as sheets of SHEET crops,
COLUMNS in a row, each a JPEG made by OpenCV: a browser shows one crop of it at a time. Sound is 16 kHz mono WAV, read
from the store where the browser asks. Damage in one array leaves the others: the part says what is lost.
"""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import cv2
import numpy as np

from concord.commands import as_called
from store import layout
from store.layout import StoreError
from store.reader import Reader

PART = 7_500  # frames: 5 minutes
SHEET, COLUMNS = 250, 25  # crops of a sheet, 10 s, and of a row of it
QUALITY = 90  # of JPEG
WAV_HEADER = 44  # bytes
LONGEST_WAV = (1 << 32) - 1 - WAV_HEADER  # bytes of sound: 37 hours


def part(reader: Reader, i: int, start: int) -> dict[str, Any]:
    """JSON-able: frames `start` to `stop` of clip i. `similarity`: thousandths, None without a soft label; `flags`: bits of
    `concord.frames`; `fake`: 0, 1, -1; `peaks`: of the sound, percent of full scale; each None where it is not in the store
    or is damaged. `lost`: a sentence for each array that cannot be read.

    Raises StoreError where the clip is not done or ends before `start`.
    """
    length = reader.clip(i).length
    if not 0 <= start <= length:
        raise StoreError(f"clip {reader.clip(i).id} has {length} frames, and none from {start} on")
    stop = min(start + PART, length)
    found: dict[str, np.ndarray | None] = {}
    lost = []
    for name in ("similarity", "flags", "fake", "audio"):
        try:
            found[name] = reader.frames(i, start, stop, [name])[name] if name in reader.names else None
        except StoreError as error:
            found[name] = None
            lost.append(as_called(str(error)))
    similarity, flags, fake, audio = (found[name] for name in ("similarity", "flags", "fake", "audio"))
    return {
        "start": start,
        "stop": stop,
        "length": length,
        "similarity": None if similarity is None or flags is None else thousandths(similarity, flags, flags),
        "flags": None if flags is None else flags.tolist(),
        "fake": None if fake is None else fake.tolist(),
        "peaks": None if audio is None else _peaks(audio),
        "lost": lost,
    }


def thousandths(similarity: np.ndarray, lips_flags: np.ndarray, sound_flags: np.ndarray) -> list[int | None]:
    """Similarities [frames] in thousandths, None where the lips are no evidence, there is no voice, or it is not known."""
    known = layout.labelled(lips_flags, sound_flags) & np.isfinite(similarity)
    values = np.round(np.where(known, similarity, 0).astype(np.float32) * 1000).astype(int)
    return [value if there else None for value, there in zip(values.tolist(), known.tolist(), strict=True)]


def words(reader: Reader, i: int) -> list[dict[str, Any]]:
    """JSON-able words of clip i, in order; none where the store has no transcripts."""
    if not reader.has_words:
        return []
    return [
        {"start": round(w["start"], 3), "end": round(w["end"], 3), "text": w["text"].strip()}
        for w in reader.words(i)
        if np.isfinite([w["start"], w["end"]]).all()
    ]


def sheet(reader: Reader, i: int, k: int) -> bytes:
    """JPEG of mouth crops SHEET * k and on of clip i, the last row filled with black.

    Raises StoreError where there are none.
    """
    length = reader.clip(i).length
    if not 0 <= k * SHEET < length:
        raise StoreError(f"clip {reader.clip(i).id} has {-(-length // SHEET)} sheets of mouth crops, and no sheet {k}")
    crops = reader.frames(i, k * SHEET, min((k + 1) * SHEET, length), ["mouth"])["mouth"]
    columns = min(COLUMNS, len(crops))
    rows = -(-len(crops) // columns)
    side, across = crops.shape[1:]
    cells = np.zeros((rows * columns, side, across), np.uint8)
    cells[: len(crops)] = crops
    return _jpeg(cells.reshape(rows, columns, side, across).swapaxes(1, 2).reshape(rows * side, columns * across))


def thumbnail(reader: Reader, i: int) -> bytes:
    """JPEG of the mouth crop in the middle of clip i. Raises StoreError where there is none."""
    middle = reader.clip(i).length // 2
    return _jpeg(reader.frames(i, middle, middle + 1, ["mouth"])["mouth"][0])


class Sound(io.RawIOBase):
    """The sound of a clip as a WAV file, of which only what is asked for is read from the store."""

    def __init__(self, reader: Reader, i: int) -> None:
        """Raises StoreError where its beginning cannot be read, so that an answer need not break off."""
        super().__init__()
        self._reader, self._i, self._at = reader, i, 0
        self._length = reader.clip(i).length
        self._row = layout.SAMPLES_PER_FRAME * 2  # bytes of a frame
        self.size = WAV_HEADER + self._length * self._row
        if self.size > LONGEST_WAV:
            raise StoreError(f"the sound of clip {reader.clip(i).id} is too long for a WAV file")
        reader.frames(i, 0, min(1, self._length), ["audio"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:  # any writable buffer
        stop = min(self._at + len(buffer), self.size)
        data = self._bytes(self._at, stop) if stop > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _bytes(self, start: int, stop: int) -> bytes:
        head = self._header()[start:stop]
        first, last = max(0, start - WAV_HEADER), max(0, stop - WAV_HEADER)
        if last <= first:
            return head
        frames = slice(first // self._row, -(-last // self._row))
        audio = self._reader.frames(self._i, frames.start, frames.stop, ["audio"])["audio"]
        data = audio.astype("<i2").tobytes()
        return head + data[first - frames.start * self._row : last - frames.start * self._row]

    def _header(self) -> bytes:
        """PCM, one channel, 16 bits."""
        size, rate = self.size - WAV_HEADER, layout.SAMPLE_RATE
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
        return struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def _peaks(audio: np.ndarray) -> list[int]:
    """The loudest sample of each frame, percent of full scale."""
    level = np.abs(audio.astype(np.int32)).max(axis=1) if len(audio) else np.zeros(0)
    found: list[int] = np.ceil(level * 100 / 32768).astype(int).tolist()
    return found


def _jpeg(picture: np.ndarray) -> bytes:
    """A grey picture u1 [y, x] as JPEG."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise StoreError(f"OpenCV could not encode a picture of {picture.shape[1]} x {picture.shape[0]} pixels")
    return bytes(data.tobytes())
