"""``python -m nnduet.cli``, for torchrun, which starts modules."""

from nnduet.__main__ import main

if __name__ == "__main__":
    main()
