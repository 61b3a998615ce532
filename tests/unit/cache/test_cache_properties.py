"""The cache against a plain model of what may be served, and its account against a recount."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question, make_key, question_digest
from anabranch.cache.records import Record
from anabranch.cache.sizes import RECORD_BYTES, TALLY_BYTES, VIEW_BYTES, key_bytes
from anabranch.cache.slots import Slot
from anabranch.contract.events import Item

LAYERS = ("a", "b", "c")
SCOPES = ("", "t")
TAGS = ("x", "y")
KEYS = [make_key("factual", scope, {"n": n}) for scope in SCOPES for n in range(4)]

keys = st.sampled_from(KEYS)
layers = st.sampled_from(LAYERS)
combinations = st.lists(layers, min_size=1, max_size=3, unique=True).map(tuple)
limits = st.sampled_from([1, 10, 20])


class CacheMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing wrong is served, and the sums are exact."""

    @initialize(
        policy=st.sampled_from(["s3fifo", "lru"]),
        max_entries=st.integers(1, 8),
        max_bytes=st.sampled_from([1_500, 4_000, 100_000]),
    )
    def begin(self, policy: str, max_entries: int, max_bytes: int) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.cache = CrossLayerCache(max_entries, max_bytes=max_bytes, policy=policy)
        self.now_ms = 0.0
        self.control = 0
        self.orders: list[tuple[int, str | None, str | None, str | None, tuple[str, ...]]] = []
        self.stored: dict[tuple[Question, str], list[Slot]] = {}
        self.served: tuple[Question, tuple[str, ...], int, dict[str, Slot]] | None = None
        self.probes = self.full = 0

    @rule(
        key=keys,
        layer=layers,
        limit=limits,
        age_ms=st.integers(0, 30),
        ttl_ms=st.sampled_from([0, 5, 50]),
        lag=st.integers(0, 2),
        tags=st.sets(st.sampled_from(TAGS)),
        size_bytes=st.integers(0, 1_200),
        complete=st.booleans(),
        by_digest=st.booleans(),
        count=st.integers(0, 2),
    )
    def store(
        self, key: Question, layer: str, limit: int, age_ms: int, ttl_ms: int, lag: int,
        tags: set[str], size_bytes: int, complete: bool, by_digest: bool, count: int,
    ) -> None:  # fmt: skip
        slot = Slot(
            [Item(f"urn:{n}", 1.0) for n in range(count)],
            complete, limit, self.now_ms - age_ms, ttl_ms, max(0, self.control - lag),
            tuple(sorted(tags)), 1.0, size_bytes,
        )  # fmt: skip
        name = question_digest(key) if by_digest else key
        if self.cache.store(name, layer, slot, self.now_ms):
            assert not self.dead(key, layer, slot) or by_digest
            self.stored.setdefault((key, layer), []).append(slot)

    @rule(
        layer=st.none() | layers,
        scope=st.none() | st.sampled_from(SCOPES),
        key=st.none() | keys,
        tags=st.sets(st.sampled_from(TAGS)),
    )
    def order(
        self, layer: str | None, scope: str | None, key: Question | None, tags: set[str]
    ) -> None:
        digest = question_digest(key) if key else None
        before = self.cache.stats()["slots"]
        count = self.cache.invalidate(
            generation=self.control, layer=layer, scope=scope, key=digest, tags=tuple(tags)
        )
        assert 0 <= count <= before * max(1, len(tags))
        self.orders.append((self.control, layer, scope, digest, tuple(tags)))
        self.control += 1

    @rule(step_ms=st.integers(1, 20))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule(
        key=keys,
        wanted=combinations,
        limit=limits,
        max_age_ms=st.sampled_from([None, 0, 10, 1_000]),
        again=st.booleans(),
    )
    def probe(
        self,
        key: Question,
        wanted: tuple[str, ...],
        limit: int,
        max_age_ms: int | None,
        again: bool,
    ) -> None:
        for _ in range(1 + again):
            memo = self.cache.prepared(
                key, wanted, limit=limit, max_age_ms=max_age_ms, now_ms=self.now_ms
            )
            self.probes += memo is not None
            self.full += memo is not None
            probe = self.cache.probe(
                key, wanted, limit=limit, max_age_ms=max_age_ms, now_ms=self.now_ms
            )
            self.probes += 1
            self.full += not probe.missing
            assert sorted((*probe.hits, *probe.missing)) == sorted(wanted)
            for layer, slot in probe.hits.items():
                known = self.stored[key, layer]
                assert any(slot == it and slot.items is it.items for it in known)
                assert not self.dead(key, layer, slot)
                assert slot.complete or slot.limit >= limit
                assert max_age_ms is None or self.now_ms - slot.stored_ms <= max_age_ms > 0
            assert memo is None or not probe.missing
            assert memo is None or memo == memo_of(key, wanted, limit, probe.hits)
            assert not probe.refresh or (probe.missing and set(probe.refresh) <= set(probe.hits))
            if not probe.missing:
                self.served = (key, wanted, limit, dict(probe.hits))

    @rule()
    def remember(self) -> None:
        if self.served is not None:
            key, wanted, limit, slots = self.served
            memo = memo_of(key, wanted, limit, slots)
            self.cache.remember(key, wanted, limit, slots, memo, len(memo))

    @rule(layer=layers)
    def forget_a_layer(self, layer: str) -> None:
        self.cache.invalidate_layer(layer)
        assert all(layer not in record.layers for record in self.cache._records.values())

    def dead(self, key: Question, layer: str, slot: Slot) -> bool:
        """Whether it has expired, or an order concerns it: straight from the definition."""
        return self.now_ms >= slot.stored_ms + slot.ttl_ms or any(
            offset >= slot.generation
            and of_layer in (None, layer)
            and of_scope in (None, key[1])
            and of_key in (None, question_digest(key))
            and (not of_tags or set(of_tags) & set(slot.tags))
            for offset, of_layer, of_scope, of_key, of_tags in self.orders
        )

    @invariant()
    def the_account_is_exact(self) -> None:
        records = self.cache._records.values()
        held = [slot for record in records for slot in record.slots.values()]
        names = {("", ""), *(("layer", layer) for r in records for layer in r.layers)}
        names |= {("scope", r.scope) for r in records if r.scope is not None}
        names |= {("tag", tag) for slot in held for tag in slot.tags}
        recount = sum(map(size_of, records)) + TALLY_BYTES * len(names) * bool(held)
        assert self.cache.size_bytes == recount <= self.max_bytes
        assert len(self.cache) == len(records) <= self.max_entries
        assert self.cache.stats()["slots"] == len(held)
        assert all(record.layers for record in records)

    @invariant()
    def the_tallies_and_the_policy_hold_just_what_is_held(self) -> None:
        records = self.cache._records.values()
        held = [(layer, slot) for record in records for layer, slot in record.slots.items()]
        tallies = self.cache._slot_store.tallies._layers
        for layer in LAYERS:
            tally = tallies.get(layer)
            assert (tally.held if tally else 0) == sum(name == layer for name, _ in held)
            assert tally is None or 0 <= tally.live <= tally.held
        assert len(self.cache._slot_store._policy) == len(records)
        assert self.cache._slot_store.read_back == sum(isinstance(r.key, str) for r in records)

    @invariant()
    def every_probe_is_counted_once(self) -> None:
        stats = self.cache.stats()
        assert (stats["probes"], stats["total_queries_saved"]) == (self.probes, self.full)


def size_of(record: Record) -> int:
    """What it should be counted for, from its parts."""
    slots = sum(slot.size_bytes for slot in record.slots.values())
    return RECORD_BYTES + key_bytes(record.key) + slots + (
        0 if record.view is None else VIEW_BYTES + len(record.view.memo or b"")
    )  # fmt: skip


def memo_of(key: Question, wanted: tuple[str, ...], limit: int, slots: dict[str, Slot]) -> bytes:
    """An answer that tells what it was made from."""
    return repr((key, wanted, limit, [id(slots[layer].items) for layer in wanted])).encode()[-60:]


CacheMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestCache = CacheMachine.TestCase
