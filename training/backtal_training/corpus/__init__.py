"""A generated corpus: articulated figures doing six actions, untrimmed, in telling scenes."""

from __future__ import annotations

from backtal_training.corpus.film import frames, render
from backtal_training.corpus.folder import (
    CorpusRecord,
    select,
    video_path,
    write_corpus,
)
from backtal_training.corpus.labels import clicks_text, ground_truth
from backtal_training.corpus.settings import ACTIONS, OWN_SCENE, CorpusSettings
from backtal_training.corpus.timeline import CorpusPlan, VideoPlan, plan, plan_video

__all__ = [
    "ACTIONS",
    "OWN_SCENE",
    "CorpusPlan",
    "CorpusRecord",
    "CorpusSettings",
    "VideoPlan",
    "clicks_text",
    "frames",
    "ground_truth",
    "plan",
    "plan_video",
    "render",
    "select",
    "video_path",
    "write_corpus",
]
