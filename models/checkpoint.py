"""Weights on disk: safetensors with a line of JSON, nothing else. No file that could run code is ever opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecglm.synth.errors import ModelError

_ABOUT = "ecglm"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors and what is to be known of them; the file appears whole or not at all."""
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.part")
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, part, {_ABOUT: json.dumps(about, sort_keys=True)})
    part.chmod(0o644)  # the library makes files that only their owner can read
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and what was written of them.

    Raises:
        ModelError: no such file, or not what `write_tensors` writes.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); only safetensors are read") from error


def own_tensors(module: nn.Module, trained_only: bool = False) -> dict[str, Tensor]:
    """Parameters and buffers that a checkpoint keeps, tied ones once.

    Args:
        module: whose.
        trained_only: leaves out parameters that are frozen.
    """
    kept = module.state_dict().keys()
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad or not trained_only}
    return {name: each for name, each in {**parameters, **dict(module.named_buffers())}.items() if name in kept}


def load_into(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Puts tensors into those of a module (see `own_tensors`).

    Raises:
        ModelError: one is missing, too many, or of another shape; names it and both shapes.
    """
    if missing := sorted(set(own) - set(tensors)):
        raise ModelError(f"{where}: no tensor {missing[0]} ({len(missing)} missing); another kind of model")
    if extra := sorted(set(tensors) - set(own)):
        raise ModelError(f"{where}: unknown tensor {extra[0]} ({len(extra)} unknown); another kind of model")
    with torch.no_grad():
        for name, tensor in own.items():
            given = tensors[name]
            if given.shape != tensor.shape:
                raise ModelError(f"{where}: {name} has shape {tuple(given.shape)}, expected {tuple(tensor.shape)}")
            tensor.copy_(given.to(tensor.dtype))
