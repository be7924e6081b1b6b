"""Numbers in a text beside what was measured."""

from __future__ import annotations

import math

import pytest
import small_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_encoder

from ecglm.models.comparing import Comparer, in_units, quantities
from ecglm.models.ecg_lm import EcgLanguageModel, built_in_language_model
from ecglm.models.encoder import EncoderConfig, Target
from ecglm.models.packing import Branch, pack
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.synth.errors import ModelError

TARGETS = (
    Target(name="SR", token="SR", kind="statement"),
    Target(name="HR__Global", token="HR__Global", kind="value", mean=75, scale=20),
    Target(name="QRS_AxisFront_Global:cos", token="QRS_AxisFront_Global", kind="value", mean=0.5, scale=0.5),
    Target(name="QRS_AxisFront_Global:sin", token="QRS_AxisFront_Global", kind="value", mean=0.25, scale=0.5),
    Target(name="R_Amp_V5", token="lead:V5", kind="value", mean=1.2, scale=0.5),
)
CONFIG = EncoderConfig(targets=TARGETS)


@pytest.fixture(scope="module")
def codec() -> Codec:
    texts = ["Does this ECG show a PR interval above 200 ms?"] * 9 + ["yes", "no"] * 9
    return Codec(train_tokenizer(texts, 320, Markers()), Markers())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a PR interval of more than 200 ms in V4?", [200]),
        ("an axis between -45° and −90°", [-45, -90]),
        ("60-100/min", [60, 100]),
        ("0.2 s, 1.5s or 500 µV, not 12 mV", [200, 1500, 0.5, 12]),
        ("5 steps of 3 V1 beats", [5, 3]),
        ("at 0.50 mV.", [0.5]),
        ("V1 to V6, 12SL, II", [12]),
        ("none", []),
        ("", []),
    ],
)
def test_numbers_are_read_with_their_sign_and_unit(codec: Codec, text: str, numbers: list[float]) -> None:
    assert list(codec.numbers(codec.encode(text)).values()) == pytest.approx(numbers)


@given(st.floats(-999, 999).map(lambda number: round(number, 2)), st.sampled_from(["mV", "/min", "°", "ms"]))
def test_a_number_is_where_its_last_digit_is(codec: Codec, number: float, unit: str) -> None:
    tokens = codec.encode(f"Is it above {number} {unit}?")
    ((place, found),) = codec.numbers(tokens).items()
    assert found == number
    assert codec.decode(tokens[: place + 1]) == f"Is it above {number}"


def test_a_marker_parts_numbers(codec: Codec) -> None:
    tokens = [*codec.user, *codec.encode("above 1"), *codec.user, *codec.encode("0 of 2")]
    assert list(codec.numbers(tokens).values()) == [1, 0, 2]


def test_what_is_told_is_given_in_units() -> None:
    known = quantities(CONFIG)
    assert [(each.name, each.token, each.targets) for each in known] == [
        ("HR__Global", 1, (1,)),
        ("QRS_AxisFront_Global", 2, (2, 3)),
        ("R_Amp_V5", 3, (4,)),
    ]
    angle = math.radians(-120)
    told = torch.tensor([[9.0, 1, (math.cos(angle) - 0.5) / 0.5, (math.sin(angle) - 0.25) / 0.5, -1]])
    assert in_units(CONFIG, told)[0].tolist() == pytest.approx([95, -120, 0.7], abs=1e-4)
    assert in_units(EncoderConfig(), torch.zeros(2, 0)).shape == (2, 0)


def looking_at(quantity: int) -> Comparer:
    """A comparer whose every number looks at one quantity."""
    comparer = Comparer(CONFIG, 8, 1.0).eval()
    with torch.no_grad():
        comparer.names.zero_()
        comparer.names[:, 1] = -1
        comparer.names[quantity] = torch.eye(8)[0]
        comparer.key.weight.copy_(torch.eye(8))
        comparer.query.weight.zero_()
        comparer.query.weight[0, 0] = 1
        comparer.sharpness.fill_(200)
    return comparer


@torch.inference_mode()
@pytest.mark.parametrize(
    ("quantity", "number", "above"), [(0, 94, True), (0, 96, False), (1, 175, True), (1, -175, False), (2, 0.6, True)]
)
def test_a_number_finds_on_which_side_the_measurement_is(quantity: int, number: float, above: bool) -> None:
    torch.manual_seed(0)
    comparer = looking_at(quantity)
    states = torch.zeros(1, 3, 8)
    states[..., 0] = 1
    values = torch.tensor([[[95.0, 178.0, 0.7]]])
    nan = math.nan
    found, weights = comparer(states, torch.tensor([[nan, number, nan]]), values)
    assert weights.argmax(-1).tolist() == [quantity]
    assert not found[0, [0, 2]].any()
    same, _ = comparer(states, torch.tensor([[nan, values[0, 0, quantity] - (1e4 if above else -1e4), nan]]), values)
    other, _ = comparer(states, torch.tensor([[nan, values[0, 0, quantity] + (1e4 if above else -1e4), nan]]), values)
    if quantity != 1:  # an angle is never far away
        assert (found - same).norm() < (found - other).norm()
    mirrored, _ = comparer(states, torch.tensor([[nan, 2 * values[0, 0, quantity] - number, nan]]), values)
    assert torch.allclose(found, -mirrored, atol=1e-5)


@torch.inference_mode()
def test_what_is_not_known_is_on_no_side() -> None:
    comparer = looking_at(0)
    states = torch.ones(1, 1, 8)
    unknown = torch.full((1, 2, 3), math.nan)
    found, _ = comparer(states, torch.tensor([[100.0]]), unknown)
    assert not found.any()
    nothing, weights = comparer(states, torch.tensor([[math.nan]]), torch.ones(1, 1, 3))
    assert not nothing.any()
    assert weights.shape == (0, 3)


@torch.inference_mode()
def test_what_numbers_are_limits_of_is_judged_where_they_end() -> None:
    torch.manual_seed(0)
    encoder = small_encoder((*small_models.TARGETS, *TARGETS[2:]))
    codec = Codec(train_tokenizer(small_models.TEXTS, 400, Markers()), Markers())
    model = EcgLanguageModel(encoder, built_in_language_model(small_models.SIZE, codec.size), codec)
    assert [each.name for each in quantities(encoder.config)] == ["HR__Global", "QRS_AxisFront_Global", "R_Amp_V5"]
    prefix = model.prefix([[0], [1]], torch.randn(2, encoder.n_tokens, encoder.token_width))
    assert prefix.measured.shape == (2, 1, 3)
    first = [*codec.user, *codec.encode("above 100/min")]
    second = [*codec.user, *codec.encode("from -45° to 7°")]
    answer = Branch([*codec.short, codec.yes, *codec.encode("72/min")], [False, True, True, True])
    rows = [[Branch(first, compared=[0])], [Branch(first), Branch(second, compared=[1, 2], children=[answer])]]
    packed = pack(rows)
    losses = model.loss(prefix, packed)
    assert model._compared is not None
    shares = model._compared[[0, 2, 3], [0, 1, 2]]
    assert len(model._compared) == 4, "numbers of questions, not of answers"
    assert float(losses.looks) == pytest.approx(-float(shares.log().mean()), abs=1e-5)
    with pytest.raises(ModelError, match="1 numbers in a question, 2 quantities"):
        model.loss(prefix, pack([[Branch(first, compared=[0, 1])], []]))
