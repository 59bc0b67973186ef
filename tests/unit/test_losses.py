"""Each loss against METHOD's words in loops, and what a batch may lack."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backtal.errors import InvalidArgument
from backtal_training.losses import (
    NO_CLICK,
    Losses,
    LossSettings,
    frame_losses,
    losses,
    pseudo_losses,
    top_k_members,
    video_scores,
)
from backtal_training.network import BackTALNetwork, NetworkOutput, NetworkSettings

CLASSES = 3
SETTINGS = LossSettings(top_k_ratio=0.3, separation_top_k_ratio=0.5)
LENGTHS = [11, 4, 7]


@pytest.fixture
def network() -> BackTALNetwork:
    torch.manual_seed(0)
    settings = NetworkSettings(
        feature_dim=6,
        num_classes=CLASSES,
        hidden_dim=12,
        embedding_hidden_dim=8,
        embedding_dim=4,
        filter_hidden_dim=5,
        dropout=0,
    )
    return BackTALNetwork(settings).double()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]], dtype=torch.double)


@pytest.fixture
def clicks() -> Tensor:
    rows = torch.full((3, 11), NO_CLICK)
    rows[0, [1, 8, 10]] = CLASSES
    rows[2, [0, 3]] = CLASSES
    return rows


def best(values: Tensor, ratio: float) -> list[int]:
    count = max(1, int(len(values) * ratio))
    return sorted(range(len(values)), key=lambda t: -float(values[t]))[:count]


def looped(output: NetworkOutput, labels: Tensor, clicks: Tensor) -> dict[str, float]:
    """METHOD, Losses, one video, class, click and pair after the other."""
    terms: dict[str, list[float]] = {
        name: [] for name in ("base", "suppressed", "norm", "click", "separation", "affinity")
    }
    for row, length in enumerate(LENGTHS):
        cas = output.base.cas[row, :, :length].detach()
        supp = output.suppressed.cas[row, :, :length].detach()
        for name, branch, background in (("base", cas, 1.0), ("suppressed", supp, 0.0)):
            means = [
                sum(float(one[t]) for t in best(one, 0.3)) / len(best(one, 0.3)) for one in branch
            ]
            total = math.log(sum(math.exp(mean) for mean in means))
            wanted = [*labels[row].tolist(), background]
            terms[name].append(
                -sum(w / sum(wanted) * (m - total) for w, m in zip(wanted, means, strict=True))
            )
        terms["norm"].append(output.foreground[row, 0, :length].sum().item())
        clicked = [t for t in range(length) if clicks[row, t] == CLASSES]
        for t in clicked:
            terms["click"].append(-float(cas[:, t].log_softmax(0)[CLASSES]))
        if not clicked:
            continue
        classes = [c for c in range(CLASSES) if labels[row, c]]
        separations = []
        for c in classes:
            top = best(cas[c], 0.5)
            action = sum(float(cas[c, t]) for t in top) / len(top)
            resting = sum(float(cas[c, t]) for t in clicked) / len(clicked)
            separations.append(-math.log(math.exp(action) / (math.exp(action) + math.exp(resting))))
        terms["separation"].append(sum(separations) / len(separations))
        embedding = output.embedding[row].detach()
        first = [embedding[:, t] for c in classes for t in best(supp[c], 0.3)]
        second = [embedding[:, t] for t in clicked]
        terms["affinity"].append(
            within(first) + within(second) + across(first, second) + across(second, first)
        )
    return {name: sum(values) / len(values) for name, values in terms.items()}


def within(ones: list[Tensor]) -> float:
    worst = [min(float(one @ other) for other in ones) for one in ones]
    return sum(max(0.0, 0.5 - cosine) for cosine in worst) / len(ones)


def across(ones: list[Tensor], others: list[Tensor]) -> float:
    worst = [max(float(one @ other) for other in others) for one in ones]
    return sum(max(0.0, cosine - 0.1) for cosine in worst) / len(ones)


def test_every_term_of_a_padded_batch_is_methods(
    network: BackTALNetwork, features: Tensor, labels: Tensor, clicks: Tensor
) -> None:
    output = network(features, torch.tensor(LENGTHS))
    ours = losses(output, labels, clicks, SETTINGS)
    expected = looped(output, labels, clicks)
    assert {name: getattr(ours, name).item() for name in expected} == pytest.approx(expected)
    assert min(expected.values()) > 0
    weights = {
        "base": 1.0,
        "suppressed": 1.0,
        "norm": 1e-4,
        "click": 1.0,
        "separation": 1.0,
        "affinity": 0.8,
    }
    total = sum(weights[name] * value for name, value in expected.items())
    assert ours.total.item() == pytest.approx(total)


def gradients(network: BackTALNetwork, total: Tensor) -> list[Tensor]:
    network.zero_grad()
    torch.autograd.backward(total)
    return [one.grad.clone() for one in network.parameters() if one.grad is not None]


def test_without_any_click_the_click_terms_are_zero(
    network: BackTALNetwork, features: Tensor, labels: Tensor
) -> None:
    none = torch.full((3, 11), NO_CLICK)
    ours: Losses = losses(network(features), labels, none, SETTINGS)
    assert [ours.click.item(), ours.separation.item(), ours.affinity.item()] == [0, 0, 0]
    assert all(torch.isfinite(one).all() for one in gradients(network, ours.total))


def test_a_video_without_clicks_does_not_dilute_the_others(
    network: BackTALNetwork, features: Tensor, labels: Tensor, clicks: Tensor
) -> None:
    lengths = torch.tensor(LENGTHS)
    both = losses(network(features, lengths), labels, clicks, SETTINGS)
    clicked = [0, 2]
    only = losses(
        network(features[clicked], lengths[clicked]), labels[clicked], clicks[clicked], SETTINGS
    )
    for name in ("click", "separation", "affinity"):
        assert getattr(both, name).item() == pytest.approx(getattr(only, name).item())


def test_a_video_without_a_label_is_background_alone(
    network: BackTALNetwork, features: Tensor, clicks: Tensor
) -> None:
    nothing = torch.zeros(3, CLASSES, dtype=torch.double)
    ours = losses(network(features), nothing, clicks, SETTINGS)
    assert ours.suppressed.item() == 0
    assert ours.separation.item() == 0
    assert ours.base.item() > 0
    assert all(torch.isfinite(one).all() for one in gradients(network, ours.total))


def test_the_top_k_is_each_videos_own() -> None:
    cas = torch.arange(10.0).expand(2, 1, 10)
    mask = torch.arange(10) < torch.tensor([[10], [3]])
    members = top_k_members(cas, mask, 0.3)
    assert members[0, 0].nonzero().flatten().tolist() == [7, 8, 9]
    assert members[1, 0].nonzero().flatten().tolist() == [2]
    assert video_scores(cas, mask, 0.3).flatten().tolist() == [8, 2]


@pytest.mark.parametrize(("ratio", "count"), [(0.29, 28), (0.57, 56), (0.6, 60), (0.001, 1)])
def test_k_is_what_python_makes_of_length_times_ratio(ratio: float, count: int) -> None:
    mask = torch.ones(1, 100, dtype=torch.bool)
    assert max(1, int(100 * ratio)) == count
    assert int(top_k_members(torch.rand(1, 1, 100), mask, ratio).sum()) == count


def test_frame_losses_ignore_padding(network: BackTALNetwork, features: Tensor) -> None:
    frames = torch.randint(CLASSES + 1, (3, 11), generator=torch.Generator().manual_seed(0))
    frames[1, 4:] = NO_CLICK
    lengths = torch.tensor([11, 4, 11])
    before = frame_losses(network(features, lengths), frames, SETTINGS)
    features[1, :, 4:] = 100
    after = frame_losses(network(features, lengths), frames, SETTINGS)
    assert before.item() == pytest.approx(after.item())


def test_labels_of_another_shape_and_wild_clicks_are_refused(
    network: BackTALNetwork, features: Tensor, labels: Tensor, clicks: Tensor
) -> None:
    output = network(features, torch.tensor(LENGTHS))
    with pytest.raises(InvalidArgument, match=r"video_labels have shape \[3, 2\]"):
        losses(output, labels[:, :2], clicks, SETTINGS)
    with pytest.raises(InvalidArgument, match=r"click_labels have shape \[3, 4\]"):
        losses(output, labels, clicks[:, :4], SETTINGS)
    beyond = clicks.clone()
    beyond[1, 5] = CLASSES
    with pytest.raises(InvalidArgument, match="beyond the end"):
        losses(output, labels, beyond, SETTINGS)
    other = clicks.clone()
    other[0, 0] = 1
    with pytest.raises(InvalidArgument, match="other values than 3 and -100"):
        losses(output, labels, other, SETTINGS)


def test_hard_negatives_keep_a_margin_below_the_top_k(
    network: BackTALNetwork, features: Tensor, labels: Tensor, clicks: Tensor
) -> None:
    output = network(features, torch.tensor(LENGTHS))
    settings = SETTINGS.model_copy(update={"hard_negative_margin": 0.5})
    ours = losses(output, labels, clicks, settings)
    per_video = []
    for row in (0, 2):
        cas = output.suppressed.cas[row, :, : LENGTHS[row]].detach()
        clicked = [t for t in range(LENGTHS[row]) if clicks[row, t] == CLASSES]
        per_class = []
        for c in [c for c in range(CLASSES) if labels[row, c]]:
            count = max(1, int(LENGTHS[row] * 0.3))
            top = sorted(cas[c].tolist(), reverse=True)[:count]
            mean = sum(top) / count
            excess = [max(0.0, 0.5 + float(cas[c, t]) - mean) for t in clicked]
            per_class.append(sum(excess) / len(excess))
        per_video.append(sum(per_class) / len(per_class))
    assert ours.hard_negative.item() == pytest.approx(sum(per_video) / 2)
    assert ours.hard_negative.item() > 0
    weighted = losses(
        output, labels, clicks, settings.model_copy(update={"hard_negative_weight": 2.0})
    )
    assert (weighted.total - ours.total).item() == pytest.approx(2 * ours.hard_negative.item())


def test_pseudo_labels_speak_of_their_own_positions_only(
    network: BackTALNetwork, features: Tensor
) -> None:
    output = network(features, torch.tensor(LENGTHS))
    frames = torch.full((3, 11), NO_CLICK)
    assert pseudo_losses(output, frames).item() == 0
    frames[0, 2], frames[2, 5] = 1, CLASSES
    action = output.base.cas[0, :, 2].log_softmax(0)[1] + output.foreground[0, 0, 2].log()
    rest = output.base.cas[2, :, 5].log_softmax(0)[CLASSES]
    rest = rest + (1 - output.foreground[2, 0, 5]).log()
    expected = -(action + rest).item() / 2
    assert pseudo_losses(output, frames).item() == pytest.approx(expected)
