"""The clips of a demonstration corpus, decided by a seed before anything is spoken or drawn.

Every method, including real clips, gets the same distribution of lengths and of the most noticeable properties
(NUISANCES). All other variation is drawn later from the clip's own generator, in the same order for every method. So
only the content distinguishes them.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.demo.sentences import GROUPS

# method: category, sound forged, picture forged
METHODS = {
    "real": ("RVRA", 0, 0),
    "swap": ("RVFA", 1, 0),  # the sound of other sentences
    "shift": ("RVFA", 1, 0),  # the clip's own sound, 0.3 to 0.6 s early or late
    "reanimated": ("FVRA", 0, 1),  # a mouth that says other words in the rhythm of the voice
    "partial": ("FVRA", 0, 1),  # the same for the middle of the clip only
}
MIN_FRAMES, MAX_FRAMES = 56, 66
NUISANCES = ("scale", "noise", "blur", "light", "level", "background")


@dataclass(frozen=True)
class Size:
    """How many clips of each method a split has, and how many groups of sentences it says."""

    num_groups: int
    clips: dict[str, int]


DEFAULT = {
    "train": Size(4, {"real": 32, "swap": 4, "shift": 4, "reanimated": 4, "partial": 2}),
    "val": Size(2, {"real": 7, "swap": 2, "shift": 2, "reanimated": 2, "partial": 1}),
    "test": Size(2, {"real": 13, "swap": 6, "shift": 6, "reanimated": 6, "partial": 3}),
}


@dataclass(frozen=True)
class Plan:
    """One clip to make: its place in the corpus and the seed of its random properties."""

    name: str
    method: str
    split: str
    group: str
    num_frames: int
    seed: tuple[int, int]
    nuisances: dict[str, float]  # each of NUISANCES as a quantile, 0 to 1


def plan(seed: int = 0, sizes: dict[str, Size] | None = None) -> list[Plan]:
    """Every clip of a corpus, with groups of sentences assigned to the splits at random; the same for the same seed and
    sizes."""
    rng = np.random.default_rng([seed, 1])
    sizes = sizes or DEFAULT
    names = list(rng.permutation(list(GROUPS)))
    if sum(size.num_groups for size in sizes.values()) > len(names):
        raise ValueError(f"the splits need more groups of sentences than the {len(names)} that exist")
    clips: list[Plan] = []
    for split, size in sizes.items():
        groups, names = names[: size.num_groups], names[size.num_groups :]
        turn = 0
        for method, count in size.clips.items():
            # Evenly spread, not random: by chance the lengths of seven clips would differ from those of sixty.
            even = (np.arange(count) + 0.5) / max(count, 1)
            lengths = rng.permutation((MIN_FRAMES + even * (MAX_FRAMES - MIN_FRAMES + 1)).astype(int))
            quantiles = {name: rng.permutation(even) for name in NUISANCES}
            for k in range(count):
                place = "real" if method == "real" else f"fake/{method}"
                number = len(clips)
                name = f"{place}/{number:04d}.mp4"
                group = str(groups[turn % len(groups)])
                nuisances = {key: float(values[k]) for key, values in quantiles.items()}
                clips.append(Plan(name, method, split, group, int(lengths[k]), (seed, number), nuisances))
                turn += 1
    return clips
