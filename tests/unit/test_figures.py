from __future__ import annotations

from pathlib import Path

import pytest

from tests.figures import Figures

TESTS = """
import pytest

def test_measures(record_property):
    record_property("seconds of video", 7)
    record_property("slope", 0.5)

def test_fails(record_property):
    record_property("seen", 3)
    assert False

@pytest.mark.skip(reason="no such disk")
def test_is_skipped():
    pass
"""


def test_the_page_tells_how_each_test_ended_and_what_it_measured(tmp_path: Path) -> None:
    file, page = tmp_path / "test_some.py", tmp_path / "page.md"
    file.write_text(TESTS)
    options = ["-q", "--rootdir", str(tmp_path), "-c", "/dev/null", "-p", "no:cacheprovider"]
    page.write_text("| `test_of_before.py::test_x` | passed | 1.0 |  | then |\n")
    assert pytest.main([*options, str(file)], plugins=[Figures(page)]) == 1
    rows = [line.split(" | ") for line in page.read_text().splitlines() if "::" in line]
    assert [(row[0].split("::")[1], row[1], row[3]) for row in rows] == [
        ("test_x`", "passed", ""),
        ("test_fails`", "failed", "seen 3"),
        ("test_is_skipped`", "skipped", "no such disk"),
        ("test_measures`", "passed", "seconds of video 7; slope 0.5"),
    ]
