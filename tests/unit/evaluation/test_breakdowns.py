import numpy as np
import pytest

from gerbil_tune.evaluation.breakdowns import (
    Binning,
    break_down,
    by_length,
    by_number,
    by_snr,
    by_zone,
)


def errors(values):
    return {"net": {"error_mm": np.asarray(values, float)}}


def test_figures_of_each_bin_are_those_of_its_events():
    rng = np.random.default_rng(0)
    bin_N, error_N = rng.integers(0, 4, 500), rng.gamma(2, 20, 500)
    covered_N = (rng.random(500) < 0.9).astype(float)
    binning = Binning("zone", "Zone", ("a", "b", "c", "d", "empty"), bin_N)
    found = break_down(binning, {"net": {"error_mm": error_N, "covered_95": covered_N}})
    assert found.labels == ("a", "b", "c", "d")
    assert found.count_G.tolist() == np.bincount(bin_N).tolist()
    net = found.methods["net"]
    for place in range(4):
        own = error_N[bin_N == place]
        assert net.median_mm_G[place] == pytest.approx(np.median(own))
        assert net.p90_mm_G[place] == pytest.approx(np.quantile(own, 0.9))
        assert net.coverage_95_G[place] == pytest.approx(covered_N[bin_N == place].mean())
        assert net.low_mm_G[place] < net.median_mm_G[place] < net.high_mm_G[place]


def test_the_interval_of_a_median_is_of_order_statistics():
    # Of 20 values the 6th and the 15th hold the median with 95.9 % (Conover, table A3).
    found = break_down(by_number("session", "S", "session", np.zeros(20)), errors(np.arange(1, 21)))
    net = found.methods["net"]
    assert (net.low_mm_G[0], net.median_mm_G[0], net.high_mm_G[0]) == (6, 10.5, 15)
    assert net.coverage_95_G is None


def test_five_events_have_no_interval():
    found = break_down(by_number("session", "S", "session", np.zeros(5)), errors(range(5)))
    assert np.isnan(found.methods["net"].low_mm_G).all()
    assert found.methods["net"].median_mm_G.tolist() == [2.0]


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    bins = np.repeat(np.arange(1000), 25)
    found = break_down(
        by_number("session", "S", "session", bins), errors(rng.exponential(1.0, bins.size))
    )
    net = found.methods["net"]
    held = (net.low_mm_G <= np.log(2)) & (np.log(2) <= net.high_mm_G)
    assert 0.945 < held.mean() < 0.985


def test_whole_groups_are_drawn_where_a_bin_has_enough_of_them():
    rng = np.random.default_rng(0)
    # Forty events of a group are copies of one another, so there are 30 different ones in a bin.
    error_N = np.repeat(rng.gamma(2, 20, 60), 40)
    bin_N, group_N = np.repeat([0, 1], 1200), np.repeat(np.arange(60), 40)
    binning = Binning("zone", "Zone", ("a", "b"), bin_N)
    single = break_down(binning, errors(error_N)).methods["net"]
    grouped = break_down(binning, errors(error_N), group_N).methods["net"]
    width, grouped_width = (found.high_mm_G - found.low_mm_G for found in (single, grouped))
    assert (grouped_width > 2.5 * width).all()
    np.testing.assert_array_equal(single.median_mm_G, grouped.median_mm_G)
    again = break_down(binning, errors(error_N), group_N).methods["net"]
    np.testing.assert_array_equal(again.low_mm_G, grouped.low_mm_G)


def test_bins_of_one_group_keep_the_closed_form():
    group_N = np.repeat(np.arange(8), 20)
    by_session = by_number("session", "S", "session", group_N)
    error_N = np.random.default_rng(0).gamma(2, 20, 160)
    with_groups = break_down(by_session, errors(error_N), group_N).methods["net"]
    without = break_down(by_session, errors(error_N)).methods["net"]
    np.testing.assert_array_equal(with_groups.low_mm_G, without.low_mm_G)


def test_events_in_no_bin_are_left_out():
    binning = Binning("zone", "Zone", ("a", "b"), np.array([-1, 1, 1, -1]))
    found = break_down(binning, errors([99.0, 1.0, 3.0, 99.0]))
    assert (found.labels, found.count_G.tolist()) == (("b",), [2])
    assert found.methods["net"].median_mm_G.tolist() == [2.0]


def test_lengths_are_cut_in_equal_parts():
    binning = by_length(np.arange(100.0, 300.0))
    assert np.bincount(binning.bin_N).tolist() == [40] * 5
    assert binning.labels[0] == "100 to 140 ms"
    assert by_length(np.full(100, 50.0)).labels == ("50.0 to 50.0 ms",)
    assert len(by_length(np.arange(10.0)).labels) == 1


def test_ratios_are_cut_at_round_numbers():
    binning = by_snr(np.concatenate([np.linspace(0, 40, 200), [np.inf, np.nan, np.nan]]))
    assert binning.labels[0].startswith("below 5 dB")
    assert binning.labels[-3:] == ("from 35 dB", "silent between", "not known")
    assert binning.bin_N[-3:].tolist() == [len(binning.labels) - 2] + [len(binning.labels) - 1] * 2
    low, high = binning.bin_N[200 * 12 // 40], binning.labels.index("10 to 15 dB")
    assert low == high
    assert by_snr(np.full(3, np.nan)).labels == ("silent between", "not known")
    assert set(by_snr(np.full(9, 12.3)).bin_N.tolist()) == {0}


def test_zones_are_named_as_a_map_shows_them():
    places = np.array([[-200.0, -150.0], [0, 0], [250, 150], [0, 900]])[:, None]
    binning = by_zone(places, (572.0, 356.0))
    names = [binning.labels[place] for place in binning.bin_N]
    assert names == ["bottom left", "centre", "top right", "top"]
