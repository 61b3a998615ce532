"""No item of one scope in another's answer, cache, prefetch or recovery, whatever happens.

A layer says to each scope what it says to no other, so that whatever crosses over is seen in an
answer. Tasks are looked at, too: nobody is asked in a scope that has not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hybrid import LAYERS, TTL_MS, Hybrid, Sent
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from anabranch.cache import keys
from anabranch.config.settings import CoordinatorConfig
from anabranch.contract.events import Item, PartialResult
from anabranch.contract.keys import digest
from anabranch.coordinator.progress.restored import Restored

SCOPES = ("", "x", "y")
PARTITIONS = 2

scopes = st.sampled_from(SCOPES)
numbers = st.integers(0, 2)
at = st.integers(0, PARTITIONS - 1)
chosen = st.lists(st.sampled_from([*LAYERS]), min_size=1, max_size=3, unique=True)


def prefix(scope: str, n: int) -> str:
    return f"urn:{scope}:{n}:"


class ScopeMachine(RuleBasedStateMachine):
    """Few scopes, questions and partitions, so that they meet."""

    @initialize()
    def begin(self) -> None:
        guessing = CoordinatorConfig(warm=True, prefetch=True)
        self.world = Hybrid(PARTITIONS, coordinator=guessing)
        self.asked: dict[str, tuple[str, int]] = {}
        self.seen: set[tuple[str, int]] = set()
        self.guesses = 0

    # ── what may happen ────────────────────────────────────────────────────────────────────

    @rule(
        scope=scopes, n=numbers, at=at, layers=chosen,
        limit=st.sampled_from([1, 20]), max_age_ms=st.sampled_from([None, None, 0, 5_000]),
    )  # fmt: skip
    def ask(
        self, scope: str, n: int, at: int, layers: list[str], limit: int, max_age_ms: int | None
    ) -> None:
        self._ask(scope, n, at, *layers, limit=limit, max_age_ms=max_age_ms)

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data(), again=st.booleans(), status=st.sampled_from(["ok", "ok", "error"]))
    def a_worker_answers(self, data: st.DataObject, again: bool, status: str) -> None:
        number = data.draw(st.integers(0, len(self.world.sent) - 1))
        sent = self.world.sent[number] if again else self.world.sent.pop(number)
        self._deliver(sent, status=status)

    @rule(scope=scopes, at=at)
    def the_same_is_asked_in_turn(self, scope: str, at: int) -> None:
        """Often enough for prefetch, which dear layers pay for, and again when all has expired."""
        self._ask(scope, 2, at, "d", "e", "f")
        for _ in range(4):
            for n in (0, 1):
                self._ask(scope, n, at)
                self._work()
        self.world.after(2 * TTL_MS)
        self._ask(scope, 0, at)

    @rule(scope=scopes, n=numbers, at=at)
    def what_is_asked_most_is_refreshed(self, scope: str, n: int, at: int) -> None:
        self._ask(scope, n, at, "d", "e", "f")
        for _ in range(2):
            self._ask(scope, n, at)
            self._work()
        self.world.after(0.8 * TTL_MS)
        self.world.parts.speculation.refresh(self.world.now_ms)
        self.world.collect()

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data(), at=at, offset=st.integers(0, 5))
    def a_partial_goes_astray(self, data: st.DataObject, at: int, offset: int) -> None:
        """As after a topic was made anew: another query has the offset that it names."""
        sent = data.draw(st.sampled_from(self.world.sent))
        self._deliver(sent, partition=at, offset=offset)

    @rule(ms=st.sampled_from([10, 400, TTL_MS]))
    def time_passes(self, ms: int) -> None:
        self.world.after(ms)

    @rule(scope=scopes)
    def a_scope_is_invalidated(self, scope: str) -> None:
        self.world.invalidate(scope=scope)

    @rule()
    def killed_and_taken_over(self) -> None:
        self.world.take_over()

    # ── what must hold ─────────────────────────────────────────────────────────────────────

    @invariant()
    def an_answer_has_items_of_its_scope_and_question_alone(self) -> None:
        for id_, answer in self.world.answers.items():
            scope, n = self.asked[id_]
            strange = [i.id for i in answer.items if not i.id.startswith(prefix(scope, n))]
            assert not strange, f"{id_} asked {n} in {scope!r}"

    @invariant()
    def nobody_is_asked_in_a_scope_that_has_not_asked(self) -> None:
        for sent in self.world.sent:
            task = sent.task
            question = (task.scope, task.params["n"])
            assert question in self.seen
            assert not task.query or question == self.asked[task.query]
            assert not task.key or task.key == digest(task.type, task.scope, task.params)
            self.guesses += not task.query

    # ── within ─────────────────────────────────────────────────────────────────────────────

    def _ask(self, scope: str, n: int, at: int, *layers: str, **fields: Any) -> None:
        id_ = f"q{len(self.asked)}"
        self.asked[id_] = (scope, n)
        self.seen.add((scope, n))
        self.world.ask(*layers, at=at, n=n, id=id_, scope=scope, **fields)

    def _work(self) -> None:
        """Everything that was asked for is found."""
        while self.world.sent:
            self._deliver(self.world.sent.pop(0))

    def _deliver(self, sent: Sent, **changed: Any) -> None:
        task, slot = sent.task, sent.slot
        items = [Item(prefix(task.scope, task.params["n"]) + f"{slot.layer}:{slot.shard}", 1.0)]
        if changed.get("status", "ok") == "ok":
            changed["items"] = items
        self.world.deliver(sent, **changed)


TestScopes = ScopeMachine.TestCase
TestScopes.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# ── it notices ─────────────────────────────────────────────────────────────────────────────


def a_key_without_its_scope(patch: pytest.MonkeyPatch) -> None:
    def leak(type_: str, scope: str, *rest: Any) -> Any:
        return keys.make_key(type_, "", *rest)

    patch.setattr("anabranch.coordinator.query.cache_lookup.make_key", leak)


def a_digest_without_its_scope(patch: pytest.MonkeyPatch) -> None:
    def leak(type_: str, scope: str, params: dict[str, Any]) -> str:
        return digest(type_, "", params)

    patch.setattr("anabranch.coordinator.query.planning.digest", leak)


def recovery_by_offset_alone(patch: pytest.MonkeyPatch) -> None:
    def arrived(self: Restored, offset: int, id_: str) -> list[PartialResult]:
        return [result for p in self.forget(offset) for result in p.results]

    patch.setattr(Restored, "arrived", arrived)


@pytest.mark.parametrize(
    "sabotage", [a_key_without_its_scope, a_digest_without_its_scope, recovery_by_offset_alone]
)
def test_a_leak_is_noticed(
    sabotage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    once = settings(
        TestScopes.settings, derandomize=True, database=None, max_examples=1_000,
        phases=[Phase.generate], report_multiple_bugs=False,
    )  # fmt: skip
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ScopeMachine, settings=once)


def test_the_machine_gets_as_far_as_guesses() -> None:
    machine = ScopeMachine()
    machine.begin()
    machine.the_same_is_asked_in_turn("x", 0)
    machine.nobody_is_asked_in_a_scope_that_has_not_asked()
    prefetched = machine.guesses
    machine.what_is_asked_most_is_refreshed("x", 2, 0)
    machine.nobody_is_asked_in_a_scope_that_has_not_asked()
    assert machine.guesses > prefetched > 0
