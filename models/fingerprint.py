"""One hash over what decides a result."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def fingerprint(*parts: Any) -> str:
    """SHA-256 (32 hex digits) over texts, numbers, lists, mappings and bytes."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def weights_hash(module: nn.Module) -> str:
    """Hash of all weights of a module."""
    return fingerprint(*(tensor.detach().cpu().numpy().tobytes() for tensor in module.state_dict().values()))
