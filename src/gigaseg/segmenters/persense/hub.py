"""Models of the package transformers, from a folder or by their name on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from gigaseg.devices import choose_device
from gigaseg.errors import SegmenterError, is_machine_fault, one_line

SHOWN = 200
"""Most characters of another package's message in one of ours."""


def needed(package: str, back_end: str) -> Any:
    """An optional package.

    Raises
    ------
    SegmenterError
        It is not installed, or cannot be imported.
    """
    from gigaseg.sam.torchvision_ops import ensure_torchvision

    try:
        ensure_torchvision()  # transformers looks at pictures with it
        return import_module(package)
    except ImportError as error:
        raise SegmenterError(
            f"back end '{back_end}' needs the package {package}, which is not installed; run: "
            "pip install 'gigaseg[persense]'"
        ) from error


def pretrained(
    back_end: str, name: str, model_class: str, model_type: str, device: str, dtypes: Mapping[str, str] | None = None
) -> tuple[Any, Any, Any]:
    """A model of transformers with its own processor.

    Code that comes with a model is never run; weights are read as safetensors or as a pickle of plain tensors.

    Parameters
    ----------
    back_end : whose messages these are.
    name : a folder, from which everything is then taken, or a name on the hub: its cache on this machine, else the hub
        is asked, unless HF_HUB_OFFLINE=1.
    model_class : a class of transformers, such as "CLIPModel".
    model_type : what the model's config.json must say of itself; transformers only warns of another, and starts
        with random weights.
    device : as `gigaseg.devices.choose_device` takes it.
    dtypes : of the weights, by the kind of device, "cuda" or "cpu"; None: float32.

    Returns
    -------
    The processor, the model in evaluation mode, and its `torch.device`.

    Raises
    ------
    DeviceError
        The device is not there.
    SegmenterError
        transformers is not installed; nothing of that name is found; the model is of another kind, or incomplete.
    """
    library = needed("transformers", back_end)
    import torch

    place = torch.device(choose_device(device))
    dtype = getattr(torch, (dtypes or {}).get(place.type, "float32"))
    where = {"local_files_only": True} if Path(name).is_dir() else {}
    try:
        config = library.AutoConfig.from_pretrained(name, **where)
        if config.model_type != model_type:
            raise SegmenterError(
                f"{name}: a model of type '{one_line(config.model_type)}', accepted by back end '{back_end}': "
                f"'{model_type}'"
            )
        processor = library.AutoProcessor.from_pretrained(name, **where)
        cls = getattr(library, model_class)
        model, info = cls.from_pretrained(name, config=config, dtype=dtype, output_loading_info=True, **where)
    except SegmenterError:
        raise
    except Exception as error:  # a folder can lack or hold anything
        if is_machine_fault(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise SegmenterError(
            f"{name}: back end '{back_end}' cannot load it ({one_line(error)[:SHOWN]}); accepted: a folder, or a name "
            f"on the Hugging Face hub, of a model of type '{model_type}'"
        ) from error
    lacking = sorted(str(key) for key in info["missing_keys"])
    if lacking:  # transformers fills them with random numbers
        raise SegmenterError(f"{name}: weights lack {len(lacking)} tensors, such as '{one_line(lacking[0])}'")
    return processor, model.to(place).eval(), place
