"""What holds for any embedding, any chunk and any short sequence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from backtal_training.affinity import Layout, affinity
from backtal_training.network import BackTALNetwork, NetworkSettings

LAYOUTS: list[Layout] = ["paper", "released"]
HALO_POSITIONS = 4

seeds = st.integers(0, 2**16)


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double)


@settings(deadline=None, max_examples=30)
@given(length=st.integers(1, 12), channels=st.integers(1, 5), seed=seeds)
def test_affinity_is_the_same_from_either_side_and_0_beyond_the_ends(
    length: int, channels: int, seed: int
) -> None:
    embedding = functional.normalize(_random(2, channels, length, seed=seed), dim=1)
    left, centre, right = affinity(embedding).unbind(1)
    torch.testing.assert_close(right[:, :-1], left[:, 1:])
    assert (left[:, 0] == 0).all()
    assert (right[:, -1] == 0).all()
    assert (centre == 1).all()
    assert affinity(embedding).abs().max() <= 1 + 1e-12
    for t in range(1, length):
        cosine = (embedding[:, :, t - 1] * embedding[:, :, t]).sum(1)
        torch.testing.assert_close(left[:, t], cosine)


@settings(deadline=None, max_examples=20)
@given(length=st.integers(1, 12), seed=seeds)
def test_affinity_of_the_reversed_sequence_is_mirrored(length: int, seed: int) -> None:
    embedding = functional.normalize(_random(1, 4, length, seed=seed), dim=1)
    mirrored = affinity(embedding.flip(-1))
    torch.testing.assert_close(mirrored, affinity(embedding).flip(-1).flip(1))


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=15)
@given(
    length=st.integers(1, 40),
    start=st.integers(0, 39),
    size=st.integers(1, 20),
    seed=seeds,
)
def test_a_chunk_with_a_halo_of_4_is_that_part_of_the_whole(
    layout: Layout, length: int, start: int, size: int, seed: int
) -> None:
    start = min(start, length - 1)
    end = min(start + size, length)
    left, right = max(0, start - HALO_POSITIONS), min(length, end + HALO_POSITIONS)
    torch.manual_seed(seed)
    network = BackTALNetwork(
        NetworkSettings(
            layout=layout,
            feature_dim=7,
            num_classes=3,
            hidden_dim=8,
            embedding_hidden_dim=6,
            embedding_dim=4,
            filter_hidden_dim=5,
        )
    ).double()
    network.eval()
    features = _random(1, 7, length, seed=seed)
    with torch.no_grad():
        whole_cas, whole_magnitude = network.infer(features)
        cas, magnitude = network.infer(features[:, :, left:right])
    inner = slice(start - left, end - left)
    torch.testing.assert_close(cas[:, :, inner], whole_cas[:, :, start:end])
    torch.testing.assert_close(magnitude[:, inner], whole_magnitude[:, start:end])
