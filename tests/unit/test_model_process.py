"""A model's process ends without taking Python apart, and loses nothing that it had said."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import atexit
import sys
from backtal_serving.model_process import end_process

atexit.register(print, "taken apart")
print("said")
print("told", file=sys.stderr)
end_process()
print("went on")
"""


def test_it_ends_at_once_with_all_that_it_said() -> None:
    command = [sys.executable, "-c", CODE]
    # To a pipe, so that it is not written line by line.
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("said\n", "told\n")
