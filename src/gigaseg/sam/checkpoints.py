"""Reading and writing model weights: safetensors with a card, and ``.pth`` files without code in them.

A checkpoint that was trained over another one stores the tensors that changed and the sha256 of that base.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gigaseg.errors import CheckpointError, is_machine_fault, one_line
from gigaseg.files import atomic, sha256_file
from gigaseg.sam.downloads import OFFICIAL, Official, base_reference, checked_sha256, checkpoint_path, fetch, shipped

__all__ = [
    "OFFICIAL", "Official", "checkpoint_path", "fetch", "filled", "fitted", "part_of", "read_checkpoint", "read_delta",
    "read_state", "write_delta", "write_state",
]  # fmt: skip

M = TypeVar("M", bound=nn.Module)

_CARD = "gigaseg"
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of floating-point weights that are read; integers would be quantised ones without their scale."""

_FULL_BELOW = 4096
"""Elements; smaller tensors (norms, biases, the frequencies of positions) stay float32: half of them saves nothing."""


def read_checkpoint(name_or_path: str | Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of any kind: its file, every tensor (one of changes is laid over its base) and its card.

    Raises
    ------
    CheckpointError
        It is missing, damaged or not the published file of its name.
    """
    path = checkpoint_path(name_or_path)
    checked_sha256(name_or_path, path)
    state, card = read_state(path)
    if "base" in card:
        state, card = read_delta(path)
    return path, state, card


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a checkpoint, on the CPU and of the types they were stored in, and its card.

    Parameters
    ----------
    path : ``.safetensors``, whose header may hold a card, or ``.pth`` / ``.pt`` with a plain state dict (no card).

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another kind, or a pickle that asks for more than tensors: no code is run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected model weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_pickle(path), {}
    raise CheckpointError(f"{path}: suffix is '{path.suffix}', accepted: .safetensors, .pth, .pt")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(_CARD, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if is_machine_fault(error):
            raise
        raise CheckpointError(f"{path}: damaged safetensors file ({one_line(error)})") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: its card is no JSON object; expected the one that gigaseg writes")
    return state, card


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old or odd pickles: what is accepted is decided here
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or a pickle that holds more than tensors and could run code: refused; save the plain "
            "state dict, or safetensors"
        ) from error
    except Exception as error:  # damaged bytes can ask the unpickler for anything
        if is_machine_fault(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(f"{path}: damaged, or no file of torch.save ({one_line(error)[:200]})") from error
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path}: holds no state dict; expected names with tensors")
    for name, tensor in content.items():
        fault = fault_of(tensor)
        if fault:
            raise CheckpointError(f"{path}: tensor '{one_line(name)}' is {fault}, expected a plain one with its values")
    return {str(name): tensor.detach() for name, tensor in content.items()}


def fault_of(tensor: Tensor) -> str | None:
    """What keeps a tensor from being read as plain values; None for nothing."""
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "sparse or nested"
    return "complex" if tensor.is_complex() else None


def fitted(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The tensors of `state` in the types of `expected`, on `device`; without a copy where they are that already.

    Parameters
    ----------
    expected : a model's state dict, on any device.
    what : the model, for messages.

    Raises
    ------
    CheckpointError
        A tensor is missing, one too many or of another shape, no plain values, or not finite in its new type.
    """
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is not part of it" for name in state if name not in expected]
    wrong += [
        f"{name} is {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(one_line(f"does not fit {what}: {'; '.join(wrong[:3])}{more}"))
    tensors = {}
    for name, tensor in state.items():
        real = expected[name].is_floating_point()
        fits = tensor.dtype in _REAL if real else not tensor.is_floating_point()
        fault = fault_of(tensor) or (None if fits else str(tensor.dtype))
        if fault:
            kind = "floating-point values" if real else "whole numbers"
            raise CheckpointError(f"tensor '{name}' is {fault}, expected plain {kind}")
        tensors[name] = tensor.detach().to(device, expected[name].dtype)
        if not tensors[name].isfinite().all():
            raise CheckpointError(f"tensor '{name}' holds values that are not finite")
    return tensors


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def filled(module: M, state: Mapping[str, Tensor], what: str) -> M:
    """`module`, built without memory, with exactly these tensors in float32; `what` it is, for messages."""
    module.load_state_dict(fitted(state, module.state_dict(), what), assign=True)
    return module


def write_state(path: str | Path, state: Mapping[str, Tensor], card: Mapping[str, Any], *, half: bool = False) -> None:
    """Write tensors and their card as safetensors, atomically; the same content gives the same bytes.

    Parameters
    ----------
    path : ends in ``.safetensors``.
    state : tensors by name.
    card : JSON values; ``config`` (`SamConfig.as_dict`) tells `gigaseg.sam.model.load` the sizes.
    half : store floating-point tensors of 4,096 elements and more as float16.

    Raises
    ------
    ValueError
        Another suffix, or a tensor that is not finite, or not in float16.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: suffix is '{path.suffix}', accepted: .safetensors")
    packed = {name: _pack(name, tensor, half) for name, tensor in state.items()}
    text = json.dumps(card, ensure_ascii=False, allow_nan=False, sort_keys=True)
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(packed, temporary, metadata={_CARD: text})
        temporary.chmod(mode)  # save_file's own lets nobody else read it


def _pack(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu", copy=True).contiguous()  # tensors that share memory are refused
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float16 if half and tensor.numel() >= _FULL_BELOW else torch.float32)
        if not tensor.isfinite().all():
            raise ValueError(f"tensor '{name}' is not finite as {tensor.dtype}")
    return tensor


def write_delta(
    path: str | Path, state: Mapping[str, Tensor], base: str | Path, card: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write the tensors of `state` that checkpoint `base` lacks or holds with other values; the rest stays there.

    Parameters
    ----------
    path, state, card, half : as `write_state`; the card gets ``base`` with name and sha256.
    base : name or file of a whole checkpoint (`checkpoint_path`); a relative path is kept relative to `path`'s folder.

    Raises
    ------
    CheckpointError
        `base` cannot be read, is a delta itself, or has a tensor that `state` lacks.
    """
    file = checkpoint_path(base)
    known, base_card = read_state(file)
    _refuse_delta(file, base_card)
    missing = [name for name in known if name not in state]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} tensors of the base {file} are missing, the first: {missing[0]}")
    changed = {name: tensor for name, tensor in state.items() if not _same(tensor, known.get(name))}
    name = str(base)
    if name not in OFFICIAL and name not in shipped() and not file.is_absolute():
        name = Path(os.path.relpath(file, Path(path).parent)).as_posix()
    sha256 = checked_sha256(base, file)
    write_state(path, changed, {**card, "base": {"name": name, "sha256": sha256}}, half=half)


def read_delta(path: str | Path, base: str | Path | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of `write_delta` laid over its base: every tensor, and the card of the delta.

    A card without a configuration gets the base's.

    Parameters
    ----------
    path : the delta.
    base : name or file of its base; None for the one that it names, a relative path being seen from `path`'s folder.

    Raises
    ------
    CheckpointError
        A file cannot be read, `path` is no delta, or the base is not the one it was trained over.
    """
    changed, card = read_state(path)
    named = card.get("base")
    if not isinstance(named, dict) or not all(isinstance(named.get(key), str) for key in ("name", "sha256")):
        raise CheckpointError(f"{path}: names no base; expected a checkpoint of changes")
    try:
        file = checkpoint_path(base_reference(Path(path), named["name"]) if base is None else base)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: its base: {error}") from error
    found = sha256_file(file)
    if found != named["sha256"]:
        raise CheckpointError(
            f"{path}: trained over '{named['name']}' with sha256 {named['sha256']}, but {file} has {found}"
        )
    state, base_card = read_state(file)
    _refuse_delta(file, base_card)
    if "config" in base_card:
        card.setdefault("config", base_card["config"])
    return {**state, **changed}, card


def _refuse_delta(file: Path, card: Mapping[str, Any]) -> None:
    if "base" in card:
        raise CheckpointError(f"{file}: holds changes over another one; expected a whole checkpoint")


def _same(tensor: Tensor, known: Tensor | None) -> bool:
    if known is None or tensor.shape != known.shape:
        return False
    tensor = tensor.detach().cpu()
    return torch.equal(tensor, known.to(tensor.dtype))
