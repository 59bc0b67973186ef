"""Three pictures of an evaluation as SVG: the errors, the sensitivity, the reliability.

Every figure in them is a share from 0 to 1, so that one frame serves all. The files load nothing
and the same figures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from backtal.evaluation.diagnosis import KINDS, Diagnosis, ErrorKind
from backtal.evaluation.reliability import NUM_BINS, Reliability
from backtal.evaluation.sensitivity import Bucket

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 48, 190, 40, 52

INK, FAINT = "#222222", "#cccccc"
FIRST, SECOND = "#0072b2", "#e69f00"
# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOUR_OF: Mapping[ErrorKind, str] = {
    "true_positive": "#009e73",
    "double_detection": "#f0e442",
    "wrong_label": "#cc79a7",
    "localization": "#e69f00",
    "confusion": "#0072b2",
    "background": "#888888",
}


def write_charts(folder: Path, diagnosis: Diagnosis, reliability: Reliability) -> tuple[Path, ...]:
    """Write errors.svg, sensitivity.svg and reliability.svg; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {
        "errors.svg": errors_chart(diagnosis),
        "sensitivity.svg": sensitivity_chart(diagnosis),
        "reliability.svg": reliability_chart(reliability),
    }
    for name, content in charts.items():
        (folder / name).write_text(content, encoding="utf-8")
    return tuple(folder / name for name in charts)


def errors_chart(diagnosis: Diagnosis) -> str:
    """Shares of each kind among the G surest detections, the 2 G surest, and so on."""
    chart = _Chart("What the surest detections are", len(diagnosis.counts))
    for slot, (multiple, counts) in enumerate(diagnosis.counts.items()):
        chart.slot_name(slot, f"{multiple} G")
        total, below = max(1, sum(counts.values())), 0.0
        for kind in KINDS:
            share = counts[kind] / total
            chart.bar(slot, 0.1, 0.9, below, below + share, COLOUR_OF[kind], _words(kind))
            below += share
    chart.legend({_words(kind): COLOUR_OF[kind] for kind in reversed(KINDS)})
    return chart.text()


def sensitivity_chart(diagnosis: Diagnosis) -> str:
    """For each bucket of instances the normalised mAP and the share that is found."""
    slots: list[tuple[str, Bucket]] = [
        (f"{bucket.name}{unit}", bucket)
        for unit, buckets in ((" s", diagnosis.by_length), ("/video", diagnosis.by_number))
        for bucket in buckets
    ]
    chart = _Chart("Which instances are found", len(slots))
    for slot, (name, bucket) in enumerate(slots):
        chart.slot_name(slot, name, below=f"{bucket.num_instances}")
        if bucket.normalised_map is not None and bucket.share_found is not None:
            chart.bar(slot, 0.1, 0.5, 0, bucket.normalised_map, FIRST, "normalised mAP")
            chart.bar(slot, 0.5, 0.9, 0, bucket.share_found, SECOND, "share found")
    chart.legend({"normalised mAP": FIRST, "share found": SECOND})
    return chart.text()


def reliability_chart(reliability: Reliability) -> str:
    """How often detections of a score are right; on the line they would be as often as said."""
    error = reliability.expected_calibration_error
    chart = _Chart(f"Right at tIoU {reliability.tiou:g}, by score: error {error:.3f}", NUM_BINS)
    for slot in range(NUM_BINS):
        chart.slot_name(slot, f"{slot / NUM_BINS:g} - {(slot + 1) / NUM_BINS:g}")
    for one in reliability.bins:
        slot = round(one.low * NUM_BINS)
        told = f"{one.num_detections} detections, mean score {one.mean_score:.3f}, right"
        chart.bar(slot, 0.05, 0.95, 0, one.share_right, FIRST, told)
        chart.slot_name(slot, "", below=f"{one.num_detections}")
    chart.diagonal()
    chart.legend({"share that is right": FIRST, "as often as said": INK})
    return chart.text()


def _words(kind: ErrorKind) -> str:
    return kind.replace("_", " ")


class _Chart:
    """A frame of equal slots from left to right and shares from 0 to 1 upwards."""

    def __init__(self, title: str, num_slots: int) -> None:
        self._slot_width = (WIDTH - LEFT - RIGHT) / max(1, num_slots)
        self._root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "role": "img",
                "font-family": "sans-serif",
                "font-size": "11",
            },
        )
        self._add("title").text = title
        self._add("rect", width=WIDTH, height=HEIGHT, fill="white")
        self._label(LEFT, TOP - 18, title, anchor="start", size=14)
        for tenth in range(0, 11, 2):
            y = self._y(tenth / 10)
            self._add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke=FAINT)
            self._label(LEFT - 6, y + 4, f"{tenth / 10:g}", anchor="end")

    def bar(
        self, slot: int, left: float, right: float, low: float, high: float, colour: str, told: str
    ) -> None:
        """A bar over parts `left` to `right` of a slot, from share `low` to `high`."""
        bar = self._add(
            "rect",
            x=self._x(slot + left),
            y=self._y(high),
            width=self._slot_width * (right - left),
            height=self._y(low) - self._y(high),
            fill=colour,
        )
        ElementTree.SubElement(bar, "title").text = f"{told}: {high - low:.3f}"

    def slot_name(self, slot: int, name: str, below: str = "") -> None:
        """What stands under a slot, in two lines."""
        x = self._x(slot + 0.5)
        self._label(x, HEIGHT - BOTTOM + 16, name, size=9)
        self._label(x, HEIGHT - BOTTOM + 30, below, size=9)

    def diagonal(self) -> None:
        """The line from the left bottom to the right top."""
        ends = {"x1": LEFT, "y1": self._y(0), "x2": WIDTH - RIGHT, "y2": self._y(1)}
        self._add("line", **ends, stroke=INK)

    def legend(self, colours: Mapping[str, str]) -> None:
        """What each colour means, on the right."""
        x = WIDTH - RIGHT + 16
        for row, (name, colour) in enumerate(colours.items()):
            y = TOP + 18 * row
            self._add("rect", x=x, y=y, width=11, height=11, fill=colour)
            self._label(x + 17, y + 10, name, anchor="start")

    def text(self) -> str:
        """The file."""
        ElementTree.indent(self._root, " ")
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _x(self, slot: float) -> float:
        return LEFT + slot * self._slot_width

    def _y(self, share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def _label(
        self, x: float, y: float, text: str, *, anchor: str = "middle", size: int = 11
    ) -> None:
        if text:
            given: dict[str, float | str] = {"text-anchor": anchor, "font-size": size, "fill": INK}
            self._add("text", x=x, y=y, **given).text = text

    def _add(self, tag: str, **attributes: float | str) -> ElementTree.Element:
        told = {
            name: value if isinstance(value, str) else f"{value:.6g}"
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self._root, tag, told)
