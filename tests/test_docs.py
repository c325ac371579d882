"""What the pages in docs/ claim has its tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("page", ["security.md", "beside.md"])
def test_every_claim_names_tests_that_there_are(page):
    """Each row of such a page names at least one test, and all of them exist."""
    text = (HERE.parent / "docs" / page).read_text()
    rows = [line for line in re.sub(r".*\n\| ---.*", "", text).splitlines() if line.startswith("|")]
    tests = {node.name for path in HERE.rglob("test_*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert len(rows) > 20
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= tests, named - tests
