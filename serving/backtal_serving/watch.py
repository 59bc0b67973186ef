"""Which of the models' processes have to live: others may end, when their versions leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backtal_serving.processes import Stub


class Watch:
    """The processes whose end is a fault. `is_served`: whether a model's version is wanted."""

    def __init__(self, is_served: Callable[[Stub], bool]) -> None:
        self._is_served = is_served
        self._watched: dict[int, Stub] = {}
        self._known: frozenset[int] = frozenset()

    def renew(self, alive: Mapping[int, Stub]) -> None:
        """Look again, after models were loaded or unloaded.

        Where a model's version has new processes, the ones before may end. One that ended and has
        no successor stays in the watch, to be found dead.
        """
        fresh = {
            process_id: stub for process_id, stub in alive.items() if process_id not in self._known
        }
        renewed = set(fresh.values())
        kept = {
            process_id: stub for process_id, stub in self._watched.items() if stub not in renewed
        }
        self._watched = {
            process_id: stub
            for process_id, stub in {**kept, **fresh}.items()
            if self._is_served(stub)
        }
        self._known = frozenset(alive)

    def take_dead(self, alive: Mapping[int, Stub]) -> list[str]:
        """The models whose processes have ended since the last look, each once."""
        dead = self._watched.keys() - alive.keys()
        return sorted({self._watched.pop(process_id).model for process_id in dead})
