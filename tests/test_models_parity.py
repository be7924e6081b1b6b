"""What a model says depends on the ECG and the question alone: not on padding, nor on what else is asked beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_encoder, small_model
from torch import Tensor

from ecglm.bench.task import read_tasks
from ecglm.models.ecg_lm import OPEN_GATE
from ecglm.models.ecglm import ECGLM, YES_NO, Asked, _decided
from ecglm.models.encoder import EncoderConfig, Target, padded
from ecglm.models.llama import Cache, Llama, LlamaSize
from ecglm.models.packing import Branch, attention, pack
from ecglm.models.stages.told import NamedQuestions
from ecglm.models.wording import CLASS_PHRASES, TokenNames

QUESTIONS = ("Does this ECG show atrial fibrillation?", "Is this a normal ECG?", "Is the rate above 72/min?")
OPTIONS = ("sinus rhythm", "none", "a rate below 90/min")


@pytest.fixture(scope="module")
def lm() -> ECGLM:
    return small_model()


def tokens_of(lm: ECGLM, n: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(n, lm.model.encoder.n_tokens, lm.model.encoder.token_width)


def alone(lm: ECGLM, tokens: Tensor, ids: list[int]) -> float:
    """Logit of yes minus no after one plain sequence: ECG tokens, then text, each seeing all before it."""
    model = lm.model
    prefix = model.prefix([[0]], tokens[None])
    embedded = torch.cat([prefix.embedded, model.embedding(torch.tensor([ids]))], 1)
    states = model._decode(prefix, prefix.embedded.shape[1], model.numbers([ids]), embedded)
    logits = model.logits(states[0, -1])
    return float(logits[model.codec.yes] - logits[model.codec.no])


@torch.inference_mode()
def test_a_question_among_others_scores_as_it_does_alone(lm: ECGLM) -> None:
    codec, tokens = lm.model.codec, tokens_of(lm, 2)
    branches = [Branch([*codec.user, *codec.encode(question), *codec.short]) for question in QUESTIONS]
    judged = [Branch([*codec.option, *codec.encode(option), *codec.short]) for option in OPTIONS]
    branches.append(Branch([*codec.user, *codec.encode("What rhythm?")], children=judged))
    prefix = lm.model.prefix([[0], [1]], tokens)
    found = lm.model.yes_minus_no(prefix, [branches, branches[1:]])
    texts = [list(branch.tokens) for branch in branches[:3]]
    texts += [[*branches[3].tokens, *option.tokens] for option in judged]
    for row, some in ((0, texts), (1, texts[1:])):
        expected = [alone(lm, tokens[row], text) for text in some]
        assert found[row].tolist() == pytest.approx(expected, abs=4e-6)
    assert len({round(value, 5) for value in found[0].tolist()}) == 6, "six different questions"
    assert abs(found[0][1] - found[1][0]) > 1e-4, "of two different ECGs"


@torch.inference_mode()
def test_what_must_not_be_seen_is_not_seen() -> None:
    packed = pack([[Branch([1, 2], children=[Branch([3]), Branch([4])]), Branch([5])]])
    seen = attention(packed, 1, torch.ones(1, 1, dtype=torch.bool))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]


def test_answers_do_not_depend_on_the_batch_they_are_in(lm: ECGLM) -> None:
    tokens = tokens_of(lm, 3)
    asked = [Asked((row,), question, YES_NO) for row in range(3) for question in QUESTIONS]
    asked += [Asked((0, 1), "Which changed?", OPTIONS, True), Asked((1, 0), "Which changed?", OPTIONS, True)]
    together = lm.answer_all(tokens, asked)
    for each, answer in zip(asked, together, strict=True):
        (single,) = lm.answer_all(tokens, [each])
        assert answer.scores == pytest.approx(single.scores, abs=4e-3), "within what bfloat16 tells apart"
    assert together[-1].scores != pytest.approx(together[-2].scores, abs=1e-6), "the order of two ECGs matters"
    blank = lm.answer_all(tokens, asked[:9], blank=True)
    assert [a.scores for a in blank[:3]] == [a.scores for a in blank[3:6]] == [a.scores for a in blank[6:]]


@torch.inference_mode()
def test_padding_a_recording_changes_nothing() -> None:
    encoder = small_encoder()
    torch.manual_seed(1)
    for n_samples in (200, 613, 1000):
        values, mask = torch.randn(12, n_samples), torch.ones(12, n_samples, dtype=torch.bool)
        longer = torch.randn(12, 1537), torch.ones(12, 1537, dtype=torch.bool)
        plain = encoder(values[None], mask[None])
        both = encoder(*padded([(values, mask), longer]))
        for name in ("outputs", "embedding", "tokens"):
            assert torch.allclose(getattr(plain, name)[0], getattr(both, name)[0], atol=1e-5), (n_samples, name)


@torch.inference_mode()
def test_what_was_not_recorded_takes_part_in_nothing() -> None:
    encoder = small_encoder()
    torch.manual_seed(2)
    values, mask = torch.randn(1, 12, 1000), torch.ones(1, 12, 1000, dtype=torch.bool)
    mask[:, 6:] = False
    junk = torch.where(mask, values, 1000 * torch.randn(values.shape))
    assert torch.equal(encoder(values * mask, mask).outputs, encoder(junk, mask).outputs)
    assert not torch.allclose(encoder(values * mask, mask).outputs, encoder(values * mask, mask | True).outputs)


@torch.inference_mode()
def test_the_built_in_model_is_llama_as_hugging_face_has_it() -> None:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ours = Llama(LlamaSize(vocabulary=50, width=32, inner_width=48, layers=3, heads=4)).eval()
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.load_state_dict(ours.state_dict())
    inputs, seen = torch.randn(2, 9, 32), torch.rand(2, 1, 9, 9) > 0.4
    seen, places = seen | torch.eye(9, dtype=torch.bool), torch.randint(0, 20, (2, 9))
    mine = ours.model(inputs, seen, places).last_hidden_state
    other = theirs.model(inputs_embeds=inputs, attention_mask=seen, position_ids=places, use_cache=False)
    assert torch.allclose(mine, other.last_hidden_state, atol=1e-6)
    assert torch.allclose(ours.lm_head(mine), theirs.lm_head(other.last_hidden_state), atol=1e-5)
    cache, their_cache = Cache(), DynamicCache()
    for part in (inputs[:1, :5], inputs[:1, 5:6], inputs[:1, 6:7]):
        mine = ours.model(part, past_key_values=cache).last_hidden_state
        told = theirs.model(inputs_embeds=part, past_key_values=their_cache, use_cache=True)
        assert torch.allclose(mine, told.last_hidden_state, atol=1e-6)


# --------------------------------------------------------------------------------------------------- where a text looks


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Does this ECG show atrial fibrillation?", ["AFIB"]),
        ("Incomplete left bundle branch block or complete left bundle branch block?", ["ILBBB", "CLBBB"]),
        ("Is there a first-degree AV block, and what is the PR interval?", ["1AVB", "PR_Int_Global"]),
        ("Is static noise seen in lead V1?", ["noise:static_noise", "lead:V1"]),
        ("Supraventricular extrasystoles?", ["extra_beats"]),
        ("Is a conduction disturbance diagnosed?", ["superclass:CD"]),
        ("Describe what you see.", []),
    ],
)
def test_a_text_names_ecg_tokens_by_any_of_their_names(text: str, tokens: list[str]) -> None:
    known = ["AFIB", "CLBBB", "ILBBB", "1AVB", "PR_Int_Global", "noise:static_noise", "lead:V1", "extra_beats"]
    known.append("superclass:CD")
    config = EncoderConfig(targets=tuple(Target(name=name, token=name, kind="finding") for name in known))
    assert [config.tokens[place] for place in TokenNames(config).found(text)] == tokens


@torch.inference_mode()
def test_looking_is_judged_where_the_answer_begins(lm: ECGLM) -> None:
    model, codec = lm.model, lm.model.codec
    answer = [*codec.short, codec.yes]
    learned = [False] * len(codec.short) + [True]
    branch = Branch([*codec.user, *codec.encode(QUESTIONS[0])], children=[Branch(answer, learned, about=(1, 2))])
    packed = pack([[Branch([*codec.user, *codec.encode("Who?")])], [branch]])
    assert packed.about == [(1, packed.targets[1].ne(-100).nonzero().item(), (1, 2))]
    prefix = model.prefix([[0], [1]], tokens_of(lm, 2))
    looks = model.loss(prefix, packed).looks
    assert model._looked is not None
    row, place, _ = packed.about[0]
    assert float(looks) == pytest.approx(-float(model._looked[row, place, [1, 2]].sum().log()), abs=1e-5)
    nothing = model.loss(prefix, pack([[Branch([1, 5], [False, True])], [Branch([1, 5], [False, True])]]))
    assert float(nothing.looks) == float(nothing.verdicts) == 0


@torch.inference_mode()
def test_a_verdict_is_learned_as_the_logit_that_an_answer_is_scored_by(lm: ECGLM) -> None:
    model, codec = lm.model, lm.model.codec
    texts = [[*codec.user, *codec.encode(question), *codec.short] for question in QUESTIONS[:2]]
    prefix = model.prefix([[0]], tokens_of(lm, 1))
    logits = model.yes_minus_no(prefix, [[Branch(text) for text in texts]])[0]
    wanted = logits + torch.tensor([0.5, -3.0])
    branches = [Branch(text, verdict=float(each), about=(1,)) for text, each in zip(texts, wanted, strict=True)]
    packed = pack([branches])
    assert [place for _, place, _ in packed.about] == packed.last[0]
    losses = model.loss(prefix, packed)
    assert float(losses.verdicts) == pytest.approx((0.5**2 / 2 + 3 - 0.5) / 2, abs=0.02)  # smooth L1 of bfloat16 logits
    assert float(losses.answers) == 0
    assert float(losses.looks) > 0


@torch.inference_mode()
def test_what_an_ecg_token_says_reaches_the_answer_through_the_reader_alone(lm: ECGLM) -> None:
    model, codec = lm.model, lm.model.codec
    branches = [Branch([*codec.user, *codec.encode(QUESTIONS[0]), *codec.short])]
    prefix = model.prefix([[0], [1]], tokens_of(lm, 2))
    prefix.embedded[:] = 0  # the language model itself sees nothing
    first, second = (float(found[0]) for found in model.yes_minus_no(prefix, [branches, branches]))
    assert abs(first - second) > 1e-5
    model.reader.gate.data.zero_()
    first, second = (float(found[0]) for found in model.yes_minus_no(prefix, [branches, branches]))
    model.reader.gate.data.fill_(OPEN_GATE)
    assert first == pytest.approx(second, abs=1e-6)


@given(
    st.lists(st.floats(-8, 8), min_size=1, max_size=5),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([0.3, 0.5, 0.9]),
)
def test_none_is_chosen_where_no_other_option_is_and_only_there(
    logits: list[float], place: int, multiple: bool, threshold: float
) -> None:
    place = min(place, len(logits))
    options = [f"option {number}" for number in range(len(logits))]
    options.insert(place, "none")
    told = torch.zeros(len(options), 3)
    told[:, 0] = torch.tensor([*logits[:place], 7.0, *logits[place:]])
    answered = _decided(Asked((0,), "Which?", tuple(options), multiple), told, threshold)
    needed = math.log(threshold / (1 - threshold)) if multiple else 0.0
    above = [option for option, logit in zip(options, told[:, 0].tolist(), strict=True) if logit > needed]
    others = [option for option in above if option != "none"]
    chosen = answered.text.split(", ")
    assert chosen == (others if multiple and others else chosen[:1])
    assert (chosen == ["none"]) == (not others) or math.isclose(max(logits), needed, abs_tol=1e-6)


@torch.inference_mode()
def test_verdicts_do_not_tie(lm: ECGLM) -> None:
    tokens = tokens_of(lm, 64)
    asked = [Asked((row,), question, YES_NO) for row in range(64) for question in QUESTIONS]
    scores = [answered.scores for answered in lm.answer_all(tokens, asked)]
    assert len(set(scores)) > 0.98 * len(scores), "bfloat16 has 256 numbers between 1 and 2"


@torch.inference_mode()
def test_yes_and_no_are_answered_in_any_order_and_beside_not_sure(lm: ECGLM) -> None:
    tokens = tokens_of(lm, 1)
    orders = [("yes", "no"), ("no", "yes"), ("no", "not sure", "yes"), ("yes", "no", "not sure")]
    told = [lm.answer_all(tokens, [Asked((0,), QUESTIONS[0], options)])[0] for options in orders]
    scores = [dict(zip(options, each.scores or (), strict=True)) for options, each in zip(orders, told, strict=True)]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[2] == pytest.approx(scores[3])
    for each, found in zip(told, scores, strict=True):
        assert sum(found.values()) == pytest.approx(1)
        assert each.text == max(found, key=found.__getitem__)
    assert (scores[2]["not sure"] == 0) == (lm.model.codec.unsure is None)
    ratio = scores[0]["yes"] / scores[0]["no"]
    assert scores[2]["yes"] / scores[2]["no"] == pytest.approx(ratio, rel=1e-4)


def test_classes_are_called_what_the_tasks_call_them() -> None:
    tasks = read_tasks()[0]
    for kind in ("superclass", "subclass"):
        names = tasks[f"ptbxl-{kind.removesuffix('class')}diagnostic"].task.names
        told = {f"{kind}:{code}": words.phrase for code, words in names.items() if code != "NORM"}
        assert told == {token: phrase for token, phrase in CLASS_PHRASES.items() if token.startswith(f"{kind}:")}


def test_questions_about_tokens_are_answered_by_what_the_encoder_was_trained_on(lm: ECGLM) -> None:
    names = ["AFIB", "CLBBB", "NORM", "LVH", "superclass:MI", "extra_beats:any"]
    targets = [Target(name=n, token=n, kind="statement" if n.isupper() else "finding") for n in names]
    values = np.array([[1, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0]], np.float32)
    asked = NamedQuestions(lm.model.codec, EncoderConfig(targets=tuple(targets)), ["a", "b"], values)
    chance = np.random.default_rng(0)
    told = {"a": np.array([3.0, -1, -2, 0.5, 2, 9]), "b": np.array([-3.0, 1, 2, -0.5, -2, 9])}
    assert asked.about(("a", "b"), 4, chance, told) == []
    assert asked.about(("c",), 4, chance, told) == []
    assert asked.about(("a",), 4, chance, {}) == []
    for ecg_id in "ab":
        branches = asked.about((ecg_id,), 4, chance, told)
        assert len(branches) == 4
        for branch in branches:
            (token,) = branch.about
            assert branch.verdict == told[ecg_id][token]
            assert "extra" not in lm.model.codec.decode(branch.tokens)
    shown = [branch.about[0] for branch in asked.about(("a",), 4, chance, told)]
    assert sum(bool(values[0, token]) for token in shown) == 2
