"""Windows for one's own training: the store's rows, pairs and their soft labels, labels by frame, and refusals."""

import pickle

import numpy as np
import pytest
import torch
from small_store import make_store
from torch.utils.data import DataLoader

import store
from store import layout
from store.layout import StoreError
from store.similarity import Fit

T = 20
ARRAYS = ("mouth", "audio", "lips", "asr", "vsr_projection", "similarity")
EVERY = {"trim": "none", "window": T}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return make_store(
        folder / "s.zarr", {"train": 4, "": 1, "val": 3}, frames=(30, 60), fakes=1, shard_rows=100, broken=1
    )


@pytest.fixture(scope="module")
def reader(path):
    return store.open(path)


def test_a_window_has_the_rows_of_its_clip(path, reader):
    data = store.Dataset(path, ARRAYS, **EVERY)
    assert len(data) == sum((clip.length - 6) // T for clip in reader if clip.done)
    for i, window in enumerate(data):
        begin, end = window["start"], window["start"] + T
        rows = reader.frames(window["clip"], begin, end, reader.names)
        for name in ARRAYS:
            assert np.array_equal(window[name], rows[name]), name
            assert window[name].dtype == (np.float32 if rows[name].dtype.kind == "f" else rows[name].dtype)
        assert (window["sound"], window["sound_start"], window["swapped"]) == (window["clip"], begin, False)
        assert window["label"] == reader[window["clip"]].label
        assert np.array_equal(window["frame_label"], rows["fake"])
        assert window["mask"].all()
        assert window["length"] == len(window["face"]) == T
        assert (data.clips[i], data.starts[i], data.lengths[i]) == (window["clip"], begin, T)


def test_windows_lie_end_to_end_within_the_span(path):
    data = store.Dataset(path, [], **EVERY)
    for clip in np.unique(data.clips):
        starts = data.starts[data.clips == clip]
        assert starts.tolist() == [3 + T * k for k in range(len(starts))]


def test_own_arrays_are_given_and_others_are_not(path):
    assert {"mouth", "audio", "similarity"}.isdisjoint(store.Dataset(path, "lips", **EVERY)[0])
    with pytest.raises(StoreError, match="has no frames/nothing; it has asr, "):
        store.Dataset(path, ["nothing"])


def test_a_split_and_chosen_clips(path, reader):
    of = {split: store.Dataset(path, [], split=split, **EVERY) for split in ("train", "val")}
    named = {split: {reader[int(k)].split for k in data.clips} for split, data in of.items()}
    assert named == {"train": {"train", ""}, "val": {"val"}}  # a clip without a split counts as train
    mine = store.Dataset(path, [], clips=["val001r", 0, np.int64(-2)], **EVERY)
    assert set(mine.clips.tolist()) == {0, reader["val001r"].row, len(reader) - 2}


# ---------------------------------------------------------------------------------------------------------------- pairs


def test_swapped_windows_have_the_sound_and_the_soft_labels_of_the_pair(path, reader):
    data = store.Dataset(path, ARRAYS, swaps=1.0, seed=4, **EVERY)
    swapped = 0
    for window in data:
        row, start, sound, heard = (window[name] for name in ("clip", "start", "sound", "sound_start"))
        if reader[row].label == 1:
            assert (window["swapped"], sound) == (False, row)  # a forgery keeps its sound
            continue
        swapped += 1
        assert window["swapped"]
        assert sound != row
        assert reader[sound].label == 0
        assert np.array_equal(window["mouth"], reader.frames(row, start, start + T, ["mouth"])["mouth"])
        rows = reader.frames(sound, heard, heard + T, ["audio", "asr"])
        assert np.array_equal(window["audio"], rows["audio"])
        assert np.array_equal(window["asr"], rows["asr"])
        assert window["label"] == 1
        assert (window["frame_label"] == 1).all()
        whole = reader.pair_similarity(row, sound, start - heard)[start : start + T]
        common = min(reader[row].length, reader[sound].length) - start - 2  # a pair ends with the shorter clip
        np.testing.assert_allclose(window["similarity"][:common], whole[:common], atol=1e-3)
    assert swapped == (data.reader.clips["label"][data.clips] == 0).sum()


def test_soft_labels_tell_pairs_from_swaps(path):
    data = store.Dataset(path, ["similarity"], swaps=0.5, **EVERY)
    mean = {
        swapped: np.mean([w["similarity"].mean() for w in data if w["swapped"] == swapped]) for swapped in (True, False)
    }
    assert mean[False] > mean[True] + 0.2


def test_partners_are_of_the_same_split(path, reader):
    data = store.Dataset(path, [], split="val", swaps=1.0, **EVERY)
    assert {reader[window["sound"]].split for window in data} == {"val"}


def test_a_share_is_swapped_anew_each_epoch(path):
    data, again = (store.Dataset(path, [], swaps=0.5, seed=1, **EVERY) for _ in range(2))

    def swaps(of):
        return [(window["swapped"], window["sound"], window["sound_start"]) for window in of]

    first = swaps(data)
    assert 0.2 < np.mean([swapped for swapped, _, _ in first]) < 0.7
    assert first == swaps(again) == swaps(data)
    data.set_epoch(1)
    assert swaps(data) != first
    assert data.epoch == 1
    data.set_epoch(0)
    assert swaps(data) == first
    assert swaps(store.Dataset(path, [], swaps=0.5, seed=2, **EVERY)) != first


def test_a_lone_clip_is_never_swapped(path):
    data = store.Dataset(path, [], clips=[0], swaps=1.0, **EVERY)
    assert not any(window["swapped"] for window in data)


# --------------------------------------------------------------------------------------------------- labels and flags


@pytest.fixture
def marked(tmp_path):
    """A store whose first clip is forged in frames 10 to 14, held in 20 to 24, silent from 30 on, and has two words; its
    lips are unknown in frame 5, without a face."""
    path = make_store(tmp_path / "s.zarr", {"train": 2}, frames=46, fakes=1, shard_rows=200)
    writer, reader = store.Writer.open(path), store.open(path)
    rows = reader.rows(0, 200, ["flags", "fake", "lips"])
    first = reader["train002f"].offset
    rows["fake"][first : first + 46] = 0
    rows["fake"][first + 10 : first + 15] = 1
    rows["flags"][first + 20 : first + 25] |= layout.HELD
    rows["flags"][first + 30 : first + 46] &= ~np.uint8(layout.VOICE_ACTIVE)
    rows["flags"][first + 5] &= ~np.uint8(layout.FACE_DETECTED)
    rows["lips"][first + 5] = np.nan
    writer.write_shard(0, rows)
    words = {"clip": [2, 2], "start": [0.2, 1.0], "end": [0.4, 1.2], "text": ["bin", "blue"], "probability": [1, 1]}
    writer.write_words(words)
    writer.consolidate()
    return path


def test_flags_masks_words_and_labels_by_frame(marked):
    data = store.Dataset(marked, ["lips", "similarity"], clips=["train002f"], **EVERY)
    first, second = data
    frames = 3 + np.arange(2 * T)
    whole = {name: np.concatenate([first[name], second[name]]) for name in first if np.ndim(first[name])}
    assert np.array_equal(whole["frame_label"] == 1, (frames >= 10) & (frames < 15))
    assert (first["label"], second["label"]) == (1, 0)  # a partial forgery is real in its real frames
    held = (frames >= 20) & (frames < 25)
    assert np.array_equal(whole["held"], held)
    assert np.array_equal(whole["face"], ~held & (frames != 5))
    assert np.array_equal(whole["voice"], frames < 30)
    assert np.array_equal(whole["mask"], whole["face"] & whole["voice"])
    assert np.array_equal(whole["in_word"], ((frames >= 5) & (frames < 10)) | ((frames >= 25) & (frames < 30)))
    assert np.isfinite(whole["lips"]).all()
    assert not whole["lips"][frames == 5].any()


def test_trims_are_those_of_the_trainer(marked):
    for trim, end in (("none", 43), ("leading", 43), ("speech", 30)):
        data = store.Dataset(marked, [], clips=[2], trim=trim, window=None)
        assert (data.starts.tolist(), data.lengths.tolist()) == ([3], [end - 3])


def test_whole_clips_are_padded_in_batches(path, reader):
    data = store.Dataset(path, ["audio", "similarity"], window=None, trim="none")
    assert data.lengths.tolist() == [clip.length - 6 for clip in reader if clip.done]
    (batch,) = DataLoader(data, batch_size=len(data), collate_fn=store.collate)
    longest = max(data.lengths)
    assert batch["audio"].shape == (len(data), longest, 640)
    for k, window in enumerate(data):
        n = window["length"]
        assert torch.equal(batch["audio"][k, :n], torch.from_numpy(window["audio"]))
        assert not batch["audio"][k, n:].any()
        assert not batch["mask"][k, n:].any()
        assert (batch["frame_label"][k, n:] == -1).all()


def test_clips_without_room_for_a_window_are_named(path, reader):
    data = store.Dataset(path, [], window=40, trim="none")
    short = [clip.row for clip in reader if clip.done and clip.length < 46]
    assert data.left_out.tolist() == short != []


def test_a_transform_gets_the_window_and_a_generator_of_its_own(path):
    def noisy(window, rng):
        return {"x": window["audio"] + rng.normal(size=window["audio"].shape), "clip": window["clip"]}

    data, again = (store.Dataset(path, ["audio"], transform=noisy, seed=3, **EVERY) for _ in range(2))
    assert np.array_equal(data[2]["x"], again[2]["x"])
    assert not np.array_equal(data[1]["x"] - again[1]["x"], data[2]["x"])
    before = data[2]["x"]
    data.set_epoch(5)
    assert not np.array_equal(data[2]["x"], before)
    batch = store.collate([data[0], data[1]])  # of anything that torch can stack
    assert batch["x"].shape == (2, T, 640)


# ------------------------------------------------------------------------------------------------------------- numbers


def test_windows_by_number(path):
    data = store.Dataset(path, [], **EVERY)
    assert data[-1]["clip"] == data[len(data) - 1]["clip"] == data[np.int64(len(data) - 1)]["clip"]
    for number in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=f"there is no window {number}: .* gives {len(data)}, counted from 0"):
            data[number]
    with pytest.raises(TypeError):
        data["val001r"]
    assert isinstance(data, torch.utils.data.Dataset)


def test_a_copy_in_another_process_gives_the_same(path):
    data = store.Dataset(path, ["audio"], swaps=0.5, **EVERY)
    data.set_epoch(2)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.epoch == 2
    for name, value in data[3].items():
        assert np.array_equal(copy[3][name], value), name


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "dev"}, "split must be one of train, val, test, or None for all clips, not 'dev'"),
        ({"split": "test"}, "has no clip of the split test that is done and chosen"),
        ({"clips": []}, "has no clip that is done and chosen"),
        ({"clips": "train000r"}, "clips must be a list of ids or numbers, not the text 'train000r'"),
        ({"clips": ["nobody"]}, "has no clip called 'nobody'"),
        ({"clips": [99]}, "has no clip 99: it has"),
        ({"clips": [-1]}, "has no clip that is done and chosen"),  # it failed
        ({"window": 0}, "window must be at least 1 frame, or None for whole clips, not 0"),
        ({"window": 500}, "no clip holds a window of 500 frames; the longest has "),
        ({"trim": "all"}, "trim must be one of none, leading, speech, not 'all'"),
        ({"swaps": 1.5}, "swaps is a share between 0 and 1, not 1.5"),
        ({"swaps": 0.5, "window": None}, "the lengths of whole clips would give them away"),
        ({"seed": -1}, "seed must not be negative"),
        ({"window": 1.5}, "window must be a whole number, not 1.5"),
        ({"window": True}, "window must be a whole number, not True"),
        ({"window": "9"}, "window must be a whole number, not '9'"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"seed": False}, "seed must be a whole number, not False"),
        ({"clips": [True, False]}, "a clip's number must be a whole number, not True"),  # a mask
    ],
)
def test_what_cannot_be_given_is_said_in_a_sentence(path, options, said):
    with pytest.raises(StoreError) as found:
        store.Dataset(path, **{"window": T, **options})
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_whole_numbers_of_numpy_are_taken(path):
    given = store.Dataset(path, [], window=np.int64(T), seed=np.uint8(3), clips=np.array([0, 1]))
    plain = store.Dataset(path, [], window=T, seed=3, clips=[0, 1])
    assert given.choice == plain.choice
    assert type(given.choice.window) is type(given.choice.seed) is int


@pytest.mark.parametrize("epoch", [1.5, True, "1"])
def test_an_epoch_is_a_whole_number(path, epoch):
    data = store.Dataset(path, [], **EVERY)
    with pytest.raises(StoreError, match=f"an epoch must be a whole number, not {epoch!r}"):
        data.set_epoch(epoch)
    assert data.epoch == 0


def test_a_store_without_a_fit_has_no_soft_labels(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 3}, fit=False)
    with pytest.raises(StoreError, match="has no fit yet, so no soft labels: run precompute"):
        store.Dataset(path, window=T)
    assert "similarity" not in store.Dataset(path, ["mouth", "audio"], swaps=0.5, **EVERY)[0]


def test_an_empty_store_and_a_folder_without_one(tmp_path):
    store.create(tmp_path / "s.zarr", {"asr": 2, "vsr": 2}, {})
    with pytest.raises(StoreError, match="has no clip that is done and chosen"):
        store.Dataset(tmp_path / "s.zarr", ["mouth"])
    with pytest.raises(StoreError, match="nothing does not exist"):
        store.Dataset(tmp_path / "nothing")


def test_still_pictures_leave_nothing(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 2}, shard_rows=100)
    writer, flags = store.Writer.open(path), store.open(path).rows(0, 100, ["flags"])["flags"]
    writer.write_shard(0, {"flags": flags | np.uint8(layout.HELD)})
    writer.consolidate()
    with pytest.raises(StoreError, match="no clip has a frame with a picture that moves and a voice"):
        store.Dataset(path, ["mouth"], window=T)


def test_values_that_are_not_finite_name_clip_and_array(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 3}, shard_rows=200)
    writer, rows = store.Writer.open(path), store.open(path).rows(0, 200, ["asr", "vsr_projection", "similarity"])
    rows["asr"][8] = rows["vsr_projection"][8] = rows["similarity"][8] = np.nan
    writer.write_shard(0, rows)
    writer.consolidate()
    for array, swaps, name in (("asr", 0, "asr"), ("similarity", 0, "similarity"), ("similarity", 1, "vsr_projection")):
        data = store.Dataset(path, [array], swaps=swaps, **EVERY)
        with pytest.raises(StoreError, match=f"clip train000r: frames/{name} is not finite at frame 8"):
            data[0]


def test_damage_is_an_error_and_no_zeros(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 3}, shard_rows=50)
    data = store.Dataset(path, ["mouth"], **EVERY)
    (path / "frames/mouth/c/1/0/0").unlink()
    data[0]
    with pytest.raises(StoreError, match="clip train001r: frames/mouth cannot be read"):
        data[1]


def test_the_fit_is_that_of_the_lips_corpus(path):
    """`compare` gets the corpus of the lips' clip: another calibration would give other numbers."""
    data = store.Dataset(path, ["similarity"], swaps=1.0, **EVERY)
    before = data[0]["similarity"]
    fit = data.reader.fit
    data.reader.__dict__["new_fit"] = Fit(**{**fit.__dict__, "calibration": {"synthetic": {"5": (0.0, 3.0)}}})
    assert data[0]["swapped"]
    np.testing.assert_allclose(data[0]["similarity"], 1 / (1 + np.exp(-3.0)), atol=1e-3)
    assert not np.allclose(before, data[0]["similarity"], atol=1e-2)
