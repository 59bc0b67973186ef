from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from backtal.errors import InvalidArgument
from backtal_training import affinity_products
from backtal_training.affinity import AffinityConvolution, Layout, affinity, pieces
from backtal_training.affinity_products import unfiltered_and_filtered, weighted
from backtal_training.dropout import Dropout
from backtal_training.network import BackTALNetwork, NetworkSettings

LAYOUTS: list[Layout] = ["paper", "released"]
TINY = NetworkSettings(
    feature_dim=7,
    num_classes=3,
    hidden_dim=8,
    embedding_hidden_dim=6,
    embedding_dim=4,
    filter_hidden_dim=5,
)


def naive_convolution(sequence: Tensor, weights: Tensor, kernel: Tensor, layout: Layout) -> Tensor:
    """One video, position by position, row by row: METHOD's own words."""
    channels, length = sequence.shape
    answer = torch.zeros(kernel.shape[0], length, dtype=sequence.dtype)
    for t in range(length):
        for channel in range(channels):
            for tap in range(3):
                if not 0 <= t + tap - 1 < length:
                    continue
                block = tap if layout == "paper" else (channel * 3 + tap) // channels
                value = weights[block, t] * sequence[channel, t + tap - 1]
                answer[:, t] += kernel[:, channel, tap] * value
    return answer


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=15)
@given(
    channels=st.integers(1, 8),
    length=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    part_elements=st.sampled_from((1, 2**23)),
)
def test_the_fast_convolution_is_the_naive_one(
    layout: Layout, channels: int, length: int, seed: int, part_elements: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    convolution = AffinityConvolution(channels, 2, layout).double()
    kernel = torch.randn(2, channels, 3, generator=random, dtype=torch.double)
    convolution.weight.data = kernel
    sequence = torch.randn(2, channels, length, generator=random, dtype=torch.double)
    weights = torch.randn(2, 3, length, generator=random, dtype=torch.double)
    foreground = torch.rand(2, length, generator=random, dtype=torch.double)
    rows = sequence.transpose(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinity_products, "_PART_ELEMENTS", part_elements)
        fast = convolution(rows, weights).transpose(1, 2)
    both = convolution.both(rows, weights, foreground).transpose(1, 2)
    for video in range(2):
        slow = naive_convolution(sequence[video], weights[video], kernel, layout)
        torch.testing.assert_close(fast[video], slow)
        torch.testing.assert_close(both[video], slow)
        filtered = foreground[video] * sequence[video]
        slow = naive_convolution(filtered, weights[video], kernel, layout)
        torch.testing.assert_close(both[2 + video], slow)


@pytest.mark.parametrize("part_elements", [1, 2**23])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_finite_differences(
    layout: Layout, part_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity_products, "_PART_ELEMENTS", part_elements)
    random = torch.Generator().manual_seed(4)
    convolution = AffinityConvolution(5, 3, layout).double()
    rows = torch.randn(2, 4, 5, generator=random, dtype=torch.double, requires_grad=True)
    weights = torch.randn(2, 3, 4, generator=random, dtype=torch.double, requires_grad=True)
    foreground = torch.rand(2, 4, generator=random, dtype=torch.double, requires_grad=True)
    kernel = convolution.weight

    def alone(*inputs: Tensor) -> Tensor:
        return weighted(*inputs, convolution.pieces)

    def both(*inputs: Tensor) -> Tensor:
        return unfiltered_and_filtered(rows.detach(), *inputs, convolution.pieces)

    assert torch.autograd.gradcheck(alone, (rows, weights, kernel))
    assert torch.autograd.gradcheck(both, (weights, foreground, kernel))


@given(channels=st.integers(1, 40), layout=st.sampled_from(LAYOUTS))
def test_pieces_cover_the_kernel_once(channels: int, layout: Layout) -> None:
    covered = [
        (piece.tap, channel)
        for piece in pieces(layout, channels)
        for channel in range(piece.first, piece.last)
    ]
    assert sorted(covered) == [(tap, channel) for tap in range(3) for channel in range(channels)]


def test_dropout_drops_its_part_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.7)
    ones = torch.ones(999, 1001, requires_grad=True)
    dropped = dropout(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.7, abs=3e-3)
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.01)
    assert float(dropped.detach().max()) == pytest.approx(1 / 0.3, rel=1e-3)
    torch.autograd.backward(dropped.sum())
    assert ones.grad is not None
    assert torch.equal(ones.grad, dropped.detach())
    assert dropout.eval()(ones) is ones


def test_affinity_is_the_cosine_and_zero_beyond_the_ends() -> None:
    embedding = functional.normalize(torch.tensor([[[3.0, 4.0, -4.0], [4.0, 3.0, -3.0]]]), dim=1)
    expected = torch.tensor([[[0.0, 0.96, -1.0], [1.0, 1.0, 1.0], [0.96, -1.0, 0.0]]])
    torch.testing.assert_close(affinity(embedding), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_changes_nothing_at_real_positions(layout: Layout) -> None:
    torch.manual_seed(0)
    network = BackTALNetwork(TINY.model_copy(update={"layout": layout})).eval()
    lengths = [9, 1, 5]
    features = torch.randn(3, 7, 9)
    for row, length in enumerate(lengths):
        features[row, :, length:] = torch.nan
    with torch.no_grad():
        padded = network(features, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = network(features[row : row + 1, :, :length])
            for ours, theirs in (
                (padded.base.cas, alone.base.cas),
                (padded.suppressed.cas, alone.suppressed.cas),
                (padded.embedding, alone.embedding),
                (padded.foreground, alone.foreground),
            ):
                torch.testing.assert_close(ours[row, :, :length], theirs[0])
                assert not ours[row, :, length:].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_positions_of_halo_make_a_chunk_exact(layout: Layout) -> None:
    torch.manual_seed(1)
    network = BackTALNetwork(TINY.model_copy(update={"layout": layout})).eval().double()
    features = torch.randn(1, 7, 30, dtype=torch.double)
    with torch.no_grad():
        cas, magnitude = network.infer(features)
        chunk_cas, chunk_magnitude = network.infer(features[..., 6:24])
        narrow_cas, _ = network.infer(features[..., 7:24])
    torch.testing.assert_close(chunk_cas[..., 4:-4], cas[..., 10:20])
    torch.testing.assert_close(chunk_magnitude[..., 4:-4], magnitude[..., 10:20])
    assert not torch.allclose(narrow_cas[..., 3], cas[..., 10])


def test_inference_is_the_suppressed_branch() -> None:
    torch.manual_seed(2)
    network = BackTALNetwork(TINY).eval()
    features = torch.randn(2, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(network.infer(features)[0], network(features).suppressed.cas)


def test_the_branches_share_one_embedding_of_the_unfiltered_features() -> None:
    torch.manual_seed(3)
    network = BackTALNetwork(TINY).eval()
    features = torch.randn(1, 7, 6)
    with torch.no_grad():
        before = network(features)
        network.filter_module.conv_2[0].bias.fill_(-3.0)
        after = network(features)
    torch.testing.assert_close(before.embedding, after.embedding)
    torch.testing.assert_close(before.base.cas, after.base.cas)
    assert not torch.allclose(before.suppressed.cas, after.suppressed.cas)


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 6, 4), None, r"shape \[2, 6, 4\], this network takes \[B, 7, T\]"),
        ((7, 4), None, r"shape \[7, 4\]"),
        ((2, 7, 4), [4], r"shape \[1\], expected \[2\]"),
        ((2, 7, 4), [0, 4], r"\[0, 4\] are not within 1 and 4"),
        ((2, 7, 4), [5, 4], r"\[5, 4\] are not within 1 and 4"),
    ],
)
def test_wrong_shapes_are_named(
    shape: tuple[int, ...], lengths: list[int] | None, message: str
) -> None:
    counted = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(InvalidArgument, match=message):
        BackTALNetwork(TINY)(torch.zeros(shape), counted)
