"""What decides what a build makes, and how it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ecglm.synth.errors import DefinitionError
from ecglm.synth.schema import DEFAULT_FAMILIES, FAMILIES
from ecglm.synth.yaml_files import read_yaml


class SourceConfig(BaseModel):
    """Which ECGs are read; what reads all of them has these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ptbxl: Path | None = None
    wfdb: Path | None = None
    metadata: Path | None = None
    splits: tuple[int, int, int] = (80, 10, 10)
    simulated: int = Field(default=300, ge=1, le=10_000_000)
    seed: int = Field(default=1, ge=0)
    sampling_hz: Literal[100, 500] | None = None
    limit: int | None = Field(default=None, ge=1)
    workers: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1, le=256)
    resume: Literal["never", "if-possible", "always"] = "if-possible"

    @property
    def folder(self) -> Path | None:
        """The folder of the source; None for simulated ECGs."""
        return self.ptbxl or self.wfdb

    @field_validator("splits", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        return value.split("/") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.ptbxl is not None and self.wfdb is not None:
            raise ValueError("ptbxl and wfdb: give one of them")
        if self.wfdb is None:
            for name in ("metadata", "splits"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name}: goes with wfdb; PTB-XL brings its own")
        elif self.sampling_hz is not None:
            raise ValueError("sampling_hz: goes with ptbxl; WFDB records are read at the rate of their header")
        if min(self.splits) < 0 or self.splits[0] == 0:
            raise ValueError("splits: three parts from 0 up, that of train above 0, such as 80/10/10")
        return self


class MeasuredConfig(SourceConfig):
    """Which ECGs, whose measurements of them, and the guidelines that judge them."""

    ptbxl_plus: tuple[Path, ...] = ()
    providers: tuple[str, ...] | None = None
    guidelines: Path | None = None


class BuildConfig(MeasuredConfig):
    """Everything that decides what a build makes, and how it runs."""

    templates: Path | None = None
    families: tuple[Literal[FAMILIES], ...] = DEFAULT_FAMILIES  # type: ignore[valid-type]
    ecgqa: Path | None = None
    exclude_ecgqa_test: Path | None = None
    out: Path = Path("corpus")

    @model_validator(mode="after")
    def _some_family(self) -> BuildConfig:
        if not self.families:
            raise ValueError(f"families: name at least one of {', '.join(FAMILIES)}")
        return self

    @model_validator(mode="after")
    def _one_ecgqa(self) -> BuildConfig:
        if self.ecgqa_folder is not None and self.ptbxl is None:
            raise ValueError("ecgqa, exclude_ecgqa_test: their lists name ECGs of PTB-XL; give its folder with ptbxl")
        if self.ecgqa and self.exclude_ecgqa_test and self.ecgqa.absolute() != self.exclude_ecgqa_test.absolute():
            raise ValueError("ecgqa and exclude_ecgqa_test: give the same copy of ECG-QA")
        return self

    @property
    def ecgqa_folder(self) -> Path | None:
        """The copy of ECG-QA whose lists of ECGs are read."""
        return self.exclude_ecgqa_test or self.ecgqa


Config = TypeVar("Config", bound=SourceConfig)


def read_config(path: Path | None, kind: type[Config] = BuildConfig, **options: Any) -> Config:  # type: ignore[assignment]
    """The configuration of a YAML file, with options given on the command line in front of it.

    Raises:
        DefinitionError: names the file, the field and what it may be.
    """
    content = read_yaml(path) or {} if path else {}
    if not isinstance(content, dict):
        raise DefinitionError(f"{path}: expected `name: value` lines, e.g. `limit: 500`")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return kind.model_validate({**content, **given})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'config'}: {p['msg']}" for p in error.errors())
        raise DefinitionError(f"{path or 'options'}: {problems}") from error
