"""The ablation's document: a table a corpus, means with 95 % intervals over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtal_training.ablation_arms import ARMS
from backtal_training.statistics import Interval, over_seeds

REFERENCE = "released"
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Measured:
    """The mAP at each tIoU, and the seconds the run took."""

    maps: list[float]
    seconds: float

    @property
    def average(self) -> float:
        """The mean over the tIoUs."""
        return float(np.mean(self.maps))


def write_document(
    measured: Mapping[Key, Measured],
    *,
    part: str,
    tious: Sequence[float],
    reference: str = REFERENCE,
) -> str:
    """Markdown of the runs by (corpus, arm, seed); differences are from the arm `reference`."""
    minutes = sum(one.seconds for one in measured.values()) / 60
    lines = [
        "# Ablation",
        "",
        f"{_num_seeds(measured)} a row, and no row was tuned: each is its corpus's one recipe with "
        "its own change, and that recipe may suit one row better than another.",
        "",
        f"Measured on the {part} videos; mAP averaged over tIoU {tious[0]} to {tious[-1]}, mean "
        f"and 95 % interval (Student's t) over seeds. All runs together took {minutes:.0f} minutes "
        "of one core (`make ablation`, or the command of `backtal_training.ablation`). Differences "
        "are those of runs with the same seed; one seed has no interval.",
    ]
    for corpus in dict.fromkeys(key[0] for key in measured):
        lines += ["", f"## {corpus}", "", *_table(corpus, measured, tious, reference)]
    return "\n".join(lines) + "\n"


def _num_seeds(measured: Mapping[Key, Measured]) -> str:
    """How many seeds the networks of a row were trained with."""
    counts = Counter((corpus, arm) for corpus, arm, _ in measured if arm in ARMS).values()
    least, most = min(counts, default=0), max(counts, default=0)
    numbers = f"{most}" if least == most else f"{least} to {most}"
    return f"{numbers} seed{'' if most == 1 else 's'}"


def _table(
    corpus: str, measured: Mapping[Key, Measured], tious: Sequence[float], reference: str
) -> list[str]:
    head = ["", "seeds", "average mAP", f"less {reference}", *(f"@{tiou:g}" for tiou in tious)]
    lines = [_row(head), _row(["---"] * len(head))]
    of_arms: dict[str, dict[int, Measured]] = {}
    for (name, arm, seed), one in measured.items():
        if name == corpus:
            of_arms.setdefault(arm, {})[seed] = one
    subtracted = of_arms.get(reference, {})
    for arm, runs in of_arms.items():
        title = ARMS[arm].title if arm in ARMS else arm
        common = sorted(set(runs) & set(subtracted)) if arm in ARMS else []
        differences = [runs[seed].average - subtracted[seed].average for seed in common]
        means = np.mean([one.maps for one in runs.values()], axis=0)
        cells = [
            title,
            str(len(runs)),
            _shown(over_seeds([one.average for one in runs.values()]), len(runs)),
            _shown(over_seeds(differences), len(common)) if common and arm != reference else "",
            *(f"{value:.3f}" for value in means),
        ]
        lines.append(_row(cells))
    return lines


def _shown(interval: Interval, num_seeds: int) -> str:
    return str(interval) if num_seeds > 1 else f"{interval.mean:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
