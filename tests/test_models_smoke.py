"""The proof that training learns from the signal: a narrow model of simulated ECGs answers on ECGs it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ecglm.models.cli import run
from ecglm.models.ecglm import ECGLM, YES_NO, Asked
from ecglm.models.waveforms import Waveforms, open_store, open_waveform_source
from ecglm.synth.build import BuildConfig, build
from ecglm.synth.corpus import Corpus
from ecglm.synth.sources.simulator import simulate

RHYTHM_AND_CONDUCTION = {
    *("SR", "SBRAD", "STACH", "AFIB", "AFLT", "SARRH", "PACE", "BIGU", "TRIGU"),
    *("1AVB", "2AVB", "3AVB", "CLBBB", "CRBBB", "ILBBB", "IRBBB", "LAFB", "LPFB", "WPW", "IVCD"),
}


def questions(corpus: Path) -> pl.DataFrame:
    """Questions about rhythm and conduction; `even`: of each that names a statement as many with yes as with no."""
    pairs = pl.from_arrow(Corpus.open(corpus).table("pairs").to_table())
    assert isinstance(pairs, pl.DataFrame)
    asked = pairs.filter(
        pl.col("template_id").is_in(["verify-statement", "verify-rhythm", "verify-sinus"]),
        pl.col("codes").list.first().is_in(sorted(RHYTHM_AND_CONDUCTION)),
    ).with_columns(
        code=pl.col("codes").list.first(),
        yes=pl.col("answers").list.first() == "yes",
        question=pl.col("messages").list.first().struct.field("content"),
    )
    alike = ("template_id", "code")  # whether the rhythm is of sinus origin: always yes of one code, no of another
    place = pl.int_range(pl.len()).over(*alike, "yes")
    fewer = pl.min_horizontal(pl.col("yes").sum().over(*alike), (~pl.col("yes")).sum().over(*alike))
    return asked.sort("pair_id").select("ecg_ids", "code", "yes", "question", even=place < fewer)


def accuracy(lm: ECGLM, asked: pl.DataFrame, tokens: torch.Tensor, place: dict[str, int], blank: bool) -> float:
    told = lm.answer_all(
        tokens,
        [
            Asked((place[ecg_ids[0]],), question, YES_NO)
            for ecg_ids, question in asked.select("ecg_ids", "question").iter_rows()
        ],
        blank=blank,
    )
    return float(np.mean([answer.text == "yes" for answer in told] == asked["yes"].to_numpy()))


@pytest.mark.slow
def test_a_narrow_model_learns_from_the_signal(tmp_path: Path) -> None:
    assert run(["train", "smoke", "--out", str(tmp_path / "run")]) == 0
    simulate(tmp_path / "simulated", 300, seed=77, mix="even")
    build(BuildConfig(ptbxl=tmp_path / "simulated", out=tmp_path / "unseen", families=("verify",)))
    asked = questions(tmp_path / "unseen")
    even = asked.filter("even")
    assert asked["code"].n_unique() >= 12
    assert len(even) > 300
    lm = ECGLM.load(tmp_path / "run" / "model")
    waveforms = Waveforms(open_store(open_waveform_source(tmp_path / "simulated")), lm.model.encoder.preprocessing)
    ecg_ids = sorted(set(asked["ecg_ids"].explode()))
    with torch.inference_mode(), lm.model.autocast():
        tokens = torch.cat(
            [
                lm.model.encode(*waveforms.inputs(lm.model.encoder, ecg_ids[n : n + 64]))
                for n in range(0, len(ecg_ids), 64)
            ]
        )
    place = {ecg_id: row for row, ecg_id in enumerate(ecg_ids)}
    assert accuracy(lm, asked, tokens, place, blank=False) >= 0.95
    assert accuracy(lm, even, tokens, place, blank=False) >= 0.95
    assert accuracy(lm, even, tokens, place, blank=True) <= 0.6, "as many with yes as with no, for each statement"
