from __future__ import annotations

import torch

from backtal_training.adam import Adam


def test_a_parameter_may_lie_in_memory_as_it_likes() -> None:
    """Above the size of a piece: steps on the transposed memory are those on plain memory."""
    random = torch.Generator().manual_seed(0)
    plain = torch.randn(300, 401, 3, generator=random)
    permuted = torch.empty(300, 3, 401).transpose(1, 2).copy_(plain)
    assert permuted.stride() != plain.stride()
    ours = Adam([permuted], learning_rate=0.1, weight_decay=0.01)
    theirs = Adam([plain], learning_rate=0.1, weight_decay=0.01)
    for _ in range(3):
        gradient = torch.randn(300, 401, 3, generator=random)
        plain.grad = gradient
        permuted.grad = gradient
        ours.step()
        theirs.step()
    assert torch.equal(permuted, plain)


def test_pieces_are_the_whole() -> None:
    """One parameter of many pieces steps as its rows do, each a parameter of its own."""
    random = torch.Generator().manual_seed(1)
    whole = torch.randn(5, 50_000, generator=random)
    rows = [row.clone() for row in whole]
    together, apart = (Adam(one, learning_rate=0.01) for one in ([whole], rows))
    for _ in range(2):
        whole.grad = torch.randn(5, 50_000, generator=random)
        for row, gradient in zip(rows, whole.grad, strict=True):
            row.grad = gradient
        together.step()
        apart.step()
    assert torch.equal(whole, torch.stack(rows))
