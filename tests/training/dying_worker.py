"""A worker that dies; in a module of its own, so that spawned processes import little."""

from __future__ import annotations

import os
from typing import Any


def die_on_case_b(case_id: str, entry: dict[str, Any]) -> None:
    if case_id == "case_b":
        os._exit(1)
