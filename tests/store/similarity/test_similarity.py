"""Moments, CCA, comparison and calibration: properties, and the recovery of a known shared signal."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store import similarity
from store.similarity import Fit, Moments, cca, posteriors


def speech(rng, frames, dx=6, dy=20, noise=0.5):
    """Picture [frames, dx] and sound [frames, dy] that share three smooth signals."""
    hidden = np.cumsum(rng.standard_normal((frames, 3)), 0)
    hidden -= np.array([np.convolve(h, np.ones(25) / 25, "same") for h in hidden.T]).T
    mix = np.random.default_rng(5)
    x = hidden @ mix.standard_normal((3, dx)) + noise * rng.standard_normal((frames, dx))
    y = hidden @ mix.standard_normal((3, dy)) + noise * rng.standard_normal((frames, dy))
    return x.astype(np.float32), y.astype(np.float32)


def fitted(context=2):
    x, y = speech(np.random.default_rng(0), 3000)
    return similarity.fit_cca(Moments.of(similarity.with_context(x, context), y), context, dims=3)


@pytest.mark.parametrize("parts", [1, 3, 17])
def test_merged_moments_equal_those_of_the_whole(parts):
    x, y = speech(np.random.default_rng(1), 500)
    whole = Moments.of(x, y)
    cut = [Moments.of(a, b) for a, b in zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)]
    merged = cut[0]
    for m in cut[1:]:
        merged = merged + m
    for name in ("count", "sum_x", "sum_y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-6, atol=1e-6)
    rest = merged - cut[-1]
    assert rest.count == 500 - len(np.array_split(x, parts)[-1])


def test_cca_finds_what_the_two_sides_share():
    fit = fitted()
    assert fit.correlations[0] > 0.9
    x, y = speech(np.random.default_rng(2), 400)
    other = speech(np.random.default_rng(3), 400)[1]
    v = similarity.project_vsr(x, fit)
    own = similarity.scores(v, similarity.project_asr(y, fit), fit)
    swapped = similarity.scores(v, similarity.project_asr(other, fit), fit)
    assert similarity.auc(own, swapped) > 0.95


def test_projections_have_unit_variance_on_the_fitting_frames():
    x, y = speech(np.random.default_rng(0), 3000)
    fit = fitted()
    assert np.allclose(similarity.project_asr(y, fit).std(0), 1, atol=0.1)
    assert np.allclose(similarity.project_vsr(x, fit).std(0), 1, atol=0.1)


def test_too_few_frames_is_an_error():
    with pytest.raises(ValueError, match="add real clips"):
        similarity.fit_cca(Moments.of(np.zeros((5, 3)), np.zeros((5, 4))), 0)


def test_a_constant_column_is_harmless():
    x, y = speech(np.random.default_rng(0), 3000)
    x[:, 0] = 7
    fit = similarity.fit_cca(Moments.of(x, y), 0, dims=3, shrinkage=0)
    assert np.isfinite(fit.vsr_matrix).all()
    assert fit.correlations[0] > 0.8


FIT = fitted().calibrated("c", {"5": (4.0, -1.0), "25": (6.0, -2.0), "clip": (9.0, -3.0)})
values = hnp.arrays(np.float32, (30, 3), elements=st.floats(-60000, 60000, width=32))


@settings(max_examples=60)
@given(v=values, a=values, mask=hnp.arrays(bool, 30), window=st.sampled_from([1, 5, 25, "clip"]))
def test_similarity_is_finite_and_in_0_1_for_any_finite_input(v, a, mask, window):
    for corpus in ("c", "unknown", None):
        p = similarity.compare(v, a, FIT, window, mask, corpus)
        assert p.shape == (30,)
        assert p.dtype == np.float32
        assert np.isfinite(p).all()
        assert ((p >= 0) & (p <= 1)).all()


def of_kind(kind):
    """A calibrated fit of that kind in a space of three dimensions."""
    fit = FIT if kind == "cca" else replace(similarity.unlearned(kind, 3), calibration=FIT.calibration)
    assert fit.dims == 3
    return fit


anything = hnp.arrays(np.float64, (12, 3), elements=st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("kind", similarity.KINDS)
@settings(max_examples=60)
@given(v=anything, a=anything, mask=hnp.arrays(bool, 12), window=st.sampled_from([1, 5, 25, "clip"]))
def test_every_kind_is_finite_and_in_0_1_for_any_finite_input(kind, v, a, mask, window):
    p = similarity.compare(v, a, of_kind(kind), window, mask, "c")
    assert np.isfinite(p).all()
    assert ((p >= 0) & (p <= 1)).all()


def test_posterior_is_the_papers_number_and_js_is_calibrated():
    log_p = np.log(np.array([[0.9, 0.05, 0.05], [0.2, 0.3, 0.5]]))
    log_q = np.log(np.array([[0.1, 0.8, 0.1], [0.2, 0.3, 0.5]]))
    paper = similarity.compare(log_p, log_q, of_kind("posterior"), 1, None, "c")
    np.testing.assert_allclose(paper, posteriors.paper_label(log_p, log_q), atol=1e-6)
    js = similarity.compare(log_p, log_q, of_kind("js"), 1, None, "c")
    expected = similarity.logistic(posteriors.js_similarity(log_p, log_q), 4.0, -1.0)
    np.testing.assert_allclose(js, expected, atol=1e-6)


def test_cosine_does_not_depend_on_the_length_of_rows():
    v, a = np.random.default_rng(0).standard_normal((2, 9, 3))
    plain = similarity.scores(v, a, of_kind("cosine"), 1)
    np.testing.assert_allclose(similarity.scores(1e200 * v, 1e-100 * a, of_kind("cosine"), 1), plain, atol=1e-6)
    np.testing.assert_allclose(
        plain, [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(v, a, strict=True)], atol=1e-6
    )


@pytest.mark.parametrize("rows", [7, 40, 7_500])
def test_the_best_offset_is_that_of_the_clips_scores(monkeypatch, rows):
    """Whatever the parts in which a long clip is compared, as from `scores` for every offset."""
    monkeypatch.setattr(sys.modules["store.similarity.compare"], "ROWS", rows)
    rng = np.random.default_rng(4)
    v, a = rng.standard_normal((52, FIT.dims)), rng.standard_normal((47, FIT.dims))
    a[3:] += v[:44]
    face, voice = rng.random(52) < 0.9, rng.random(47) < 0.8
    found = similarity.best_offset(v, a, FIT, face, voice)
    by_shift = {}
    for shift in range(-15, 16):
        lips, sound, _ = similarity.shifted(52, 47, shift)
        mask = face[lips] & voice[sound]
        by_shift[shift] = similarity.scores(v[lips][mask], a[sound][mask], FIT, "clip")[0]
    best = max(by_shift, key=lambda shift: by_shift[shift])
    rivals = [value for shift, value in by_shift.items() if abs(shift - best) > similarity.NEIGHBOURS]
    assert found.frames == best == -3
    np.testing.assert_allclose(
        (found.best, found.at_zero, found.margin),
        (by_shift[best], by_shift[0], by_shift[best] - max(rivals)),
        atol=1e-6,
    )


def test_unit_rows_multiply_to_the_agreement_of_a_frame():
    rng = np.random.default_rng(5)
    v, a = rng.standard_normal((2, 3, 9, FIT.dims))
    products = (similarity.unit_rows(v, FIT) * similarity.unit_rows(a, FIT)).sum(-1)
    wanted = [similarity.scores(x, y, FIT, 1) for x, y in zip(v, a, strict=True)]
    np.testing.assert_allclose(products, wanted, atol=1e-6)
    assert similarity.unit_rows(v, similarity.unlearned("js", FIT.dims)) is None


@pytest.mark.parametrize("shift", [-15, -4, 0, 7, 15])
def test_the_best_offset_is_where_the_sound_was_moved_to(shift):
    x, y = speech(np.random.default_rng(4), 200)
    v, a = similarity.project_vsr(x, FIT), similarity.project_asr(np.roll(y, -shift, axis=0), FIT)
    found = similarity.best_offset(v, a, FIT)
    assert found.frames == shift
    assert found.margin > 0.05
    assert found.best >= found.at_zero
    # Lips at t then meet sound at t - shift, as everywhere.
    lips, sound, _ = similarity.shifted(200, 200, shift)
    assert found.best == pytest.approx(similarity.scores(v[lips], a[sound], FIT, "clip")[0], abs=1e-6)


def test_offsets_that_leave_nothing_in_common_are_passed_over():
    x, y = (side[:8] for side in speech(np.random.default_rng(4), 40))
    v, a = similarity.project_vsr(x, FIT), similarity.project_asr(y, FIT)
    assert abs(similarity.best_offset(v, a, FIT, limit=15).frames) < 8
    with pytest.raises(ValueError, match="in common"):
        similarity.best_offset(v, a, FIT, face=np.zeros(8, bool))


@settings(max_examples=40)
@given(v=values, a=values, mask=hnp.arrays(bool, 30))
def test_windows_are_means_of_the_masked_frames(v, a, mask):
    frame = similarity.scores(v, a, FIT, 1)
    got = similarity.scores(v, a, FIT, 5, mask)
    for t in range(30):
        rows = np.arange(max(0, t - 2), min(30, t + 3))
        kept = rows[mask[rows]] if mask[rows].any() else rows
        assert got[t] == pytest.approx(frame[kept].mean(), abs=1e-5)


def test_a_clip_window_repeats_one_value():
    x, y = speech(np.random.default_rng(2), 40)
    p = similarity.compare(similarity.project_vsr(x, FIT), similarity.project_asr(y, FIT), FIT, "clip")
    assert np.ptp(p) == 0


@pytest.mark.parametrize("window", [4, 0, -1])
def test_even_windows_are_refused(window):
    with pytest.raises(ValueError, match="odd"):
        similarity.compare(np.zeros((9, 3)), np.zeros((9, 3)), FIT, window)


def test_logistic_map_is_monotone_and_calibrated():
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.5, 0.3, 4000), rng.normal(-0.1, 0.3, 4000)
    slope, intercept = similarity.fit_logistic(positive, negative)
    # Two normal distributions of equal variance: the log odds are linear, with slope (m1 - m0) / s^2.
    assert slope == pytest.approx(0.6 / 0.09, rel=0.1)
    assert intercept == pytest.approx(-slope * 0.2, abs=0.15)
    p, n = similarity.logistic(positive, slope, intercept), similarity.logistic(negative, slope, intercept)
    assert similarity.brier(p, n) < 0.25


def test_separable_and_reversed_scores_stay_finite():
    slope, intercept = similarity.fit_logistic(np.full(20, 0.9), np.full(20, 0.1))
    assert np.isfinite([slope, intercept]).all()
    assert slope > 0
    assert similarity.fit_logistic(np.full(20, 0.1), np.full(20, 0.9)) == (0.0, 0.0)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_auc_is_the_share_of_ordered_pairs(positive, negative):
    p, n = np.array(positive, float), np.array(negative, float)
    slow = np.mean((p[:, None] > n) + 0.5 * (p[:, None] == n))
    assert similarity.auc(p, n) == pytest.approx(slow)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(-70, 70))
def test_shift_pairs_lips_at_t_with_sound_at_t_minus_shift(i, j, shift):
    lips, sound, rows = similarity.shifted(i, j, shift)
    assert rows == lips
    t = np.arange(min(i, j))
    valid = t[(t - shift >= 0) & (t - shift < j)]
    assert np.array_equal(np.arange(i)[lips], valid)
    assert np.array_equal(np.arange(j)[sound], valid - shift)


def test_a_fit_survives_its_arrays():
    again = Fit.from_arrays(FIT.to_arrays())
    assert again.kind == "cca"
    assert again.context == FIT.context
    assert again.calibration == FIT.calibration
    np.testing.assert_array_equal(again.vsr_matrix, FIT.vsr_matrix)


def test_an_uncalibrated_corpus_is_known_as_such():
    assert similarity.is_calibrated(FIT, 5, "c")
    assert not similarity.is_calibrated(FIT, 5, "unknown")


def test_few_clips_fit_where_the_svd_of_the_processor_gives_up(monkeypatch):
    import scipy.linalg

    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((60, 5))  # few frames: far fewer than the 120 and 70 columns
    x = hidden @ rng.standard_normal((5, 120)) + 0.1 * rng.standard_normal((60, 120))
    y = hidden @ rng.standard_normal((5, 70)) + 0.1 * rng.standard_normal((60, 70))
    moments = Moments.of(x, y)

    def gives_up(*_, **__):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", gives_up)  # as LAPACK's gesdd does on some processors
    fit = similarity.fit_cca(moments, 0)
    assert fit.dims == 32
    mean_x, mean_y = x.mean(0), y.mean(0)
    cxx, cyy = (np.cov(z.T, bias=True) for z in (x, y))
    white = [cca._whitener(c, similarity.SHRINKAGE) for c in (cxx, cyy)]
    m = white[0] @ ((x - mean_x).T @ (y - mean_y) / 60) @ white[1]
    wanted = scipy.linalg.svd(m, compute_uv=False, lapack_driver="gesvd")[:32]
    np.testing.assert_allclose(fit.correlations, wanted.clip(0, 1), atol=2e-6)
    own = np.corrcoef(similarity.project_vsr(x, fit)[:, 0], similarity.project_asr(y, fit)[:, 0])[0, 1]
    assert own > 0.98
    assert np.isfinite(fit.vsr_matrix).all()
    assert np.isfinite(fit.asr_matrix).all()
