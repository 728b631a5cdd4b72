"""Lengths, silences and padding tell nothing: spans by their rule, and a learner that sees only those scores 0.5."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from small_store import make_store

import store
from store import layout
from store.dataset.spans import MARGIN, SHORTEST, span, spans, window_for
from student.config import ConfigError, DataConfig
from student.data.corpus import Corpus
from student.data.dataset import Windows
from student.data.order import Key, epoch_order
from student.scoring import metrics, score

PRESENT, VOICE = layout.AUDIO_PRESENT, layout.VOICE_ACTIVE


def flags(text: str) -> np.ndarray:
    """One letter a frame: . no sound, s sound, v a voice."""
    return np.array([{".": 1, "s": 1 | PRESENT, "v": 1 | PRESENT | VOICE}[c] for c in text], np.uint8)


@pytest.mark.parametrize(
    ("text", "none", "leading", "speech"),
    [
        ("ssssssssss", (3, 7), (0, 0), (0, 0)),
        ("vvvvvvvvvv", (3, 7), (3, 7), (3, 7)),
        ("sssssvvvvvvssss", (3, 12), (5, 12), (5, 11)),
        ("..sssssvvvvvvssss..", (5, 14), (7, 14), (7, 13)),  # sound starts late and ends early
        ("vvvvvvvvvvvv....", (3, 9), (3, 9), (3, 9)),
        ("ssssvssssvssss", (3, 11), (4, 11), (4, 10)),  # pauses stay
        ("sssssss......ssss", (3, 14), (0, 0), (0, 0)),
        ("......", (0, 0), (0, 0), (0, 0)),
        ("ssssss", (0, 0), (0, 0), (0, 0)),
        ("", (0, 0), (0, 0), (0, 0)),
    ],
)
def test_span_of_a_clip(text, none, leading, speech):
    assert span(flags(text), "none") == none
    assert span(flags(text), "leading") == leading
    assert span(flags(text), "speech") == speech


@settings(deadline=None)
@given(st.text(".sv", max_size=60))
def test_spans_nest_and_stay_inside_both_tracks(text):
    f = flags(text)
    (a, b), (c, d), (e, g) = (span(f, trim) for trim in ("none", "leading", "speech"))
    for first, last in ((a, b), (c, d), (e, g)):
        assert 0 <= first <= last <= len(f)
        if first < last:
            assert f[:first].size >= MARGIN <= f[last:].size
            assert (f[: first - MARGIN + 1] & PRESENT).any()
    assert c == d or (a <= c < d == b)
    assert e == g or (c == e < g <= d)


def test_an_unknown_trim_is_an_error(tmp_path):
    reader = store.open(make_store(tmp_path / "s.zarr", {"train": 2}, fit=False))
    with pytest.raises(ValueError, match="trim must be one of none, leading, speech, not all"):
        spans(reader, np.arange(2), "all")
    with pytest.raises(ConfigError, match="--trim must be one of"):
        DataConfig(trim="all")


class Counted(store.Reader):
    """Counts what is asked of frames/."""

    asked = 0

    def frames(self, *args):
        self.asked += 1
        return super().frames(*args)

    def rows(self, *args):
        self.asked += 1
        return super().rows(*args)


def clip_by_clip(reader, rows, trim):
    """Start and length of each span, from one read a clip."""
    read = [reader.frames(int(row), 0, int(reader.clips["length"][row]), ["flags"])["flags"] for row in rows]
    return np.array([(a, b - a) for a, b in (span(f, trim) for f in read)])


def test_spans_are_read_a_shard_at_a_time(tmp_path):
    path = make_store(
        tmp_path / "s.zarr", {"train": 30, "val": 10}, frames=(20, 40), fakes=2, shard_rows=250, fit=False
    )
    reader, plain = Counted(path), store.open(path)
    split = plain.clips["split"].astype(str)
    rows = np.r_[np.flatnonzero(split == "train"), np.flatnonzero(split == "val")]
    found = spans(reader, rows, "none")
    shards = plain.clips["offset"] // plain.shard_rows
    assert reader.asked == sum(len(set(shards[split == name])) for name in ("train", "val"))
    assert reader.asked < len(rows) / 4
    wanted = clip_by_clip(plain, rows, "none")
    np.testing.assert_array_equal(np.c_[found.start[rows], found.length[rows]], wanted)
    alone = [spans(plain, rows[k : k + 1], "none") for k in range(len(rows))]
    np.testing.assert_array_equal([s.start[row] for s, row in zip(alone, rows, strict=True)], wanted[:, 0])
    back = spans(plain, rows[::-1], "none")  # in another order: the same spans, another hash
    np.testing.assert_array_equal(back.length, found.length)
    assert back.labels != found.labels


def test_damage_to_a_clip_between_does_not_matter_and_damage_to_a_clip_names_it(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 6}, frames=50, fit=False, shard_rows=500)
    shard = next(p for p in sorted((path / "frames" / "flags").rglob("*")) if p.name == "0" and p.is_file())
    data = bytearray(shard.read_bytes())
    data[3] ^= 255  # in the first chunk, which is of the first clip alone
    shard.write_bytes(data)
    reader = store.open(path)
    wanted = clip_by_clip(reader, [1, 2, 5], "none")
    found = spans(reader, np.array([1, 2, 5]), "none")
    np.testing.assert_array_equal(np.c_[found.start, found.length][[1, 2, 5]], wanted)
    with pytest.raises(store.StoreError, match=f"clip {reader.clips['id'][0]}"):
        spans(reader, np.arange(6), "none")


def test_window_is_what_nearly_all_clips_of_every_kind_hold():
    length, kind = np.r_[np.full(100, 90), np.full(100, 60)], np.repeat(["0", "1 x"], 100)
    assert window_for(length, kind, 75) == 60
    assert window_for(length, kind, 40) == 40
    length[100:106] = 12
    assert window_for(length, kind, 75) == SHORTEST  # above a twentieth of a kind: as far as that
    news = np.repeat([18, 21, 23, 24], [4, 6, 30, 60])  # clips of one word: their second falls short by the margins
    assert window_for(news, np.full(100, "0"), 75) == 21
    length[100:106] = [12, 12, 12, 12, 60, 60]
    assert window_for(length, kind, 75) == 60
    assert window_for(np.zeros(0, int), np.zeros(0, str), 75) == 75


# -- a learner that sees lengths, masks and padding only ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def given_away(tmp_path_factory):
    """A store whose fakes are shorter, begin with a longer silence, and whose sound ends before the picture."""
    path = tmp_path_factory.mktemp("given") / "s.zarr"
    make_store(path, {"train": 40, "test": 30}, frames=70, fakes=40, fit=False, groups=10)
    rng = np.random.default_rng(0)
    writer, reader = store.Writer(path), store.open(path)
    fake = reader.clips["label"] == 1
    length = np.where(fake, rng.integers(48, 55, len(fake)), rng.integers(60, 71, len(fake)))
    writer.write_clips(0, {"length": length, "duration": length / 25, "done": reader.clips["done"]})
    blocks = {}
    for row, offset in enumerate(reader.clips["offset"].tolist()):
        shard, first = divmod(offset, reader.shard_rows)
        if shard not in blocks:
            blocks[shard] = reader.rows(shard * reader.shard_rows, (shard + 1) * reader.shard_rows, reader.names)
        block, silence = blocks[shard], 8 if fake[row] else 2
        rows = np.arange(first, first + length[row])
        quiet = rows[:silence]
        block["audio"][quiet] = 0
        block["flags"][quiet] &= ~np.uint8(VOICE)
        if fake[row]:
            block["audio"][rows[-4:]] = 0
            block["flags"][rows[-4:]] &= ~np.uint8(VOICE | PRESENT)
    for shard, block in blocks.items():
        writer.write_shard(shard, block)
    writer.consolidate()
    return store.open(path)


def outside(mouth, audio, mask):
    """Features f8 [batch, 7] of lengths, masks and padding alone: sizes of tensors, frames in use, zeros at both ends."""
    sound = (np.asarray(audio).reshape(len(mask), -1, 640) != 0).any(2)
    picture = (np.asarray(mouth) != 0).any((2, 3))
    used = np.asarray(mask)
    columns = [np.full(len(used), used.shape[1])]
    for on in (used, sound, picture):
        columns += [on.argmax(1), on.shape[1] - on[:, ::-1].argmax(1)]
    return np.stack(columns, 1).astype(float)


class Outside(torch.nn.Module):
    """A detector that looks at nothing but those."""

    def __init__(self, forest):
        super().__init__()
        self.forest = forest

    def forward(self, mouth, audio, mask):
        values = self.forest.decision_function(outside(mouth, audio, mask))
        return SimpleNamespace(clip_logits=torch.from_numpy(values))


def learned(reader, trim):
    """AUC and its 95 % interval by group on test clips, of a forest taught with training windows of the store."""
    clips = reader.clips
    train, test = (np.flatnonzero(clips["split"] == name) for name in ("train", "test"))
    inside = spans(reader, np.r_[train, test], trim)
    kinds = np.array([str(x) for x in clips["label"][train]])
    config = DataConfig(
        window=window_for(inside.length[train], kinds, 75), pair_share=0, augment=False, batch_size=8, trim=trim
    )
    corpus = Corpus.of(reader, train, np.ones(len(reader)), inside, config.window)
    windows = Windows(str(reader.path), corpus, config, 0, False, (1.0, 1.0))
    x, y = [], []
    for epoch in range(6):
        order = epoch_order(corpus, config, 0, epoch)
        batch = windows[Key(epoch, tuple(range(len(order))), tuple(order.tolist()))]
        x.append(outside(batch["picture"], batch["audio"], batch["mask"]))
        y.append(batch["label"].numpy())
    forest = HistGradientBoostingClassifier(random_state=0).fit(np.concatenate(x), np.concatenate(y))
    items = score.trials(reader, test, inside, seed=0, swaps=0, shifts=0)
    values = score.logits(Outside(forest), reader, items, config.window, torch.device("cpu"))
    labels = np.array([t.label for t in items])
    groups = np.array([str(clips["group"][t.lips]) for t in items])
    rng, names, drawn = np.random.default_rng(0), np.unique(groups), []
    for _ in range(200):
        some = np.concatenate([np.flatnonzero(groups == g) for g in rng.choice(names, len(names))])
        if len(np.unique(labels[some])) == 2:
            drawn.append(metrics.auc(values[some], labels[some]))
    return metrics.auc(values, labels), np.quantile(drawn, [0.025, 0.975])


@pytest.mark.slow
def test_a_model_that_sees_only_lengths_masks_and_padding_learns_nothing(given_away):
    clips = given_away.clips
    assert metrics.auc(-clips["length"].astype(float), clips["label"]) == 1.0  # the raw cue
    for trim in ("leading", "speech"):
        auc, (low, high) = learned(given_away, trim)
        assert low <= 0.5 <= high, (trim, auc, low, high)
        assert abs(auc - 0.5) < 0.15, (trim, auc)


@pytest.mark.slow
def test_the_same_learner_finds_a_silence_that_is_left_in(given_away):
    """So that the test above can fail: with --trim none the silence before the first word is still there."""
    auc, _ = learned(given_away, "none")
    assert auc > 0.9


def test_a_clip_that_stands_still_throughout_has_no_span_and_one_that_freezes_keeps_its_own():
    moving = flags("ssvvvvvvvvvvvvss")
    assert span(moving | np.uint8(layout.HELD), "none") == (0, 0)
    partly = moving.copy()
    partly[8:] |= layout.HELD
    assert span(partly, "leading") == span(moving, "leading")


def test_held_frames_are_masked_in_the_soft_labels_of_a_window(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 4}, frames=40, shard_rows=500)
    writer, reader = store.Writer.open(path), store.open(path)
    kept = reader.rows(0, 500, ["flags"])["flags"]
    kept[:160] |= np.tile(np.arange(40) >= 20, 4) * np.uint8(layout.HELD)
    writer.write_shard(0, {"flags": kept})
    writer.consolidate()
    config = DataConfig(window=25, batch_size=2, pair_share=0, augment=False)
    reader = store.open(path)
    corpus = Corpus.of(reader, np.arange(4), np.ones(4, np.float32), spans(reader, np.arange(4), "none"), 25)
    batch = Windows(str(path), corpus, config, 0, True, (1.0, 1.0))[Key(0, (0, 1), (0, 1))]
    for row in range(2):
        start = int(batch["start"][row][0])
        assert batch["soft_mask"][row, row].tolist() == [k < 20 for k in range(start, start + 25)]
