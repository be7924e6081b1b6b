"""The training loop of every stage: one optimiser, a warm-up and a cosine, checkpoints that resume exactly.

All chance in step n comes from a seed made of (seed, stage, n), so a run that was killed goes on with the same numbers
as if it had not been.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ecglm.models.checkpoint import read_tensors, write_tensors
from ecglm.synth.errors import ModelError


class Optimisation(BaseModel):
    """How a stage is optimised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Recordings in a step."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = 0.05
    warmup: float = Field(default=0.05, ge=0, lt=1)
    clip: float = 1.0
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of weights that is kept in the end; 0 keeps the last ones."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between looks at the validation fold; 0 looks at none."""
    keep_best: bool = False
    """Keeps the weights that were best on the validation fold (macro-AUC), not the last ones."""


class Stage(Protocol):
    """What a stage brings to the loop."""

    name: str
    fingerprint: str
    """Hash of all that decides its result: data, configuration, the weights it starts from."""

    @property
    def module(self) -> nn.Module:
        """What is trained, and kept when the stage is done."""
        ...

    def loss(self, step: int, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and parts of it to note."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the validation fold."""
        ...


def step_seed(seed: int, stage: str, step: int) -> int:
    """A seed for one step, the same whenever it is taken."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage}:{step}".encode()).digest()[:7], "little")


def learning_rate(step: int, how: Optimisation) -> float:
    """Linear warm-up, then a half cosine down to a hundredth."""
    warm = max(1, int(how.warmup * how.steps))
    if step < warm:
        return how.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, how.steps - warm)
    return how.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def give_back_memory() -> None:
    """Gives the system what the C library holds of freed memory: batches of ever new lengths leave gaps in it."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


class Trainer:
    """Runs one stage in a folder: `state.safetensors` and `state.json` to go on from, `log.jsonl` with the curve."""

    def __init__(self, stage: Stage, how: Optimisation, folder: Path, seed: int, save_every_s: float = 60.0) -> None:
        self.stage, self.how, self.folder, self.seed = stage, how, folder, seed
        self.save_every_s = save_every_s
        self.parameters = {name: p for name, p in stage.module.named_parameters() if p.requires_grad}
        decayed = [p for p in self.parameters.values() if p.ndim > 1]
        plain = [p for p in self.parameters.values() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": how.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=how.learning_rate, betas=(0.9, 0.98))
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_value = float("-inf")
        self.step = 0
        self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.how.steps

    def run(self, progress: Callable[[str, int, int], None]) -> None:
        """Takes the steps that are left; afterwards the module holds the weights to keep."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        started = saved = time.monotonic()
        already = self.seconds
        self.stage.module.train()
        while not self.done:
            noted = self._take_step()
            now = time.monotonic()
            self.seconds = already + now - started
            last = self.done
            if self.how.validate_every and (last or self.step % self.how.validate_every == 0):
                noted |= self._validate()
            if last or self.step % 10 == 0 or any(name.startswith("validation_") for name in noted):
                self._note(noted)
                give_back_memory()
            if last or now - saved >= self.save_every_s:
                self.save()
                saved = time.monotonic()
            progress(self.stage.name, self.step, self.how.steps)
        self._set_final()

    def _validate(self) -> dict[str, float]:
        with self.averaged():
            told = self.stage.validate()
            if self.how.keep_best and told.get("macro_auc", float("-inf")) > self.best_value:
                self.best_value = told["macro_auc"]
                self.best = {name: tensor.clone() for name, tensor in self._tracked().items()}
        return {f"validation_{name}": value for name, value in told.items()}

    def _take_step(self) -> dict[str, float]:
        seed = step_seed(self.seed, self.stage.name, self.step)
        torch.manual_seed(seed)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.how)
        loss, noted = self.stage.loss(self.step, torch.Generator().manual_seed(seed + 1))
        if not torch.isfinite(loss):
            raise ModelError(
                f"stage {self.stage.name}, step {self.step}: the loss is {float(loss.detach())}; lower the learning"
                " rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.how.clip)
        self.optimiser.step()
        self.step += 1
        if self.how.average:
            self._update_average()
        return {"loss": float(loss.detach()), "learning_rate": self.optimiser.param_groups[0]["lr"], **noted}

    def _tracked(self) -> dict[str, Tensor]:
        floating = {n: b for n, b in self.stage.module.named_buffers() if b.is_floating_point()}
        return {**{name: p.detach() for name, p in self.parameters.items()}, **floating}

    def _update_average(self) -> None:
        decay = min(self.how.average, self.step / (self.step + 9))
        for name, now in self._tracked().items():
            if name in self.average:
                self.average[name].lerp_(now, 1 - decay)
            else:
                self.average[name] = now.clone()

    def averaged(self) -> Averaged:
        """The module with its averaged weights, for the length of a `with` block."""
        return Averaged(self.stage.module, self._tracked(), self.average)

    def _set_final(self) -> None:
        final = self.best or self.average
        with torch.no_grad():
            for name, tensor in self._tracked().items():
                if name in final:
                    tensor.copy_(final[name])

    def _note(self, noted: dict[str, float]) -> None:
        row = {"stage": self.stage.name, "step": self.step, "seconds": round(self.seconds, 2), **noted}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def save(self) -> None:
        """Writes everything that going on needs, whole or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in self._tracked().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
        about = {
            "stage": self.stage.name,
            "fingerprint": self.stage.fingerprint,
            "seed": self.seed,
            "step": self.step,
            "seconds": self.seconds,
            "best_value": self.best_value if self.best else None,
        }
        write_tensors(self.folder / "state.safetensors", tensors, about)

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return
        tensors, about = read_tensors(path)
        expected = {"stage": self.stage.name, "fingerprint": self.stage.fingerprint, "seed": self.seed}
        if different := [key for key, value in expected.items() if about.get(key) != value]:
            raise ModelError(
                f"{path}: made with another {', '.join(different)}; train into another folder, or delete this one"
            )
        self.step, self.seconds = int(about["step"]), float(about["seconds"])
        with torch.no_grad():
            for name, tensor in self._tracked().items():
                tensor.copy_(tensors[f"model.{name}"])
        self.average = {n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")}
        self.best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
        self.best_value = about["best_value"] if self.best else float("-inf")
        for name, parameter in self.parameters.items():
            state: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"optimiser.{key}.{name}" in tensors:
                    state[key] = tensors[f"optimiser.{key}.{name}"]
            if state:
                self.optimiser.state[parameter] = state
        self._cut_log()

    def _cut_log(self) -> None:
        path = self.folder / "log.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            path.write_text("".join(line + "\n" for line in kept))


class Averaged:
    """Swaps averaged weights in, and the others back."""

    def __init__(self, module: nn.Module, tracked: dict[str, Tensor], average: dict[str, Tensor]) -> None:
        self.module, self.tracked, self.average = module, tracked, average

    def __enter__(self) -> None:
        self.before = {name: self.tracked[name].clone() for name in self.average}
        self._set(self.average)
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self._set(self.before)
        self.module.train()

    def _set(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                self.tracked[name].copy_(tensor)
