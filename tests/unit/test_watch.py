from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtal_serving.processes import Stub
from backtal_serving.watch import Watch

V1, V2, NETWORK = Stub("tiny", 1), Stub("tiny", 2), Stub("cas-1", 1)


def watch_of(served: set[Stub], alive: dict[int, Stub]) -> Watch:
    watch = Watch(lambda stub: stub in served)
    watch.renew(alive)
    return watch


def test_a_dead_process_is_told_once() -> None:
    watch = watch_of({V1, NETWORK}, {10: V1, 11: V1, 12: NETWORK})
    assert watch.take_dead({10: V1, 11: V1, 12: NETWORK}) == []
    assert watch.take_dead({11: V1}) == ["cas-1", "tiny"]
    assert watch.take_dead({11: V1}) == []


def test_a_version_that_leaves_may_end_whenever_it_likes() -> None:
    served = {V1}
    watch = watch_of(served, {10: V1})
    served.symmetric_difference_update({V1, V2})
    watch.renew({10: V1, 20: V2})
    watch.renew({10: V1, 20: V2})
    assert watch.take_dead({20: V2}) == []
    assert watch.take_dead({}) == ["tiny"]


def test_a_version_that_was_loaded_anew_may_lose_its_old_process_only() -> None:
    """One that is kept is loaded anew where the configuration changed; its requests go on."""
    watch = watch_of({V1, V2}, {10: V1})
    watch.renew({10: V1, 11: V1, 20: V2})
    # Another publish, while the old process still has a request.
    watch.renew({10: V1, 11: V1, 20: V2, 21: NETWORK})
    assert watch.take_dead({11: V1, 20: V2}) == []
    assert watch.take_dead({20: V2}) == ["tiny"]


def test_one_that_dies_while_others_are_loaded_is_found() -> None:
    watch = watch_of({V1, V2}, {10: V1})
    watch.renew({20: V2})
    assert watch.take_dead({20: V2}) == ["tiny"]


@given(st.dictionaries(st.integers(1, 9), st.sampled_from([V1, V2, NETWORK])), st.data())
def test_without_changes_every_end_of_what_is_served_is_told(alive, data) -> None:
    watch = watch_of({V1, NETWORK}, alive)
    watch.renew(alive)
    left = {process_id: stub for process_id, stub in alive.items() if data.draw(st.booleans())}
    ended = {alive[process_id] for process_id in alive.keys() - left.keys()}
    assert watch.take_dead(left) == sorted({stub.model for stub in ended if stub != V2})
