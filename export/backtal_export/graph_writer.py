"""ONNX graphs written node by node: their bytes depend on nothing but what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from backtal.manifest import ClipPlan, StreamName
from backtal_export.onnx_file import to_bytes

Turn = Callable[["GraphWriter", list[str]], list[str]]


class GraphWriter:
    """The nodes and constants so far; every method returns the name of the value it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        # Of a loop's own nodes: names are of the whole file.
        self._prefix = ""
        self._shared: set[str] = set()

    def node(
        self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        """A node of one output, which is named after its kind unless told."""
        name = output or f"{self._prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """A constant of the graph."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, value: float) -> str:
        """A float32 constant, once in the file however often it is asked for."""
        return self._once(f"number_{value!r}", np.float32(value))

    def integers(self, *values: int) -> str:
        """A vector of int64, once in the file."""
        return self._once(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def slice(self, value: str, axis: int, start: int, end: int) -> str:
        """`value` from `start` to before `end` of one axis; below 0 they count from its end."""
        numbers = (self.integers(start), self.integers(end), self.integers(axis))
        return self.node("Slice", [value, *numbers])

    def loop(self, num_turns: int, carried: Sequence[str], turn: Turn) -> list[str]:
        """float32 values after `num_turns` of `turn`, a fixed number.

        turn: with a writer of the loop's nodes and the values before, gives those after. It may
        read any value from outside; constants are the graph's.
        """
        place = f"{self._prefix}loop_{len(self.nodes)}"
        inner = GraphWriter()
        inner.initializers, inner._shared = self.initializers, self._shared
        inner._prefix = f"{place}_"
        before = [f"{place}_before_{index}" for index in range(len(carried))]
        after = turn(inner, before)
        goes_on = inner.node("Identity", [f"{place}_goes_on"])
        value, scalar = helper.make_tensor_value_info, ()
        body = helper.make_graph(
            inner.nodes,
            place,
            [
                value(f"{place}_turn", TensorProto.INT64, scalar),
                value(f"{place}_goes_on", TensorProto.BOOL, scalar),
                *(value(name, TensorProto.FLOAT, None) for name in before),
            ],
            [
                value(goes_on, TensorProto.BOOL, scalar),
                *(value(name, TensorProto.FLOAT, None) for name in after),
            ],
        )
        turns = self.constant(f"{place}_turns", np.int64(num_turns))
        always = self.constant(f"{place}_always", np.bool_(True))
        results = [f"{place}_after_{index}" for index in range(len(carried))]
        self.nodes.append(
            helper.make_node("Loop", [turns, always, *carried], results, name=place, body=body)
        )
        return results

    def _once(self, name: str, value: NDArray[Any] | np.generic) -> str:
        if name not in self._shared:
            self._shared.add(name)
            self.constant(name, value)
        return name

    def backbone_file(
        self, name: str, *, stream: StreamName, feature_dim: int, plan: ClipPlan | None = None
    ) -> bytes:
        """The model file of a backbone: its nodes read `clips` and have written `features`.

        clips: [N, ...] of what the plan's `clip_shape` says, N is free: uint8 where it is colours,
        float32 where it is flow, pixels a tick. features: float32 [N, feature_dim].
        """
        plan = plan or ClipPlan()
        kind = TensorProto.UINT8 if plan.takes_frames(stream) else TensorProto.FLOAT
        clips = helper.make_tensor_value_info("clips", kind, ["N", *plan.clip_shape(stream)])
        features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", feature_dim])
        return to_bytes(helper.make_graph(self.nodes, name, [clips], [features], self.initializers))
