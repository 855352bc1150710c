"""Trial schedulers as functions of curves: known cases, and what must hold for any curves."""

from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.study import AshaConfig, MedianConfig, PopulationConfig
from gerbil_tune.search.curves import TrialCurve
from gerbil_tune.search.policies import (
    GO_ON,
    EarlyStopping,
    MedianRule,
    Population,
    Promotion,
    Step,
    rung_epochs,
)

ASHA = AshaConfig(grace_epochs=1, reduction_factor=3)


def at_first_rung(values: list[float]) -> dict[int, TrialCurve]:
    return {n: TrialCurve(n, 9, {1: value}, paused_at=1) for n, value in enumerate(values)}


def test_rungs_end_before_the_last_epoch() -> None:
    assert rung_epochs(AshaConfig(grace_epochs=3, reduction_factor=3), 27) == (3, 9)
    assert rung_epochs(AshaConfig(grace_epochs=3, reduction_factor=3), 28) == (3, 9, 27)
    assert rung_epochs(AshaConfig(grace_epochs=5, reduction_factor=4), 5) == ()


def test_early_stopping_keeps_the_best_third_and_ties() -> None:
    curves = at_first_rung([10.0, 20.0, 20.0, 40.0, 50.0, 60.0])
    policy = EarlyStopping(ASHA)
    going = [n for n, curve in curves.items() if policy.after_epoch(curve, 1, curves) == GO_ON]
    assert going == [0, 1, 2]
    assert policy.after_epoch(curves[3], 1, curves).reason == (
        "not among the best 2 of 6 after 1 epochs"
    )


def test_nothing_is_decided_between_rungs() -> None:
    curve = TrialCurve(0, 9, {1: 5.0, 2: 90.0})
    other = TrialCurve(1, 9, {2: 1.0})
    for policy in (EarlyStopping(ASHA), Promotion(ASHA)):
        assert policy.after_epoch(curve, 2, {0: curve, 1: other}) == GO_ON


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40, unique=True))
def test_promotion_is_for_the_best_third_alone(values: list[float]) -> None:
    curves = at_first_rung(values)
    promoted = []
    while (step := Promotion(ASHA).next_step(curves, nothing_else=False)) is not None:
        curves[step.number].paused_at = 0
        promoted.append(step.number)
    best = sorted(range(len(values)), key=lambda n: values[n])[: len(values) // 3]
    assert promoted == best


def test_the_highest_rung_is_promoted_first() -> None:
    curves = at_first_rung([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for number in (3, 4, 5):
        curves[number].values[3] = 10.0 + number
        curves[number].paused_at = 3
    assert Promotion(ASHA).next_step(curves, nothing_else=False) == Step(3)


def test_at_the_very_end_the_one_furthest_on_is_promoted_unless_one_is_complete() -> None:
    curves = at_first_rung([2.0, 1.0])
    policy = Promotion(ASHA)
    assert policy.next_step(curves, nothing_else=False) is None
    assert policy.next_step(curves, nothing_else=True) == Step(1)
    curves[2] = TrialCurve(2, 9, {9: 1.0}, is_over=True)
    assert policy.next_step(curves, nothing_else=True) is None


def test_the_median_rule_compares_the_best_so_far() -> None:
    policy = MedianRule(MedianConfig(kind="median", grace_epochs=2, startup_trials=3))
    curves = {n: TrialCurve(n, 9, {2: 10.0 * n}, is_over=True) for n in (1, 2, 3)}
    worse = TrialCurve(4, 9, {1: 21.0, 2: 25.0})
    better = TrialCurve(5, 9, {1: 19.0, 2: 25.0})
    assert policy.after_epoch(worse, 2, {**curves, 4: worse}).stop
    assert not policy.after_epoch(better, 2, {**curves, 5: better}).stop
    assert not policy.after_epoch(worse, 1, {**curves, 4: worse}).stop
    del curves[3]
    assert not policy.after_epoch(worse, 2, {**curves, 4: worse}).stop


def test_the_worst_quarter_of_a_population_is_replaced() -> None:
    policy = Population(PopulationConfig(kind="pbt", interval_epochs=2, quantile=0.25), seed=0)
    curves = {n: TrialCurve(n, 8, {2: float(n)}, paused_at=2) for n in range(8)}
    steps = []
    for _ in range(8):
        step = policy.next_step(curves, nothing_else=False)
        assert step is not None
        steps.append(step)
        curve = curves[step.number]
        curve.paused_at, curve.is_over = 0, step.donor is not None
    assert [step.number for step in steps] == list(range(8))
    assert [step.donor is not None for step in steps] == [False] * 6 + [True] * 2
    assert {step.donor for step in steps[6:]} <= {0, 1}


def test_a_population_pauses_after_each_interval_but_not_at_the_end() -> None:
    policy = Population(PopulationConfig(kind="pbt", interval_epochs=2), seed=0)
    curve = TrialCurve(0, 8)
    assert [epoch for epoch in range(1, 9) if policy.after_epoch(curve, epoch, {}).pause] == [
        2,
        4,
        6,
    ]
