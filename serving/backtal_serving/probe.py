"""``python -m backtal_serving.probe REPOSITORY ADDRESS``: gives 0 where every bundle answers.

For what watches a Triton that has no supervisor of ours: a kubelet, a container's health check.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backtal.errors import BacktalError
from backtal.repository import bundle_names, load_bundle
from backtal_serving.canary import Canary

TIMEOUT_SECONDS = 20.0


def main(arguments: list[str]) -> int:
    """Ask the newest version of each bundle of the repository; 1, with the reason, if one fails."""
    repository, address = Path(arguments[0]), arguments[1]
    try:
        problem = _problem(repository, address)
    except BacktalError as error:
        problem = error.message
    if problem is None:
        return 0
    print(problem, file=sys.stderr)
    return 1


def _problem(repository: Path, address: str) -> str | None:
    names = bundle_names(repository)
    if not names:
        return f"{repository} has no bundle"
    feature_dims = {name: load_bundle(repository, name).description.feature_dim for name in names}
    return Canary(TIMEOUT_SECONDS).problem(address, feature_dims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
