"""Call nnU-Net the way it wants to be called: folders in its variables, and its prints kept off stdout."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping

__all__ = ["host_environment"]


@contextlib.contextmanager
def host_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables and swallow stdout inside the block; afterwards everything is as it was."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
