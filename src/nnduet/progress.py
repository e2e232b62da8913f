"""How long work tells whoever watches how far it has come: one form, from the command line down to every loop."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "part_of", "prefixed"]

Progress = Callable[[int, int, str], None]
"""Called with (steps done, all steps, what is being done, "" for nothing to say). Called after each step, from one thread at a
time; a stage that begins anew at a smaller number, or with another number of steps, is another stage. What it raises ends the
work."""


def part_of(progress: Progress | None, index: int, stages: int) -> Progress | None:
    """The progress of stage ``index``, from 0, of ``stages`` of equal length; None where nobody watches."""
    if progress is None:
        return None
    return lambda done, total, text: progress(index * total + done, stages * total, text)


def prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    """The same progress with ``prefix`` before every text; None where nobody watches."""
    if progress is None:
        return None
    return lambda done, total, text: progress(done, total, f"{prefix}{text}")
