"""What orders to forget do to queries that are open, and to those that come."""

from __future__ import annotations

from hybrid import Hybrid


class TestInvalidation:
    def test_an_order_between_lookup_and_fetch_is_not_lost(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.invalidate(layer="d")
        world.reply("a", "d")
        assert world.answers[id_].status == "complete", "the question came before the order"
        world.ask("a", "d")
        assert world.asked() == ["d"]

    def test_what_was_looked_up_after_the_order_is_kept(self) -> None:
        world = Hybrid()
        world.invalidate(layer="d")
        world.cached("a", "d")
        world.ask("a", "d")
        assert not world.sent

    def test_one_layer_is_fetched_again_beside_the_others(self) -> None:
        world = Hybrid()
        world.cached("a", "b", "d")
        world.invalidate(layer="b")
        id_ = world.ask("a", "b", "d")
        world.reply("b")
        assert world.sources(id_) == {"a": "cache", "b": "sequential", "d": "cache"}

    def test_a_scope_is_forgotten_without_the_others(self) -> None:
        world = Hybrid()
        for scope in ("one", "two"):
            world.cached("a", "d", scope=scope)
        world.invalidate(scope="one")
        world.ask("a", "d", scope="two")
        assert not world.sent
        world.ask("a", "d", scope="one")
        assert world.asked() == ["a", "d"]

    def test_one_question_is_forgotten_by_its_key(self) -> None:
        world = Hybrid()
        world.ask("d", n=1)
        key = world.sent[0].task.key
        world.reply("d")
        world.cached("d", n=2)
        world.invalidate(key=key)
        world.ask("d", n=2)
        assert not world.sent
        world.ask("d", n=1)
        assert world.asked() == ["d"]

    def test_only_tagged_results_are_forgotten_by_their_tag(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a", tags=["document-7"])
        world.reply("d", to=id_, tags=["document-8"])
        world.invalidate(tags=["document-7"])
        world.ask("a", "d")
        assert world.asked() == ["a"]


class TestControlMadeAnew:
    """Its offsets begin again, so that nothing can be compared with what was stamped before."""

    def test_what_is_held_is_forgotten_and_later_orders_hold(self) -> None:
        world = Hybrid()
        for _ in range(5):
            world.invalidate(tags=["none"])
        world.cached("a")
        world.parts.invalidations.follow(0)
        id_ = world.ask("a")
        assert world.asked() == ["a"], "nobody knows what the old log would have said"
        world.reply("a", to=id_)
        world.parts.cache.invalidate(generation=0, layer="a")
        world.parts.invalidations.follow(1)
        world.ask("a")
        assert world.asked() == ["a"], "a new order concerns what was looked up before it"

    def test_what_was_fetched_meanwhile_is_not_kept(self) -> None:
        world = Hybrid()
        world.invalidate(tags=["none"])
        id_ = world.ask("a")
        world.parts.invalidations.follow(0)
        world.reply("a", to=id_)
        assert world.answers[id_].status == "complete"
        world.ask("a")
        assert world.asked() == ["a"]
