"""Order, pairs and soft labels of training batches: functions of (seed, epoch, position), true to the store."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small_store import make_store

import store
from store.dataset.spans import spans
from student.config import ConfigError, DataConfig
from student.data import augment
from student.data.corpus import Corpus
from student.data.dataset import Keys, Windows, loader, soft_labels
from student.data.order import OWN, SHIFT, SWAP, At, Key, draw, epoch_order, expected_shares, partners
from student.data.splits import SplitError, split


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "s.zarr", {"train": 24, "test": 4}, frames=(36, 90), fakes=3)


@pytest.fixture(scope="module")
def reader(path):
    return store.open(path)


@pytest.fixture(scope="module")
def corpus(reader):
    chosen = split(reader)
    rows = np.r_[chosen.rows["train"], chosen.rows["val"]]
    return Corpus.of(reader, rows, chosen.weight, spans(reader, rows, "none"), CONFIG.window)


CONFIG = DataConfig(window=25, batch_size=4, augment=False)


def draws(corpus, config=CONFIG, seed=0, epochs=20):
    real = partners(corpus, CONFIG.window)
    for epoch in range(epochs):
        for position, row in enumerate(epoch_order(corpus, config, seed, epoch)):
            yield draw(corpus, real, config, At(seed, epoch, position), int(row))


def test_every_window_of_every_clip_comes_once_an_epoch(corpus):
    wanted = {int(r): int(corpus.length[r]) // CONFIG.window for r in corpus.rows}
    orders = [epoch_order(corpus, CONFIG, 0, e) for e in range(3)]
    for order in orders:
        assert Counter(order.tolist()) == wanted
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], epoch_order(corpus, CONFIG, 0, 0))
    assert not np.array_equal(orders[0], epoch_order(corpus, CONFIG, 1, 0))


def test_shards_are_read_one_after_another_within_the_buffer(corpus):
    small = replace(CONFIG, buffer=6)
    order = epoch_order(corpus, small, 0, 0)
    open_at_once = [len(set(corpus.shard[order[k : k + 6]])) for k in range(len(order) - 6)]
    assert max(open_at_once) <= 4
    assert len(set(corpus.shard[corpus.rows])) > 2


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_without_doubling_and_in_equal_counts(corpus, world):
    all_keys = [list(Keys(corpus, CONFIG, 0, rank, world)) for rank in range(world)]
    assert len({len(keys) for keys in all_keys}) == 1
    seen = [p for keys in all_keys for key in keys for p in key.positions]
    assert len(seen) == len(set(seen))
    windows = Keys(corpus, CONFIG, 0, 0, world).windows
    assert windows - len(seen) < 2 * world
    assert min(len(key.positions) for keys in all_keys for key in keys) >= 2


def test_going_on_in_an_epoch_gives_the_same_batches_without_replay(corpus):
    keys = Keys(corpus, CONFIG, 0, 0, 1)
    keys.epoch = 3
    calm = list(keys)
    keys.position = keys.ends(0)[2]
    assert list(keys) == calm[3:]


def test_another_world_size_goes_on_where_the_first_stopped(corpus):
    one = Keys(corpus, CONFIG, 0, 0, 1)
    stopped = one.ends(0)[1]
    first = [p for key in list(one)[:2] for p in key.positions]
    rest = []
    for rank in range(2):
        keys = Keys(corpus, CONFIG, 0, rank, 2)
        keys.position = stopped
        rest += [p for key in keys for p in key.positions]
    assert sorted(first + rest) == list(range(len(first) + len(rest)))


def test_windows_lie_inside_both_clips(corpus):
    kinds = Counter()
    for d in draws(corpus):
        for clip, first in ((d.lips, d.lips_start), (d.sound, d.sound_start)):
            assert corpus.start[clip] == 3
            assert 3 <= first <= first + d.length <= 3 + corpus.length[clip]
        assert d.length >= 10
        kinds[d.kind] += 1
        if d.kind == SHIFT:
            assert d.sound == d.lips
            assert d.sound_start == d.lips_start - d.shift
        if d.kind == SWAP:
            assert d.sound != d.lips
            assert corpus.label[d.sound] == 0
        if corpus.label[d.lips] != 0:
            assert d.kind == OWN
    assert set(kinds) == {OWN, SWAP, SHIFT}


def test_length_and_place_of_a_window_do_not_tell_a_mismatch(corpus):
    of_kind = {
        kind: [d for d in draws(corpus, epochs=150) if d.kind == kind and corpus.label[d.lips] == 0]
        for kind in range(3)
    }
    for name in ("length", "lips_start", "sound_start"):
        means = [np.mean([getattr(d, name) for d in ds]) for ds in of_kind.values()]
        spread = np.std([getattr(d, name) for ds in of_kind.values() for d in ds])
        assert np.ptp(means) < 0.25 * spread + 0.1, (name, means)


def batch_of(path, corpus, config=CONFIG, soft=True, epoch=0, weight=(1.0, 1.0)):
    windows = Windows(str(path), corpus, config, 0, soft, weight)
    key = next(iter(Keys(corpus, replace(config, batch_size=12), 0, 0, 1)))
    key = key._replace(epoch=epoch)
    return key, windows[key]


def test_a_batch_holds_what_the_store_holds(path, reader, corpus):
    key, batch = batch_of(path, corpus)
    for b, (position, row) in enumerate(zip(key.positions, key.clips, strict=True)):
        d = draw(corpus, partners(corpus, CONFIG.window), CONFIG, At(0, 0, position), row)
        lips = reader.frames(d.lips, d.lips_start, d.lips_start + d.length, ["mouth"])["mouth"]
        sound = reader.frames(d.sound, d.sound_start, d.sound_start + d.length, ["audio"])["audio"].reshape(-1)
        assert np.array_equal(batch["picture"][b, : d.length], lips[:, 4:92, 4:92])
        assert np.array_equal(batch["audio"][b, : d.length * 640], sound)
        assert not batch["picture"][b, d.length :].any()
        assert int(batch["mask"][b].sum()) == d.length
        assert batch["clip"][b].tolist() == [d.lips, d.sound]


def test_soft_labels_equal_the_stores_own_pair_similarity(path, reader, corpus):
    """The label of any lips with any sound of a batch is what the reader says of that pair, inside the window's edges."""
    _, batch = batch_of(path, corpus)
    clip, start, mask = batch["clip"].numpy(), batch["start"].numpy(), batch["mask"].numpy()
    soft, labelled = batch["soft"].numpy(), batch["soft_mask"].numpy()
    compared = 0
    for b in range(len(clip)):
        for c in range(len(clip)):
            length = int(min(mask[b].sum(), mask[c].sum()))
            shift = int(start[b, 0] - start[c, 1])
            whole = reader.pair_similarity(int(clip[b, 0]), int(clip[c, 1]), shift)
            rows = np.arange(start[b, 0] + 2, start[b, 0] + length - 2)
            # both averages must hold five frames
            rows = rows[rows + 2 < len(whole)]
            rows = rows[np.isfinite(whole[rows - 2]) & np.isfinite(whole[rows + 2])]
            inside = rows - start[b, 0]
            ok = labelled[b, c, inside]
            np.testing.assert_allclose(soft[b, c, inside][ok], whole[rows][ok], atol=2e-3)
            compared += int(ok.sum())
            assert np.array_equal(labelled[b, c], mask[b] & mask[c])  # every frame of this store has face and voice
    assert compared > 1500


def test_the_teachers_rows_of_a_batch_give_their_agreement(path, reader, corpus):
    _, batch = batch_of(path, corpus)
    products = (batch["lips_rows"] * batch["sound_rows"]).sum(-1).numpy()
    assert batch["lips_rows"].shape[-1] == reader.fit.dims
    for b, ((lips, sound), (first, heard)) in enumerate(
        zip(batch["clip"].tolist(), batch["start"].tolist(), strict=True)
    ):
        n = int(batch["mask"][b].sum())
        v = reader.frames(lips, first, first + n, ["vsr_projection"])["vsr_projection"]
        a = reader.frames(sound, heard, heard + n, ["asr_projection"])["asr_projection"]
        np.testing.assert_allclose(products[b, :n], store.similarity.scores(v, a, reader.fit, 1), atol=1e-5)
        assert batch["lips_mask"][b].sum() == batch["sound_mask"][b].sum() == n
    _, plain = batch_of(path, corpus, soft=False)
    assert plain["lips_rows"].shape[-1] == 0


def test_soft_labels_take_the_calibration_of_the_lips_corpus(reader):
    fit = reader.fit.calibrated("other", {"5": (1.0, 3.0)})
    rng = np.random.default_rng(0)
    v, a = rng.standard_normal((2, 2, 9, fit.dims)).astype(np.float32)
    mask = np.ones((2, 2, 9), bool)
    mixed = soft_labels(v, a, mask, fit, ["synthetic", "other"])
    assert np.array_equal(mixed[0], soft_labels(v, a, mask, fit, ["synthetic"] * 2)[0])
    assert np.array_equal(mixed[1], soft_labels(v, a, mask, fit, ["other"] * 2)[1])


def test_labels_follow_the_pair(path, corpus):
    for epoch in range(6):
        key, batch = batch_of(path, corpus, epoch=epoch, weight=(2.0, 0.5))
        for b, (position, row) in enumerate(zip(key.positions, key.clips, strict=True)):
            d = draw(corpus, partners(corpus, CONFIG.window), CONFIG, At(0, epoch, position), row)
            label = float(batch["label"][b])
            if d.kind == SWAP or (d.kind == SHIFT and abs(d.shift) >= 5):
                assert label == 1
            elif d.kind == SHIFT:
                assert label == -1
            else:
                assert label == corpus.label[row]
            assert float(batch["label_weight"][b]) == {0: 2.0, 1: 0.5, -1: 0.0}[label]
            assert set(batch["frame_label"][b, : d.length].tolist()) == {label}
            assert set(batch["frame_label"][b, d.length :].tolist()) <= {-1.0}


def test_soft_labels_of_true_pairs_are_high_and_of_swaps_low(path, corpus):
    _, batch = batch_of(path, corpus)
    clip, start = batch["clip"].numpy(), batch["start"].numpy()
    true = (clip[:, None, 0] == clip[None, :, 1]) & (start[:, None, 0] == start[None, :, 1])
    true &= (corpus.label[clip[:, 0]] == 0)[:, None]
    other = clip[:, None, 0] != clip[None, :, 1]
    soft, mask = batch["soft"].numpy(), batch["soft_mask"].numpy()
    assert soft[true[..., None] & mask].mean() > 0.8
    assert soft[other[..., None] & mask].mean() < 0.3


def test_batches_are_the_same_in_any_worker(path, corpus):
    config = replace(CONFIG, augment=True)
    windows, keys = Windows(str(path), corpus, config, 0, True, (1.0, 1.0)), Keys(corpus, config, 0, 0, 1)
    here = list(loader(windows, keys, 0, False))
    pickled = pickle.loads(pickle.dumps(windows))
    there = list(loader(pickled, keys, 1, False))
    assert len(here) == len(there) > 3
    for a, b in zip(here, there, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_without_soft_labels_a_store_without_a_fit_will_do(tmp_path):
    bare = make_store(tmp_path / "s.zarr", {"train": 6}, fit=False)
    reader = store.open(bare)
    corpus = Corpus.of(reader, np.arange(6), np.ones(6), spans(reader, np.arange(6), "none"), CONFIG.window)
    _, batch = batch_of(bare, corpus, soft=False)
    assert not batch["soft_mask"].any()


def test_clips_of_unknown_label_teach_the_soft_label_alone(path, corpus):
    unknown = replace(corpus, label=np.full_like(corpus.label, -1))
    key, batch = batch_of(path, unknown)
    assert set(batch["label"].tolist()) == {-1.0}
    assert not batch["label_weight"].any()
    assert batch["soft_mask"].any()
    assert all(
        draw(unknown, partners(unknown, CONFIG.window), CONFIG, At(0, 0, p), r).kind == OWN
        for p, r in zip(*key[1:], strict=True)
    )


def test_partial_forgeries_are_real_where_they_are(path, corpus):
    windows = Windows(str(path), corpus, CONFIG, 0, False, (1.0, 1.0))
    row = int(corpus.rows[corpus.label[corpus.rows] == 1][0])
    d = draw(corpus, partners(corpus, CONFIG.window), CONFIG, At(0, 0, 0), row)
    fake = np.zeros(d.length, np.int8)
    assert windows._labels(d, fake)[0] == 0
    fake[5:9] = 1
    label, frames = windows._labels(d, fake)
    assert label == 1
    assert np.array_equal(frames, fake)


def test_expected_shares_match_what_is_drawn(path, corpus):
    config = replace(CONFIG, pair_share=0.6)
    windows = Windows(str(path), corpus, config, 0, False, (1.0, 1.0))
    labels = [
        windows._labels(d, np.ones(d.length, np.int8) * corpus.label[d.lips])[0]
        for d in draws(corpus, config, epochs=60)
    ]
    real, fake = expected_shares(corpus, config)
    assert np.mean(np.array(labels) == 0) * len(labels) / 60 == pytest.approx(real, rel=0.1)
    assert np.mean(np.array(labels) == 1) * len(labels) / 60 == pytest.approx(fake, rel=0.1)


def test_augmentation_keeps_shape_and_type_and_leaves_its_input():
    rng = np.random.default_rng(0)
    mouth, sound = rng.integers(0, 256, (9, 88, 88), dtype=np.uint8), rng.integers(-9000, 9000, 5760).astype(np.int16)
    kept = mouth.copy(), sound.copy()
    for seed in range(30):
        m, s = (
            f(x, np.random.default_rng(seed))
            for f, x in ((augment.augment_mouth, mouth), (augment.augment_sound, sound))
        )
        assert (m.shape, m.dtype, s.shape, s.dtype) == (mouth.shape, np.uint8, sound.shape, np.int16)
    assert np.array_equal(mouth, kept[0])
    assert np.array_equal(sound, kept[1])


# -- splits ---------------------------------------------------------------------------------------------------------------


def test_validation_is_taken_by_group(reader):
    chosen = split(reader)
    groups = {name: set(reader.clips["group"][rows]) for name, rows in chosen.rows.items()}
    assert chosen.by == "group"
    assert len(chosen.rows["val"]) >= 2
    assert not groups["train"] & groups["val"]
    assert len(chosen.rows["train"]) + len(chosen.rows["val"]) == 27


def test_one_group_is_split_by_clip_with_a_warning(tmp_path, caplog):
    reader = store.open(make_store(tmp_path / "s.zarr", {"": 20}, groups=1))
    chosen = split(reader)
    assert chosen.by == "clip"
    assert len(chosen.rows["val"]) == 2
    assert "one group" in caplog.text
    assert np.array_equal(split(reader).rows["val"], chosen.rows["val"])


def test_clips_that_are_each_a_group_are_split_with_a_warning(tmp_path, caplog):
    """Corpora without identities: nobody knows who is on both sides."""
    chosen = split(store.open(make_store(tmp_path / "s.zarr", {"": 20}, groups=20)))
    assert (chosen.by, len(chosen.rows["val"])) == ("lone", 2)
    assert "nobody knows who is in them" in caplog.text


def test_clips_that_are_not_done_are_listed_but_not_used(tmp_path):
    reader = store.open(make_store(tmp_path / "s.zarr", {"train": 10, "test": 5}, broken=2))
    chosen = split(reader)
    assert chosen.listed["test"] == 5
    assert len(chosen.rows["test"]) == 3


def test_a_file_of_splits_overrides_the_store(tmp_path, reader, caplog):
    ids = reader.clips["id"]
    file = tmp_path / "splits.csv"
    file.write_text(
        f"id,split,weight\n{ids[0]},test,1\n{ids[1]},train,2.5\n{ids[2]},val,\n{ids[3]},train,0\nnobody,train,1\n"
    )
    chosen = split(reader, file)
    assert {k: v.tolist() for k, v in chosen.rows.items()} == {"train": [1], "val": [2], "test": [0]}
    assert chosen.weight[1] == 2.5
    assert "1 clip that the store does not have" in caplog.text
    file.write_text("clip,part\na,b\n")
    with pytest.raises(SplitError, match="no column id and split"):
        split(reader, file)
    file.write_text("id,split\nnobody,train\n")
    with pytest.raises(SplitError, match="no clip of this store"):
        split(reader, file)


def test_settings_that_mean_nothing_are_refused():
    for wrong in ({"window": 3}, {"batch_size": 1}, {"pair_share": 2.0}, {"max_shift": 2}):
        with pytest.raises(ConfigError):
            DataConfig(**wrong)
    assert Key(0, (1,), (2,)) == (0, (1,), (2,))
