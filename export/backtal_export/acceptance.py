"""What a running service makes of a version that was just written into its repository."""

from __future__ import annotations

import time
from collections.abc import Sequence

from backtal.client import BundleVersion, Client
from backtal.errors import Unavailable, VersionRefused

POLL_SECONDS = 0.2
# Of one question; a service that is starting may not answer the first.
CALL_SECONDS = 5.0
TIMEOUT_SECONDS = 300.0
FORGET_SECONDS = 15.0


def wait_until_served(
    address: str,
    bundle: str,
    version: int,
    *,
    key: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Wait until the service at `address` (HOST:PORT, gRPC) answers by the version, or a later one.

    Raises VersionRefused with the service's reason, Unavailable where it said neither in time.
    """
    deadline = time.monotonic() + timeout_seconds
    known: Sequence[BundleVersion] = ()
    with Client(address, key=key, timeout_seconds=CALL_SECONDS) as client:
        while time.monotonic() < deadline:
            known = client.versions(bundle)
            if any(found.is_ready and found.number >= version for found in known):
                return
            own = next((found for found in known if found.number == version), None)
            if own is not None and own.problem:
                raise VersionRefused(
                    f"{address} refuses version {version} of {bundle}: {own.problem}; it goes on "
                    f"with {_listed(known)}"
                )
            time.sleep(POLL_SECONDS)
    raise Unavailable(
        f"{address} has not taken version {version} of {bundle} within {timeout_seconds:g} s; it "
        f"has {_listed(known)}: does it serve this repository?"
    )


def wait_until_forgotten(
    address: str, bundle: str, version: int, *, key: str | None = None
) -> None:
    """Wait until the service has seen that a version was taken back, for a while at most.

    Else the next one to get its number would be taken for the one that was refused.
    """
    deadline = time.monotonic() + FORGET_SECONDS
    with Client(address, key=key, timeout_seconds=CALL_SECONDS) as client:
        while version in {known.number for known in client.versions(bundle)}:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)


def _listed(known: Sequence[BundleVersion]) -> str:
    ready = [str(found.number) for found in known if found.is_ready]
    return f"version {', '.join(ready)}" if ready else "no version"
