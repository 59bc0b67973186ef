"""The board of whoever is on call: is it up, is it fast, what limits it."""

from __future__ import annotations

from deploy.grafana.board import Board, Panel, Query, Row, Step
from deploy.grafana.pipeline import INPUTS, PIPELINE, VIDEO_SECONDS
from deploy.grafana.queries import BUNDLE, CHOSEN, CLUSTER, IN_CLUSTER, RATE, mean, quantiles, rate

# As in prometheus/rules/objectives.yaml: what the service, not its caller, is to blame for.
OWN_FAULT = "INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|UNKNOWN"

FAILED = f'{CHOSEN},code=~"{OWN_FAULT}"'

REQUESTS = f"sum ({rate('backtal_requests_total')})"
OWN_ERRORS = f"sum ({rate('backtal_requests_total', FAILED)})"
ERROR_SHARE = f"({OWN_ERRORS} or 0 * {REQUESTS}) / {REQUESTS}"


NOW = Row(
    "Now",
    (
        Panel(
            title="Requests",
            description="Requests that end, a second: all codes, all entries.",
            unit="reqps",
            kind="stat",
            width=4,
            queries=(Query(REQUESTS),),
            runbook="availability",
        ),
        Panel(
            title="Share failed by us",
            description=f"Of all requests, those that ended with {OWN_FAULT.replace('|', ', ')}. "
            "The objective is 0.5 % over 30 days.",
            unit="percentunit",
            kind="stat",
            width=4,
            minimum=0,
            steps=(Step(0.005, "yellow"), Step(0.03, "red")),
            queries=(Query(ERROR_SHARE),),
            runbook="availability",
        ),
        Panel(
            title="Real-time factor",
            description="Seconds of video answered in a second, by all replicas together.",
            unit="none",
            kind="stat",
            width=4,
            queries=(Query(VIDEO_SECONDS),),
            runbook="slow-answers",
        ),
        Panel(
            title="Waiting",
            description="Requests that wait for their turn. What KEDA scales on.",
            unit="none",
            kind="stat",
            width=4,
            steps=(Step(8, "yellow"), Step(32, "red")),
            queries=(Query(f"sum (backtal_requests_waiting{{{CHOSEN}}})"),),
            runbook="saturation",
        ),
        Panel(
            title="Targets up",
            description="Replicas that Prometheus could scrape.",
            unit="none",
            kind="stat",
            width=4,
            queries=(Query(f'sum (up{{job="backtal",{IN_CLUSTER}}})'),),
            runbook="target-down",
        ),
        Panel(
            title="Canary",
            description="The supervisor's own small request to each bundle, mean seconds. The "
            "worst bundle.",
            unit="s",
            kind="stat",
            width=4,
            steps=(Step(1, "yellow"), Step(5, "red")),
            queries=(Query(f"max ({mean('backtal_canary_seconds', 'bundle')})"),),
            runbook="canary-failing",
        ),
    ),
)

REQUESTS_ROW = Row(
    "Requests",
    (
        Panel(
            title="Requests by outcome",
            description="By gRPC code, as the front door decided it; HTTP's are the same by name.",
            unit="reqps",
            stacked=True,
            queries=(Query(f"sum by (code) ({rate('backtal_requests_total')})", "{{code}}"),),
            runbook="availability",
        ),
        Panel(
            title="Requests by way in",
            description="gRPC, HTTP or a job.",
            unit="reqps",
            stacked=True,
            queries=(Query(f"sum by (entry) ({rate('backtal_requests_total')})", "{{entry}}"),),
            runbook="availability",
        ),
        Panel(
            title="Share failed by us",
            description="By bundle. The lines are 6 and 14.4 times the budget's even rate.",
            unit="percentunit",
            minimum=0,
            steps=(Step(0.03, "yellow"), Step(0.072, "red")),
            queries=(
                Query(
                    f"(sum by (bundle) "
                    f"({rate('backtal_requests_total', FAILED)})"
                    f" or 0 * sum by (bundle) ({rate('backtal_requests_total')}))"
                    f" / sum by (bundle) ({rate('backtal_requests_total')})",
                    "{{bundle}}",
                ),
            ),
            runbook="availability",
        ),
        Panel(
            title="Request duration",
            description="From a request's first byte to the end of its answer, by way in. It grows "
            "with the video: see the real-time factor beside it.",
            unit="s",
            minimum=0,
            queries=quantiles("backtal_request_seconds", "entry"),
            runbook="slow-answers",
        ),
        Panel(
            title="Wait for a turn",
            description="What a request stood in the front door's line, by bundle.",
            unit="s",
            minimum=0,
            queries=quantiles("backtal_queue_seconds", "bundle"),
            runbook="saturation",
        ),
        Panel(
            title="Jobs by state",
            description="Queued and running ones are work to come; ended ones are kept for a day.",
            unit="none",
            stacked=True,
            queries=(Query(f"sum by (state) (backtal_jobs{{{IN_CLUSTER}}})", "{{state}}"),),
            runbook="saturation",
        ),
    ),
)

SATURATION = Row(
    "Saturation and health",
    (
        Panel(
            title="Inside and waiting",
            description="Requests inside, those of them that wait, and how many are worked on at "
            "once.",
            unit="none",
            minimum=0,
            queries=(
                Query(f"sum (backtal_requests_in_flight{{{IN_CLUSTER}}})", "inside"),
                Query(
                    f"sum by (bundle) (backtal_requests_waiting{{{CHOSEN}}})", "waiting {{bundle}}"
                ),
                Query(
                    f"sum by (bundle) (backtal_requests_at_once{{{CHOSEN}}})",
                    "at once, allowed {{bundle}}",
                ),
            ),
            runbook="saturation",
        ),
        Panel(
            title="Spool in use",
            description="Of the bytes that uploads may take. Full: uploads are refused.",
            unit="percentunit",
            minimum=0,
            maximum=1,
            steps=(Step(0.7, "yellow"), Step(0.9, "red")),
            queries=(
                Query(
                    f"max by (instance) (backtal_spool_bytes{{{IN_CLUSTER}}}"
                    f" / backtal_spool_limit_bytes{{{IN_CLUSTER}}})",
                    "{{instance}}",
                ),
            ),
            runbook="spool-full",
        ),
        Panel(
            title="Children started again",
            description="By the supervisor: Triton, a model's process, the front door.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    "sum by (child) "
                    f"(increase(backtal_children_restarted_total{{{IN_CLUSTER}}}[{RATE}]))",
                    "{{child}}",
                ),
            ),
            runbook="dead-model",
        ),
        Panel(
            title="Canary",
            description="Seconds of the supervisor's own request to each bundle.",
            unit="s",
            minimum=0,
            queries=quantiles("backtal_canary_seconds", "bundle"),
            runbook="canary-failing",
        ),
        Panel(
            title="Canary failures",
            description="Requests of the supervisor that were not answered. Two in a row start "
            "Triton again.",
            unit="none",
            minimum=0,
            queries=(
                Query(
                    "sum by (bundle) "
                    f"(increase(backtal_canary_failures_total{{{CHOSEN}}}[{RATE}]))",
                    "{{bundle}}",
                ),
            ),
            runbook="canary-failing",
        ),
        Panel(
            title="Builds",
            description="What runs: two lines while a roll-out is under way.",
            unit="none",
            kind="table",
            queries=(
                Query(
                    "count by (cluster, version, python, triton) "
                    f"(backtal_build_info{{{IN_CLUSTER}}})"
                ),
            ),
            runbook="target-down",
        ),
    ),
)

SERVICE = Board(
    uid="backtal-service",
    title="backtal / Service",
    description="Rate, errors, duration by stage, real-time factor, saturation.",
    variables=(CLUSTER, BUNDLE),
    rows=(NOW, REQUESTS_ROW, PIPELINE, INPUTS, SATURATION),
)
