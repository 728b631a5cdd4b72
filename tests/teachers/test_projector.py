"""The network of contrast: what it learns, that a seed gives it again, and what it refuses."""

import numpy as np
import pytest
import torch

from teachers import learn_projector, projector
from teachers.learn_projector import Example, learn
from teachers.projector import Projector

STEPS = 60


def examples(count, seed, shuffled=False, frames=(30, 90), noisy=0):
    """Clips in which a smooth hidden signal moves both sides: Dv 7, Da 5."""
    rng = np.random.default_rng(seed)
    maps = np.random.default_rng(99)
    to_vsr, to_asr = maps.standard_normal((3, 7)), maps.standard_normal((3, 5))
    found = []
    for _ in range(count):
        n = int(rng.integers(*frames))
        hidden, other = (
            np.apply_along_axis(np.convolve, 0, rng.standard_normal((n, 3)), np.ones(4), "same") for _ in "ab"
        )
        asr = (other if shuffled else hidden) @ to_asr
        vsr = hidden @ to_vsr + 0.1 * rng.standard_normal((n, 7))
        extra = tuple((asr + 0.3 * rng.standard_normal(asr.shape)).astype("f4") for _ in range(noisy))
        found.append(Example(vsr.astype("f4"), asr.astype("f4"), rng.random(n) < 0.9, extra))
    return found


@pytest.fixture
def short(monkeypatch):
    """A training short enough for a test; rules and losses are the real ones."""
    monkeypatch.setattr(learn_projector, "STEPS", STEPS)
    monkeypatch.setattr(learn_projector, "CHECK", 20)


def gap(network, clips):
    """Mean cosine of own frames, and of frames with those of the next clip."""
    v, a = [network.vsr(e.vsr) for e in clips], [network.asr(e.asr) for e in clips]
    own = np.mean([(x * y).sum(1).mean() for x, y in zip(v, a, strict=True)])
    pairs = [(v[i], a[i - 1]) for i in range(len(v))]
    swapped = np.mean([(x[: len(y)] * y[: len(x)]).sum(1).mean() for x, y in pairs])
    return own, swapped


@pytest.mark.usefixtures("short")
def test_own_sound_lies_nearer_than_others_on_clips_never_seen():
    learned = learn(examples(40, 0, noisy=2), examples(8, 1), seed=0)
    own, swapped = gap(Projector(learned.arrays), examples(10, 2))
    assert own > swapped + 0.3
    assert learned.loss < np.log(8 * learn_projector.PICKS) / 2  # far below chance


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_shuffled_pairs_teach_nothing():
    learned = learn(examples(40, 0, shuffled=True), examples(8, 1, shuffled=True), seed=0)
    own, swapped = gap(Projector(learned.arrays), examples(10, 2))
    assert abs(own - swapped) < 0.1


@pytest.mark.usefixtures("short")
def test_a_seed_gives_the_same_network_whatever_ran_before_and_on_any_threads(monkeypatch):
    monkeypatch.setattr(learn_projector, "STEPS", 20)
    clips, judges = examples(20, 0, noisy=1), examples(4, 1)
    first = learn(clips, judges, seed=3)
    torch.manual_seed(17)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.rand(5)
    state = torch.get_rng_state()
    second = learn(clips, judges, seed=3)
    assert torch.equal(torch.get_rng_state(), state)  # nor does it disturb others
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    other = learn(clips, judges, seed=4)
    assert any(not np.array_equal(array, other.arrays[name]) for name, array in first.arrays.items())


@pytest.mark.usefixtures("short")
def test_projections_have_length_1_for_any_number_of_frames():
    network = Projector(learn(examples(6, 0), [], seed=0).arrays)
    for frames in (0, 1, 3, 200):
        v, a = network.vsr(np.ones((frames, 7))), network.asr(np.ones((frames, 5)))
        assert v.shape == a.shape == (frames, network.dims)
        np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    far = network.vsr(np.full((4, 7), 6e4))
    assert np.isfinite(far).all()


@pytest.mark.usefixtures("short")
def test_the_networks_of_a_seed_differ_and_their_rows_stand_beside_each_other():
    arrays = learn(examples(6, 0), [], seed=0).arrays
    alone = [Projector({name: a[k : k + 1] for name, a in arrays.items()}) for k in range(learn_projector.NETWORKS)]
    x = np.random.default_rng(0).standard_normal((20, 7))
    each, both = [one.vsr(x) for one in alone], Projector(arrays).vsr(x)
    assert not np.allclose(each[0], each[1], atol=0.1)
    np.testing.assert_allclose(both * learn_projector.NETWORKS**0.5, np.concatenate(each, axis=1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_with_a_mirror_a_face_and_its_mirror_image_are_alike():
    order, signs = np.arange(7)[::-1].copy(), np.float32([1, 1, 1, -1, 1, 1, 1])
    clips = examples(40, 0)
    plain, both = (Projector(learn(clips, [], 0, mirror).arrays) for mirror in (None, (order, signs)))
    x = np.concatenate([e.vsr for e in examples(4, 1)])

    def alike(network):
        return (network.vsr(x) * network.vsr(x[:, order] * signs)).sum(axis=1).mean()

    assert alike(both) > alike(plain) + 0.1


@pytest.mark.usefixtures("short")
def test_a_network_of_earlier_releases_is_read():
    """One, not stacked, with a linear map of the sound."""
    arrays = {name: a[0] for name, a in learn(examples(6, 0), [], seed=0).arrays.items()}
    old = {name: a for name, a in arrays.items() if not name.startswith(("sound_hidden", "sound_more"))}
    y = np.random.default_rng(0).standard_normal((20, 5))
    rows = ((y - old["asr_mean"]) / old["asr_std"]) @ old["sound_out.weight"].T + old["sound_out.bias"]
    found = Projector(old).asr(y)
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-5)
    assert Projector(old).dims == projector.DIMS


@pytest.mark.usefixtures("short")
def test_arrays_that_are_no_networks_are_refused():
    arrays = learn(examples(6, 0), [], seed=0).arrays
    name = "sound_out.bias"
    missing = {key: a for key, a in arrays.items() if key != name}
    fewer, none = {**arrays, name: arrays[name][:1]}, {key: a[:0] for key, a in arrays.items()}
    many = {key: np.repeat(a, 20, axis=0) for key, a in arrays.items()}
    longer = {**arrays, name: np.pad(arrays[name], ((0, 0), (0, 1)))}
    for wrong in (missing, fewer, none, many, longer, {}):
        with pytest.raises(ValueError, match="the fit's network is not of this kind or is damaged"):
            Projector(wrong)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_constant_column_and_half_precision_do_no_harm():
    clips = [Example(e.vsr.astype("f2"), e.asr.astype("f2"), e.mask) for e in examples(10, 0)]
    for e in clips:
        e.vsr[:, 0] = 3.0
    learned = learn(clips, [], seed=0)
    assert all(np.isfinite(array).all() for array in learned.arrays.values())


def test_the_loss_leaves_out_neighbours_and_masked_frames():
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2, 20, 4), dim=-1)
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[0, 8] = mask[0, 9] = True  # two windows nearer than GUARD: neither is the other's mismatch
    loss = learn_projector.info_nce(rows, rows, mask, torch.tensor(50.0), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    mask[1, 10] = True
    apart = learn_projector.info_nce(rows, rows, mask, torch.tensor(0.0), torch.Generator().manual_seed(0))
    assert apart.item() == pytest.approx((2 * np.log(2) + np.log(3)) / 3, rel=1e-5)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="1 clip has face and voice"):
        learn([*examples(1, 0), Example(np.zeros((3, 7)), np.zeros((3, 5)), np.ones(3, bool))], [], seed=0)
