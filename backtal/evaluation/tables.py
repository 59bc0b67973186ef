"""An evaluation for people: tables on a terminal, and the same figures as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from backtal.evaluation.diagnosis import KINDS, Diagnosis
from backtal.evaluation.protocol import EvaluationResult
from backtal.evaluation.reliability import Reliability

# What is shown of the multiples of G; the JSON and the picture have all.
SHOWN_MULTIPLES = (1, 2, 5, 10)
MOST_NAMES = 10

Range = tuple[float, float]


def show_result(
    console: Console, result: EvaluationResult, ranges: Sequence[Range], *, per_class: bool
) -> None:
    """The mAP at each tIoU, its means, and the videos that were not as they should be."""
    title = (
        f"{result.num_detections} detections, {result.num_instances} instances in "
        f"{result.num_videos} videos; mAP by tIoU"
    )
    # Ten columns of three digits in a terminal of 80.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.add_column("")
    for heading in (*(f"{tiou:g}" for tiou in result.tious), "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("mAP", *_figures(result.mean_average_precision), f"{result.average:.3f}")
    if per_class:
        table.add_section()
        for name, row in result.class_average_precision.items():
            table.add_row(name, *_figures(row), f"{sum(row) / len(row):.3f}")
    console.print(table)
    for low, high in ranges:
        value = result.average_between(low, high)
        console.print(f"mean mAP at tIoU {low:g} to {high:g}: {value:.3f}", highlight=False)
    _show_videos(console, "no detections for", result.missing_videos, "counted as empty")
    _show_videos(
        console, "the ground truth lacks", result.extra_videos, "their detections are wrong"
    )


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """The kinds of errors and which instances are found."""
    multiples = [one for one in SHOWN_MULTIPLES if one in diagnosis.counts]
    table = Table(
        "",
        *(f"of {one} G" for one in multiples),
        "mAP without",
        title=f"Errors at tIoU {diagnosis.settings.tiou:g}, among the G surest of each class",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    totals = {one: max(1, sum(diagnosis.counts[one].values())) for one in multiples}
    for kind in KINDS:
        shares = (f"{diagnosis.counts[one][kind] / totals[one]:.1%}" for one in multiples)
        gain = f"{diagnosis.gain[kind]:+.3f}" if kind in diagnosis.gain else ""
        table.add_row(kind.replace("_", " "), *shares, gain)
    console.print(table)
    buckets = Table(
        "instances",
        "how many",
        "share found",
        "normalised mAP",
        title="Sensitivity",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for unit, group in ((" s", diagnosis.by_length), (" in a video", diagnosis.by_number)):
        for one in group:
            buckets.add_row(
                one.name + unit,
                str(one.num_instances),
                _or_dash(one.share_found),
                _or_dash(one.normalised_map),
            )
        buckets.add_section()
    console.print(buckets)


def show_reliability(console: Console, reliability: Reliability) -> None:
    """How often detections are right, by score."""
    error = reliability.expected_calibration_error
    beyond = f"; {reliability.num_beyond} scores beyond 0 to 1" if reliability.num_beyond else ""
    table = Table(
        "score",
        "detections",
        "mean score",
        "share right",
        title=f"Expected calibration error {error:.3f} at tIoU {reliability.tiou:g}{beyond}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for one in reliability.bins:
        table.add_row(
            f"{one.low:g} - {one.high:g}",
            str(one.num_detections),
            f"{one.mean_score:.3f}",
            f"{one.share_right:.3f}",
        )
    console.print(table)


def as_json(
    result: EvaluationResult,
    ranges: Sequence[Range] = (),
    diagnosis: Diagnosis | None = None,
    reliability: Reliability | None = None,
) -> dict[str, Any]:
    """All figures as plain data."""
    document: dict[str, Any] = {
        "tiou": list(result.tious),
        "mean_average_precision": list(result.mean_average_precision),
        "average": result.average,
        "averages": {
            f"{low:g}:{high:g}": result.average_between(low, high) for low, high in ranges
        },
        "class_average_precision": {
            name: list(row) for name, row in result.class_average_precision.items()
        },
        "num_videos": result.num_videos,
        "num_instances": result.num_instances,
        "num_detections": result.num_detections,
        "missing_videos": list(result.missing_videos),
        "extra_videos": list(result.extra_videos),
    }
    if diagnosis is not None:
        document["diagnosis"] = diagnosis.as_dict()
    if reliability is not None:
        document["reliability"] = reliability.as_dict()
    return document


def _figures(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_videos(console: Console, what: str, names: Sequence[str], told: str) -> None:
    if names:
        listed = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
        console.print(
            f"{what} {len(names)} videos, {told}: {listed}", highlight=False, markup=False
        )
