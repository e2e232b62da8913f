"""What this process and its children are told before large libraries load: how threads wait, and that nobody calls home."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

__all__ = ["SPINS", "import_quietly", "prepare", "refuse_telemetry", "thread_variables"]

SPINS = "10000"
"""How often torch's threads look for work before they sleep, about half a millisecond. By default they spin for longer than a
layer takes, which on shared cores keeps the thread that they wait for from running; not at all, and waking them costs a small
network as much as its layers. Measured by ``benchmarks/training_speed.py``."""


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set threads and refuse telemetry; to be called before torch is first imported, whose threads read the variable once."""
    environment.update(thread_variables(environment))
    refuse_telemetry(environment)


def thread_variables(given: Mapping[str, str]) -> dict[str, str]:
    """What is added to the environment before torch is imported: nothing where ``given`` says how threads wait."""
    return {} if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(given) else {"GOMP_SPINCOUNT": SPINS}


def refuse_telemetry(environment: MutableMapping[str, str]) -> None:
    """Keep every library that nnDuet loads, here and in child processes, from reporting to its makers.

    ONNX Runtime and Hugging Face's hub read a variable. OpenVINO has none: it reports where its package ``openvino_telemetry``
    can be imported, and computes the same where it cannot; None in ``sys.modules`` is Python's way to say so.
    """
    environment.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1")
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)


def import_quietly(name: str) -> Any:
    """Import a library that reports to its makers by default; the only way in which nnDuet imports one."""
    refuse_telemetry(os.environ)
    return importlib.import_module(name)
