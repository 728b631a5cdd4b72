"""Agreement of two posteriors: equal to the published values where those exist, finite and in range everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from store.similarity import posteriors

CLASSES = 40
DEFINED = [
    *("mild", "peaked", "similar", "identical", "both_blank", "uniform_vs_uniform"),
    *(f"disagree_gap{gap}" for gap in (5, 10, 20, 40, 80)),
]
KINDS = [posteriors.paper_label, posteriors.js_similarity]


def rows(elements):
    """Two arrays [frames, 5]: few classes, so that hypothesis also finds rows where most are alike."""
    return st.integers(1, 4).flatmap(
        lambda frames: st.tuples(*[arrays.arrays(np.float64, (frames, 5), elements=elements)] * 2)
    )


FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAUSIBLE = st.one_of(st.floats(-120, 0), st.sampled_from([-np.inf, 0.0, -87.5, -1e-8]))
PROBABILITY = st.one_of(st.sampled_from([0.0, 1.0, 1e-310, 0.5]), st.floats(0, 1), FINITE)


def posteriors_of(golden, case):
    """(audio, video) [clips, frames, classes]; the arrays are time first."""
    return tuple(golden[f"{case}/{side}_posteriors"].transpose(1, 0, 2) for side in ("audio", "video"))


@pytest.fixture
def golden(shared):
    with np.load(shared / "golden" / "soft_labels.npz") as file:
        yield file


@pytest.mark.golden
@pytest.mark.parametrize("case", [*DEFINED, "teachers"])
def test_equals_the_published_label_where_that_is_defined(golden, case):
    log_p, log_q = (posteriors.log_posteriors(p) for p in posteriors_of(golden, case))
    np.testing.assert_allclose(posteriors.symmetrised_divergence(log_p, log_q), golden[f"{case}/divergence"], atol=1e-6)
    target = golden[f"{case}/target"]
    np.testing.assert_allclose(posteriors.paper_similarity(log_p, log_q), target, atol=1e-6)
    np.testing.assert_allclose(posteriors.paper_label(log_p, log_q), target.clip(0, 1), atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["onehot_same", "onehot_differ", "one_zero_in_q", "same_zero_in_both"])
def test_is_finite_where_the_published_label_is_not(golden, case):
    assert not np.isfinite(golden[f"{case}/target"]).any()
    log_p, log_q = (posteriors.log_posteriors(p) for p in posteriors_of(golden, case))
    raw = posteriors.paper_similarity(log_p, log_q)
    assert np.isfinite(raw).all()
    if case == "onehot_same":
        np.testing.assert_array_equal(raw, 1)
    if case == "onehot_differ":
        np.testing.assert_array_equal(posteriors.paper_label(log_p, log_q), 0)
        np.testing.assert_allclose(posteriors.js_similarity(log_p, log_q), 0, atol=1e-12)


@pytest.mark.golden
def test_jensen_shannon_has_the_values_that_the_reference_prose_states(golden):
    log_p, log_q = (posteriors.log_posteriors(p) for p in posteriors_of(golden, "disagree_gap5"))
    nats = (1 - posteriors.js_similarity(log_p, log_q)) * np.log(2)
    assert nats.mean() == pytest.approx(0.514, abs=1e-3)
    for sure, stated in [(0.9, 0.608), (0.99, 0.684), (0.5, 0.296)]:
        p, q = np.full((2, CLASSES), (1 - sure) / (CLASSES - 1))
        p[3], q[7] = sure, sure
        similarity = posteriors.js_similarity(posteriors.log_posteriors(p), posteriors.log_posteriors(q))
        assert (1 - similarity) * np.log(2) == pytest.approx(stated, abs=1e-3)


def test_a_class_that_only_one_side_knows_costs_a_stated_amount():
    p, q = np.array([0.75, 0.25, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
    log_p, log_q = posteriors.log_posteriors(p), posteriors.log_posteriors(q)
    expected = ((0.75 - 1) * np.log(0.75) + 0.25 * (np.log(0.25) - posteriors.LOG_FLOOR)) / 8
    assert posteriors.symmetrised_divergence(log_p, log_q) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=200)
@given(pair=rows(st.one_of(FINITE, PLAUSIBLE)))
def test_of_any_log_posteriors_is_in_range_and_symmetric(kind, pair):
    found = kind(*pair)
    assert found.shape == (len(pair[0]),)
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found, kind(*pair[::-1]))
    np.testing.assert_allclose(kind(pair[0], pair[0]), 1, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=200)
@given(pair=rows(PROBABILITY))
def test_of_any_probabilities_is_in_range(kind, pair):
    log_p, log_q = (posteriors.log_posteriors(p) for p in pair)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=-1), 1, atol=1e-9)
    found = kind(log_p, log_q)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.isfinite(posteriors.paper_similarity(log_p, log_q)).all()


@settings(deadline=None, max_examples=100)
@given(pair=rows(st.floats(-120, 0)), shift=st.floats(-50, 50))
def test_a_constant_added_to_log_posteriors_changes_nothing(pair, shift):
    for kind in [*KINDS, posteriors.paper_similarity]:
        np.testing.assert_allclose(kind(pair[0] + shift, pair[1]), kind(*pair), atol=1e-9)


def test_half_precision_moves_a_label_by_little():
    rng = np.random.default_rng(4)
    for spread in (1, 5, 20, 40):
        log_p, log_q = (posteriors.normalised(rng.normal(0, spread, (500, CLASSES))) for _ in range(2))
        for kind in KINDS:
            kept = kind(log_p.astype(np.float16), log_q.astype(np.float16))
            np.testing.assert_allclose(kept, kind(log_p, log_q), atol=2e-3)


@pytest.mark.parametrize(
    ("log_p", "log_q", "message"),
    [
        (np.zeros((3, 4)), np.zeros((2, 4)), r"do not pair: .*\(3, 4\) and \(2, 4\)"),
        (np.full((1, 4), np.nan), np.zeros((1, 4)), "hold NaN"),
        (np.zeros((1, 4)), np.full((1, 4), np.inf), r"\+inf"),
        (np.zeros((2, 0)), np.zeros((2, 0)), r"\[.., classes\], got the shape \(2, 0\)"),
    ],
)
def test_what_is_no_pair_of_posteriors_is_refused(log_p, log_q, message):
    for kind in KINDS:
        with pytest.raises(ValueError, match=message):
            kind(log_p, log_q)
    with pytest.raises(ValueError, match="not finite"):
        posteriors.log_posteriors(np.array([0.5, np.nan]))


def test_no_frames_give_no_labels():
    assert posteriors.paper_label(np.zeros((0, CLASSES)), np.zeros((0, CLASSES))).shape == (0,)
