"""Our own models and baselines under the protocol of the bench."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from small_models import saved, small_encoder

from ecglm.bench.adapters import given
from ecglm.bench.data import Data
from ecglm.bench.kinds import build_questions
from ecglm.bench.protocol import Item, Recording
from ecglm.bench.runs import RunConfig, _items, run
from ecglm.bench.scoring import Settings
from ecglm.bench.task import find_tasks
from ecglm.models.baselines.bench_models import SimClrProbe, Trees
from ecglm.models.baselines.subjects import Cases, Subjects
from ecglm.models.baselines.training import embed, probe, train_baseline
from ecglm.models.baselines.trees import TreeProbabilities, fit_trees
from ecglm.models.bench_model import Reference
from ecglm.models.classes import class_scores, meant
from ecglm.models.evaluation import macro_auc
from ecglm.models.waveforms import Waveforms, open_store, open_waveform_source
from ecglm.synth.build import BuildConfig, build
from ecglm.synth.errors import ModelError

TEMPLATES = Path(str(resources.files("ecglm.templates")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def ecgs(simulated_bench: Path) -> dict[str, Recording]:
    data = Data(simulated_bench / "ecgs")
    return data.recordings(data.ecgs.head(4)["ecg_id"].to_list())


def item(number: int, recordings: list[Recording], question: str, options: tuple[str, ...], **more: Any) -> Item:
    return Item(str(number), tuple(recordings), question, options, more.get("multiple", False), more.get("codes", ()))


def asked(ecgs: dict[str, Recording]) -> list[Item]:
    first, second, *_ = ecgs.values()
    afib = "Does this ECG show atrial fibrillation?"
    return [
        item(0, [first], afib, ("yes", "no"), codes=("AFIB",)),
        item(1, [second], afib, ("yes", "no"), codes=("AFIB",)),
        item(2, [first], "Which rhythm?", ("sinus rhythm", "atrial fibrillation", "none"), multiple=True),
        item(3, [first, second], "Did it change?", ("yes", "no")),
        item(4, [second, first], "Did it change?", ("yes", "no")),
        item(5, [first], "What is the ventricular rate of this ECG?", ()),
    ]


def answers(model: Any, items: list[Item]) -> dict[str, Any]:
    found = {reply.id: given(reply) for reply in model.answer(items)}
    assert list(found) == sorted(found, key=lambda key: list(found).index(key))
    assert set(found) == {each.id for each in items}
    return found


def test_every_kind_of_question_gets_its_answer(model: Path, ecgs: dict[str, Recording]) -> None:
    reference = Reference(folder=str(model))
    assert reference.trained_on == {f"simulated:{n}" for n in (1, 2, 3, 7)}
    told = answers(reference, asked(ecgs))
    for each in asked(ecgs)[:5]:
        scores = told[each.id].scores
        assert len(scores) == len(each.options)
        assert all(0 <= score <= 1 for score in scores)
    assert told["0"].text == ("yes" if told["0"].scores[0] >= 0.5 else "no")
    assert told["0"].scores != told["1"].scores
    assert told["3"].scores != told["4"].scores
    chosen = [o for o, s in zip(asked(ecgs)[2].options, told["2"].scores, strict=True) if s > 0.5]
    assert told["2"].text == ", ".join(chosen) or (not chosen and told["2"].text in asked(ecgs)[2].options)
    assert told["5"].scores is None
    assert isinstance(told["5"].text, str)
    again = answers(reference, asked(ecgs)[::-1])
    assert again["0"].scores == pytest.approx(told["0"].scores, abs=5e-3), "from the ECGs kept"


def test_options_change_what_is_shown_and_the_fingerprint(model: Path, ecgs: dict[str, Recording]) -> None:
    made = {
        name: Reference(folder=str(model), **options)
        for name, options in {
            "plain": {},
            "blank": {"blank": "true"},
            "head": {"head": "true"},
            "waveform": {"head": "waveform"},
            "one": {"leads": "I"},
            "limb": {"leads": "limb"},
            "strict": {"threshold": "0.9"},
        }.items()
    }
    assert len({each.fingerprint for each in made.values()}) == len(made)
    items = asked(ecgs)
    blank = answers(made["blank"], items)
    assert blank["0"].scores == blank["1"].scores, "without the ECG nothing tells them apart"
    assert not made["blank"].reads_signals
    plain, one, limb = (answers(made[name], items) for name in ("plain", "one", "limb"))
    assert len({plain["0"].scores[0], one["0"].scores[0], limb["0"].scores[0]}) == 3
    assert made["limb"].leads == ("I", "II", "III", "aVR", "aVL", "aVF")
    assert len(answers(made["strict"], items)["2"].text.split(", ")) == 1

    head = answers(made["head"], items[:2])
    lm = made["head"].lm
    recording = items[0].recordings[0]
    ready = lm.prepare(recording.signal, recording.leads, recording.sampling_hz)
    expected = float(lm.encode_whole([ready]).outputs[0, 0].sigmoid())
    assert head["0"].scores[0] == pytest.approx(expected, abs=1e-2)
    assert sum(head["0"].scores) == pytest.approx(1)
    alone = answers(made["waveform"], items[:2])
    expected = float(lm.encode_whole([ready]).branches[0][0, 0].sigmoid())
    assert alone["0"].scores[0] == pytest.approx(expected, abs=1e-2)
    assert alone["0"].scores[0] != head["0"].scores[0]
    with pytest.raises(ModelError, match="is about no statement; a classifier answers only such questions"):
        list(made["head"].answer(items[2:3]))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"blank": "yes"}, "option blank=yes: expected true or false"),
        ({"blank": "true", "head": "true"}, "exclude each other"),
        ({"head": "both"}, "option head=both: expected false, true, waveform"),
        ({"threshold": "2"}, "option threshold=2: expected a number between 0 and 1"),
        ({"leads": "I,Q"}, "unknown lead 'Q'"),
        ({"folder": "nowhere"}, "nowhere: no model folder"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], named: str, model: Path) -> None:
    with pytest.raises(ModelError, match=named):
        Reference(**({"folder": str(model)} | options))


@pytest.mark.parametrize("task", ["ptbxl-all", "ptbxl-subdiagnostic", "ptbxl-superdiagnostic"])
def test_a_class_has_the_statements_that_the_bench_counts(task: str, simulated_bench: Path) -> None:
    data = Data(simulated_bench / "ecgs")
    (loaded,) = find_tasks((task,), ())
    for ask in ("statement", "list"):
        questions = build_questions(loaded, data, ask=ask, limit=1)
        wanted = {row["class"]: set(row["statements"]) for row in questions.about["classes"]}
        found = {}
        for each in _items(questions.asked.filter(pl.col("role") == "test"), data, None):
            said = each.options if ask == "list" else (each.question,)
            for code, words in zip(each.codes, said, strict=True):
                found[code] = set(meant(each.recordings[0].root, code, words).members)
        assert found == wanted


def test_what_is_known_of_a_class_goes_before_its_statements(simulated_bench: Path) -> None:
    data = Data(simulated_bench / "ecgs")
    (loaded,) = find_tasks(("ptbxl-superdiagnostic",), ())
    questions = build_questions(loaded, data, ask="list", limit=1)
    (item,) = list(_items(questions.asked.filter(pl.col("role") == "test"), data, None))[:1]
    known = {"IMI": 0.3, "ASMI": 0.6, "CLBBB": 0.2, "superclass:CD": 0.7, "NORM": 0.1}
    scores = dict(zip(item.codes, class_scores(item, known), strict=True))
    assert (scores["MI"], scores["CD"], scores["NORM"], scores["STTC"]) == (0.6, 0.7, 0.1, 0.0)


def test_a_model_runs_on_the_bench_by_its_name(model: Path, simulated_bench: Path, tmp_path: Path) -> None:
    config = RunConfig(
        "python:ecglm.models.bench_model:Reference",
        ("ptbxl-superdiagnostic",),
        tmp_path / "run",
        ptbxl=simulated_bench / "ecgs",
        options={"folder": str(model)},
        limit=4,
        settings=Settings(n_resamples=0),
    )
    result = run(config)
    leak = result.scores["tasks"]["ptbxl-superdiagnostic"]["leakage"]
    assert leak["declared_ecgs"] == 4
    assert result.scores["model"]["fingerprint"] == Reference(folder=str(model)).fingerprint
    assert result.asked == 40


# ------------------------------------------------------------------------------------------------------------ baselines


def test_trees_kept_as_numbers_are_the_trees_that_were_trained() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    chance = np.random.default_rng(0)
    features = chance.normal(size=(300, 6)).astype(np.float32)
    features[chance.random(features.shape) < 0.1] = np.nan
    signal = np.nan_to_num(features[:, 0]) + 0.5 * np.isnan(features[:, 1])
    truth = np.stack([signal > 0.3, np.arange(300) < 2, signal < -5], 1)
    forms = np.full(300, np.nan, np.float32)
    some = np.flatnonzero(chance.random(300) < 0.8)
    told = [Cases(np.arange(300), forms, column) for column in truth.T]
    told.append(Cases(some, (some % 2).astype(np.float32), truth[some, 0] & (some % 2 == 1)))
    trees = TreeProbabilities(fit_trees(features, told, 1, lambda *_: None))

    def fitted(table: Any, column: Any) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1.0, random_state=1
        ).fit(table, column)

    unasked = np.column_stack([features, forms])
    assert np.allclose(trees.of(0, unasked), fitted(features, truth[:, 0]).predict_proba(features)[:, 1], atol=1e-9)
    assert np.allclose(trees.of(1, unasked), 3 / 302), "too rare: a constant"
    assert np.allclose(trees.of(2, unasked), 1 / 302)
    asked = np.column_stack([features[some], told[3].forms])
    theirs = fitted(asked, told[3].holds).predict_proba(asked)[:, 1]
    assert np.allclose(trees.of(3, asked), theirs, atol=1e-9)
    assert trees.of(3, asked)[some % 2 == 0].max() < 0.5, "in this form the answer was always no"


def test_a_probe_separates_what_can_be_separated() -> None:
    chance = np.random.default_rng(0)
    features = chance.normal(size=(200, 4)).astype(np.float32)
    truth = np.stack([features[:, 2] > 0, np.zeros(200, bool)], 1)
    weight, bias = probe(features, truth)
    logits = torch.from_numpy(features) @ weight.T + bias
    assert macro_auc(truth[:, :1].astype(float), logits[:, :1].numpy()) > 0.99
    assert torch.allclose(logits[:, 1].sigmoid(), torch.tensor(1 / 202))


@pytest.mark.parametrize("kind", ["trees", "simclr"])
def test_a_baseline_is_trained_kept_and_asked(
    kind: str, simulated_corpus: Path, ecgs: dict[str, Recording], tmp_path: Path
) -> None:
    out = tmp_path / kind
    where = simulated_corpus, simulated_corpus / "simulated"
    about = train_baseline(kind, *where, out, lambda *_: None, print, steps=2)
    assert json.loads((out / "baseline.json").read_text()) == about
    items = asked(ecgs)[:2]
    made: list[Any] = (
        [Trees(str(out))] if kind == "trees" else [SimClrProbe(str(out), share) for share in ("0.01", "0.1", "1")]
    )
    assert len({each.fingerprint for each in made}) == len(made)
    for each in made:
        told = answers(each, items)
        assert all(sum(told[i.id].scores) == pytest.approx(1) for i in items)
        assert each.trained_on
    with pytest.raises(ModelError, match="holds a baseline already"):
        train_baseline(kind, *where, out, lambda *_: None, print, steps=2)
    with pytest.raises(ModelError, match="is about no statement"):
        list(made[0].answer(asked(ecgs)[3:4]))
    other = SimClrProbe if kind == "trees" else Trees
    with pytest.raises(ModelError, match="a baseline of the kind"):
        other(str(out))


def test_what_a_question_is_about_is_told_from_its_words() -> None:
    names = {"lead I", "lead II", "baseline drift", "left axis deviation", "qt interval", "above the normal range"}
    forms = {"does … show …?": 0, "which noises are in …?": 1, "is the … …?": 2, "is it normal?": 3}
    subjects = Subjects({name.casefold() for name in names}, forms)
    noise = subjects.asked("Does lead II show baseline drift?")
    assert [(each.name, each.form) for each in noise] == [("baseline drift / lead ii", 0)]
    options = subjects.asked("Which noises are in lead II?", ("baseline drift", "none"))
    assert [(each.name, each.form) for each in options] == [("baseline drift / lead ii", 1), ("lead ii / none", 1)]
    either = subjects.asked("Baseline drift or left axis deviation?", ("baseline drift", "left axis deviation"))
    assert [each.name for each in either] == ["baseline drift", "left axis deviation"], "not the other option"
    assert np.isnan(either[0].form), "no training question was asked in these words"
    assert subjects.asked("Is it normal?")[0].name == "form 3"
    interval = subjects.asked("Is the QT interval above the normal range?")
    assert [(each.name, each.form) for each in interval] == [("above the normal range / qt interval", 2)]


def test_trees_answer_what_ecgqa_asks(simulated_bench: Path, tmp_path: Path) -> None:
    folder, corpus, templates = simulated_bench / "ecgs", tmp_path / "corpus", tmp_path / "templates"
    shutil.copytree(TEMPLATES / "vocabularies", templates / "vocabularies")
    (templates / "ecgqa").mkdir()
    for path in (TEMPLATES / "ecgqa").glob("ecgqa-2[012]-*.jinja"):
        shutil.copy(path, templates / "ecgqa")
    build(BuildConfig(ptbxl=folder, families=("ecgqa",), templates=templates, workers=1, out=corpus))
    train_baseline("trees", corpus, folder, tmp_path / "all", lambda *_: None, print)
    trees = Trees(str(tmp_path / "all"))
    held_out = pl.scan_parquet(corpus / "pairs" / "*" / "*.parquet").filter(pl.col("split") != "train")
    asked = held_out.filter(pl.col("template_id") == "ecgqa-22-axis-direction").collect()
    assert asked.height > 10
    recordings = Data(folder).recordings(asked["ecg_ids"].list.first().to_list())
    options = ("normal heart axis", "left axis deviation", "right axis deviation", "extreme axis deviation")
    items = [
        item(number, [recordings[row["ecg_ids"][0]]], row["messages"][0]["content"], options, multiple=True)
        for number, row in enumerate(asked.iter_rows(named=True))
    ]

    told = answers(trees, items)
    chosen = [[o for o, s in zip(options, told[i.id].scores, strict=True) if s > 0.5] for i in items]
    right = [said == answer for said, answer in zip(chosen, asked["answers"].to_list(), strict=True)]
    assert sum(right) > 0.9 * len(right)
    with pytest.raises(ModelError, match="is about no statement"):
        list(trees.answer([item(0, list(recordings.values())[:2], "Did it change?", ("yes", "no"))]))


def test_trees_for_fewer_leads_do_not_look_at_the_others(
    simulated_corpus: Path, ecgs: dict[str, Recording], tmp_path: Path
) -> None:
    where = simulated_corpus, simulated_corpus / "simulated"
    about = train_baseline("trees", *where, tmp_path, lambda *_: None, print, leads=("I", "II"))
    trees = Trees(str(tmp_path))
    assert (about["leads"], trees.name) == (["I", "II"], "trees I II")
    recording = next(iter(ecgs.values()))

    def flipped(*leads: str) -> Recording:
        other = replace(recording)
        vars(other)["signal"] = recording.signal * np.where(np.isin(recording.leads, leads), -1, 1).astype(np.float32)
        return other

    told = trees.probabilities([recording])
    assert (Trees(str(tmp_path)).probabilities([flipped("V1", "V5", "aVF")]) == told).all()
    assert (Trees(str(tmp_path)).probabilities([flipped("I")]) != told).any()


def test_embeddings_do_not_depend_on_the_batch(simulated_corpus: Path) -> None:
    encoder = small_encoder()
    waveforms = Waveforms(open_store(open_waveform_source(simulated_corpus / "simulated")), encoder.preprocessing)
    ids = [f"simulated:{number}" for number in (1, 2, 3)]
    assert np.allclose(embed(encoder, waveforms, ids), embed(encoder, waveforms, ids, batch=1), atol=0.05)


def test_a_folder_without_a_baseline_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no baseline\.json there; make one with `ecglm baseline trees --out DIR`"):
        Trees(str(tmp_path))
    with pytest.raises(ModelError, match="folder="):
        SimClrProbe()
