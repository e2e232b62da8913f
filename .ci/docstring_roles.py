"""For `make docs`: Sphinx's roles in docstrings, :func:`~a.b.name`, as plain code, and double backticks as single ones."""

from __future__ import annotations

import re
from typing import Any

import griffe


class DocstringRoles(griffe.Extension):  # type: ignore[misc]
    """Changes every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for every module, class, function and attribute."""
        if obj.docstring is not None:
            text = re.sub(r":(?:func|class|meth|mod|data):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = text.replace("``", "`")
