"""Fits of every kind over a small store: their training clips, their evaluation, and the file format."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from pipelines.labels import calibrate, contrast, learn, projection
from pipelines.labels.second_pass import Wish, default_kind, second_pass
from store import inspect, layout, similarity
from store.place import place
from store.similarity import fitfile
from teachers import learn_projector


def here(function, jobs, gpu=False):
    """A `Spread` in this process."""
    return (function(*job) for job in jobs)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("fit") / "s.zarr",
        {"train": 40, "val": 6, "test": 6},
        groups=50,
        shard_rows=layout.SHARD,
    )


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s.zarr")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(learn_projector, "STEPS", 80)
    monkeypatch.setattr(learn_projector, "CHECK", 20)


@pytest.fixture
def shorter(monkeypatch):
    """Where nothing is asked of what was learned."""
    monkeypatch.setattr(learn_projector, "STEPS", 20)
    monkeypatch.setattr(learn_projector, "CHECK", 10)


def own_and_other(reader):
    n = len(reader)
    own = np.concatenate([reader.pair_similarity(i, i) for i in range(n)])
    other = np.concatenate([reader.pair_similarity(i, (i + 1) % n) for i in range(n)])
    return own, other


@pytest.mark.parametrize(
    "kind", ["cca", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("contrast", "fused"))]
)
@pytest.mark.usefixtures("short")
def test_learned_kinds_part_own_sound_from_others_on_clips_never_seen(path, kind):
    note = second_pass(path, store.Writer.open(path), Wish(kind=kind, refit=True), here)
    reader = store.open(path)
    assert reader.fit.kind == note["kind"] == kind
    test = np.flatnonzero(reader.clips["split"].astype(str) == "test").tolist()
    own = np.concatenate([reader.pair_similarity(i, i) for i in test])
    other = np.concatenate([reader.pair_similarity(i, test[k - 1]) for k, i in enumerate(test)])
    assert similarity.auc(own, other) > 0.9
    assert note["auc"]["synthetic"]["5"] > 0.9
    assert note["brier"]["synthetic"]["clip"] < 0.1
    assert note["shuffled_control"]["5"] < 0.85  # four clips judge the networks': a wide interval
    assert note["offset"]["synthetic"]["median"] == 0
    stored = reader.frames(test[0], 0, 40, ["similarity"])["similarity"]
    np.testing.assert_allclose(stored, reader.pair_similarity(test[0], test[0]), atol=1e-3)


@pytest.mark.usefixtures("shorter")
def test_contrast_without_its_asr_teacher_warns_and_learns_from_clean_sound(path, caplog):
    caplog.set_level(logging.INFO)
    _, note = learn.learn(path, here, "contrast", 0)
    assert "clean sound only" in caplog.text
    steps = ("embedding the sound of", "learning two networks", "calibrating on")  # each before it is done
    assert [caplog.text.index(step) for step in steps] == sorted(caplog.text.index(step) for step in steps)
    assert "made-up-asr" in caplog.text
    assert note["noisy_sounds"] == 0


@pytest.mark.usefixtures("shorter")
def test_a_seed_gives_the_same_fit_and_held_out_clips_calibrate_it(path):
    (first, note), (second, _), (other, _) = (learn.learn(path, here, "contrast", seed) for seed in (1, 1, 2))
    for name, array in first.network.items():
        np.testing.assert_array_equal(array, second.network[name])
    assert first.calibration == second.calibration
    assert not np.array_equal(first.network["sound_out.weight"], other.network["sound_out.weight"])
    held_out = {"held_out": 4, "groups": 40, "speakers": None, "corpora": ["synthetic"]}
    assert note["fitted_on"] == {"clips": 36, "frames": 36 * 40, **held_out}
    told = note["calibrated_on"]["synthetic"]
    assert (told["clips"], told["which"], told["real"]) == (10, "real train and val clips", 10)
    assert (told["speakers"], told["strangers"]) == (None, None)  # nobody named the people


@pytest.mark.parametrize("kind", ["cosine", "js", "posterior"])
def test_kinds_that_learn_nothing_compare_embeddings_as_they_are(path, kind):
    note = second_pass(path, store.Writer.open(path), Wish(kind=kind, refit=True), here)
    reader = store.open(path)
    frames = reader.frames(0, 0, 40, ["vsr", "vsr_projection", "similarity"])
    np.testing.assert_array_equal(frames["vsr"], frames["vsr_projection"])
    assert np.isfinite(frames["similarity"]).all()
    assert reader.fit.kind == note["kind"] == kind
    assert "fitted_on" not in note
    assert similarity.is_calibrated(reader.fit, 5, "synthetic") == (kind != "posterior")


def test_a_second_pass_over_a_fitted_store_changes_nothing(path):
    config = Wish(kind="js", refit=True)
    second_pass(path, store.Writer.open(path), config, here)
    before = store.open(path).attrs["similarity"]

    def nothing(function, jobs, gpu=False):
        assert not list(jobs)
        return iter(())

    assert second_pass(path, store.Writer.open(path), Wish(), nothing) == before


@pytest.mark.usefixtures("shorter")
def test_a_run_that_died_while_it_replaced_the_fit_is_done_again_as_asked(path, monkeypatch):
    writer = store.Writer.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(store.Writer, "write_fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            second_pass(path, writer, Wish(kind="contrast", refit=True, seed=5), here)
    assert store.open(path).new_fit.kind == "cca"
    note = second_pass(path, store.Writer.open(path), Wish(), here)
    assert (store.open(path).fit.kind, note["kind"], note["seed"]) == ("contrast", "contrast", 5)
    assert store.open(path).attrs["similarity"]["complete"]


def test_the_default_kind_depends_on_how_many_clips_there_are(path, monkeypatch):
    reader = store.open(path)
    assert default_kind(reader) == "fused"
    monkeypatch.setattr(learn, "FEW_CLIPS", 41)
    assert default_kind(reader) == "cca"


@pytest.mark.usefixtures("shorter")
@pytest.mark.parametrize("kind", ["cca", "fused"])
def test_a_fit_comes_back_whole_from_its_file(path, tmp_path, kind):
    found, note = learn.learn(path, here, kind, 0)
    teachers = store.open(path).attrs["teachers"]
    fitfile.save(tmp_path / "fit.npz", found, teachers, note)
    again, its_teachers, its_note = fitfile.load(tmp_path / "fit.npz")
    assert (again.kind, again.context, again.level) == (found.kind, found.context, True)
    assert again.calibration == found.calibration
    assert (its_teachers, its_note) == (teachers, note)
    x = np.random.default_rng(0).standard_normal((30, 6)).astype("f4")
    flags = np.full(30, layout.FACE_DETECTED | layout.VOICE_ACTIVE, np.uint8)
    for ours, theirs in zip(projection.maps(found), projection.maps(again), strict=True):
        np.testing.assert_array_equal(ours(x, flags), theirs(x, flags))
    assert [p.name for p in tmp_path.iterdir() if "fit" in p.name] == ["fit.npz"]


@pytest.mark.usefixtures("shorter")
@pytest.mark.parametrize("kind", ["contrast", "fused"])
def test_maps_and_weights_of_other_lengths_are_found_before_a_video_is(path, kind):
    found, _ = learn.learn(path, here, kind, 0)
    with pytest.raises(store.StoreError, match="the fit is damaged: its maps have"):
        projection.maps(replace(found, correlations=found.correlations[:-1]))


def test_files_that_are_no_fit_are_refused(tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name in ("junk.npz", "other.npz", "missing.npz"):
        with pytest.raises(store.StoreError, match=f"{name} is not a concord-av fit"):
            fitfile.load(tmp_path / name)


def test_clips_that_taught_a_fit_do_not_judge_it(path):
    reader = store.open(path)
    clips = learn.training_clips(reader)
    parts = learn.folds(reader, clips, learn.TENTHS)
    kept, its = calibrate.judged(clips, parts, [reader.fit, *[None] * 9])
    assert len(kept) == 4
    assert (its == 0).all()


class TestNoise:
    def test_is_as_far_below_the_voice_as_asked(self):
        draw = np.random.default_rng(0)
        sound = (3000 * np.sin(np.arange(16000) / 9)).astype(np.int16)
        noise = draw.standard_normal(16000)
        laid = contrast.mix(sound, noise, 5.0).astype(np.float64) - sound
        ratio = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2) / np.mean(laid**2))
        assert ratio == pytest.approx(5.0, abs=0.01)

    def test_never_wraps_around(self):
        loud = np.full(1000, 32767, np.int16)
        laid = contrast.mix(loud, np.ones(1000), 0.0)
        assert laid.dtype == np.int16
        assert (laid == 32767).all()

    def test_silence_stays_finite(self):
        assert np.abs(contrast.mix(np.zeros(100, np.int16), np.ones(100), 0.0)).max() <= 1

    def test_excerpt_holds_the_most_voice(self):
        label = np.zeros(1000, bool)
        label[600:800] = True
        rows = contrast.excerpt(label)
        assert rows.stop - rows.start == contrast.EXCERPT
        assert label[rows].sum() == 200
        assert contrast.excerpt(label[:40]) == slice(0, 40)

    def test_is_drawn_from_the_seed_and_the_clip_alone(self, path):
        reader = store.open(path)
        pool = list(range(20))
        one, two = (contrast._noise(reader, 3, pool, 5000, np.random.default_rng([0, 3])) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()
        assert one.std() > 0


@pytest.mark.parametrize(("clip_frames", "warned"), [(15, True), (40, False)])
def test_a_fit_of_far_shorter_clips_is_borrowed_with_a_warning(path, tmp_path, caplog, clip_frames, warned):
    """Clips here have 40 frames; a speech model's rows beyond those that the fit has seen seem to agree less."""
    reader, file = store.open(path), tmp_path / "fit.npz"
    fitfile.save(file, reader.fit, reader.attrs["teachers"], {"kind": "cca", "clip_frames": clip_frames})
    note = second_pass(path, store.Writer.open(path), Wish(fit_from=place(file)), here)
    assert (f"{file} was learned on clips of" in caplog.text) == warned
    assert note["clip_frames"] == store.open(path).fit_length == clip_frames


def test_a_fit_says_how_long_the_clips_were_that_it_learned_from(path, tmp_path):
    second_pass(path, store.Writer.open(path), Wish(kind="cca", refit=True), here)
    assert store.open(path).attrs["similarity"]["clip_frames"] == 40
    file = tmp_path / "fit.npz"
    assert CliRunner().invoke(inspect.main, [str(path), "--save-fit", str(file)]).exit_code == 0
    assert fitfile.load(file)[2]["clip_frames"] == 40


def held_throughout(path, clips, bit):
    """Some clips get one picture for all frames; the flags say so if `bit`, and else the store is one of an earlier release."""
    writer, reader = store.Writer.open(path), store.open(path)
    rows = reader.rows(0, reader.num_rows, ["mouth", "flags"])
    for clip in clips:
        own = slice(int(reader.clips["offset"][clip]), int(reader.clips["offset"][clip] + reader.clips["length"][clip]))
        rows["mouth"][own] = rows["mouth"][own.start]
        rows["flags"][own] |= np.uint8(layout.HELD if bit else 0)
    for shard in range(reader.num_rows // layout.SHARD):
        part = slice(shard * layout.SHARD, (shard + 1) * layout.SHARD)
        writer.write_shard(shard, {name: values[part] for name, values in rows.items()})
    writer.update_attrs({"held_pictures": bit})
    writer.consolidate()


@pytest.mark.parametrize("bit", [True, False])
def test_clips_that_stand_still_teach_nothing_and_have_no_label(path, bit):
    held_throughout(path, [0, 1], bit)
    note = second_pass(path, store.Writer.open(path), Wish(kind="cca", refit=True), here)
    assert note["fitted_on"]["frames"] == 38 * 40  # of 40 clips
    reader = store.open(path)
    got = reader.frames(0, 0, 40, ["flags", "similarity"])
    assert not layout.labelled(got["flags"], got["flags"]).any()
    assert ((got["similarity"] >= 0) & (got["similarity"] <= 1)).all()
    assert layout.labelled(*[reader.frames(2, 0, 40, ["flags"])["flags"]] * 2).all()


def test_a_new_fit_writes_the_bit_into_a_store_of_an_earlier_release(path):
    held_throughout(path, [3], bit=False)
    before = store.open(path).rows(0, layout.SHARD, ["flags"])["flags"]
    second_pass(path, store.Writer.open(path), Wish(kind="cca"), here)  # keeps the fit: nothing to write
    assert not store.open(path).has_held_pictures
    second_pass(path, store.Writer.open(path), Wish(kind="cca", refit=True), here)
    reader = store.open(path)
    assert reader.has_held_pictures
    np.testing.assert_array_equal(reader.rows(0, layout.SHARD, ["flags"])["flags"], before)
    assert (before & layout.HELD).sum() == 40 * layout.HELD


def test_a_store_in_which_nothing_moves_cannot_be_fitted(path, caplog):
    held_throughout(path, range(52), bit=True)
    assert second_pass(path, store.Writer.open(path), Wish(kind="cca", refit=True), here) == {}
    assert "too few for a fit" in caplog.text
