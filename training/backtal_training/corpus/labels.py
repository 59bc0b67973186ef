"""The corpus's ground truth (ActivityNet's format) and clicks (the THUMOS14 click format)."""

from __future__ import annotations

import json
from typing import Any

from backtal_training.corpus.settings import ACTIONS
from backtal_training.corpus.timeline import CorpusPlan

GROUND_TRUTH_NAME = "ground_truth.json"
CLICKS_NAME = "clicks.txt"

_CLICK_HEADER = "URLID,URL,TagID,Tag,Start,End,Time,State"
_BACKGROUND_TAG = "background_background"
_BYTE_ORDER_MARK = "\ufeff"


def ground_truth(plan: CorpusPlan) -> dict[str, Any]:
    """Every video's subset, duration, frame rate and segments, times in seconds."""
    database = {}
    for video in plan.videos:
        fps = video.frames_per_second
        database[video.name] = {
            "subset": video.subset,
            "duration": round(video.duration_seconds, 4),
            "fps": float(fps),
            "annotations": [
                {
                    "segment": [
                        round(instance.start_frame / fps, 4),
                        round(instance.end_frame / fps, 4),
                    ],
                    "label": instance.label,
                }
                for instance in video.instances
            ],
        }
    taxonomy = [
        {"nodeId": index, "nodeName": label, "parentId": None, "parentName": None}
        for index, label in enumerate(ACTIONS)
    ]
    return {"version": "backtal corpus 1", "taxonomy": taxonomy, "database": database}


def ground_truth_text(plan: CorpusPlan) -> str:
    """The ground truth as it is written."""
    return json.dumps(ground_truth(plan), indent=1) + "\n"


def clicks_text(plan: CorpusPlan) -> str:
    """One line a click, after a byte-order mark and a header; training videos only."""
    lines = [_CLICK_HEADER]
    for video in plan.videos:
        for seconds in video.click_seconds:
            time = f"{seconds:.10g}"
            lines.append(
                f"{video.name},{video.name}.mp4,{len(ACTIONS)},{_BACKGROUND_TAG},{time},{time},1,1"
            )
    return _BYTE_ORDER_MARK + "\n".join(lines) + "\n"
