"""Windows of a store for torch: by their number (`Dataset`), or as a stream of batches (`Stream`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import distributed
from torch.utils import data

from store.dataset import windows
from store.dataset.pairs import padded
from store.dataset.shuffle import BUFFER, shuffled
from store.dataset.windows import Transform, Windows, whole
from store.layout import UNKNOWN, StoreError

FILLS = {"frame_label": UNKNOWN}  # of padding, where it is not 0


class Dataset(Windows, data.Dataset[Any]):
    """The windows of a store as torch's map-style dataset: `len(data)` and `data[i]`, for a `DataLoader` or by hand.

    A window is a dict of numpy arrays of its T frames (1/25 s), which torch's loader stacks to tensors:

    - every array of `arrays` as the store has it, [T, ...], floats as f4: `mouth` u1 [T, 96, 96], `audio` i2 [T, 640], `lips`
      f4 [T, 40, 2] and so on. Lips and blendshapes that are not known, where no face was seen, are 0.
    - `similarity` f4 [T], the soft label in [0, 1] that these lips and this sound belong together; the loss counts it where
      `mask` bool [T] is on: a face that is not held, and a voice.
    - `face`, `held`, `voice` bool [T]: a face was detected and its picture moves; the picture stands still; somebody speaks.
      `in_word` bool [T], inside a word, where the store has transcripts.
    - `label` 0 real, 1 fake, -1 unknown, `frame_label` i1 [T] the same by frame, and `swapped`: whether it has the sound of
      another clip, which makes it fake.
    - `clip`, `start`, `sound`, `sound_start`: the clips of lips and sound by row, and the first frame of each. `length` is T.

    `split`: train, val or test (a clip without one counts as train), None for all. `clips`: only these, by number or id.
    `window`: T, or None for whole clips, which `collate` pads. Windows lie end to end in the clip's span: inside picture and
    sound, and with `trim` "leading" after the first voice, with "speech" before the end of the last one too, so that neither
    lengths nor silences give a label away; a rest shorter than a window is not used, and `left_out` has the rows of clips that
    hold none. `swaps`: the share of real clips' windows that get the sound of another real clip of this dataset. They are drawn
    anew in each epoch (`set_epoch`). `transform(window, rng)` makes what is given instead of a window; `rng` depends on seed,
    epoch and window alone, so results do not depend on the number of workers. `options` are for buckets, as for `store.open`.

    Raises StoreError where there is no such store, array or clip, and where not one window is left.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arrays: Iterable[str] = ("mouth", "audio", "similarity"),
        *,
        split: str | None = None,
        clips: Iterable[int | str] | None = None,
        window: int | None = 75,
        trim: str = "leading",
        swaps: float = 0.0,
        seed: int = 0,
        transform: Transform | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        choice = windows.choice(arrays, split, clips, window, trim, swaps, seed)
        super().__init__(path, choice, transform, options)
        # in shared memory: workers that outlive an epoch learn of the next one
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch whose swaps are given."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """From now on give the swaps, the `rng` of `transform` and the order of a `Stream` of that epoch, in workers too."""
        if whole("an epoch", epoch) < 0:
            raise StoreError(f"an epoch must not be negative, as {epoch} is")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: SupportsIndex) -> Any:
        """A window; a negative index counts from the end. Raises IndexError where there is none, StoreError where its frames
        are damaged."""
        return self.read(self.number(index), self.epoch)


def collate(batch: Sequence[Any]) -> Any:
    """A batch of windows as torch's own `default_collate` makes it, those of different lengths padded at their ends to the
    longest: with 0 and False, `frame_label` with -1, so that no mask is on there. Also for `DataLoader(collate_fn=...)`."""
    if not all(isinstance(window, dict) and "length" in window for window in batch):
        return data.default_collate(list(batch))
    longest = max(window["length"] for window in batch)
    return data.default_collate([_padded(window, longest) for window in batch])


def _padded(window: dict[str, Any], longest: int) -> dict[str, Any]:
    own = window["length"]
    by_frame = {name for name, x in window.items() if isinstance(x, np.ndarray) and x.ndim and len(x) == own}
    return {name: padded(x, longest, FILLS.get(name, 0)) if name in by_frame else x for name, x in window.items()}


class Stream(data.IterableDataset[Any]):
    """The windows of a Dataset as batches in one order: `DataLoader(Stream(data, 8), batch_size=None, num_workers=2)`.

    Each window comes once in an epoch: of the order, window k goes to rank k modulo `world`, and a rank's batches go to its
    workers in turn, so that batches do not depend on the number of workers. `shuffle` draws the order from the dataset's seed
    and epoch: shards first, then windows within `buffer` of them; without it the order is that of the store. `drop_last` leaves
    out what does not give every rank the same number of full batches; otherwise ranks differ by up to one batch, and the last
    one may be smaller. `rank` and `world` are those of torch.distributed where it runs when the stream is made, else 0 of 1.
    `batch_size` None gives single windows. `collate` makes a batch of a list of windows.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | None = 8,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world: int | None = None,
        buffer: int = BUFFER,
        collate: Callable[[Sequence[Any]], Any] = collate,
    ) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        self.rank = whole("rank", rank) if rank is not None else distributed.get_rank() if running else 0
        self.world = whole("world", world) if world is not None else distributed.get_world_size() if running else 1
        batch_size = None if batch_size is None else whole("batch_size", batch_size)
        buffer = whole("buffer", buffer)
        if not 0 <= self.rank < self.world:
            raise StoreError(f"rank {self.rank} of {self.world}: ranks are counted from 0 and below `world`")
        if (batch_size is not None and batch_size < 1) or buffer < 1:
            raise StoreError(f"batch_size and buffer must be at least 1, not {batch_size} and {buffer}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.drop_last, self.buffer, self.collate = drop_last, buffer, collate

    def set_epoch(self, epoch: int) -> None:
        """See `Dataset.set_epoch`."""
        self.dataset.set_epoch(epoch)

    def order(self) -> np.ndarray:
        """Numbers i8 of this rank's windows in this epoch, in the order in which they come."""
        numbers = np.arange(len(self.dataset))
        if self.shuffle:
            rng = np.random.default_rng([self.dataset.choice.seed, self.dataset.epoch])
            numbers = shuffled(self.dataset.shards, np.ones_like(numbers), self.buffer, rng)
        return numbers[self.rank : self._used : self.world]

    @property
    def _used(self) -> int:
        """Windows of all ranks together."""
        whole = self.world * (self.batch_size or 1) if self.drop_last else 1
        return len(self.dataset) // whole * whole

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return -(-len(range(self.rank, self._used, self.world)) // (self.batch_size or 1))

    def __iter__(self) -> Iterator[Any]:
        mine, size = self.order(), self.batch_size or 1
        worker = data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for k in range(first * size, len(mine), step * size):
            batch = [self.dataset[i] for i in mine[k : k + size]]
            yield batch[0] if self.batch_size is None else self.collate(batch)
