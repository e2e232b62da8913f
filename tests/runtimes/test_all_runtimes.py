"""A runtime is one file and one entry: what the entries must keep to, and what a new one needs."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SPACING_MM, tiny_case
from torch import Tensor

from nnduet.inference.predictor import Predictor
from nnduet.network.hardware import PRECISIONS
from nnduet.network.pooling import PooledSums
from nnduet.runtimes import all_runtimes
from nnduet.runtimes.all_runtimes import AUTO, RUNTIMES, find_runtime, runtime_names
from nnduet.runtimes.joint_pass import JointPass
from nnduet.runtimes.runtime import Conversion, PassSpec


def test_names_and_endings_are_of_one_runtime_each() -> None:
    assert len(set(runtime_names())) == len(RUNTIMES) + 1
    endings = [ending for runtime in RUNTIMES if runtime.conversion for ending in runtime.conversion.endings]
    assert len(set(endings)) == len(endings) and ".json" not in endings  # that of the sums


def test_every_runtime_computes_in_known_formats_and_in_float32() -> None:
    for runtime in RUNTIMES:
        assert "float32" in runtime.precisions
        assert set(runtime.precisions) <= set(PRECISIONS) - {"auto"}


def test_what_a_runtime_needs_is_what_the_extra_of_its_name_installs() -> None:
    extras = requires("nnduet") or []
    for runtime in RUNTIMES:
        installed = {text.split(">")[0] for text in extras if text.endswith(f'extra == "{runtime.name}"')}
        assert set(runtime.packages) == installed


def test_auto_names_no_runtime() -> None:
    assert find_runtime(AUTO) is None
    assert [find_runtime(name) for name in runtime_names() if name != AUTO] == list(RUNTIMES)


class Negating:
    """Stands in for a new runtime: torch's logits with the opposite sign."""

    name = "negating"
    packages: tuple[str, ...] = ()
    precisions = ("float32",)
    conversion: Conversion | None = None

    def num_streams(self, precision: str, num_batches: int) -> int:
        return 1

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
            logits, sums = spec.network.forward_joint(patches, shares)
            return -logits, sums

        return run


def test_a_new_runtime_is_one_more_entry(model_3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_runtimes, "RUNTIMES", (*RUNTIMES, Negating()))
    assert runtime_names()[-1] == "negating"
    image = tiny_case(0, 3)[0]
    given: dict[str, Any] = {"device": "cpu", "precision": "float32", "tta": False}
    expected = Predictor.load(model_3d, ["0"], runtime="torch", **given)
    found = Predictor.load(model_3d, ["0"], runtime="negating", **given)
    assert found.passes.name == "negating"
    tensor, properties, *_ = expected.prepare(image, spacing_mm=SPACING_MM[3])
    with torch.inference_mode():
        logits, _ = expected.run_members(torch.from_numpy(tensor), properties, {})
        negated, _ = found.run_members(torch.from_numpy(tensor), properties, {})
    torch.testing.assert_close(negated, -logits)
