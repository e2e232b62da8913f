"""A GPU made of Python: values lie on the CPU, but tensors say device "emulated", and what mixes devices raises as CUDA does.

It is torch's PrivateUse1 device as a tensor subclass and changes torch for the whole process, so tests run it in one of their
own: ``with device(): network.to("emulated") ...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "emulated"
aten = torch.ops.aten


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


class Emulated(torch.Tensor):
    """A tensor on the device; ``elem`` has its values."""

    elem: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=torch.device(NAME, 0),
        )

    def __init__(self, elem: torch.Tensor) -> None:
        self.elem = elem

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["elem"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> Emulated:
        return Emulated(inner["elem"])

    def tolist(self) -> Any:
        return self.elem.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {NAME} tensor to numpy")

    def __array__(self, *_: Any) -> Any:
        raise TypeError(f"can't convert {NAME} tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _is_here(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _inner(value: Any) -> Any:
    if isinstance(value, Emulated):
        return value.elem
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    here = [x for x in flat if isinstance(x, Emulated)]
    if not here and not any(isinstance(x, torch.device) and x.type == NAME for x in flat):
        return func(*args, **kwargs)
    if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        # Inference mode hands these over undivided.
        with _Mode():  # type: ignore[no-untyped-call]
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
    return _compute(func, args, kwargs, bool(here))


def _compute(func: Any, args: Any, kwargs: Any, any_here: bool) -> Any:
    inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
    if func is aten._to_copy.default:
        found = func(*inner_args, **inner_kwargs)
        found = found.clone() if found.data_ptr() == inner_args[0].data_ptr() else found
        target = kwargs.get("device")
        return Emulated(found) if (any_here if target is None else _is_here(target)) else found
    if func is aten.copy_.default:
        func(*inner_args, **inner_kwargs)
        return args[0]
    if any_here and func is not aten.index.Tensor:  # CUDA takes indices from the CPU, and numbers
        flat, _ = tree_flatten((args, kwargs))
        mixed = [tuple(x.shape) for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, Emulated) and x.dim()]
        if mixed:
            raise RuntimeError(f"{func}: expected all tensors on {NAME}, got {mixed} on the CPU")
    found = func(*inner_args, **inner_kwargs)
    if func is aten._local_scalar_dense.default:
        return found
    wrapped = tree_map(lambda x: Emulated(x) if isinstance(x, torch.Tensor) else x, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if any_here else wrapped


def _install() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    apply = torch.nn.Module._apply

    def swapping(self: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
        """``module.to`` swaps subclasses in; loading weights goes on copying."""
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            moved: torch.nn.Module = apply(self, function, recurse)  # type: ignore[no-untyped-call]
            return moved
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    def enter(self: Any) -> None:  # wrappers know no inference tensors
        self.replaced = torch.no_grad() if self.mode else torch.enable_grad()
        self.replaced.__enter__()

    torch.nn.Module._apply = swapping  # type: ignore[method-assign]
    torch.inference_mode.__enter__ = enter  # type: ignore[method-assign]
    torch.inference_mode.__exit__ = lambda self, *details: self.replaced.__exit__(*details)  # type: ignore[method-assign]


@contextmanager
def device() -> Iterator[None]:
    """The block in which the device is there."""
    _install()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) then moves its values where the mode sees it
    with _Mode():  # type: ignore[no-untyped-call]
        yield
