"""Causal language models in Hugging Face's folder layout, with LoRA: loaded from the folder, kept as a reference to it.

Code in a folder is never run (`trust_remote_code` is off), and weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ecglm.models.config import Folder, Lora
from ecglm.models.text import PLAIN_MARKERS, Codec, read_tokenizer
from ecglm.synth.errors import ModelError

_NO_FOLDER = "no language model; name its folder with --language-model FOLDER"


def attach(folder: Folder) -> tuple[nn.Module, Codec, dict[str, Any]]:
    """A language model with fresh adapters, its tokenizer, and what a checkpoint says of it.

    Raises:
        ModelError: no folder, or one that cannot be read.
    """
    if folder.path is None:
        raise ModelError(_NO_FOLDER)
    model = read_language_model(folder.path)
    if folder.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if folder.lora is not None:
        model = add_lora(model, folder.lora)
    kind = {
        "kind": "folder",
        "path": str(folder.path.absolute()),
        "fingerprint": folder_fingerprint(folder.path),
        "lora": None if folder.lora is None else folder.lora.model_dump(mode="json"),
        "markers": PLAIN_MARKERS.model_dump(),
    }
    return model, Codec(read_tokenizer(folder.path), PLAIN_MARKERS), kind


def check_folder(folder: Path | None) -> None:
    """Looks whether a folder can hold a language model, reading nothing.

    Raises:
        ModelError: no folder, no config.json, or no weights in safetensors.
    """
    if folder is None:
        raise ModelError(_NO_FOLDER)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; expected a causal language model in Hugging Face's layout")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: no *.safetensors; other weights (pickles) can run code and are not read: convert them first,"
            " for example with safetensors.torch.save_file"
        )


def read_language_model(folder: Path) -> Any:
    """A causal language model in bfloat16.

    Raises:
        ModelError: not such a folder; weights that are not safetensors are named as such.
    """
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: cannot be read as a causal language model: {error}") from error


def add_lora(model: Any, lora: Lora) -> Any:
    """The model with low-rank adapters, which alone are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def saved_language_model(about: Mapping[str, Any]) -> Any:
    """The language model of a saved checkpoint, from the folder it was trained with; adapters not yet filled in.

    Raises:
        ModelError: the folder is gone, or holds another model.
    """
    folder = Path(about["path"])
    model = read_language_model(folder)
    if (found := folder_fingerprint(folder)) != about["fingerprint"]:
        raise ModelError(
            f"{folder}: fingerprint {found}, trained with {about['fingerprint']}: another language model; put back the"
            " one it was trained with, or correct the path in model.json"
        )
    if about["lora"] is not None:
        model = add_lora(model, Lora.model_validate(about["lora"]))
    return model


def folder_fingerprint(folder: Path) -> str:
    """Hash of a language model's configuration and weights."""
    import xxhash

    digest = xxhash.xxh3_128()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()


def laid_out(folder: Folder) -> Any:
    """The causal language model of a folder without weights, from its config.json alone.

    Raises:
        ModelError: no folder, or no such model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if folder.path is None:
        raise ModelError(_NO_FOLDER)
    path = folder.path / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder.path}: no config.json; expected a causal language model in Hugging Face's layout")
    try:
        config = AutoConfig.from_pretrained(str(folder.path), trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
