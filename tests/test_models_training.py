"""`ecglm train`: what is learned and what must not be, runs that were killed, language models of a folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_models import TEXTS, small_encoder, small_model
from test_cli import one_object

from ecglm.bench.task import read_tasks
from ecglm.models.augment import Augmentation
from ecglm.models.bench_model import Reference
from ecglm.models.cli import run
from ecglm.models.config import read_train_config
from ecglm.models.ecglm import ECGLM, YES_NO, Asked
from ecglm.models.encoder import Encoder
from ecglm.models.fingerprint import weights_hash
from ecglm.models.loop import Optimisation, Trainer
from ecglm.models.packing import Branch, pack
from ecglm.models.pairs import ExampleMaker, Sampler, ecgs_of, training_pairs
from ecglm.models.stages.contrastive import Contrastive, texts_of
from ecglm.models.stages.measured_only import MeasuredOnly
from ecglm.models.stages.simclr import SimClr, nt_xent
from ecglm.models.stages.supervised import Supervised
from ecglm.models.text import PLAIN_MARKERS, Markers, train_tokenizer
from ecglm.models.train import read_material
from ecglm.models.waveforms import Waveforms, open_store, open_waveform_source
from ecglm.models.withheld import mention_pattern
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import ModelError
from ecglm.synth.guidelines import load_guidelines

CONFIGS = Path(__file__).parents[1] / "models" / "configs"
TINY = """\
name: tiny
encoder: {widths: [8, 8, 12, 16], query_width: 8, n_time_tokens: 2}
pretraining:
  method: supervised
  measured: {steps: 4, batch: 6, learning_rate: 0.003, average: 0.5, validate_every: 2, keep_best: true}
  optimisation: {steps: 3, batch: 8, learning_rate: 0.003, average: 0.9}
language_model:
  built_in: {width: 32, inner_width: 48, layers: 1, heads: 2, vocabulary: 400}
stages:
  - name: align
    trains: [projector, language_model]
    families: [verify]
    questions: 4
    named: 2
    conditions: 2
    optimisation: {steps: 4, batch: 3, learning_rate: 0.003, average: 0.5, validate_every: 4}
validation_ecgs: 3
"""
FOLDER = """\
language_model:
  folder: {lora: {rank: 2, alpha: 4, dropout: 0.0}, gradient_checkpointing: true}
"""


def write_config(folder: Path, text: str = TINY, **changes: str) -> Path:
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def go(config: Path, corpus: Path, out: Path, *more: str) -> int:
    return run(["train", str(config), "--corpus", str(corpus), "--out", str(out), *more])


@pytest.fixture(scope="module")
def trained(simulated_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("tiny")
    assert go(write_config(folder), simulated_corpus, folder / "run") == 0
    return folder / "run"


def final(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "model" / "model.safetensors")


# ----------------------------------------------------------------------------------------------------------- whole runs


def test_a_model_of_questions_alone_never_sees_an_ecg(
    simulated_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, pretraining, after = re.split(r"(?ms)(^pretraining:.*?)(?=^language_model)", TINY)
    assert pretraining
    assert go(write_config(tmp_path, before + after), simulated_corpus, tmp_path / "run") == 1
    assert "pretraining: missing; the stages align show the ECG (blank: false)" in capsys.readouterr().err
    blank = (before + after).replace("named: 2", "blank: true").replace("conditions: 2", "full_share: 0")
    assert go(write_config(tmp_path, blank), simulated_corpus, tmp_path / "run") == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["align", "model"]
    lm = ECGLM.load(tmp_path / "run" / "model")
    assert lm.blind
    noise = np.random.default_rng(0).normal(size=(2, 1000, 2))
    asked = [lm.answer(each, ("I", "II"), 100, "Does this ECG show atrial fibrillation?", YES_NO) for each in noise]
    assert asked[0] == asked[1]
    reference = Reference(folder=str(tmp_path / "run" / "model"))
    assert not reference.reads_signals


def test_a_model_from_a_corpus(trained: Path, simulated_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = ECGLM.load(trained / "model")
    assert (trained / "curves.png").stat().st_size > 1000
    (last,) = [json.loads(line) for line in (trained / "align" / "log.jsonl").read_text().splitlines()]
    assert last["step"] == 4
    assert np.isfinite(last["loss"])
    ids = {f"{s}:{n}" for s, runs in lm.about["trained_on"].items() for n in expanded(runs)}
    ecgs = ecgs_of(Corpus.open(simulated_corpus))
    assert ids <= set(ecgs.filter(pl.col("strat_fold") <= 8)["ecg_id"])
    assert len(ids) > 20
    assert run(["info", str(trained / "model"), "--json"]) == 0
    assert one_object(capsys.readouterr().out)["trained_on"]["simulated"] == len(ids)
    assert go(trained.parent / "tiny.yaml", simulated_corpus, trained) == 1
    assert "holds a run already; go on with --resume" in capsys.readouterr().err
    other = write_config(trained.parent, **{"steps: 4": "steps: 5"}).rename(trained.parent / "other.yaml")
    write_config(trained.parent)
    assert go(other, simulated_corpus, trained, "--resume") == 1
    assert "another configuration was trained here" in capsys.readouterr().err


def expanded(runs: list[str]) -> list[str]:
    from ecglm.models.info import expand

    return list(expand(runs))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    trained: Path, simulated_corpus: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    code = f"""
import functools, os, signal
import ecglm.models.train as train
from ecglm.models.config import read_train_config
train.Trainer = functools.partial(train.Trainer, save_every_s=0.0)
def progress(stage, step, of):
    if (stage, step) == ("align", 2):
        os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
told = read_train_config(Path({str(config)!r}), corpus={str(simulated_corpus)!r})
train.train(told, Path({str(tmp_path / "run")!r}), False, progress, print)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert not (tmp_path / "run" / "model").exists(), "a model is there only when it is whole"
    assert (tmp_path / "run" / "align" / "state.safetensors").is_file()
    assert go(config, simulated_corpus, tmp_path / "run", "--resume") == 0
    whole, resumed = (
        [json.loads(line) for line in (each / "align" / "log.jsonl").read_text().splitlines()]
        for each in (trained, tmp_path / "run")
    )
    assert [row["step"] for row in whole] == [row["step"] for row in resumed]
    for row, other in zip(whole, resumed, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-6)
    first, second = final(trained), final(tmp_path / "run")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# ------------------------------------------------------------------------------------------------------ what is learned


def test_only_answers_are_learned(simulated_corpus: Path) -> None:
    pairs = training_pairs(Corpus.open(simulated_corpus)).sample(250, seed=1)
    codec = small_model().model.codec
    maker = ExampleMaker(pairs, codec, 1.0, 6, 512, lambda text: ())
    chance = np.random.default_rng(0)
    seen = 0
    for messages, answers, options in pairs.select("messages", "answers", "options").iter_rows():
        branch = maker.example(messages, answers or [], options or [], chance)
        assert not any(branch.learned), "the question"
        said = {message["content"] for message in messages if message["role"] == "assistant"}
        said |= {", ".join(answers or []), "yes", "no"}
        for child in branch.children:
            runs = [""]
            for token, learned in zip(child.tokens, child.learned, strict=True):
                if not learned:
                    runs.append("")
                elif (token,) != codec.end:
                    runs[-1] += f"{token} "
            texts = [codec.decode([int(each) for each in one.split()]) for one in runs if one]
            assert texts
            assert set(texts) <= said, (texts, said)
            assert not any("annotation" in text for text in texts), "the model sees none"
            seen += len(texts)
    assert seen > 400
    packed = pack([[Branch([5, 6, 7], children=[Branch([1, 8, 9], [False, True, True], 0.2)])]])
    assert packed.targets.tolist() == [[-100, -100, -100, 8, 9, -100]]
    assert packed.weights.tolist()[0] == pytest.approx([0, 0, 0, 0.2, 0.2, 0])


def test_the_pairs_lie_in_a_file_without_a_name(
    simulated_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    pairs = training_pairs(Corpus.open(simulated_corpus))
    wanted = pl.read_parquet(simulated_corpus / "pairs/split=train/*.parquet").select(pairs.columns)
    assert pairs.sort("pair_id").equals(wanted.sort("pair_id"))
    assert list((tmp_path / "cache").iterdir()) == [], "a killed run leaves nothing"
    if sys.platform == "linux":
        assert f"{tmp_path}/cache/" in Path("/proc/self/maps").read_text(), "mapped, not held"


def test_padding_a_batch_changes_no_place_that_is_used() -> None:
    batch = [[Branch([5, 6], children=[Branch([7, 8], [False, True])])], [Branch([5, 6, 7])]]
    plain, padded = pack(batch), pack(batch, 32)
    assert padded.tokens.shape == (2, 32)
    for name in ("tokens", "positions", "segment", "parent", "targets", "weights"):
        assert torch.equal(getattr(padded, name)[:, :4], getattr(plain, name)), name
    assert (padded.segment[:, 4:] == -1).all()
    assert (padded.targets[:, 4:] == -100).all()
    assert padded.last == plain.last


def test_a_batch_is_about_single_ecgs_or_about_pairs_of_them(simulated_corpus: Path) -> None:
    pairs = training_pairs(Corpus.open(simulated_corpus))
    sampler, chance = Sampler(pairs, None, {"verify": 3.0}, 5), np.random.default_rng(0)
    ecg_ids = pairs["ecg_ids"].to_list()
    kinds = []
    for _ in range(400):  # pairs about no ECG are one group among some hundred
        drawn = sampler.draw(6, chance)
        assert len({len(group.ecg_ids) for group in drawn}) == 1
        kinds.append(len(drawn[0].ecg_ids))
        for group in drawn:
            assert 1 <= len(group.rows) <= 5
            assert len(set(group.rows)) == len(group.rows)
            assert all(tuple(ecg_ids[row] or ()) == group.ecg_ids for row in group.rows)
    assert set(kinds) == {0, 1, 2}
    assert kinds.count(1) > 200


def test_rare_answers_are_drawn_more_often_the_more_they_are_evened_out(simulated_corpus: Path) -> None:
    pairs = training_pairs(Corpus.open(simulated_corpus), {"verify"})
    said = pairs.select(pl.concat_str(pl.col("codes").list.first().fill_null(""), pl.col("answers").list.first()))
    rare = {text for text, n in said.to_series().value_counts().iter_rows() if n < len(pairs) / 200}
    shares = []
    for evening in (0.0, 0.5, 1.0):
        sampler, chance = Sampler(pairs, None, {}, 4, evening), np.random.default_rng(0)
        rows = [row for _ in range(40) for group in sampler.draw(8, chance) for row in group.rows]
        shares.append(np.mean([text in rare for text in said.to_series()[rows]]))
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("where", ["pair", "split"])
def test_a_held_out_ecg_in_the_training_pairs_stops_everything(
    where: str, simulated_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(simulated_corpus, corpus, copy_function=shutil.copy)
    ecgs = pl.read_parquet(corpus / "ecgs.parquet")
    path = sorted((corpus / "pairs" / "split=train").glob("verify*.parquet"))[0]
    table = pl.read_parquet(path, hive_partitioning=False)
    if where == "pair":  # named only by its ECG: folds and split of the row still say train
        held = ecgs.filter(pl.col("strat_fold") == 10)["ecg_id"][0]
        first = pl.int_range(pl.len()) == 0
        table = table.with_columns(pl.when(first).then(pl.lit([held])).otherwise("ecg_ids").alias("ecg_ids"))
        table.write_parquet(path)
        listed_again(corpus, path)
    else:
        moved = table["ecg_ids"][0][0]
        fold = pl.when(pl.col("ecg_id") == moved).then(9).otherwise("strat_fold").cast(pl.Int8)
        ecgs.with_columns(fold.alias("strat_fold")).write_parquet(corpus / "ecgs.parquet")
        listed_again(corpus, corpus / "ecgs.parquet")
    assert go(write_config(tmp_path), corpus, tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert "are about ECGs that are held out (folds 9 and 10" in message
    assert table["pair_id"][0] in message
    assert not (tmp_path / "run" / "encoder").exists()


def listed_again(corpus: Path, path: Path) -> None:
    """Puts the size of a changed file into the manifest."""
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["files"][path.relative_to(corpus).as_posix()]["bytes"] = path.stat().st_size
    (corpus / "manifest.json").write_text(json.dumps(manifest))


def test_a_corpus_of_another_version_is_refused(
    simulated_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(simulated_corpus, corpus, copy_function=shutil.copy)
    manifest = json.loads((corpus / "manifest.json").read_text())
    (corpus / "manifest.json").write_text(json.dumps(manifest | {"schema_version": "99"}))
    assert go(write_config(tmp_path), corpus, tmp_path / "run") == 1
    assert "99" in capsys.readouterr().err


def test_withheld_statements_leave_no_mention(simulated_corpus: Path, tmp_path: Path) -> None:
    withheld = ("AFIB", "CLBBB", "IMI")
    config = read_train_config(write_config(tmp_path), corpus=simulated_corpus)
    config = config.model_copy(update={"withheld": withheld})
    told: list[str] = []
    material = read_material(config, simulated_corpus, simulated_corpus / "simulated", told.append)
    assert any(line.startswith("withheld AFIB, CLBBB, IMI:") for line in told)
    pattern = mention_pattern(withheld)
    assert pattern.search("Atrial  fibrillation".replace("  ", " "))
    assert pattern.search("AFIB.")
    texts = [
        text
        for messages, answers, options in material.pairs.select("messages", "answers", "options").iter_rows()
        for text in (*(message["content"] for message in messages), *(answers or ()), *(options or ()))
    ]
    assert len(texts) > 100
    assert [text for text in texts if pattern.search(text)] == []
    assert set(withheld) & {target.name for target in material.train[1].targets} == set()
    assert all(target.kind != "finding" for target in material.train[1].targets)
    assert set(withheld) & set(material.pairs["codes"].explode().drop_nulls()) == set()
    labels = pl.from_arrow(material.corpus.table("labels").to_table()).filter(pl.col("code").is_in(withheld))
    shown = set(labels["ecg_id"])
    assert len(shown) > 5
    assert shown & set(material.train[0]) == set()
    assert shown & set(material.pairs["ecg_ids"].explode().drop_nulls()) == set()


def test_the_unseen_task_asks_about_what_its_configuration_withholds_and_names_none_of_it() -> None:
    task = read_tasks()[0]["ptbxl-unseen"].task
    config = read_train_config(Path("unseen"))
    assert set(task.classes.codes) == set(config.withheld) == set(task.names)
    known = load_guidelines(check_sql=False).by_code
    first = [known[code].kinds[0] for code in config.withheld]
    assert {kind: first.count(kind) for kind in set(first)} == {"diagnostic": 4, "form": 4, "rhythm": 4}
    pattern = mention_pattern(config.withheld)
    assert [words.phrase for words in task.names.values() if pattern.search(words.phrase)] == []


# ------------------------------------------------------------------------------------------------- encoder pre-training


@pytest.fixture(scope="module")
def waveforms(simulated_corpus: Path) -> Waveforms:
    source = open_waveform_source(simulated_corpus / "simulated")
    return Waveforms(open_store(source), small_encoder(()).preprocessing)


def test_views_of_one_recording_are_found_among_others() -> None:
    torch.manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(6, 16), dim=-1)
    alike, told = nt_xent(views, views)
    other, wrong = nt_xent(views, views.roll(1, 0))
    assert told == {"found": 1.0}
    assert wrong == {"found": 0.0}
    assert float(alike) < 0.1 < 5 < float(other)


def test_an_encoder_is_pre_trained_without_labels_or_against_text(
    waveforms: Waveforms, simulated_corpus: Path, tmp_path: Path
) -> None:
    how = Optimisation(steps=12, batch=8, learning_rate=0.003)
    pairs = training_pairs(Corpus.open(simulated_corpus))
    texts = texts_of(pairs)
    ids = sorted(texts)
    for method in ("simclr", "contrastive"):
        encoder = small_encoder(())
        before = encoder.backbone.stem.weight.detach().clone()
        stage: Any = (
            SimClr(encoder, waveforms, ids, how, Augmentation(), 1)
            if method == "simclr"
            else Contrastive(encoder, waveforms, pairs, how, Augmentation(), 1)
        )
        Trainer(stage, how, tmp_path / method, 1).run(lambda *_: None)
        last = json.loads((tmp_path / method / "log.jsonl").read_text().splitlines()[-1])
        assert np.isfinite(last["loss"])
        assert 0 <= last["found"] <= 1
        assert not torch.equal(before, encoder.backbone.stem.weight), method
    stage.texts = {ecg_id: ["Sinus rhythm."] for ecg_id in stage.ecg_ids}
    _, told = stage.loss(0, torch.Generator().manual_seed(0))
    assert told["found"] == 1.0, "ECGs with the same words are all right"


def test_each_branch_of_the_encoder_learns_in_a_stage_of_its_own(simulated_corpus: Path, tmp_path: Path) -> None:
    config = read_train_config(write_config(tmp_path), corpus=simulated_corpus)
    material = read_material(config, simulated_corpus, simulated_corpus / "simulated", lambda _: None)
    torch.manual_seed(0)
    encoder = Encoder(config.preprocessing, config.encoder.model_copy(update={"targets": material.train[1].targets}))
    assert encoder.measured is not None
    encoder.measured.standardise(material.waveforms.measured(material.train[0]))
    how = Optimisation(steps=60, batch=32, learning_rate=0.003)
    waves = [encoder.backbone.stem.weight, encoder.readout, encoder.summary.weight]
    before = [each.detach().clone() for each in waves]
    first = MeasuredOnly(encoder, material.waveforms, material.train, material.validation, how, 0.3, 1)
    guessed = first.validate()["macro_auc"]
    Trainer(first, how, tmp_path / "measured", 1).run(lambda *_: None)
    assert first.validate()["macro_auc"] > guessed + 0.2
    assert all(torch.equal(*each) for each in zip(before, waves, strict=True))
    learned = weights_hash(encoder.measured)
    augmentation = Augmentation()
    args = (encoder, material.waveforms, material.train, material.validation, how, augmentation, 1)
    second = Supervised(*args)
    Trainer(second, how.model_copy(update={"steps": 2}), tmp_path / "encoder", 1).run(lambda *_: None)
    assert not any(torch.equal(*each) for each in zip(before, waves, strict=True))
    assert weights_hash(encoder.measured) == learned
    with torch.no_grad():
        encoder.measured.layers[1].weight.add_(1)
    assert Supervised(*args).fingerprint != second.fingerprint, "which weights are best depends on both"


# ----------------------------------------------------------------------------------------- language models of a folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama in the layout of Hugging Face, with a tokenizer of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = train_tokenizer(TEXTS, 350, Markers(user="<u>", option="<o>", short="<s>", full="<f>", end="<e>"))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def folder_config(folder: Path) -> Path:
    text = TINY.replace(TINY[TINY.index("language_model:") : TINY.index("stages:")], FOLDER)
    return write_config(folder, text)


def test_a_language_model_of_a_folder_is_trained_kept_and_asked(
    llama: Path, simulated_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder_config(tmp_path)
    assert go(config, simulated_corpus, tmp_path / "run", "--language-model", str(llama)) == 0
    kept = final(tmp_path / "run")
    of_language = {name for name in kept if name.startswith("language_model.")}
    assert of_language
    assert all("lora_" in name for name in of_language), "not the weights of the folder"
    assert any(tensor.abs().max() > 0 for name, tensor in kept.items() if "lora_B" in name), "adapters were trained"
    lm = ECGLM.load(tmp_path / "run" / "model")
    assert lm.model.codec.markers == PLAIN_MARKERS
    torch.manual_seed(0)
    tokens = torch.randn(2, lm.model.encoder.n_tokens, lm.model.encoder.token_width)
    asked = [Asked((row,), "Is this a normal ECG?", options) for row in (0, 1) for options in (YES_NO, ("a", "b", "c"))]
    together = lm.answer_all(tokens, asked)
    for each, answer in zip(asked, together, strict=True):
        (single,) = lm.answer_all(tokens, [each])
        assert answer.scores == pytest.approx(single.scores, abs=2e-2), "within what bfloat16 weights tell apart"
    assert isinstance(lm.say(tokens[:1], "What is the rate?").text, str)

    moved = tmp_path / "moved"
    shutil.copytree(llama, moved)
    about = tmp_path / "run" / "model" / "model.json"
    about.write_text(about.read_text().replace(str(llama), str(moved)))
    assert ECGLM.load(tmp_path / "run" / "model").fingerprint == lm.fingerprint
    weights = (moved / "model.safetensors").read_bytes()
    (moved / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"another language model; put back the one it was trained with"):
        ECGLM.load(tmp_path / "run" / "model")


def test_a_folder_with_a_pickle_only_is_refused(
    llama: Path, simulated_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(llama, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    config = folder_config(tmp_path)
    assert go(config, simulated_corpus, tmp_path / "run", "--language-model", str(folder)) == 1
    assert "no *.safetensors; other weights (pickles) can run code" in capsys.readouterr().err
    assert go(config, simulated_corpus, tmp_path / "run") == 1
    assert "--language-model FOLDER" in capsys.readouterr().err
    assert go(write_config(tmp_path), simulated_corpus, tmp_path / "run2", "--language-model", str(llama)) == 1
    assert "trains the built-in language model" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- plans


def test_a_dry_run_needs_neither_corpus_nor_weights(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(*arguments: str) -> dict[str, Any]:
        assert run(["train", *arguments, "--dry-run", "--json"]) == 0
        return one_object(capsys.readouterr().out)

    tiny = plan(str(write_config(tmp_path)))
    assert set(tiny["parameters"]) >= {"encoder", "projector", "language_model"}
    assert [stage["name"] for stage in tiny["stages"]] == ["measured", "encoder", "align"]
    assert all(stage["step_s"] > 0 and stage["training_gib"] > 0 for stage in tiny["stages"])
    assert tiny["seconds"] == pytest.approx(sum(stage["seconds"] for stage in tiny["stages"]))

    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(llama / "config.json", bare)
    planned = plan(str(folder_config(tmp_path)), "--language-model", str(bare))
    whole = sum(tensor.numel() for tensor in load_file(llama / "model.safetensors").values())
    assert planned["parameters"]["language_model"] == whole
    wide, narrow = 2 * 32, 32 + 16  # rank · (in + out) of q, o (32 → 32) and of k, v (32 → 16), in two layers
    assert planned["parameters"]["adapters"] == 2 * 2 * (2 * wide + 2 * narrow)
    assert not (tmp_path / "runs").exists()


def test_the_configurations_that_come_with_ecglm_are_valid() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names >= {"smoke", "reference", "biomedgpt-lora"}
    for path in CONFIGS.glob("*.yaml"):
        assert read_train_config(path).name == path.stem
