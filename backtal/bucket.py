"""An S3 bucket as obstore has it; keys come from the environment (`AWS_ACCESS_KEY_ID`, ...)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from backtal.errors import MissingDependency

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store


def open_bucket(
    name: str,
    *,
    prefix: str | None = None,
    endpoint: str | None,
    region: str | None = None,
    timeout_seconds: float | None = None,
    max_retries: int,
    retry_seconds: float,
) -> S3Store:
    """The bucket, rooted at `prefix`; no request is made yet.

    endpoint: of a store that is not Amazon's; `http:` is taken only from there. timeout_seconds:
    of one request from its connection to the end of its body. retry_seconds: of a request and all
    that it is tried again. What is None is obstore's choice. Raises MissingDependency.
    """
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingDependency(
            "s3: needs obstore, which is not installed: pip install 'backtal[s3]'"
        ) from None
    config: S3Config = {}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    client: ClientConfig = {"allow_http": (endpoint or "").startswith("http:")}
    if timeout_seconds is not None:
        client["timeout"] = client["connect_timeout"] = timedelta(seconds=timeout_seconds)
    return S3Store(
        name,
        prefix=prefix,
        config=config,
        client_options=client,
        retry_config={
            "max_retries": max_retries,
            "retry_timeout": timedelta(seconds=retry_seconds),
        },
    )
