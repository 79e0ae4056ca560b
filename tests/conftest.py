"""What the tests share: where the reference numbers and the real pictures lie."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"the reference pictures are not at {SHARED}")
