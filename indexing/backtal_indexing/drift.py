"""Drift: what another bundle, or another version of one, finds in the same videos.

Compared are the videos that both have answered with the same content (URI and identity). For each
class: how many segments, how far the scores moved, and how well the segments agree in time. Two
segments of a class and video agree where each is the other's best and they overlap by a tIoU.

A bundle is named as in the index, or as NAME@HASH with the start of its SHA-256: what a version
found is still there after the next one has answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backtal.errors import InvalidArgument
from backtal_indexing.reading import Tables
from backtal_indexing.score_distance import ScoreDistance, score_distance
from backtal_indexing.search import unknown_name

DEFAULT_TIOU = 0.5

_ANSWERED = """
create or replace temp table {side} as
select uri, identity, segments from (
    select * from video_rows where bundle = ? and starts_with(bundle_sha256, ?)
    qualify row_number() over (partition by uri order by parse_filename(filename) desc) = 1)
where status = 'done'
"""

_SEGMENTS = """
create or replace temp table {side}_segments as
select row_number() over () as id, uri, label, score, start_seconds, end_seconds from (
    select uri, unnest(segments, recursive := true)
    from {side} semi join {other} using (uri, identity))
"""

_AGREEMENT = """
with pairs as (
    select a.id as reference_id, b.id as other_id, label,
        least(a.end_seconds, b.end_seconds) - greatest(a.start_seconds, b.start_seconds) as shared,
        (a.end_seconds - a.start_seconds) + (b.end_seconds - b.start_seconds) as lengths
    from reference_segments a join other_segments b using (uri, label)),
matching as (
    select reference_id, other_id, label, shared / (lengths - shared) as tiou
    from pairs where shared > 0 and shared / (lengths - shared) >= ?),
ranked as (
    select *,
        row_number() over (partition by reference_id order by tiou desc, other_id) as of_other,
        row_number() over (partition by other_id order by tiou desc, reference_id) as of_reference
    from matching)
select label, count(*) as num_agreed, avg(tiou) as mean_tiou
from ranked where of_other = 1 and of_reference = 1 group by label
"""


@dataclass(frozen=True)
class ClassDrift:
    """One class.

    Attributes:
        num_reference, num_other: segments.
        num_agreed: pairs of segments that are each other's best, at the tIoU or more.
        mean_tiou: of these pairs; None where there is none.
        scores: None where one side has no segment.
    """

    label: str
    num_reference: int
    num_other: int
    num_agreed: int
    mean_tiou: float | None
    scores: ScoreDistance | None

    @property
    def agreement(self) -> float:
        """The share of the segments of both sides that have their like on the other: 0 to 1."""
        return 2 * self.num_agreed / (self.num_reference + self.num_other)


@dataclass(frozen=True)
class Drift:
    """Two bundles on `num_videos` videos. `classes`: the most frequent first."""

    reference: str
    other: str
    tiou: float
    num_videos: int
    classes: tuple[ClassDrift, ...]


def drift(tables: Tables, reference: str, other: str, tiou: float = DEFAULT_TIOU) -> Drift:
    """Compare two bundles. Raises InvalidArgument for one that the index does not have."""
    if not 0 < tiou <= 1:
        raise InvalidArgument(f"a tIoU of {tiou:g}; it must be in (0, 1]")
    tables.add_videos()
    for side, bundle in (("reference", reference), ("other", other)):
        name, _, digest = bundle.partition("@")
        tables.run(_ANSWERED.format(side=side), [name, digest])
        if not tables.ask(f"select 1 from {side} limit 1").num_rows:
            known = _bundles(tables, with_hash=bool(digest))
            raise unknown_name("bundle", bundle, known, tables.url)
    tables.run(_SEGMENTS.format(side="reference", other="other"))
    tables.run(_SEGMENTS.format(side="other", other="reference"))
    both = tables.ask("select count(*) as n from reference semi join other using (uri, identity)")
    agreed = {row["label"]: row for row in tables.ask(_AGREEMENT, [tiou]).to_pylist()}
    scores = [_scores(tables, side) for side in ("reference", "other")]
    classes = [
        _class(label, scores[0].get(label), scores[1].get(label), agreed.get(label))
        for label in sorted({*scores[0], *scores[1]})
    ]
    classes.sort(key=lambda one: -(one.num_reference + one.num_other))
    return Drift(reference, other, tiou, both["n"][0].as_py(), tuple(classes))


def _class(
    label: str,
    reference: np.ndarray[Any, Any] | None,
    other: np.ndarray[Any, Any] | None,
    agreed: dict[str, Any] | None,
) -> ClassDrift:
    return ClassDrift(
        label=label,
        num_reference=0 if reference is None else len(reference),
        num_other=0 if other is None else len(other),
        num_agreed=agreed["num_agreed"] if agreed else 0,
        mean_tiou=agreed["mean_tiou"] if agreed else None,
        scores=None if reference is None or other is None else score_distance(reference, other),
    )


def _scores(tables: Tables, side: str) -> dict[str, np.ndarray[Any, Any]]:
    found = tables.ask(f"select label, list(score) as scores from {side}_segments group by label")
    return {
        label: scores.values.to_numpy().astype(np.float64)
        for label, scores in zip(found["label"].to_pylist(), found["scores"], strict=True)
    }


def _bundles(tables: Tables, *, with_hash: bool) -> list[str]:
    """How the bundles of the index are named."""
    name = "bundle || '@' || bundle_sha256[:12]" if with_hash else "bundle"
    found = tables.ask(f"select distinct {name} as name from video_rows where status = 'done'")
    names: list[str] = found["name"].to_pylist()
    return names
