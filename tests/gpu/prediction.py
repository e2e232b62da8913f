"""Run by test_emulated_gpu.py in a process of its own: predict on the emulated device, with and without its memory failing."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import emulated
import torch
from tiny import SPACING_MM, tiny_case

import nnduet.inference.predictor as module
from nnduet.inference.prediction import Prediction
from nnduet.inference.predictor import Predictor
from nnduet.network.heads import JointNetwork

IMAGE = tiny_case(0, 3)[0]
ALWAYS = 10**6
FORWARD = JointNetwork.forward_joint


def predict(model: Path, device: str, folds: list[str]) -> Prediction:
    predictor = Predictor.load(model, folds, device=device, precision="float32", runtime="torch", tta=False)
    return predictor(IMAGE, spacing_mm=SPACING_MM[3])


def assert_same(found: Prediction, expected: Prediction) -> None:
    assert (found.segmentation == expected.segmentation).all()
    for name, answer in expected.tasks.items():
        for label, probability in answer.probabilities.items():
            assert abs(found.tasks[name].probabilities[label] - probability) < 1e-5
        value = found.tasks[name].value
        assert (value is None) == (answer.value is None)
        assert value is None or answer.value is None or abs(value - answer.value) < 1e-4


def held() -> int:
    """Bytes on the device."""
    gc.collect()
    return sum(o.numel() * o.element_size() for o in gc.get_objects() if type(o) is emulated.Emulated)


def main(model: Path) -> None:
    expected = {folds: predict(model, "cpu", list(folds)) for folds in (("0",), ("0", "1"))}
    setattr(module, "select_device", lambda name: torch.device(emulated.NAME if name == "cuda" else "cpu"))  # noqa: B010
    on_device: list[int] = []

    def failing(times: int) -> Any:
        """``forward_joint`` that runs out of the device's memory so many times; two are one fold's tries on it."""

        def forward(self: JointNetwork, image: torch.Tensor, weight: torch.Tensor | None = None) -> Any:
            if image.device.type == emulated.NAME:
                on_device.append(held() if len(on_device) < 2 else 0)  # it looks through all of Python's objects
                if len(on_device) <= times:
                    raise torch.OutOfMemoryError("out of memory")
            return FORWARD(self, image, weight)

        return forward

    with emulated.device():
        for folds, times in ((("0", "1"), 0), (("0",), 1), (("0", "1"), 2), (("0",), ALWAYS)):
            on_device.clear()
            JointNetwork.forward_joint = failing(times)  # type: ignore[method-assign]
            assert_same(predict(model, "cuda", list(folds)), expected[folds])
            if times == 1:
                assert on_device[1] < on_device[0], on_device  # what the failed pass held is free
    sys.stdout.write("same")


main(Path(sys.argv[1]))
