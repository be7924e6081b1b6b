"""What a training run is: one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ecglm.models.augment import Augmentation
from ecglm.models.encoder import EncoderConfig
from ecglm.models.loop import Optimisation
from ecglm.models.preprocessing import Preprocessing
from ecglm.models.stages.conversation import ConversationConfig
from ecglm.synth.errors import DefinitionError
from ecglm.synth.yaml_files import read_yaml

CONFIGS = Path(__file__).parent / "configs"
ENCODER_STAGES = ("measured", "encoder")
"""What comes before the stages that a configuration names."""


class Strict(BaseModel):
    """Nothing but the fields named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderStage(Strict):
    """Pre-training of the encoder."""

    method: Literal["supervised", "simclr", "contrastive"] = "supervised"
    optimisation: Optimisation
    augmentation: Augmentation = Augmentation()
    measured: Optimisation = Optimisation(steps=1500, batch=256, learning_rate=0.001, average=0.99)
    """Of the branch that takes measurements, which is trained first; by the method `supervised` only."""


class BuiltIn(Strict):
    """A small Llama, trained from nothing."""

    width: int = Field(default=192, ge=16)
    inner_width: int = Field(default=512, ge=16)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    vocabulary: int = Field(default=4096, ge=300)


class Lora(Strict):
    """Low-rank adaptation (Hu et al., ICLR 2022)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class Folder(Strict):
    """A causal language model in Hugging Face's folder layout."""

    path: Path | None = None
    """Given here, or with --language-model."""
    lora: Lora | None = Lora()
    gradient_checkpointing: bool = True


class LanguageModelConfig(Strict):
    """Which language model: the built-in one, or a folder."""

    built_in: BuiltIn | None = None
    folder: Folder | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.built_in is None) == (self.folder is None):
            raise ValueError("language_model: give either built_in or folder")
        return self


class TrainConfig(Strict):
    """Everything that decides what a training run makes; where the data is comes from the command line."""

    name: str
    seed: int = 1
    corpus: Path | None = None
    ptbxl: Path | None = None
    simulated: int | None = Field(default=None, ge=20)
    """Builds a corpus of so many simulated ECGs by itself, every rhythm and conduction alike; for trying out."""
    withheld: tuple[str, ...] = ()
    """Statements no training text may mention, for the unseen-statement track."""
    preprocessing: Preprocessing = Preprocessing()
    encoder: EncoderConfig = EncoderConfig()
    pretraining: EncoderStage | None = None
    """May be left out where no stage shows the ECG: then nothing is learned from waveforms at all."""
    language_model: LanguageModelConfig
    stages: tuple[ConversationConfig, ...] = Field(min_length=1)
    validation_ecgs: int = Field(default=300, ge=0)
    """ECGs of fold 9 that are asked about when a stage is validated."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names) or set(ENCODER_STAGES) & set(names):
            own = " and ".join(ENCODER_STAGES)
            raise ValueError(f"stages: {', '.join(names)}: every stage needs a name of its own, other than {own}")
        shown = [stage.name for stage in self.stages if not stage.blank]
        if self.pretraining is None and shown:
            raise ValueError(f"pretraining: missing; the stages {', '.join(shown)} show the ECG (blank: false)")
        return self

    def with_folder(self, path: Path) -> TrainConfig:
        """The same with this language model.

        Raises:
            DefinitionError: it trains the built-in one.
        """
        if self.language_model.folder is None:
            raise DefinitionError(
                f"{self.name} trains the built-in language model; --language-model needs a configuration with"
                " language_model: {folder: …}, such as models/configs/biomedgpt-lora.yaml"
            )
        folder = self.language_model.folder.model_copy(update={"path": path})
        chosen = self.language_model.model_copy(update={"folder": folder})
        return self.model_copy(update={"language_model": chosen})


def read_train_config(path: Path, **options: Any) -> TrainConfig:
    """The configuration of a YAML file, with options of the command line in front of it.

    Args:
        path: a file, or the name of a configuration that comes with ecglm ("smoke").
        options: corpus and ptbxl.

    Raises:
        DefinitionError: names the file and every field that is wrong.
    """
    shipped = CONFIGS / f"{path}.yaml"
    if not path.is_file() and shipped.is_file():
        path = shipped
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise DefinitionError(f"{path}: expected fields such as name, pretraining and stages")
    try:
        return TrainConfig.model_validate(
            {**found, **{name: value for name, value in options.items() if value is not None}}
        )
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise DefinitionError(f"{path}: " + "; ".join(told)) from error
