"""The board of whoever owns the models: what Triton does with them, and what they answer."""

from __future__ import annotations

from deploy.grafana.board import Board, Panel, Query, Row, Step, Variable
from deploy.grafana.queries import BUNDLE, CHOSEN, CLUSTER, rate

MODEL = Variable("model", "Triton model", "nv_inference_count")
# Triton's metrics know no bundle: networks are shared by content.
OF_MODEL = 'cluster=~"$cluster",model=~"$model"'
MICROSECONDS = 1e6


def by_model(metric: str) -> str:
    """A counter of Triton's, a second, by model."""
    return f"sum by (model) ({rate(metric, OF_MODEL)})"


def seconds_a_request(metric: str) -> str:
    """A duration of Triton's, which it counts in microseconds, for each request."""
    requests = by_model("nv_inference_request_success")
    return f"{by_model(metric)} / ({requests} > 0) / {MICROSECONDS:.0f}"


ANSWERS = Row(
    "Bundles and their answers",
    (
        Panel(
            title="Bundles",
            description="What is served. Two lines of one bundle: two versions, or a roll-out.",
            unit="none",
            kind="table",
            width=24,
            queries=(
                Query(
                    "count by (cluster, bundle, version, backbone, precision, sha256) "
                    f"(backtal_bundle_info{{{CHOSEN}}})"
                ),
            ),
            runbook="dead-model",
        ),
        Panel(
            title="Segments by class",
            description="Segments answered over the time that is shown.",
            unit="none",
            kind="bargauge",
            queries=(
                Query(
                    "topk(20, sum by (label) "
                    f"(increase(backtal_segments_total{{{CHOSEN}}}[$__range])))",
                    "{{label}}",
                ),
            ),
            runbook="scores-drift",
        ),
        Panel(
            title="Mean score by class",
            description="Of the segments that were answered. A class that falls away has lost its "
            "videos, or the model has lost the class.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            queries=(
                Query(
                    f"sum by (label) ({rate('backtal_segment_scores_total')})"
                    f" / (sum by (label) ({rate('backtal_segments_total')}) > 0)",
                    "{{label}}",
                ),
            ),
            runbook="scores-drift",
        ),
        Panel(
            title="Drift of the mean score",
            description="The mean score now over its mean in the time that is shown: 1 is none.",
            unit="none",
            steps=(Step(1, "green"),),
            queries=(
                Query(
                    f"sum by (bundle) ({rate('backtal_segment_scores_total')})"
                    f" / (sum by (bundle) ({rate('backtal_segments_total')}) > 0)"
                    " / on (bundle) "
                    f"(sum by (bundle) (increase(backtal_segment_scores_total{{{CHOSEN}}}"
                    "[$__range]))"
                    f" / sum by (bundle) (increase(backtal_segments_total{{{CHOSEN}}}"
                    "[$__range])))",
                    "{{bundle}}",
                ),
            ),
            runbook="scores-drift",
        ),
        Panel(
            title="Segments for a minute of video",
            description="By bundle. It moves when thresholds, videos or the model do.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    f"60 * sum by (bundle) ({rate('backtal_segments_total')})"
                    f" / (sum by (bundle) ({rate('backtal_video_seconds_total')}) > 0)",
                    "{{bundle}}",
                ),
            ),
            runbook="scores-drift",
        ),
        Panel(
            title="Requests by bundle",
            description="What the front door answered, by bundle: who uses what.",
            unit="reqps",
            stacked=True,
            queries=(Query(f"sum by (bundle) ({rate('backtal_requests_total')})", "{{bundle}}"),),
            runbook="availability",
        ),
        Panel(
            title="Wait for a turn",
            description="Mean seconds in the front door's line, by bundle.",
            unit="s",
            minimum=0,
            queries=(
                Query(
                    f"sum by (bundle) ({rate('backtal_queue_seconds_sum')})"
                    f" / (sum by (bundle) ({rate('backtal_queue_seconds_count')}) > 0)",
                    "{{bundle}}",
                ),
            ),
            runbook="saturation",
        ),
    ),
)

TRITON = Row(
    "Networks in Triton",
    (
        Panel(
            title="Requests by model",
            description="Bundles, and the networks behind them. Triton counts an error that a "
            "bundle answers as a success: outcomes are on the board Service.",
            unit="reqps",
            queries=(Query(by_model("nv_inference_request_success"), "{{model}}"),),
            runbook="dead-model",
        ),
        Panel(
            title="Failures by model",
            description="Where Triton itself failed: a dead process, a refused shape.",
            unit="reqps",
            queries=(
                Query(
                    f"sum by (model, reason) ({rate('nv_inference_request_failure', OF_MODEL)})",
                    "{{model}} {{reason}}",
                ),
            ),
            runbook="dead-model",
        ),
        Panel(
            title="Requests by version",
            description="During a roll-out the new version takes over from the old one.",
            unit="reqps",
            stacked=True,
            queries=(
                Query(
                    f"sum by (model, version) ({rate('nv_inference_request_success', OF_MODEL)})",
                    "{{model}} {{version}}",
                ),
            ),
            runbook="dead-model",
        ),
        Panel(
            title="Queue time",
            description="Mean seconds that a call waited in Triton, by model.",
            unit="s",
            minimum=0,
            queries=(Query(seconds_a_request("nv_inference_queue_duration_us"), "{{model}}"),),
            runbook="saturation",
        ),
        Panel(
            title="Compute time",
            description="Mean seconds of inference of a call, by model.",
            unit="s",
            minimum=0,
            queries=(
                Query(seconds_a_request("nv_inference_compute_infer_duration_us"), "{{model}}"),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Queue over compute",
            description="Above 1 a call waits longer than it is worked on: more instances, or "
            "more replicas.",
            unit="none",
            minimum=0,
            steps=(Step(1, "red"),),
            queries=(
                Query(
                    f"{by_model('nv_inference_queue_duration_us')}"
                    f" / ({by_model('nv_inference_compute_infer_duration_us')} > 0)",
                    "{{model}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Batch size",
            description="Inferences for each execution: what batching makes of the clips that come "
            "in. At the largest batch, more of it would help.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    f"{by_model('nv_inference_count')}"
                    f" / ({by_model('nv_inference_exec_count')} > 0)",
                    "{{model}}",
                ),
            ),
            runbook="slow-answers",
        ),
        Panel(
            title="Pending",
            description="Calls that wait in Triton, by model.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    f"sum by (model) (nv_inference_pending_request_count{{{OF_MODEL}}})",
                    "{{model}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Busy",
            description="Seconds of inference in a second, by model: how many of its instances "
            "are at work.",
            unit="none",
            minimum=0,
            stacked=True,
            queries=(
                Query(
                    f"{by_model('nv_inference_compute_infer_duration_us')} / {MICROSECONDS:.0f}",
                    "{{model}}",
                ),
            ),
            runbook="saturation",
        ),
    ),
)

MODELS = Board(
    uid="backtal-models",
    title="backtal / Models",
    description="Queue and compute, batch sizes, versions, classes, drift of scores.",
    variables=(CLUSTER, BUNDLE, MODEL),
    rows=(ANSWERS, TRITON),
)
