"""One rule for every name that becomes part of a path or is shown on a terminal.

Tasks, labels, masks, cases, datasets, folds and entries of a bundle are named by users, by tables and by models from anywhere.
They are checked where they enter and again where they leave as a path.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from nnduet.errors import NNDuetError, SettingsError

__all__ = ["MAX_NAME_BYTES", "check_distinct_names", "check_name", "name_problem", "printable"]

MAX_NAME_BYTES = 200
"""With a channel and an ending, a name still fits into the 255 bytes that file systems give it."""

_FORBIDDEN = frozenset('/\\:*?"<>|')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"}
)
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def name_problem(name: str) -> str | None:
    """Why a name cannot be a file name on every system, in words that follow it; None for a good one.

    Any script and inner spaces are fine. Refused are: empty, a space or a dot at either end, ``/ \\ : * ? " < > |``, control,
    line and direction signs, broken unicode, names that Windows keeps for devices, more than :data:`MAX_NAME_BYTES` bytes.
    Source: https://learn.microsoft.com/windows/win32/fileio/naming-a-file.

    Examples:
        >>> name_problem("left ventricle") is None
        True
        >>> name_problem("HER2+/-")
        'holds a path separator'
        >>> name_problem("con")
        'is a device on Windows'
    """
    forbidden = sorted(set(name) & _FORBIDDEN)
    problems = (
        (not name.strip() or name != name.strip(), "is empty, or begins or ends with a space"),
        (name.startswith(".") or name.endswith("."), "begins or ends with a dot"),
        (bool({"/", "\\"} & set(forbidden)), "holds a path separator"),
        (bool(forbidden), f"holds {' '.join(forbidden)}, which no file name may have on some systems"),
        (any(_is_control(sign) for sign in name), "holds a control character or broken unicode"),
        (name.split(".")[0].rstrip().casefold() in _RESERVED, "is a device on Windows"),
        (len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES, f"is longer than {MAX_NAME_BYTES} bytes"),
    )
    return next((text for applies, text in problems if applies), None)


def check_name(name: str, what: str, error: type[NNDuetError] = SettingsError) -> str:
    """The name itself, if it can be part of a path; ``what`` begins the message, e.g. ``"task"``.

    Raises:
        error: see :func:`name_problem`.

    Examples:
        >>> check_name("grade", "task")
        'grade'
        >>> check_name("a:b", "task")
        Traceback (most recent call last):
        nnduet.errors.SettingsError: task 'a:b': holds :, which no file name may have on some systems; choose another name
    """
    problem = name_problem(name)
    if problem:
        raise error(f"{what} {printable(name[:80])!r}: {problem}; choose another name")
    return name


def check_distinct_names(names: Iterable[str], what: str, error: type[NNDuetError] = SettingsError) -> None:
    """Refuse names that are one file on a system that ignores case or unicode form.

    Raises:
        error: naming the first two.

    Examples:
        >>> check_distinct_names(["RV", "LV"], "masks")
        >>> check_distinct_names(["RV", "rv"], "masks")
        Traceback (most recent call last):
        nnduet.errors.SettingsError: masks 'RV' and 'rv': the same file on some systems; rename or remove one
    """
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in seen:
            raise error(
                f"{what} {printable(seen[key])!r} and {printable(name)!r}: the same file on some systems; rename or remove one"
            )
        seen[key] = name


def printable(text: str) -> str:
    r"""The text with control, direction and broken signs escaped as in Python, so that no terminal obeys them; a line feed and
    a tab stay.

    Examples:
        >>> print(printable("red \x1b[31m"))
        red \x1b[31m
    """
    return "".join(_escaped(sign) if _is_control(sign) and sign not in "\n\t" else sign for sign in text)


def _is_control(sign: str) -> bool:
    return sign in _BIDIRECTIONAL or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape", "backslashreplace").decode("ascii")
