"""Values of a given rank among images, pixel by pixel, by minima and maxima alone.

A network of comparators (Batcher's odd-even merge, Knuth volume 3, 5.2.2M) of which only those
are kept that the wanted ranks depend on. On every runtime it is elementwise work, where TopK
sorts each pixel's list for itself and carries its indices along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from backtal_export.graph_writer import GraphWriter


def ranked(graph: GraphWriter, values: Sequence[str], ranks: Collection[int]) -> list[str]:
    """The values of these ranks, 0 the smallest, in rising order of rank."""
    places = list(values)
    for low, high in needed_comparators(len(values), ranks):
        pair = [places[low], places[high]]
        places[low], places[high] = graph.node("Min", pair), graph.node("Max", pair)
    return [places[rank] for rank in sorted(ranks)]


def needed_comparators(count: int, ranks: Collection[int]) -> list[tuple[int, int]]:
    """Places to compare and exchange, in order, until those of `ranks` hold what they shall."""
    needed, kept = set(ranks), []
    for pair in reversed(list(_comparators(count))):
        if not needed.isdisjoint(pair):
            needed.update(pair)
            kept.append(pair)
    return kept[::-1]


def _comparators(count: int) -> Iterator[tuple[int, int]]:
    """Those that sort `count` places."""
    top = 1 << max(count - 1, 0).bit_length() >> 1
    block = top
    while block:
        merged, remainder, distance = top, 0, block
        while True:
            yield from (
                (low, low + distance) for low in range(count - distance) if low & block == remainder
            )
            if merged == block:
                break
            distance, merged, remainder = merged - block, merged // 2, block
        block //= 2
