"""An S3 bucket as obstore has it; keys come from the environment (`AWS_ACCESS_KEY_ID`, ...)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from backtal.errors import MissingDependency

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store


def open_bucket(
    name: str,
    *,
    prefix: str | None = None,
    endpoint: str | None,
    region: str | None,
    timeout_seconds: float,
    max_retries: int,
) -> S3Store:
    """The bucket, rooted at `prefix`; no request is made yet.

    endpoint: of a store that is not Amazon's; `http:` is taken only from there. timeout_seconds:
    of one request from its connection to the end of its body. Raises MissingDependency.
    """
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingDependency(
            "s3: needs obstore, which is not installed: pip install 'backtal[s3]'"
        ) from None
    timeout = timedelta(seconds=timeout_seconds)
    config: S3Config = {}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    return S3Store(
        name,
        prefix=prefix,
        config=config,
        client_options={
            "timeout": timeout,
            "connect_timeout": timeout,
            "allow_http": (endpoint or "").startswith("http:"),
        },
        retry_config={"max_retries": max_retries, "retry_timeout": timeout},
    )
