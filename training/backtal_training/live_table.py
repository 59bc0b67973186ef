"""The epochs of a run as they end: live on a terminal, the whole table at the end elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.table import Table

from backtal_training.state import Epoch

_TERMS = {
    "loss": "total",
    "base": "base",
    "supp.": "suppressed",
    "click": "click",
    "separation": "separation",
    "affinity": "affinity",
}


class LiveTable:
    """A context in which `on_epoch` adds a row."""

    def __init__(self, num_epochs: int, score_name: str) -> None:
        self._table = Table(title=f"Training, {num_epochs} epochs")
        for column in ("epoch", *_TERMS, score_name, "seconds"):
            self._table.add_column(column, justify="right")
        self._live = Live(self._table, console=Console(), vertical_overflow="visible")
        self._best = float("-inf")

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_epoch(self, epoch: Epoch) -> None:
        """One row more; a score that is the best so far stands out."""
        terms = [
            f"{epoch.losses[name]:.4f}" if name in epoch.losses else "" for name in _TERMS.values()
        ]
        score = "" if epoch.held_out_map is None else f"{epoch.held_out_map:.3f}"
        if epoch.held_out_map is not None and epoch.held_out_map > self._best:
            self._best, score = epoch.held_out_map, f"[bold green]{score}[/]"
        self._table.add_row(str(epoch.number), *terms, score, f"{epoch.seconds:.2f}")
        self._live.refresh()
