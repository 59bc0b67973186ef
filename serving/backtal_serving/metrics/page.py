"""docs/metrics.md, made of the definitions: ``python -m backtal_serving.metrics.page > FILE``."""

from __future__ import annotations

from backtal_serving.metrics.definitions import DOOR, PIPELINE, SUPERVISOR, Metric

_HEAD = """\
# Metrics

`GET /metrics` of the front door has all of them, in Prometheus's text format: to every program of
this machine, and from elsewhere with an operator's key. This page is made of the code that counts
(`python -m backtal_serving.metrics.page > docs/metrics.md`); a test holds the two together, and
what a running service tells.

Outcomes are counted at the front door, which decides them: Triton's own `nv_*_success` counts
errors of ours as successes. No label holds what a caller could make up. Counters of the door begin
anew with its process, those of the pipeline with Triton's; a model's process that dies loses none.
`metrics: false` in `--settings` turns off what the models and Triton count.

Not counted are `/healthz`, `/readyz`, `/metrics`, `/docs`, KServe's health calls, paths that do not
exist, and what gRPC's and HTTP's own servers refuse before the door sees it: connections beyond
`limits.connections`, headers that are malformed or do not come.
"""
_PARTS = (
    ("The front door", "What callers asked for and were told, and how full it is.", DOOR),
    (
        "The pipeline",
        "What answers cost and what was in them, told by the bundles' processes and kept by "
        "Triton: in NVIDIA's container, without the door, they are on Triton's own port. The "
        "supervisor's own small requests are not among them.",
        PIPELINE,
    ),
    (
        "The supervisor",
        "What `backtal serve` saw of its children. Not there where something else starts Triton.",
        SUPERVISOR,
    ),
)
_TAIL = """
## Triton's own
Passed on as they are, with the labels `model` and `version`, for the bundles (`kinetics400`, and
`kinetics400_stream`, which jobs and streams use) and for the networks inside
(`i3d-rgb-...`, `cas-...`): `nv_inference_request_success`, `nv_inference_request_failure`,
`nv_inference_count`, `nv_inference_exec_count`, `nv_inference_request_duration_us`,
`nv_inference_queue_duration_us`, `nv_inference_compute_input_duration_us`,
`nv_inference_compute_infer_duration_us`, `nv_inference_compute_output_duration_us`,
`nv_inference_pending_request_count`, `nv_cpu_utilization`, `nv_cpu_memory_total_bytes`,
`nv_cpu_memory_used_bytes`, and with a GPU `nv_gpu_utilization`, `nv_gpu_memory_used_bytes`,
`nv_gpu_memory_total_bytes`, `nv_gpu_power_usage`. The mean batch of a network is
`nv_inference_count / nv_inference_exec_count`.

Triton tells them by HTTP on a socket in the private folder of mode 0700 that its gRPC is in, on no
port: its HTTP server can be crashed by whoever reaches it. Other users of the machine reach the
door's `/metrics` and nothing else.
"""


def page() -> str:
    """The page's text."""
    parts = [_HEAD]
    for title, about, metrics in _PARTS:
        rows = "\n".join(_row(metric) for metric in metrics)
        head = "| metric | kind | labels | |\n| --- | --- | --- | --- |"
        parts.append(f"\n## {title}\n{about}\n\n{head}\n{rows}\n")
    return "".join((*parts, _TAIL))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    bounds = ", ".join(f"{bound:g}" for bound in metric.buckets)
    about = f"{metric.help} Buckets: {bounds}." if bounds else metric.help
    return f"| `{metric.name}` | {metric.kind} | {labels} | {about} |"


if __name__ == "__main__":
    print(page(), end="")
