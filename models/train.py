"""`ecglm train`: a model from a corpus, stage by stage, in a folder that a killed run goes on in.

OUT/config.json            the configuration, and hashes of what went in
OUT/<stage>/               state to go on from, log.jsonl; first `measured` and `encoder`, the encoder's branches
OUT/tokenizer.json         trained on the corpus (built-in language model only)
OUT/curves.png             learning curves
OUT/model/                 the finished model; appears when it is whole
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ecglm.models.checkpoint import load_into, own_tensors, read_tensors, write_tensors
from ecglm.models.config import ENCODER_STAGES, BuiltIn, TrainConfig
from ecglm.models.ecg_lm import EcgLanguageModel, built_in_language_model
from ecglm.models.ecglm import ECGLM, TOKENIZER
from ecglm.models.encoder import Encoder
from ecglm.models.evaluation import StatementAsker
from ecglm.models.fingerprint import fingerprint, weights_hash
from ecglm.models.language_models import attach, check_folder
from ecglm.models.loop import Trainer, step_seed
from ecglm.models.pairs import ecgs_of, frame_of, training_pairs
from ecglm.models.stages.conversation import Conversation
from ecglm.models.stages.pretraining import pretraining_stages
from ecglm.models.stages.told import ConditionQuestions, NamedQuestions
from ecglm.models.targets import TargetTable, read_targets
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.models.waveforms import Waveforms, open_store, open_waveform_source
from ecglm.models.withheld import refuse_mentions, refuse_shown, unmentioned
from ecglm.models.wording import quantity_words, statement_questions, token_phrases
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import ModelError
from ecglm.synth.measure import MEASURED_VERSION

Progress = Callable[[str, int, int], None]
Tell = Callable[[str], None]
TOKENIZER_TEXTS = 60_000
"""Pairs a tokenizer is trained on."""
STANDARD_ECGS = 512
"""Training ECGs that tell what the numbers of ECG tokens range over."""


@dataclass(frozen=True)
class Material:
    """What a run learns from."""

    pairs: pl.DataFrame
    waveforms: Waveforms
    train: tuple[list[str], TargetTable]
    validation: tuple[list[str], TargetTable]
    corpus: Corpus


def train(config: TrainConfig, out: Path, resume: bool, progress: Progress, tell: Tell) -> Path:
    """Trains a model; gives its folder.

    Raises:
        ECGLMError: bad input, or a folder with another run; nothing that was there is lost.
    """
    if config.language_model.folder is not None:
        check_folder(config.language_model.folder.path)
    corpus_folder, source_folder = _data(config, out)
    _open_run(config, out, resume)
    material = read_material(config, corpus_folder, source_folder, tell)
    encoder = _encoder(config, material, out, progress, tell)
    model, kind = _language_model(config, encoder, material, out)
    started = fingerprint(weights_hash(encoder))
    asker = _asker(config, material)
    named = False
    for stage in config.stages:
        if not named and not stage.blank:
            _ready(model, material, config.withheld)
            named = True
        _run_stage(model, material, stage, config, out, started, asker, progress)
        started = fingerprint(started, stage.model_dump())
    finished = ECGLM(model, _about(config, material, kind, out))
    _save(finished, out / "model")
    return out / "model"


def _ready(model: EcgLanguageModel, material: Material, withheld: Sequence[str]) -> None:
    """Prepares the projector before it first sees an ECG: what its numbers range over, what its tokens are called."""
    some = material.train[0][:: max(1, len(material.train[0]) // STANDARD_ECGS)][:STANDARD_ECGS]
    tokens = []
    model.eval()
    with model.autocast():
        for start in range(0, len(some), 64):
            tokens.append(model.encode(*material.waveforms.inputs(model.encoder, some[start : start + 64])).float())
    model.projector.standardise(torch.cat(tokens))
    config = model.encoder.config
    model.name_tokens(*(unmentioned(words, withheld) for words in (token_phrases(config), quantity_words(config))))


def _data(config: TrainConfig, out: Path) -> tuple[Path, Path]:
    """The corpus, and the folder its waveforms are in."""
    if config.simulated is not None:
        from ecglm.synth.build import BuildConfig, build
        from ecglm.synth.sources.simulator import simulate

        waveforms, folder = out / "simulated", out / "corpus"
        if not waveforms.is_dir():
            simulate(waveforms, config.simulated, config.seed, mix="even")
        chosen = _families(config)
        build(
            BuildConfig.model_validate({"ptbxl": waveforms, "out": folder} | ({"families": chosen} if chosen else {}))
        )
        return folder, waveforms
    if config.corpus is None:
        raise ModelError("no corpus; name it with --corpus DIR (made by `synth build`)")
    if config.ptbxl is not None:
        return config.corpus, config.ptbxl
    if (config.corpus / "simulated").is_dir():
        return config.corpus, config.corpus / "simulated"
    raise ModelError("no waveforms; name their folder with --ptbxl DIR (or --wfdb DIR)")


def _families(config: TrainConfig) -> tuple[str, ...] | None:
    """The families that some stage learns from; None for all."""
    if any(stage.families is None for stage in config.stages):
        return None
    return tuple(sorted({family for stage in config.stages for family in stage.families or ()}))


def _open_run(config: TrainConfig, out: Path, resume: bool) -> None:
    path = out / "config.json"
    told = config.model_dump(mode="json", exclude={"corpus", "ptbxl"})
    if path.is_file():
        if not resume:
            raise ModelError(f"{out}: holds a run already; go on with --resume, or choose another folder")
        if json.loads(path.read_text(encoding="utf-8")) != told:
            raise ModelError(f"{path}: another configuration was trained here; choose another folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_material(config: TrainConfig, corpus_folder: Path, source_folder: Path, tell: Tell) -> Material:
    """Pairs, waveforms and targets; says what was left out."""
    corpus = Corpus.open(corpus_folder)
    pairs = training_pairs(corpus, _families(config))
    ecgs, labels, measured = ecgs_of(corpus), _frame(corpus, "labels"), _frame(corpus, "measurements")
    if config.withheld:
        pairs = refuse_shown(refuse_mentions(pairs, config.withheld, tell), labels, config.withheld, tell)
    waveforms = Waveforms(open_store(open_waveform_source(source_folder)), config.preprocessing)
    about = sorted(pairs["ecg_ids"].explode(empty_as_null=True).drop_nulls().unique(), key=_natural)
    train_ids = [ecg_id for ecg_id in about if ecg_id in waveforms]
    held = ecgs.filter(pl.col("split") == "validation")["ecg_id"].to_list()
    held = [ecg_id for ecg_id in held if ecg_id in waveforms]
    n_train = ecgs.filter(pl.col("split") == "train").height
    tell(f"{len(pairs):,} pairs about {len(train_ids):,} ECGs to train on; {len(held):,} of fold 9 validate")
    tell(
        f"left out: {n_train - len(about):,} ECGs of the split train without a pair,"
        f" {len(about) - len(train_ids):,} without waveform"
    )
    if len(train_ids) < len(about):
        usable = set(train_ids)
        pairs = pairs.filter(pl.col("ecg_ids").list.eval(pl.element().is_in(usable)).list.all().fill_null(True))
    train_table = read_targets(ecgs, labels, measured, train_ids, config.withheld)
    held_table = read_targets(ecgs, labels, measured, held, config.withheld, train_table.targets)
    return Material(pairs, waveforms, (train_ids, train_table), (held, held_table), corpus)


def _natural(ecg_id: str) -> tuple[str, int, str]:
    source, _, own = ecg_id.partition(":")
    return (source, int(own), "") if own.isdecimal() else (source, -1, own)


def _frame(corpus: Corpus, name: str) -> pl.DataFrame:
    return frame_of(corpus.table(name).to_table())


def _encoder(config: TrainConfig, material: Material, out: Path, progress: Progress, tell: Tell) -> Encoder:
    torch.manual_seed(step_seed(config.seed, "encoder:weights", 0))
    encoder = Encoder(config.preprocessing, config.encoder.model_copy(update={"targets": material.train[1].targets}))
    if config.pretraining is None:
        return encoder
    if encoder.measured is not None:
        tell(f"measuring {len(material.train[0]):,} ECGs")
        encoder.measured.standardise(material.waveforms.measured(material.train[0]))
    for stage, how in pretraining_stages(config.pretraining, encoder, material, config.seed):
        _finish(Trainer(stage, how, out / stage.name, config.seed), progress)
    _curves(out)
    return encoder


def _finish(trainer: Trainer, progress: Progress) -> None:
    """Runs a stage, or takes over what it left when it was finished."""
    final = trainer.folder / "final.safetensors"
    if final.is_file():
        tensors, about = read_tensors(final)
        if about.get("fingerprint") != trainer.stage.fingerprint:
            raise ModelError(
                f"{final}: made from other data or settings; train into another folder, or delete {trainer.folder}"
            )
        load_into(own_tensors(trainer.stage.module, trained_only=True), tensors, str(final))
        return
    trainer.run(progress)
    kept = own_tensors(trainer.stage.module, trained_only=True)
    write_tensors(final, kept, {"fingerprint": trainer.stage.fingerprint})
    (trainer.folder / "state.safetensors").unlink(missing_ok=True)


def _language_model(
    config: TrainConfig, encoder: Encoder, material: Material, out: Path
) -> tuple[EcgLanguageModel, dict[str, Any]]:
    torch.manual_seed(step_seed(config.seed, "language_model:weights", 0))
    size = config.language_model.built_in
    if size is None:
        assert config.language_model.folder is not None  # noqa: S101 - one of them is given
        language_model, codec, kind = attach(config.language_model.folder)
        return EcgLanguageModel(encoder, language_model, codec), kind
    codec = _built_in_codec(config, size, material, out)
    language_model = built_in_language_model(size.model_dump(), codec.size)
    return EcgLanguageModel(encoder, language_model, codec), {"kind": "built_in", "built_in": size.model_dump()}


def _built_in_codec(config: TrainConfig, size: BuiltIn, material: Material, out: Path) -> Codec:
    from tokenizers import Tokenizer

    path = out / TOKENIZER
    if not path.is_file():
        n = min(TOKENIZER_TEXTS, len(material.pairs))
        some = material.pairs.sample(n, seed=config.seed, shuffle=True).sort("pair_id")
        texts = [message["content"] for messages in some["messages"].to_list() for message in messages]
        texts += [option for options in some["options"].drop_nulls().to_list() for option in options]
        texts += ["yes", "no"] * 1000
        part = out / f".{TOKENIZER}.part"
        train_tokenizer(texts, size.vocabulary, Markers()).save(str(part))
        part.replace(path)
    return Codec(Tokenizer.from_file(str(path)), Markers())


def _asker(config: TrainConfig, material: Material) -> StatementAsker | None:
    ecg_ids, table = material.validation
    chosen = list(range(len(ecg_ids)))[: config.validation_ecgs]
    if not chosen:
        return None
    codes = [target.name for target in table.targets if target.kind == "statement"]
    questions = list(statement_questions(codes).values())
    return StatementAsker(
        material.waveforms, [ecg_ids[place] for place in chosen], table.values[chosen, : len(codes)], questions
    )


def _run_stage(
    model: EcgLanguageModel,
    material: Material,
    how: Any,
    config: TrainConfig,
    out: Path,
    started: str,
    asker: StatementAsker | None,
    progress: Progress,
) -> None:
    corpus_fingerprint = str(material.corpus.manifest["content_fingerprint"])
    ecg_ids, table = material.train
    encoder = model.encoder.config
    named = NamedQuestions(model.codec, encoder, ecg_ids, table.values, config.withheld)
    told: list[tuple[NamedQuestions | ConditionQuestions, int]] = [(named, how.named)]
    told += [(ConditionQuestions(named, encoder, table.values), how.conditions)]
    stage = Conversation(model, material.waveforms, material.pairs, how, corpus_fingerprint, started, asker, told)
    _finish(Trainer(stage, how.optimisation, out / how.name, config.seed), progress)
    _curves(out)


def _about(config: TrainConfig, material: Material, kind: dict[str, Any], out: Path) -> dict[str, Any]:
    encoder = config.encoder.model_copy(update={"targets": material.train[1].targets})
    return {
        "name": config.name,
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "encoder": encoder.model_dump(mode="json"),
        "measurements_version": MEASURED_VERSION,
        "language_model": kind,
        "markers": (Markers() if kind["kind"] == "built_in" else Markers.model_validate(kind["markers"])).model_dump(),
        "trained_on": id_ranges(material.train[0]),
        "training": {
            "seed": config.seed,
            "corpus_fingerprint": material.corpus.manifest["content_fingerprint"],
            "n_pairs": len(material.pairs),
            "n_ecgs": len(material.train[0]),
            "withheld": list(config.withheld),
            "seconds": {
                name: _seconds(out / name) for name in (*ENCODER_STAGES, *(stage.name for stage in config.stages))
            },
            "config": config.model_dump(mode="json", exclude={"corpus", "ptbxl"}),
        },
    }


def _seconds(folder: Path) -> float | None:
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return float(json.loads(lines[-1])["seconds"]) if lines else None


def id_ranges(ecg_ids: Sequence[str]) -> dict[str, list[str]]:
    """ECG ids by source, runs of numbers as "first-last"."""
    told: dict[str, list[str]] = {}
    for ecg_id in ecg_ids:
        source, _, own = ecg_id.partition(":")
        runs = told.setdefault(source, [])
        last = runs[-1].rpartition("-")[2] if runs else ""
        if own.isdecimal() and last.isdecimal() and int(own) == int(last) + 1:
            runs[-1] = f"{runs[-1].partition('-')[0]}-{own}"
        else:
            runs.append(own)
    return told


def _save(model: ECGLM, folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def _curves(out: Path) -> None:
    from ecglm.models.curves import draw_curves

    draw_curves(out)
