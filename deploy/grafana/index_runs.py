"""The board of whoever indexes a library: how far, how fast, what was left out."""

from __future__ import annotations

from deploy.grafana.board import Board, Panel, Query, Row, Step, Variable
from deploy.grafana.queries import CLUSTER

INDEX = Variable("index", "Index", "backtal_index_videos_remaining")
CHOSEN = 'cluster=~"$cluster",index=~"$index"'
RATE = "$__rate_interval"

ENDED = f"sum by (index) (backtal_index_videos_total{{{CHOSEN}}})"
REMAINING = f"sum by (index) (backtal_index_videos_remaining{{{CHOSEN}}})"
ENDED_A_SECOND = f"sum by (index) (rate(backtal_index_videos_total{{{CHOSEN}}}[{RATE}]))"


def of_status(status: str) -> str:
    """Videos that ended with a status; 0 where none did."""
    those = f'sum by (index) (backtal_index_videos_total{{{CHOSEN},status="{status}"}})'
    return f"({those} or 0 * {ENDED})"


PROGRESS = Row(
    "Progress",
    (
        Panel(
            title="Done",
            description="Share of the videos that the run has ended with, whatever came of them.",
            unit="percentunit",
            kind="stat",
            width=4,
            minimum=0,
            maximum=1,
            queries=(Query(f"{ENDED} / ({ENDED} + {REMAINING})", "{{index}}"),),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Remaining",
            description="Videos that are still to be done.",
            unit="none",
            kind="stat",
            width=4,
            queries=(Query(REMAINING, "{{index}}"),),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Time left",
            description="At the present rate.",
            unit="s",
            kind="stat",
            width=4,
            queries=(Query(f"{REMAINING} / ({ENDED_A_SECOND} > 0)", "{{index}}"),),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Since the last progress",
            description="Seconds since a video ended. Longer than the longest video takes: "
            "stalled.",
            unit="s",
            kind="stat",
            width=4,
            steps=(Step(600, "yellow"), Step(1800, "red")),
            queries=(
                Query(
                    "time() - max by (index) "
                    f"(backtal_index_last_progress_timestamp_seconds{{{CHOSEN}}})",
                    "{{index}}",
                ),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Running for",
            description="Seconds since the run was started or resumed.",
            unit="s",
            kind="stat",
            width=4,
            queries=(
                Query(
                    "time() - max by (index) "
                    f"(backtal_index_run_start_timestamp_seconds{{{CHOSEN}}})",
                    "{{index}}",
                ),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Quarantined",
            description="Share of the videos that ended which the run gave up on.",
            unit="percentunit",
            kind="stat",
            width=4,
            minimum=0,
            steps=(Step(0.01, "yellow"), Step(0.05, "red")),
            queries=(Query(f"{of_status('quarantined')} / ({ENDED} > 0)", "{{index}}"),),
            runbook="index-run-quarantining",
        ),
    ),
)

WORK = Row(
    "Work",
    (
        Panel(
            title="Videos by status",
            description="Videos that ended, a second: done, failed, quarantined, deleted, "
            "unchanged.",
            unit="none",
            stacked=True,
            queries=(
                Query(
                    "sum by (index, status) "
                    f"(rate(backtal_index_videos_total{{{CHOSEN}}}[{RATE}]))",
                    "{{index}} {{status}}",
                ),
            ),
            runbook="index-run-quarantining",
        ),
        Panel(
            title="Real-time factor",
            description="Seconds of video indexed in a second. Times the machine-hours: the cost.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    f"sum by (index) (rate(backtal_index_video_seconds_total{{{CHOSEN}}}[{RATE}]))",
                    "{{index}}",
                ),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="In flight",
            description="Videos that workers have sent to the service. Below the run's "
            "concurrency: workers starve, or died.",
            unit="none",
            minimum=0,
            queries=(
                Query(f"sum by (index) (backtal_index_videos_in_flight{{{CHOSEN}}})", "{{index}}"),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Remaining",
            description="Videos, and shards of the index, that are still to be done.",
            unit="none",
            minimum=0,
            queries=(
                Query(REMAINING, "{{index}} videos"),
                Query(
                    f"sum by (index) (backtal_index_shards_remaining{{{CHOSEN}}})",
                    "{{index}} shards",
                ),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Retries",
            description="Videos tried once more, a second. A wave of them: the service is full or "
            "starts again.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    f"sum by (index) (rate(backtal_index_retries_total{{{CHOSEN}}}[{RATE}]))",
                    "{{index}}",
                ),
            ),
            runbook="index-run-stalled",
        ),
        Panel(
            title="Videos by status, so far",
            description="Of the run.",
            unit="none",
            kind="bargauge",
            queries=(
                Query(
                    f"sum by (index, status) (backtal_index_videos_total{{{CHOSEN}}})",
                    "{{index}} {{status}}",
                ),
            ),
            runbook="index-run-quarantining",
        ),
    ),
)

INDEX_RUNS = Board(
    uid="backtal-index-runs",
    title="backtal / Index runs",
    description="Done, remaining, stalled, quarantined, and how fast.",
    variables=(CLUSTER, INDEX),
    rows=(PROGRESS, WORK),
)
