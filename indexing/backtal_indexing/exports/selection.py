"""The videos and segments that an export is made of, read from an index."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

from backtal.errors import InvalidArgument
from backtal.segments import Segment
from backtal_indexing.exports.video import IndexedVideo
from backtal_indexing.reading import Tables
from backtal_indexing.search import Query, check_names, place, selection, unknown_name

_VIDEO_COLUMNS = "uri, bundle, duration_seconds, frames_per_second, width, height"


def select_videos(tables: Tables, query: Query) -> list[IndexedVideo]:
    """The videos that are done, by URI, each with those of its segments that answer `query`.

    A video without one is among them. Raises InvalidArgument where several bundles have answered
    and `query` names none, and for a label or a bundle that the index does not have.
    """
    tables.add_videos()
    query = replace(query, bundle=_bundle(tables, query.bundle))
    segments, parameters = selection(query)
    condition, more = place(query)
    # By way of text: 0.9 rather than 0.8999999761581421, which is the same float32.
    found = tables.ask(
        f"""
        with found as ({segments}), answered as (
            select {_VIDEO_COLUMNS} from videos where status = 'done' and {condition})
        select v.*, s.label, s.score::varchar::double as score, s.start_seconds, s.end_seconds
        from answered v left join found s using (uri, bundle)
        order by v.uri, s.score desc, s.start_seconds, s.label
        """,
        [*parameters, *more],
    )
    check_names(tables, replace(query, bundle=None), found)
    rows = found.to_pylist()
    return [_video(list(members)) for _, members in groupby(rows, key=lambda row: row["uri"])]


def _bundle(tables: Tables, wanted: str | None) -> str | None:
    names = tables.ask("select distinct bundle from videos where status = 'done' order by bundle")
    known: list[str] = names["bundle"].to_pylist()
    if wanted is None and len(known) > 1:
        raise InvalidArgument(
            f"several bundles have answered {tables.url}, and an export is of one; choose with "
            f"--bundle: {', '.join(known)}"
        )
    if wanted is not None and wanted not in known:
        raise unknown_name("bundle", wanted, known, tables.url)
    return wanted or next(iter(known), None)


def _video(rows: list[dict[str, Any]]) -> IndexedVideo:
    first = rows[0]
    segments = tuple(
        Segment(row["start_seconds"], row["end_seconds"], row["label"], row["score"])
        for row in rows
        if row["label"] is not None
    )
    return IndexedVideo(
        uri=first["uri"],
        bundle=first["bundle"],
        duration_seconds=first["duration_seconds"] or 0.0,
        frames_per_second=first["frames_per_second"],
        width=first["width"],
        height=first["height"],
        segments=segments,
    )
