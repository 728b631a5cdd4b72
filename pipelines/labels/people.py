"""Who is in each clip: the person that it is named after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import store
from store.similarity import grounds


@dataclass(frozen=True)
class People:
    """The person in each clip, "" where that is not known; `guessed` if any of them was told by something else than a
    name."""

    names: list[str]
    guessed: bool = False


def people(reader: store.Reader, clips: np.ndarray) -> People:
    """The person in each of `clips` (rows): the first of its identities. Clips without identities are of nobody known."""
    return People(grounds.people(reader.clips["identities"][clips]))
