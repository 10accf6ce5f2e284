"""Load balancing, outlier ejection and listing comparison of replicas."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from toolbus_executor.upstreams.replicas.listing_comparison import Found, differing, majority
from toolbus_executor.upstreams.replicas.load_balancing import FEW, home_of, next_in_turn, uncrowded
from toolbus_executor.upstreams.replicas.outlier_ejection import (
    BASE,
    FAILURES,
    LONGEST,
    Place,
    Standing,
    may_go,
)


@dataclass
class ReplicaStub:
    label: str
    weight: int
    credit: int = 0
    in_progress: int = 0


weights = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def several(weights: list[int]) -> list[ReplicaStub]:
    return [ReplicaStub(f"r{number}", weight) for number, weight in enumerate(weights)]


@given(weights, st.integers(1, 3))
def test_each_replica_gets_its_weight_of_turns_in_every_round(
    weights: list[int], rounds: int
) -> None:
    replicas = several(weights)
    turns = Counter(next_in_turn(replicas).label for _ in range(rounds * sum(weights)))
    assert turns == {each.label: each.weight * rounds for each in replicas}


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.data())
def test_turns_follow_the_weights_of_the_remaining_replicas(
    weights: list[int], data: st.DataObject
) -> None:
    replicas = several(weights)
    for _ in range(data.draw(st.integers(0, 30))):
        next_in_turn(replicas)
    left = replicas[1:]
    total = sum(each.weight for each in left)
    turns = Counter(next_in_turn(left).label for _ in range(40 * total))
    for each in left:
        assert abs(turns[each.label] - 40 * each.weight) <= sum(weights)


@given(weights, st.text(max_size=20), st.data())
def test_a_caller_keeps_its_replica_unless_that_is_removed(
    weights: list[int], caller: str, data: st.DataObject
) -> None:
    replicas = several(weights)
    home = home_of(caller, replicas)
    assert home_of(caller, replicas[::-1]) is home
    gone = data.draw(st.sampled_from(replicas))
    left = [each for each in replicas if each is not gone]
    if left:
        assert (home_of(caller, left) is home) is (gone is not home)


def test_callers_are_spread_by_weight() -> None:
    replicas = several([1, 3])
    homes = Counter(home_of(f"key{number}", replicas).label for number in range(4000))
    assert 2850 < homes["r1"] < 3150


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 500)), min_size=1, max_size=6))
def test_at_least_one_replica_is_never_overloaded(weights: list[tuple[int, int]]) -> None:
    replicas = [
        ReplicaStub(f"r{n}", weight, in_progress=calls) for n, (weight, calls) in enumerate(weights)
    ]
    assert min(replicas, key=lambda each: each.in_progress / each.weight) in uncrowded(replicas)


@given(st.integers(1, 100))
def test_a_hanging_replica_gets_only_a_few_calls(calls: int) -> None:
    hung, *others = replicas = several([1, 1, 1])
    for _ in range(calls):
        chosen = next_in_turn(uncrowded(replicas))
        hung.in_progress += chosen is hung
    assert hung.in_progress <= FEW + 1
    assert all(each.in_progress == 0 for each in others)


def test_calls_in_proportion_to_weight_are_no_overload() -> None:
    replicas = [ReplicaStub("r0", 1, in_progress=10), ReplicaStub("r1", 3, in_progress=40)]
    assert uncrowded(replicas) == replicas


def ejected(standing: Standing, now: float) -> bool:
    return any(standing.failed(now, may_go=True) for _ in range(FAILURES))


def test_a_replica_is_ejected_after_failures_in_a_row_and_a_success_resets_them() -> None:
    standing = Standing()
    for _ in range(FAILURES - 1):
        assert not standing.failed(0.0, may_go=True)
    standing.succeeded(0.0)
    assert standing.failures == 0
    assert ejected(standing, 0.0)
    assert (standing.place, standing.until) == (Place.EJECTED, BASE)


def test_a_replica_that_may_not_be_ejected_stays() -> None:
    standing = Standing()
    assert not any(standing.failed(0.0, may_go=False) for _ in range(100))
    assert standing.place is Place.IN


def test_a_trial_starts_after_its_time_and_one_call_ends_it() -> None:
    standing = Standing()
    ejected(standing, 0.0)
    assert not standing.succeeded(1.0), "the call started before the ejection"
    assert not standing.tried_again(BASE - 0.1)
    assert standing.tried_again(BASE)
    assert standing.failed(BASE, may_go=False), "the others are not called again"
    assert standing.until == 3 * BASE, "ejected for longer"
    assert standing.tried_again(3 * BASE)
    assert standing.succeeded(3 * BASE)
    assert standing.place is Place.IN


def test_the_ejection_count_decays_over_time() -> None:
    standing = Standing()
    ejected(standing, 0.0)
    standing.tried_again(BASE)
    standing.succeeded(BASE)
    ejected(standing, BASE + 1)
    assert standing.until == BASE + 1 + 2 * BASE
    standing.tried_again(standing.until)
    standing.succeeded(100.0)
    ejected(standing, 100.0 + 50 * BASE)
    assert standing.until == 100.0 + 51 * BASE


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "try"]), st.floats(0, 50)), max_size=80))
def test_the_ejection_time_is_bounded(steps: list[tuple[str, float]]) -> None:
    standing, now = Standing(), 0.0
    for what, later in steps:
        now += later
        if what == "ok":
            standing.succeeded(now)
        elif what == "fail":
            standing.failed(now, may_go=True)
        else:
            standing.tried_again(now)
        assert standing.until <= now + LONGEST
    assert standing.place is not Place.EJECTED or standing.tried_again(now + LONGEST)


@given(st.integers(1, 16))
def test_at_most_half_are_ejected_and_never_the_last(replicas: int) -> None:
    out = 0
    while may_go(out, replicas, replicas - out - 1):
        out += 1
    assert out == replicas // 2
    assert not may_go(0, replicas, 0), "the others may be unreachable"


def found(digests: dict[str, str]) -> Found:
    return Found([], digests=digests)


def test_the_listing_with_most_weight_wins_and_of_equals_the_first() -> None:
    old, new = {"a": "1"}, {"a": "2"}
    one, two = ReplicaStub("r0", 1), ReplicaStub("r1", 2)
    assert majority([(one, found(old)), (one, found(new)), (one, found(new))]).digests == new
    assert majority([(one, found(old)), (two, found(new))]).digests == new
    assert majority([(one, found(old)), (one, found(new))]).digests == old


def test_a_replica_with_a_different_or_missing_tool_differs() -> None:
    assert differing({"a": "1", "b": "2", "more": "3"}, {"a": "1", "b": "x", "c": "4"}) == {
        "b",
        "c",
    }
