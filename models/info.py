"""`ecglm info`: what a model is, from its files; no network is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecglm.models.checkpoint import read_tensors
from ecglm.models.ecglm import WEIGHTS, model_fingerprint, model_folder, read_about, read_codec

CARD = "README.md"


def model_info(name: str | Path) -> dict[str, Any]:
    """Card, sizes, training and fingerprint of a model, as plain data.

    Raises:
        ModelError: no such model, or a file of it that cannot be read.
    """
    root = model_folder(name)
    about = read_about(root)
    codec = read_codec(root, about)
    tensors, _ = read_tensors(root / WEIGHTS)
    parts: dict[str, int] = {}
    for key, tensor in tensors.items():
        part = key.partition(".")[0]
        parts[part] = parts.get(part, 0) + tensor.numel()
    training = about.get("training", {})
    targets = [target for target in about["encoder"]["targets"] if target["kind"] == "statement"]
    card = root / CARD
    return {
        "name": about["name"],
        "folder": str(root),
        "fingerprint": model_fingerprint(tensors, about, codec),
        "parameters": parts,
        "bytes": (root / WEIGHTS).stat().st_size,
        "language_model": about["language_model"],
        "vocabulary": codec.size,
        "leads": about["preprocessing"]["leads"],
        "sampling_hz": about["preprocessing"]["sampling_hz"],
        "measurements_version": about.get("measurements_version"),
        "seconds": [about["preprocessing"]["shortest_s"], about["preprocessing"]["longest_s"]],
        "statements": [target["name"] for target in targets],
        "withheld": training.get("withheld", []),
        "trained_on": {source: count_ids(runs) for source, runs in about["trained_on"].items()},
        "training": {name: value for name, value in training.items() if name != "config"},
        "card": card.read_text(encoding="utf-8") if card.is_file() else None,
    }


def count_ids(runs: list[str]) -> int:
    """How many ids runs such as "17" and "20-35" stand for."""
    return sum(1 for _ in expand(runs))


def expand(runs: list[str]) -> Any:
    """The ids that runs such as "17" and "20-35" stand for."""
    for run in runs:
        first, dash, last = run.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            yield from map(str, range(int(first), int(last) + 1))
        else:
            yield run


def print_info(told: dict[str, Any]) -> None:
    """The same for people."""
    sizes = ", ".join(f"{part} {count:,}" for part, count in told["parameters"].items())
    print(f"{told['name']}: {told['folder']}")
    print(f"  fingerprint  {told['fingerprint']}")
    print(f"  parameters   {sum(told['parameters'].values()):,} ({sizes}); {told['bytes'] / 1e6:.1f} MB")
    print(f"  language     {told['language_model']['kind']}, {told['vocabulary']:,} tokens")
    low, high = told["seconds"]
    print(
        f"  recordings   {low:g} to {high:g} s, any of {', '.join(told['leads'])}; at {told['sampling_hz']} Hz inside"
    )
    trained = ", ".join(f"{count:,} ECGs of {source}" for source, count in told["trained_on"].items())
    print(f"  trained on   {trained or 'nothing'}; {len(told['statements'])} statements")
    if told["withheld"]:
        print(f"  never told   {', '.join(told['withheld'])}")
    seconds = {name: s for name, s in told["training"].get("seconds", {}).items() if s is not None}
    if seconds:
        print(f"  seconds      {', '.join(f'{name} {s:,.0f}' for name, s in seconds.items())}")
    print(f"\n{told['card']}" if told["card"] else "  no model card")
