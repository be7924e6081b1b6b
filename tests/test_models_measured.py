"""The branch of the encoder that takes what is measured: same values as `synth measure`, absent leads, questions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import saved, small_encoder

from ecglm.models.comparing import quantities
from ecglm.models.config import read_train_config
from ecglm.models.dry_run import likely_targets
from ecglm.models.ecglm import ECGLM
from ecglm.models.encoder import Encoder, EncoderConfig, Target
from ecglm.models.measured import ANGLES, NUMBERS, MeasuredBranch, measure_batch, numbers, of_leads
from ecglm.models.preprocessing import Preprocessing, prepare
from ecglm.models.stages.told import ConditionQuestions, NamedQuestions
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.models.withheld import mention_pattern
from ecglm.synth.measure import MEASURED_COLUMNS, measure_record
from ecglm.synth.schema import LEADS
from ecglm.synth.sources.simulator.folder import simulated_ecgs

WANTED = Preprocessing()


def batch_of(ecgs: list[np.ndarray], leads: tuple[str, ...] = LEADS) -> tuple[torch.Tensor, torch.Tensor]:
    """Recordings of one length as the encoder takes them."""
    chosen = [LEADS.index(lead) for lead in leads]
    ready = [prepare(ecg[:, chosen], leads, 100, WANTED) for ecg in ecgs]
    return torch.from_numpy(np.stack([r.values for r in ready])), torch.from_numpy(np.stack([r.mask for r in ready]))


@pytest.fixture(scope="module")
def signals() -> list[np.ndarray]:
    return [ecg.signal.astype(np.float32) / 1000 for ecg in simulated_ecgs(6, seed=5)]


def test_a_batch_is_measured_as_each_recording_is(signals: list[np.ndarray]) -> None:
    measured = measure_batch(*batch_of(signals), LEADS, 100)
    for signal, row in zip(signals, measured.numpy(), strict=True):
        columns, _ = measure_record(signal, LEADS, 100)
        expected = np.array([columns[name] for name in MEASURED_COLUMNS], np.float32)
        assert np.array_equal(np.isnan(row), np.isnan(expected))
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=2e-3, equal_nan=True)


def test_padding_and_absent_leads_change_nothing_of_the_others(signals: list[np.ndarray]) -> None:
    values, mask = batch_of(signals[:2])
    longer = torch.nn.functional.pad(values, (0, 300)), torch.nn.functional.pad(mask, (0, 300))
    whole = measure_batch(values, mask, LEADS, 100)
    assert torch.equal(measure_batch(*longer, LEADS, 100).nan_to_num(-1), whole.nan_to_num(-1))
    values[1, 6:], mask[1, 6:] = 0, False
    mixed = measure_batch(values, mask, LEADS, 100)
    assert torch.equal(mixed[0].nan_to_num(-1), whole[0].nan_to_num(-1))
    chest = [place for place, name in enumerate(MEASURED_COLUMNS) if re.search(r"_V\d$", name)]
    assert mixed[1, chest].isnan().all()
    assert not whole[1, chest].isnan().all()


def test_nothing_recorded_is_nothing_measured() -> None:
    nothing = torch.zeros(2, 12, 1000)
    assert measure_batch(nothing, torch.zeros_like(nothing, dtype=torch.bool), LEADS, 100).isnan().all()


def test_what_absent_leads_would_be_needed_for_is_missing(signals: list[np.ndarray]) -> None:
    measured = measure_batch(*batch_of(signals), LEADS, 100)
    there = torch.zeros(len(signals), 12, dtype=torch.bool)
    there[:, [0, 7]] = True  # I and V2
    kept = of_leads(measured, there, LEADS)
    named = dict(zip(MEASURED_COLUMNS, kept.T, strict=True))
    assert not named["R_Amp_V2"].isnan().all()
    assert not named["HR__Global"].isnan().any()
    assert named["R_Amp_II"].isnan().all()
    assert all(named[angle].isnan().all() for angle in ANGLES)
    there[:, 1] = True
    kept = of_leads(measured, there, LEADS)
    assert not kept[:, MEASURED_COLUMNS.index("QRS_AxisFront_Global")].isnan().all()


def test_angles_become_points_on_a_circle() -> None:
    row = torch.full((1, len(MEASURED_COLUMNS)), float("nan"))
    row[0, MEASURED_COLUMNS.index("QRS_AxisFront_Global")] = 180.0
    told = dict(zip(NUMBERS, numbers(row)[0].tolist(), strict=True))
    assert told["QRS_AxisFront_Global:cos"] == pytest.approx(-1)
    assert told["QRS_AxisFront_Global:sin"] == pytest.approx(0, abs=1e-6)


def test_the_branch_takes_centre_and_spread_from_what_was_measured() -> None:
    branch = MeasuredBranch(8, 3, 0.0).eval()
    table = torch.full((50, len(MEASURED_COLUMNS)), float("nan"))
    table[:, 0] = torch.arange(50.0)
    branch.standardise(table)
    assert float(branch.centre[0]) == pytest.approx(24.5)
    assert float(branch.spread[0]) > 10
    assert float(branch.centre[1]) == 0
    assert float(branch.spread[1]) == 1
    assert branch(table).isfinite().all()


def test_a_value_is_told_as_it_was_measured_and_the_rest_is_the_mean_of_both(signals: list[np.ndarray]) -> None:
    encoder = small_encoder()
    values, mask = batch_of(signals)
    with torch.inference_mode():
        told = encoder(values, mask)
        seen, concluded = told.branches
        again = encoder(values, mask, measure_batch(values, mask, LEADS, 100))
    assert torch.equal(told.outputs, again.outputs), "measured here or given"
    assert torch.allclose(told.outputs[:, :4], (seen + concluded)[:, :4] / 2)
    rate = measure_batch(values, mask, LEADS, 100)[:, MEASURED_COLUMNS.index("HR__Global")]
    target = encoder.config.targets[4]
    assert torch.allclose(told.outputs[:, 4], ((rate - target.mean) / target.scale).clamp(-5, 5))


def test_where_nothing_was_measured_the_waveform_alone_is_heard(signals: list[np.ndarray]) -> None:
    encoder = small_encoder()
    values, mask = batch_of(signals)
    with torch.inference_mode():
        told = encoder(values, mask, torch.full((len(values), len(MEASURED_COLUMNS)), float("nan")))
    assert torch.equal(told.outputs, told.branches[0])


def test_a_width_of_0_leaves_the_branch_out(signals: list[np.ndarray]) -> None:
    config = EncoderConfig(
        widths=(8, 8, 12, 16), query_width=8, measured_width=0, targets=small_encoder().config.targets
    )
    encoder = Encoder(WANTED, config).eval()
    assert not any(name.startswith("measured.") for name in encoder.state_dict())
    with torch.inference_mode():
        assert len(encoder(*batch_of(signals)).branches) == 1


def test_a_model_trained_on_other_measurements_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="trained on measurements version 1; this ecglm takes version"):
        ECGLM.load(saved(tmp_path / "model", measurements_version=1))


# ---------------------------------------------------------------------------------------- questions made while training

_CONDITION = re.compile(
    r"an? (?P<what>[\w() ]+?) (?:of )?"
    r"(?P<how>above|more than|greater than|at least|below|less than|smaller than|at most|between|from)?"
    r" ?(?P<limit>-?[\d.]+)(?: ms|/min|°| mV)(?P<more> or more)?(?P<less> or less)?"
    r"(?: (?:and|to) (?P<other>-?[\d.]+)°)?(?=, | and |\?|$)"
)


def test_conditions_hold_as_they_are_answered() -> None:
    targets = (
        Target(name="SR", token="SR", kind="statement"),
        Target(name="HR__Global", token="HR__Global", kind="value", mean=75, scale=20),
        Target(name="PR_Int_Global", token="PR_Int_Global", kind="value", mean=160, scale=30),
        Target(name="QRS_AxisFront_Global:cos", token="QRS_AxisFront_Global", kind="value", mean=0.5, scale=0.5),
        Target(name="QRS_AxisFront_Global:sin", token="QRS_AxisFront_Global", kind="value", mean=0.2, scale=0.5),
        Target(name="R_Amp_V5", token="lead:V5", kind="value", mean=1.2, scale=0.5),
    )
    random = np.random.default_rng(3)
    rate, pr = random.normal(75, 20, 40), random.normal(160, 30, 40)
    angle, height = random.uniform(-179, 179, 40), random.normal(1.2, 0.5, 40)
    raw = np.stack([rate, pr, np.cos(np.radians(angle)), np.sin(np.radians(angle)), height], 1)
    values = np.concatenate([random.integers(0, 2, (40, 1)), raw], 1).astype(np.float32)
    for number, target in enumerate(targets[1:], 1):
        values[:, number] = (values[:, number] - target.mean) / target.scale
    config = EncoderConfig(targets=targets)
    codec = Codec(train_tokenizer(["Does this ECG show"] * 3 + ["yes", "no"] * 9, 300, Markers()), Markers())
    named = NamedQuestions(codec, config, [f"e{row}" for row in range(40)], values)
    asked = ConditionQuestions(named, config, values)
    assert asked.about(("e1", "e2"), 3, random, {}) == []
    assert asked.about(("unknown",), 3, random, {}) == []
    measured = {"heart rate": rate, "ventricular rate": rate, "PR interval": pr, "frontal QRS axis": angle}
    measured |= {"R amplitude in V5": height, "time from the onset of P to the onset of QRS": pr}
    known = [each.name for each in quantities(config)]
    quantity = {
        "heart rate": "HR__Global",
        "ventricular rate": "HR__Global",
        "frontal QRS axis": "QRS_AxisFront_Global",
    }
    quantity |= {"R amplitude in V5": "R_Amp_V5"}
    quantity |= dict.fromkeys(("PR interval", "time from the onset of P to the onset of QRS"), "PR_Int_Global")
    n, n_yes, n_several = 0, 0, 0
    for row in range(40):
        for branch in asked.about((f"e{row}",), 12, random, {}):
            text = codec.decode(branch.tokens)
            found = list(_CONDITION.finditer(text))
            holds = [_holds(match, float(measured[match["what"]][row])) for match in found]
            if "sinus rhythm" in text:
                holds.append(values[row, 0] > 0.5)
            numbers = [text for match in found for text in (match["limit"], match["other"]) if text]
            assert list(codec.numbers(branch.tokens).values()) == [float(number) for number in numbers]
            limited = [known[place] for place in branch.compared]
            assert limited == [quantity[m["what"]] for m in found for other in ("limit", "other") if m[other]]
            (answer,) = branch.children
            assert len(holds) == len(answer.about), text
            assert (answer.tokens[-1] == codec.yes) == all(holds), text
            n, n_yes, n_several = n + 1, n_yes + all(holds), n_several + (len(holds) > 1)
    assert n > 200
    assert 0.35 < n_yes / n < 0.65
    assert n_several > 50


def _holds(match: re.Match[str], value: float) -> bool:
    limit = float(match["limit"])
    if match["how"] in ("between", "from"):
        low, high = sorted((limit, float(match["other"])))
        return low < value < high
    above = match["how"] in ("above", "more than", "greater than", "at least") or match["more"]
    assert above or match["how"] in ("below", "less than", "smaller than", "at most") or match["less"]
    return value > limit if above else value < limit


def test_no_condition_names_a_statement_that_is_withheld() -> None:
    config = read_train_config(Path("unseen"))
    targets = tuple(t.model_copy(update={"mean": 1.0, "scale": 2.0}) for t in likely_targets(config))
    random = np.random.default_rng(0)
    values = random.normal(size=(20, len(targets))).astype(np.float32)
    encoder = EncoderConfig(targets=targets)
    codec = Codec(train_tokenizer(["Does this ECG show"] * 3 + ["yes", "no"] * 9, 300, Markers()), Markers())
    named = NamedQuestions(codec, encoder, [str(row) for row in range(20)], values, config.withheld)
    asked = ConditionQuestions(named, encoder, values)
    assert len(named.phrases) > 30
    assert "voltage criteria for left ventricular hypertrophy" not in named.phrases
    pattern = mention_pattern(config.withheld)
    told = {str(row): values[row] for row in range(20)}
    for row in range(20):
        for branch in asked.about((str(row),), 20, random, {}) + named.about((str(row),), 60, random, told):
            assert not pattern.search(codec.decode(branch.tokens))
