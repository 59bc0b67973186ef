"""The losses: METHOD, Losses. No loop over videos, clicks or pairs; any of them may be absent.

Every term is a mean over what it speaks of (clicks, or videos with clicks); where there is none
of that in a batch, the term is 0. On a GPU nothing waits for a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from backtal.errors import InvalidArgument
from backtal.settings import Settings
from backtal_training.network import NetworkOutput

NO_CLICK = -100
"""In a row of click labels: not annotated, or padding."""


class LossSettings(Settings):
    """The weights and ratios of METHOD, Settings; THUMOS14's are the defaults."""

    top_k_ratio: float = Field(default=0.125, gt=0, le=1, description="r, of the video score")
    separation_top_k_ratio: float = Field(default=0.125, gt=0, le=1)
    norm_weight: float = Field(default=1e-4, ge=0)
    click_weight: float = Field(default=1.0, ge=0, description="the paper's is 1")
    separation_weight: float = Field(default=1.0, ge=0)
    affinity_weight: float = Field(default=0.8, ge=0)
    near_margin: float = Field(default=0.5, description="least cosine within actions, clicks")
    far_margin: float = Field(default=0.1, description="greatest cosine of an action and a click")
    hard_negative_weight: float = Field(default=0.0, ge=0, description="not the paper's")
    hard_negative_margin: float = Field(default=2.0, ge=0, description="in units of the CAS")


@dataclass(frozen=True)
class Losses:
    """Each term before its weight, and the weighted total; scalars."""

    total: Tensor
    base: Tensor
    suppressed: Tensor
    norm: Tensor
    click: Tensor
    separation: Tensor
    affinity: Tensor
    hard_negative: Tensor


def losses(
    output: NetworkOutput, video_labels: Tensor, click_labels: Tensor, settings: LossSettings
) -> Losses:
    """All terms for one batch.

    video_labels [B, C], 1 at the video's classes (a video may have none); click_labels [B, T]
    integers, C at a clicked background position and NO_CLICK elsewhere. Raises InvalidArgument
    where shapes do not fit or a click lies beyond its video's end.
    """
    clicks = _clicks(output, video_labels, click_labels)
    mask, base_cas, suppressed_cas = output.mask, output.base.cas, output.suppressed.cas
    members = top_k_members(suppressed_cas, mask, settings.top_k_ratio)
    base = _classification(video_scores(base_cas, mask, settings.top_k_ratio), video_labels, 1.0)
    suppressed = _classification(_mean(suppressed_cas, members), video_labels, 0.0)
    norm = output.foreground.abs().sum(dim=(1, 2)).mean()
    click = _click(base_cas, clicks)
    separation = _separation(
        base_cas,
        top_k_members(base_cas, mask, settings.separation_top_k_ratio),
        video_labels,
        clicks,
    )
    near = _affinity(output.embedding, _action_counts(members, video_labels), clicks, settings)
    hard = _hard_negative(
        suppressed_cas, members, video_labels, clicks, settings.hard_negative_margin
    )
    total = (
        base
        + suppressed
        + settings.norm_weight * norm
        + settings.click_weight * click
        + settings.separation_weight * separation
        + settings.affinity_weight * near
        + settings.hard_negative_weight * hard
    )
    return Losses(total, base, suppressed, norm, click, separation, near, hard)


def pseudo_losses(output: NetworkOutput, frame_labels: Tensor) -> Tensor:
    """At the positions that have a pseudo-label, mean over them; 0 where there are none.

    Cross entropy of the base CAS, and of the foreground filter with action against background.
    frame_labels [B, T]: a class, C for background, NO_CLICK elsewhere.
    """
    labelled = frame_labels != NO_CLICK
    background = output.base.cas.shape[1] - 1
    classes = functional.cross_entropy(
        output.base.cas, frame_labels, ignore_index=NO_CLICK, reduction="sum"
    )
    foreground = output.foreground[:, 0].clamp(1e-6, 1 - 1e-6)
    acting = torch.where(frame_labels == background, 1 - foreground, foreground)
    return (classes - (acting.log() * labelled).sum()) / labelled.sum().clamp(min=1)


def frame_losses(output: NetworkOutput, frame_labels: Tensor, settings: LossSettings) -> Tensor:
    """Full supervision, a yardstick: cross entropy of both branches at every position.

    frame_labels [B, T]: a class, C for background, NO_CLICK at padding.
    """
    terms = [
        functional.cross_entropy(branch.cas, frame_labels, ignore_index=NO_CLICK)
        for branch in (output.base, output.suppressed)
    ]
    return terms[0] + terms[1] + settings.norm_weight * output.foreground.sum(dim=(1, 2)).mean()


def video_scores(cas: Tensor, mask: Tensor, ratio: float) -> Tensor:
    """The mean of each class's k greatest positions, [B, C+1]; k = max(1, int(L * ratio))."""
    return _mean(cas, top_k_members(cas, mask, ratio))


def top_k_members(cas: Tensor, mask: Tensor, ratio: float) -> Tensor:
    """Which positions are among the k greatest of their class: bool [B, C+1, T].

    L, and with it k = max(1, int(L * ratio)), is each video's own.
    """
    lengths = mask.sum(dim=1)
    # In float64, as Python has it: float32 would round some products up to the next integer.
    counts = (lengths.double() * ratio).long().clamp(min=1)
    # Of the longest video there can be: the longest one's length would have to be waited for.
    most = max(1, int(mask.shape[1] * ratio))
    positions = cas.detach().masked_fill(~mask[:, None], -torch.inf).topk(most, dim=2).indices
    kept = torch.arange(most, device=cas.device) < counts[:, None, None]
    members = torch.zeros_like(cas, dtype=torch.bool)
    return members.scatter(2, positions, kept.expand_as(positions))


def _clicks(output: NetworkOutput, video_labels: Tensor, click_labels: Tensor) -> Tensor:
    batch, channels, positions = output.base.cas.shape
    if video_labels.shape != (batch, channels - 1):
        raise InvalidArgument(
            f"video_labels have shape {list(video_labels.shape)}, expected {[batch, channels - 1]}"
        )
    if click_labels.shape != (batch, positions):
        raise InvalidArgument(
            f"click_labels have shape {list(click_labels.shape)}, expected {[batch, positions]}"
        )
    clicks = click_labels == channels - 1
    if click_labels.device.type != "cpu":
        # Looking would wait for the device; batches are right by their making.
        return clicks
    if bool((clicks != (click_labels != NO_CLICK)).any()):
        raise InvalidArgument(f"click_labels hold other values than {channels - 1} and {NO_CLICK}")
    if bool((clicks & ~output.mask).any()):
        raise InvalidArgument("click_labels hold a click beyond the end of its video")
    return clicks


def _mean(values: Tensor, members: Tensor) -> Tensor:
    """Mean over the last dimension of the members; 0 where there is none."""
    return (values * members).sum(dim=-1) / members.sum(dim=-1).clamp(min=1)


def _classification(scores: Tensor, video_labels: Tensor, background: float) -> Tensor:
    """Cross entropy of log-softmax scores with the normalised label, mean over the batch."""
    labels = functional.pad(video_labels, (0, 1), value=background)
    labels = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
    return -(labels * scores.log_softmax(dim=1)).sum(dim=1).mean()


def _click(cas: Tensor, clicks: Tensor) -> Tensor:
    """Frame-level cross entropy of class C at the clicks, mean over the batch's clicks."""
    background = cas.log_softmax(dim=1)[:, -1]
    return -(background * clicks).sum() / clicks.sum().clamp(min=1)


def _separation(cas: Tensor, members: Tensor, video_labels: Tensor, clicks: Tensor) -> Tensor:
    """The Score Separation Module, over the videos that have clicks and a label."""
    actions = _mean(cas, members)[:, :-1]
    background = _mean(cas, clicks[:, None].expand_as(cas))[:, :-1]
    # -log softmax([action, background])[0]
    per_class = functional.softplus(background - actions) * video_labels
    per_video = per_class.sum(dim=1) / video_labels.sum(dim=1).clamp(min=1)
    counted = clicks.any(dim=1) & video_labels.any(dim=1)
    return _mean(per_video, counted)


def _hard_negative(
    cas: Tensor, members: Tensor, video_labels: Tensor, clicks: Tensor, margin: float
) -> Tensor:
    """Each click's suppressed CAS of the video's classes is below their top-k mean by a margin.

    Mean over the videos that have clicks and a label: inference looks at this branch, the paper's
    click losses at the other.
    """
    actions = _mean(cas, members)[:, :-1, None]
    excess = (margin + cas[:, :-1] - actions).clamp(min=0)
    per_class = _mean(excess, clicks[:, None].expand_as(excess)) * video_labels
    per_video = per_class.sum(dim=1) / video_labels.sum(dim=1).clamp(min=1)
    return _mean(per_video, clicks.any(dim=1) & video_labels.any(dim=1))


def _action_counts(members: Tensor, video_labels: Tensor) -> Tensor:
    """How many labelled classes have a position in their top k, [B, T]: duplicates are kept."""
    return (members[:, :-1] * video_labels[:, :, None]).sum(dim=1)


def _affinity(
    embedding: Tensor, action_counts: Tensor, clicks: Tensor, settings: LossSettings
) -> Tensor:
    """The affinity losses: alike within actions, alike within clicks, unlike across.

    Duplicates change no extremum, only a mean's weights, so a set is a row of weights over the
    positions and all pairs of all videos are one [B, T, T] product.
    """
    cosines = embedding.transpose(1, 2) @ embedding
    actions = action_counts > 0
    counted = actions.any(dim=1) & clicks.any(dim=1)
    within_actions = settings.near_margin - _least(cosines, actions)
    within_clicks = settings.near_margin - _least(cosines, clicks)
    to_clicks = _greatest(cosines, clicks) - settings.far_margin
    to_actions = _greatest(cosines, actions) - settings.far_margin
    per_video = (
        _weighted(within_actions, action_counts)
        + _weighted(within_clicks, clicks)
        + _weighted(to_clicks, action_counts)
        + _weighted(to_actions, clicks)
    )
    return _mean(per_video, counted)


def _least(cosines: Tensor, columns: Tensor) -> Tensor:
    return torch.where(columns[:, None], cosines, 2.0).min(dim=2).values


def _greatest(cosines: Tensor, columns: Tensor) -> Tensor:
    return torch.where(columns[:, None], cosines, -2.0).max(dim=2).values


def _weighted(excess: Tensor, weights: Tensor) -> Tensor:
    """Mean of the positive parts over a video's set, [B]."""
    total = weights.sum(dim=1)
    return (excess.clamp(min=0) * weights).sum(dim=1) / total.clamp(min=1)
