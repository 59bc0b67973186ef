"""Where an index run goes on beyond this machine: an S3 server, a Ray cluster, both real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.object_store import object_store
from tests.requirements import require

BUCKET = "library"


@contextmanager
def s3_bucket(folder: Path, monkeypatch: Any) -> Iterator[str]:
    """The URL of a new bucket of a SeaweedFS, with this process's environment for it."""
    with object_store(folder) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield f"s3://{BUCKET}"


@contextmanager
def ray_cluster(num_nodes: int) -> Iterator[Any]:
    """Nodes of one CPU on this machine, each with worker processes of its own."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ModuleNotFoundError:
        require("ray", "it is not installed: pip install 'backtal[ray]'")
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(num_nodes - 1):
            started.add_node(num_cpus=1)
        started.wait_for_nodes()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
