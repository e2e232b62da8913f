"""``nnduet`` and ``python -m nnduet``: from the first moment on a signal ends with a line that says how to go on."""

import sys

from nnduet.interrupts import interruptible

__all__ = ["main"]


def main() -> None:
    """Run the command line; see :mod:`nnduet.cli`, which is imported within."""
    with interruptible(sys.argv[1:]):
        from nnduet.cli import main as run

        run()


if __name__ == "__main__":
    main()
