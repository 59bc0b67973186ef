"""What every benchmark here shares: the machine's matrix rate, fair timing, a table, JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino
import torch
from openvino import opset13
from rich.console import Console
from rich.table import Table

SIZES = (2048, 4096)


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a check, no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


def matrix_rate(sizes: Sequence[int] = SIZES, repeats: int = 3) -> float:
    """Float operations a second of the best float32 square product, by torch or by OpenVINO."""
    best = 0.0
    for size in sizes:
        left, right = torch.randn(size, size), torch.randn(size, size)
        products = {
            "torch": lambda x=left, y=right: x @ y,
            "OpenVINO": _openvino_product(left.numpy(), right.numpy()),
        }
        seconds = min(shortest(products, repeats).values())
        best = max(best, 2 * size**3 / seconds)
    return best


def _openvino_product(left: np.ndarray, right: np.ndarray) -> Callable[[], object]:
    operands = [opset13.parameter(side.shape, np.float32) for side in (left, right)]
    model = openvino.Model([opset13.matmul(*operands, False, False)], operands, "product")
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    return lambda: request.infer([left, right], share_inputs=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def shortest(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest seconds of each, taken in turns, so that a busy minute meets them all alike."""
    best = dict.fromkeys(work, float("inf"))
    for call in work.values():
        call()
    for _ in range(rounds):
        for name, call in work.items():
            best[name] = min(best[name], timed(call))
    return best


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def write(path: Path | None, figures: Mapping[str, float | str]) -> None:
    """The figures as flat JSON, where a file is named; always on standard output."""
    text = json.dumps(figures, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")
