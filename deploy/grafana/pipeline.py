"""Rows on the work itself: what each stage costs, and what comes in."""

from __future__ import annotations

from deploy.grafana.board import Panel, Query, Row
from deploy.grafana.queries import CHOSEN, mean, quantiles, rate

VIDEO_SECONDS = f"sum ({rate('backtal_video_seconds_total')})"

PIPELINE = Row(
    "Pipeline",
    (
        Panel(
            title="Seconds by stage",
            description="Mean seconds of a request in each stage. Stages overlap, so that their "
            "sum can pass the total.",
            unit="s",
            minimum=0,
            queries=(Query(mean("backtal_stage_seconds", "stage"), "{{stage}}"),),
            runbook="slow-answers",
        ),
        Panel(
            title="Seconds by stage, 95th percentile",
            description="The slow requests: long videos, or a stage that is starved.",
            unit="s",
            minimum=0,
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, stage) "
                    f"({rate('backtal_stage_seconds_bucket')}))",
                    "{{stage}}",
                ),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Compute seconds for a second of video",
            description="What a second of video costs in each stage: the figure that does not "
            "depend on how long videos are. docs/scaling.md has what to expect.",
            unit="s",
            minimum=0,
            queries=(
                Query(
                    f"sum by (stage) ({rate('backtal_stage_seconds_sum')})"
                    f" / on () group_left () {VIDEO_SECONDS}",
                    "{{stage}}",
                ),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Real-time factor",
            description="Seconds of video answered in a second, by bundle.",
            unit="none",
            minimum=0,
            queries=(
                Query(f"sum by (bundle) ({rate('backtal_video_seconds_total')})", "{{bundle}}"),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Frames",
            description="Frames decoded a second.",
            unit="none",
            minimum=0,
            queries=(Query(f"sum by (bundle) ({rate('backtal_frames_total')})", "{{bundle}}"),),
            runbook="slow-answers",
        ),
        Panel(
            title="Clips and windows",
            description="Clips through the backbone and windows through localization, a second.",
            unit="none",
            minimum=0,
            queries=(
                Query(f"sum by (bundle) ({rate('backtal_clips_total')})", "clips {{bundle}}"),
                Query(f"sum by (bundle) ({rate('backtal_windows_total')})", "windows {{bundle}}"),
            ),
            runbook="slow-answers",
        ),
    ),
)

INPUTS = Row(
    "Inputs",
    (
        Panel(
            title="Video duration",
            description="How long the videos are. A shift here explains one in request duration.",
            unit="s",
            minimum=0,
            queries=quantiles("backtal_input_seconds", "bundle"),
            runbook="slow-answers",
        ),
        Panel(
            title="Video size",
            description="Bytes of a file.",
            unit="bytes",
            minimum=0,
            queries=quantiles("backtal_input_bytes", "bundle"),
            runbook="spool-full",
        ),
        Panel(
            title="Codecs",
            description="Videos by codec over the time that is shown.",
            unit="none",
            kind="bargauge",
            width=4,
            queries=(
                Query(
                    f"sum by (codec) (increase(backtal_inputs_total{{{CHOSEN}}}[$__range]))",
                    "{{codec}}",
                ),
            ),
            runbook="decode-failures",
        ),
        Panel(
            title="Videos that could not be decoded",
            description="By reason, a second. The caller got INVALID_ARGUMENT, or UNAVAILABLE "
            "where the decoder was killed from outside.",
            unit="reqps",
            width=4,
            stacked=True,
            queries=(
                Query(f"sum by (reason) ({rate('backtal_decode_failures_total')})", "{{reason}}"),
            ),
            runbook="decode-failures",
        ),
        Panel(
            title="Feature store",
            description="Look-ups and entries by what came of them, a second; none where the "
            "service has no store. A store that failed costs time and no answer.",
            unit="reqps",
            width=4,
            stacked=True,
            queries=(
                Query(f"sum by (outcome) ({rate('backtal_feature_store_total')})", "{{outcome}}"),
            ),
            runbook="slow-answers",
        ),
    ),
)
