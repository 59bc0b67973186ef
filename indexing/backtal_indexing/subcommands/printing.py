"""What the commands that ask an index print alike."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtal_indexing.reading import Tables

MANY_FRESH_FILES = 100


def print_json(document: Any) -> None:
    """`document` on standard output."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def warn_of_fresh_files(tables: Tables) -> None:
    """Say on standard error where a search is slow because the index is not compacted."""
    if tables.num_fresh_files >= MANY_FRESH_FILES:
        print(
            f"backtal: {tables.num_fresh_files} files are newer than the sorted table of segments, "
            f"and were read one by one; faster after: backtal index compact {tables.url}",
            file=sys.stderr,
        )
