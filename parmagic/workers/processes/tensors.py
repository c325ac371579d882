"""PyTorch's tensors: their memory lies beside the pickle, as an array's does, and each process has its own.

With multiprocessing's pickler, torch moves a tensor to shared memory, by a descriptor each: what a worker changes would
change in the notebook. With any other, it writes each tensor in its format of files, and views of one memory part.
Here a memory is one buffer, whoever looks at it. torch knows no memory that is read-only: it is mapped copy-on-write.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from typing import Any

from parmagic.workers.processes.orders import LARGE


def kinds() -> tuple[type, ...]:
    """Return the classes whose instances :func:`reduced` takes apart; none where torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ()
    found = [getattr(torch, name, None) for name in ("Tensor", "TypedStorage", "UntypedStorage")]
    return tuple(kind for kind in found if isinstance(kind, type))


def reduced(value: Any) -> Any:
    """Return how to take a tensor or its memory apart; NotImplemented where torch does so well, as on a GPU."""
    name = type(value).__name__
    if name == "UntypedStorage":
        return _memory(value) if value.device.type == "cpu" else NotImplemented
    if name == "TypedStorage":
        memory = value._untyped_storage  # noqa: SLF001  (else it warns that it is deprecated, and torch's own pickling has it)
        return (_typed, (memory, value.dtype)) if memory.device.type == "cpu" else NotImplemented
    if not value.is_leaf or value.grad is None:
        return NotImplemented
    reduction = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return (*reduction, value.grad, None, None, _with_gradient) if len(reduction) == 2 else reduction  # noqa: PLR2004  (no state of its own)


def is_shared(value: Any) -> bool:
    """Tell whether it is a tensor's memory that other processes see, say by ``share_memory_()``."""
    is_memory = type(value).__name__ == "UntypedStorage" and issubclass(type(value), kinds())
    return is_memory and value.device.type == "cpu" and value.is_shared()


def _memory(storage: Any) -> tuple[Any, ...]:
    """Take a memory apart; it is known to the pickler by its identity, so that it goes once."""
    size = storage.nbytes()
    if not size:
        return _storage, (b"",)
    memory = (ctypes.c_char * size).from_address(storage.data_ptr())
    memory.storage = storage  # for as long as somebody looks at it
    return _storage, (pickle.PickleBuffer(memory),)


def _storage(buffer: Any) -> Any:
    """Return torch's view of a memory; of a small one a copy, which may be resized."""
    import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415  (where there is a tensor)

    if not len(buffer):
        return torch.UntypedStorage(0)
    found = torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()
    return found if len(buffer) >= LARGE else found.clone()


def _typed(memory: Any, dtype: Any) -> Any:
    import torch  # noqa: PLC0415  (where there is a tensor)

    return torch.TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)


def _with_gradient(tensor: Any, gradient: Any) -> None:
    tensor.grad = gradient
