"""What TV-L1 does to images [M, C, H, W], as nodes of an ONNX graph; each gives a value's name."""

from __future__ import annotations

from backtal_export.flow.ranking import ranked
from backtal_export.graph_writer import GraphWriter

BATCH, CHANNEL, ROW, COLUMN = range(4)


def resized(graph: GraphWriter, image: str, size: int) -> str:
    """A square of `size` pixels, each between its four nearest."""
    kept = graph.slice(graph.node("Shape", [image]), 0, 0, 2)
    sizes = graph.node("Concat", [kept, graph.integers(size, size)], axis=0)
    return graph.node(
        "Resize",
        [image, "", "", sizes],
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def summed_product(graph: GraphWriter, first: str, second: str) -> str:
    """The product of two images, summed over their channels, [M, 1, H, W]."""
    product = graph.node("Mul", [first, second])
    return graph.node("ReduceSum", [product, graph.integers(CHANNEL)], keepdims=1)


def central_gradient(graph: GraphWriter, image: str) -> list[str]:
    """Along x and y, half the difference of the neighbours; at the border the pixel is its own."""
    along = []
    for axis in (COLUMN, ROW):
        around = padded(graph, image, (axis,), 1, 1, mode="edge")
        neighbours = [graph.slice(around, axis, 2, _END), graph.slice(around, axis, 0, -2)]
        along.append(graph.node("Div", [graph.node("Sub", neighbours), graph.number(2)]))
    return along


def forward_gradient(graph: GraphWriter, image: str, axis: int) -> str:
    """The next pixel less this one; 0 for the last."""
    pair = [graph.slice(image, axis, 1, _END), graph.slice(image, axis, 0, -1)]
    return padded(graph, graph.node("Sub", pair), (axis,), 0, 1)


def backward_difference(graph: GraphWriter, image: str, axis: int) -> str:
    """This pixel less the one before, which is 0 for the first."""
    before = padded(graph, graph.slice(image, axis, 0, -1), (axis,), 1, 0)
    return graph.node("Sub", [image, before])


def median(graph: GraphWriter, image: str, side: int, size: int) -> str:
    """The median of each pixel's `side` x `side`, the border repeated; `size`: of the image.

    Every column is sorted once for all the pixels that see it. Of a square with sorted columns,
    sorted then by rows, most places are known to be on one side of the median: as many on either,
    so that it is the median of the others.
    """
    reach, half = side // 2, side**2 // 2 + 1
    around = padded(graph, image, (ROW, COLUMN), reach, reach, mode="edge")
    rows = [graph.slice(around, ROW, shift, shift + size) for shift in range(side)]
    others: list[str] = []
    for row, columns in enumerate(ranked(graph, rows, range(side))):
        ranks = [
            rank
            for rank in range(side)
            if (row + 1) * (rank + 1) <= half and (side - row) * (side - rank) <= half
        ]
        shifted = [graph.slice(columns, COLUMN, shift, shift + size) for shift in range(side)]
        others += ranked(graph, shifted, ranks)
    return ranked(graph, others, [len(others) // 2])[0]


def padded(
    graph: GraphWriter,
    image: str,
    axes: tuple[int, ...],
    before: int,
    after: int,
    mode: str = "constant",
) -> str:
    """Pixels put before and after along `axes`: zeros, or the border's own with mode "edge"."""
    pads = [before * (axis in axes) for axis in range(4)] + [
        after * (axis in axes) for axis in range(4)
    ]
    return graph.node("Pad", [image, graph.integers(*pads)], mode=mode)


# Slice cuts an end beyond the image down to it.
_END = 2**31 - 1
