"""Pieces of PromQL that more than one board needs."""

from __future__ import annotations

from deploy.grafana.board import Query, Variable

# What every query of the service's own metrics is narrowed by.
CHOSEN = 'cluster=~"$cluster",bundle=~"$bundle"'
IN_CLUSTER = 'cluster=~"$cluster"'
RATE = "$__rate_interval"

CLUSTER = Variable("cluster", "Cluster", "backtal_build_info")
BUNDLE = Variable("bundle", "Model (bundle)", "backtal_bundle_info")


def rate(metric: str, selector: str = CHOSEN) -> str:
    """A counter's increase a second."""
    return f"rate({metric}{{{selector}}}[{RATE}])"


def quantiles(histogram: str, by: str, selector: str = CHOSEN) -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram, for each value of a label."""
    buckets = f"sum by (le, {by}) ({rate(f'{histogram}_bucket', selector)})"
    return tuple(
        Query(f"histogram_quantile({q}, {buckets})", f"{{{{{by}}}}} p{round(100 * q)}")
        for q in (0.5, 0.95, 0.99)
    )


def mean(histogram: str, by: str, selector: str = CHOSEN) -> str:
    """What a histogram's observations are on average, for each value of a label."""
    total = f"sum by ({by}) ({rate(f'{histogram}_sum', selector)})"
    count = f"sum by ({by}) ({rate(f'{histogram}_count', selector)})"
    return f"{total} / {count}"
