"""Read a bundle: a whole model in one verified file, looked into without running anything of it.

python examples/read_bundle.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nnduet.errors import NNDuetError
from nnduet.model_store.bundles import BundleFiles, write_bundle
from nnduet.model_store.shipped_models import open_model


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "nodule.nnduet"
        write_bundle(open_model("lidc-nodule"), path, folds=["0"])  # `nnduet export` does this
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")

        bundle = BundleFiles(path)  # every byte has been compared with the digests of its manifest
        dataset = bundle.json("dataset.json") or {}
        print("labels:", dataset["labels"])
        for name, task in dataset["classification"].items():
            print(f"task {name}: {task['type']}, classes {', '.join(task['classes'])}")
        weights = bundle.fold("0").weights
        print(f"fold 0: {len(weights)} tensors, {sum(t.numel() for t in weights.values()):,} numbers")
        print("card:", (bundle.card() or b"").decode().partition("# ")[2].splitlines()[0])

        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        try:
            BundleFiles(path)
        except NNDuetError as error:
            print("with one bit changed:", str(error).replace(str(path), path.name))


if __name__ == "__main__":
    main()
