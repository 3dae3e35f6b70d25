"""Calibrators, distances, metrics and splits, on arrays with known errors."""

import warnings
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import chi2, norm

from amptorch.uncertainty import calibration_plot
from amptorch.uncertainty.distances import LEAST, NearestTraining
from amptorch.uncertainty.utils import (
    ConformalPrediction,
    NegativeLeastLikelihoodEstimator,
    calc_dist,
    calc_uncertainty_metrics,
    calibration_metrics,
    split_calibration,
    split_test_calib,
)

CALIBRATORS = [
    lambda: ConformalPrediction(0.1),
    NegativeLeastLikelihoodEstimator,
    lambda: NegativeLeastLikelihoodEstimator("normal"),
]


def heavy_tailed(rng, n, dimension=1):
    """(errors, distances): Student's t with 3 degrees of freedom, growing with the distance."""
    distances = rng.gamma(4.0, 0.25, n)
    errors = rng.standard_t(3, (n, dimension)) * (0.2 + distances)[:, None]
    return errors[:, 0] if dimension == 1 else errors, distances


def normal(rng, n, dimension, s1, s2):
    distances = rng.gamma(4.0, 0.25, n)
    errors = rng.normal(size=(n, dimension)) * (s1 + s2 * distances)[:, None]
    return errors[:, 0] if dimension == 1 else errors, distances


class TestConformalPrediction:
    @pytest.mark.slow
    @given(
        st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 10**6), st.sampled_from([1, 3])
    )
    def test_each_left_out_in_turn(self, n, confidence, seed, dimension):
        """Of n + 1 exchangeable errors exactly ⌈(n + 1) c⌉ are within the interval that the n
        others give: between c and c + 1/(n + 1) of them."""
        errors, distances = heavy_tailed(np.random.default_rng(seed), n + 1, dimension)
        rank = ceil((n + 1) * confidence - 1e-9)
        inside = 0
        for left_out in range(n + 1):
            others = np.arange(n + 1) != left_out
            calibrator = ConformalPrediction(0.1).fit(errors[others], distances[others])
            if rank <= n:
                (width,) = calibrator.predict(distances[[left_out]], confidence)
                inside += np.linalg.norm(errors[left_out]) <= width
        if rank <= n:
            assert inside == rank
            assert confidence - 1e-9 <= inside / (n + 1) <= confidence + 1 / (n + 1)

    def test_widths_are_proportional_to_the_distance(self):
        calibrator = ConformalPrediction(0.1).fit([1.0, -4.0, 3.0], [1.0, 2.0, 1.0])
        assert calibrator.scores_.tolist() == [1, 2, 3]
        assert calibrator.quantile(0.75) == 3
        assert_allclose(calibrator.predict([0.5, 2.0], 0.5), [1, 4])

    def test_alpha_is_the_share_outside(self):
        for alpha, q in ((0.25, 3), (0.5, 2), (0.75, 1)):
            calibrator = ConformalPrediction(alpha).fit([1.0, -4.0, 3.0], [1.0, 2.0, 1.0])
            assert calibrator.quantile() == q
            assert calibrator.predict([0.5, 2.0]).tolist() == [0.5 * q, 2 * q]
        for wrong in (0, 1, 90, "0.1", np.nan):
            with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
                ConformalPrediction(wrong)

    def test_rank_is_not_off_by_rounding(self):
        """0.55 · 100 is 55.00000000000001."""
        calibrator = ConformalPrediction(0.1).fit(np.arange(1.0, 100), np.ones(99))
        assert calibrator.quantile(0.55) == 55

    def test_too_few(self):
        calibrator = ConformalPrediction(0.1).fit(np.ones(18), np.ones(18))
        with pytest.warns(UserWarning, match="18 errors are too few for a confidence of 0.95"):
            assert calibrator.predict([1.0], 0.95) == [np.inf]
        assert ConformalPrediction(0.1).fit(np.ones(19), np.ones(19)).quantile(0.95) == 1


class TestNegativeLeastLikelihood:
    @pytest.mark.parametrize("dimension", [1, 3])
    @pytest.mark.parametrize(("s1", "s2"), [(0.3, 0.0), (0.02, 0.5), (3.0, 1.5)])
    def test_parameters_are_found(self, dimension, s1, s2):
        errors, distances = normal(np.random.default_rng(0), 20_000, dimension, s1, s2)
        found = NegativeLeastLikelihoodEstimator().fit(errors, distances)
        assert_allclose(found.sigma(distances), s1 + s2 * distances, rtol=0.08)
        assert found.s1_ + found.s2_ == pytest.approx(s1 + s2, rel=0.02)

    @pytest.mark.parametrize("unit", [1e-4, 1.0, 1e3])
    def test_no_other_parameters_are_likelier(self, unit):
        errors, distances = heavy_tailed(np.random.default_rng(1), 300, 3)
        found = NegativeLeastLikelihoodEstimator().fit(unit * errors, distances / unit)
        least = found.negative_log_likelihood(unit * errors, distances / unit)
        # The density itself, written out.
        sigma = found.sigma(distances / unit)[:, None]
        assert least == pytest.approx(-norm(scale=sigma).logpdf(unit * errors).sum(1).mean())
        for a in (0.9, 1.0, 1.1):
            for b in (0.9, 1.0, 1.1):
                other = NegativeLeastLikelihoodEstimator()
                other.s1_, other.s2_ = a * found.s1_, b * found.s2_
                value = other.negative_log_likelihood(unit * errors, distances / unit)
                assert value >= least - 1e-6

    @pytest.mark.parametrize("dimension", [1, 3])
    def test_normal_quantile(self, dimension):
        errors, distances = normal(np.random.default_rng(2), 500, dimension, 0.1, 0.4)
        found = NegativeLeastLikelihoodEstimator("normal").fit(errors, distances)
        width = found.predict([2.0], 0.9)
        factor = np.sqrt(chi2.ppf(0.9, dimension))
        assert_allclose(width, factor * found.sigma(2.0))
        if dimension == 1:
            assert factor == pytest.approx(norm.ppf(0.95))

    def test_prediction_is_the_standard_deviation(self):
        errors, distances = normal(np.random.default_rng(3), 500, 1, 0.1, 0.4)
        found = NegativeLeastLikelihoodEstimator().fit(errors, distances)
        assert_allclose(found.predict([0.0, 2.0]), [found.s1_, found.s1_ + 2 * found.s2_])

    @pytest.mark.parametrize("dimension", [1, 3])
    def test_likelihood_of_parameters(self, dimension):
        errors, distances = normal(np.random.default_rng(4), 50, dimension, 0.1, 0.4)
        found = NegativeLeastLikelihoodEstimator()
        sigma = (0.2 + 0.3 * distances).reshape(-1, *[1] * (dimension > 1))
        expected = -norm(scale=sigma).logpdf(errors).sum()
        assert found.gaussian([0.2, 0.3], errors, distances) == pytest.approx(expected)

    def test_where_the_search_starts(self):
        errors, distances = heavy_tailed(np.random.default_rng(5), 300)
        one = NegativeLeastLikelihoodEstimator().fit(errors, distances)
        for start in ([1.0, 0.0], (0.01, 9.0), [-1.0, 0.1]):
            two = NegativeLeastLikelihoodEstimator().fit(errors, distances, initParams=start)
            assert_allclose([two.s1_, two.s2_], [one.s1_, one.s2_], rtol=1e-3)
        for wrong in ([1.0], [np.nan, 1.0], [[1.0, 2.0]]):
            with pytest.raises(ValueError, match="expected two numbers, s1 and s2"):
                NegativeLeastLikelihoodEstimator().fit(errors, distances, wrong)

    def test_nothing_to_fit(self):
        with pytest.raises(ValueError, match="nothing to fit"):
            NegativeLeastLikelihoodEstimator().fit([0.0, 0.0], [1.0, 2.0])
        with pytest.raises(ValueError, match="quantile must be one of"):
            NegativeLeastLikelihoodEstimator("median")


class TestCoverage:
    """Means over many splits, within two points of the confidence."""

    @pytest.mark.slow
    @pytest.mark.parametrize("dimension", [1, 3])
    @pytest.mark.parametrize("make", CALIBRATORS[:2])
    def test_heavy_tails(self, make, dimension):
        rng = np.random.default_rng(3)
        confidences, inside = (0.5, 0.8, 0.95), []
        for _ in range(120):
            errors, distances = heavy_tailed(rng, 100, dimension)
            calibrator = make().fit(errors, distances)
            errors, distances = heavy_tailed(rng, 300, dimension)
            lengths = np.linalg.norm(errors.reshape(300, -1), axis=1)
            inside.append([lengths <= calibrator.predict(distances, c) for c in confidences])
        assert np.mean(inside, axis=(0, 2)) == pytest.approx(confidences, abs=0.02)

    def test_normal_quantile_needs_normal_errors(self):
        rng = np.random.default_rng(4)
        for draw, holds in ((lambda n: normal(rng, n, 3, 0.1, 0.4), True), (None, False)):
            errors, distances = draw(4000) if draw else heavy_tailed(rng, 4000, 3)
            calibrator = NegativeLeastLikelihoodEstimator("normal").fit(errors, distances)
            inside = np.linalg.norm(errors, axis=1) <= calibrator.predict(distances, 0.5)
            assert (abs(inside.mean() - 0.5) < 0.02) == holds


class TestWrongInput:
    @pytest.mark.parametrize("make", CALIBRATORS)
    @pytest.mark.parametrize(
        ("errors", "distances", "message"),
        [
            ([1.0, 2.0], [1.0], "2 errors and distances of shape"),
            ([], [], "at least one"),
            ([1.0, np.nan], [1.0, 1.0], "error 1 is not finite"),
            ([1.0, 2.0], [1.0, 0.0], "distance 1 is 0.0; expected positive"),
            ([1.0, 2.0], [np.inf, 1.0], "distance 0 is inf"),
            (np.ones((2, 2, 2)), [1.0, 1.0], "shape"),
        ],
    )
    def test_fit(self, make, errors, distances, message):
        with pytest.raises(ValueError, match=message):
            make().fit(errors, distances)

    @pytest.mark.parametrize("make", CALIBRATORS)
    @pytest.mark.parametrize("confidence", [0, 1, 90, -0.1, float("nan")])
    def test_confidence(self, make, confidence):
        calibrator = make().fit(np.arange(1.0, 30), np.ones(29))
        with pytest.raises(ValueError, match="between 0 and 1"):
            calibrator.predict([1.0], confidence)


class TestDistances:
    def test_mean_over_the_nearest(self):
        rng = np.random.default_rng(5)
        train, test = rng.normal(size=(40, 6)), rng.normal(size=(15, 6))
        every = np.linalg.norm(test[:, None] - train, axis=2)
        for k in (1, 4, 40):
            assert_allclose(calc_dist(train, test, k), np.sort(every)[:, :k].mean(axis=1))
        assert_allclose(calc_dist(train, test, 1000), every.mean(axis=1))
        assert calc_dist(train, test[:0]).shape == (0,)

    def test_least(self):
        points = np.arange(50.0)[:, None]
        nearest = NearestTraining(points, k=2)
        # Within the row both neighbours are one step away.
        assert nearest.least == pytest.approx(LEAST)
        assert nearest([[20.0]]) == pytest.approx([0.5])
        assert NearestTraining(points, k=1)([[20.0], [20.5]]) == pytest.approx([LEAST, 0.5])

    @pytest.mark.parametrize("points", [np.ones((5, 3)), np.ones((1, 3))])
    def test_all_in_one_place(self, points):
        nearest = NearestTraining(points)
        assert_allclose(nearest([[1, 1, 1], [1, 1, 4]]), [1, 3])

    def test_wrong(self):
        with pytest.raises(ValueError, match="0 nearest neighbours"):
            NearestTraining(np.ones((2, 2)), 0)
        with pytest.raises(ValueError, match="no training points"):
            NearestTraining(np.ones((0, 2)))
        with pytest.raises(ValueError, match="expected \\(n, width\\)"):
            calc_dist(np.ones(3), np.ones(3))


class TestMetrics:
    @pytest.mark.parametrize("dimension", [1, 3])
    def test_true_deviations(self, dimension):
        rng = np.random.default_rng(6)
        errors, distances = normal(rng, 20_000, dimension, 0.1, 0.5)
        sigma = 0.1 + 0.5 * distances
        found = calibration_metrics(errors, sigma)
        assert found["largest_deviation"] < 0.015
        assert found["miscalibration_area"] < 0.01
        assert found["rank_correlation"] > 0.2
        assert found["negative_log_likelihood"] == pytest.approx(
            dimension * np.mean(np.log(sigma) + 0.5 * np.log(2 * np.pi) + 0.5), rel=0.02
        )
        for wrong in (0.5, 2.0):
            worse = calibration_metrics(errors, wrong * sigma)
            assert worse["miscalibration_area"] > 0.1
            assert worse["negative_log_likelihood"] > found["negative_log_likelihood"]
            assert worse["sharpness"] == pytest.approx(wrong * found["sharpness"])

    def test_half_widths(self):
        errors, levels = np.array([0.5, -1.5, 2.5, 3.5]), [0.25, 0.5, 0.75]
        found = calibration_metrics(errors, np.outer([1, 1, 9], np.ones(4)), levels)
        assert found["coverage"].tolist() == [0.25, 0.25, 1]
        assert found["largest_deviation"] == 0.25
        assert found["calibration_error"] == pytest.approx(np.sqrt(2 * 0.25**2 / 3))
        # 0 at 0.25, −0.25 at 0.5, crosses in the middle, 0.25 at 0.75, 0 at 1.
        assert found["miscalibration_area"] == pytest.approx(3 * 0.25**2 / 2)
        assert found["rank_correlation"] == 0
        assert found["sharpness"] == 9
        assert "negative_log_likelihood" not in found

    def test_nothing_is_ever_within(self):
        found = calibration_metrics(np.ones(5), np.full(5, 1e-9))
        assert found["miscalibration_area"] == pytest.approx(0.5, abs=0.01)

    def test_infinite_widths(self):
        """Of an element that was not calibrated."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = calibration_metrics(np.arange(1.0, 5), np.full((2, 4), np.inf), [0.5, 0.9])
        assert found["coverage"].tolist() == [1, 1]
        assert (found["rank_correlation"], found["sharpness"]) == (0, np.inf)

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match=r"uncertainties of shape \(2,\) for 3 errors"):
            calibration_metrics(np.ones(3), np.ones(2))
        with pytest.raises(ValueError, match="for 2 levels"):
            calibration_metrics(np.ones(3), np.ones((3, 3)), [0.1, 0.2])

    def test_plot(self, tmp_path):
        found = calibration_metrics(np.linspace(-1, 1, 50), np.full(50, 0.5))
        calibration_plot(tmp_path / "plot.png", {"one": found})
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


class TestPair:
    """v1.0's `calc_uncertainty_metrics`."""

    def test_share_outside_and_mean_width(self):
        calibration, sharpness = calc_uncertainty_metrics([0.5, -1.5, 2.5, -3.0], [1, 1, 2, 3])
        assert (calibration, sharpness) == (0.5, 1.75)

    def test_of_true_intervals_and_deviations(self):
        errors, distances = normal(np.random.default_rng(7), 20_000, 1, 0.1, 0.5)
        sigma = 0.1 + 0.5 * distances
        for factor, outside in ((1, 0.3173), (1.645, 0.1)):
            found = calc_uncertainty_metrics(errors, factor * sigma)
            assert found == pytest.approx((outside, factor * sigma.mean()), abs=0.01)

    @pytest.mark.parametrize(
        ("errors", "widths"), [([1.0, 2.0], [1.0]), ([], []), (np.ones((2, 3)), np.ones((2, 3)))]
    )
    def test_wrong_shapes(self, errors, widths):
        with pytest.raises(ValueError, match="expected \\(n,\\) for both"):
            calc_uncertainty_metrics(errors, widths)


class TestSplit:
    def test_parts(self):
        items, array = [str(k) for k in range(10)], np.arange(20).reshape(10, 2)
        test, calib, test_rows, calib_rows = split_calibration(items, array, calib_fraction=0.3)
        assert (len(test), len(calib)) == (7, 3)
        assert sorted(test + calib) == items
        assert [str(row[0] // 2) for row in test_rows] == test
        assert [str(row[0] // 2) for row in calib_rows] == calib
        assert split_calibration(items)[1] == split_calibration(items)[1]
        assert split_calibration(items)[1] != split_calibration(items, seed=1)[1]

    def test_as_in_v1(self):
        items, array = list(range(20)), np.arange(20.0)
        test, calib, test_y, calib_y = split_test_calib(items, array, 0.1, seed=2)
        assert (len(test), len(calib)) == (18, 2)
        assert (test_y.tolist(), calib_y.tolist()) == (test, calib)
        assert split_calibration(items, calib_fraction=0.1, seed=2) == (test, calib)
        with pytest.raises(ValueError, match="calibration must be between 0 and 1"):
            split_test_calib(items, array, 2)

    def test_wrong(self):
        with pytest.raises(ValueError, match="lengths \\[3, 2\\] differ"):
            split_calibration([1, 2, 3], [1, 2])
        with pytest.raises(ValueError, match="makes 0 of 3"):
            split_calibration([1, 2, 3], calib_fraction=0.1)
