"""Damage to files, at random but the same for each seed."""

from __future__ import annotations

import numpy as np


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """The file with a few of its bytes changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 3, 20, 100])):
        at = int(random.integers(len(changed)))
        kind = random.random()
        if kind < 0.7:
            changed[at] = int(random.integers(256))
        elif kind < 0.8:
            changed[at : at + 4] = b"\xff" * 4
        elif kind < 0.9:
            del changed[at : at + 16]
        else:
            changed[at:at] = changed[:16]
    return bytes(changed)
