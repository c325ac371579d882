"""What the pages in docs/ claim has its tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_claim_on_security_names_tests_that_there_are():
    """Each row of docs/security.md names at least one test, and all of them exist."""
    rows = [line for line in (HERE.parent / "docs" / "security.md").read_text().splitlines() if re.match(r"\| (?!---|\| who|\| shown by)", line)]
    tests = {node.name for path in HERE.rglob("test_*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    assert len(rows) > 20
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= tests, named - tests
