"""The proof that training learns from the signal: simulated ECGs of known truth, held out, and the same ECGs hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ecglm.models.cli import run
from ecglm.models.ecglm import ECGLM, YES_NO, Asked
from ecglm.models.pairs import ecgs_of
from ecglm.models.waveforms import Waveforms, open_store, open_waveform_source
from ecglm.models.wording import statement_questions
from ecglm.synth.corpus import Corpus
from ecglm.synth.guidelines import load_guidelines

FEWEST = 5
"""Held-out ECGs that must have a statement, and lack it, for it to be asked about."""


@pytest.mark.slow
def test_smoke_training_learns_rhythm_and_conduction_from_the_signal(tmp_path: Path) -> None:
    assert run(["train", "smoke", "--out", str(tmp_path / "run")]) == 0
    lm = ECGLM.load(tmp_path / "run" / "model")
    corpus = Corpus.open(tmp_path / "run" / "corpus")
    held = ecgs_of(corpus).filter(pl.col("strat_fold") >= 9)["ecg_id"].to_list()
    assert len(held) >= 40
    labels = pl.DataFrame(pl.from_arrow(corpus.table("labels").to_table(columns=["ecg_id", "code"])))
    has = {code: set(part["ecg_id"]) for (code,), part in labels.group_by("code")}
    categories = load_guidelines(check_sql=False).categories
    codes = [code for code in lm.statements if categories.get(code) in ("rhythm", "conduction")]
    stated = {code: np.array([ecg_id in has.get(code, ()) for ecg_id in held]) for code in codes}
    codes = [code for code in codes if FEWEST <= stated[code].sum() <= len(held) - FEWEST]
    assert len(codes) >= 3
    questions = statement_questions(codes)

    store = open_store(open_waveform_source(tmp_path / "run" / "corpus" / "simulated"))
    values, mask = Waveforms(store, lm.model.encoder.preprocessing).batch(held)
    with torch.inference_mode(), lm.model.autocast():
        tokens = lm.model.encode(values, mask)
    asked = [Asked((row,), questions[code], YES_NO) for code in codes for row in range(len(held))]
    right = np.concatenate([stated[code] for code in codes])

    def accuracy(blank: bool) -> float:
        said = np.array([answer.text == "yes" for answer in lm.answer_all(tokens, asked, blank=blank)])
        return float((said == right).mean())

    constant = np.mean([max(stated[code].mean(), 1 - stated[code].mean()) for code in codes])
    assert accuracy(blank=False) >= 0.95
    assert accuracy(blank=True) <= constant + 1e-9, "without the signal only the words are left"
