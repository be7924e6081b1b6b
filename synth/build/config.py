"""What decides what a build makes, and how it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ecglm.synth.errors import DefinitionError
from ecglm.synth.schema import FAMILIES
from ecglm.synth.yaml_files import read_yaml


class BuildConfig(BaseModel):
    """Everything that decides what a build makes, and how it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ptbxl: Path | None = None
    simulated: int = Field(default=300, ge=1, le=10_000_000)
    seed: int = Field(default=1, ge=0)
    sampling_hz: Literal[100, 500] | None = None
    limit: int | None = Field(default=None, ge=1)
    guidelines: Path | None = None
    templates: Path | None = None
    families: tuple[Literal[FAMILIES], ...] = FAMILIES  # type: ignore[valid-type]
    out: Path = Path("corpus")
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1, le=256)
    resume: Literal["never", "if-possible", "always"] = "if-possible"

    @model_validator(mode="after")
    def _some_family(self) -> BuildConfig:
        if not self.families:
            raise ValueError(f"families: name at least one of {', '.join(FAMILIES)}")
        return self


def read_config(path: Path | None, **options: Any) -> BuildConfig:
    """The configuration of a YAML file, with options given on the command line in front of it.

    Raises:
        DefinitionError: names the file, the field and what it may be.
    """
    content = read_yaml(path) or {} if path else {}
    if not isinstance(content, dict):
        raise DefinitionError(f"{path}: expected `name: value` lines, e.g. `limit: 500`")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return BuildConfig.model_validate({**content, **given})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'config'}: {p['msg']}" for p in error.errors())
        raise DefinitionError(f"{path or 'options'}: {problems}") from error
