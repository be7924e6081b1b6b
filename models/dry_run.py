"""`ecglm train --dry-run`: size, memory and time of a run before it starts; needs neither corpus nor weights.

Time is that of one step of each stage on made-up tensors of the sizes the configuration names. A language model of a
folder is laid out without weights: its memory is counted, and its time worked out from the operations of a step and how
many of them a matrix product on this machine does in a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ecglm.models.comparing import Comparer
from ecglm.models.config import BuiltIn, EncoderStage, Folder, Lora, TrainConfig
from ecglm.models.ecg_lm import PREFIX_TOKENS, EcgLanguageModel, Projector, Reader, Resampler, built_in_language_model
from ecglm.models.encoder import Encoder, Target
from ecglm.models.language_models import laid_out
from ecglm.models.loop import Optimisation
from ecglm.models.measured import ANGLES
from ecglm.models.packing import Branch, pack
from ecglm.models.stages.conversation import ConversationConfig, Trained
from ecglm.models.stages.measured_only import MeasuredOnly
from ecglm.models.targets import AXES, EXTRA_BEATS, GLOBAL_VALUES, LEAD_VALUES, STAGES
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.synth.guidelines import load_guidelines
from ecglm.synth.measure import MEASURED_COLUMNS
from ecglm.synth.schema import LEADS, NOISE_COLUMNS

SECONDS = 10
"""Length of a made-up recording."""
QUESTION_TOKENS, ANSWER_TOKENS = 16, 4
"""Of a made-up question with its answer, about what the templates give."""
BYTES = {"float32": 4, "bfloat16": 2}
_ADAM = 2
"""Moments kept for each trained number."""


def dry_run(config: TrainConfig) -> dict[str, Any]:
    """What a run would take, as plain data.

    Raises:
        ModelError: a folder that is no causal language model.
    """
    torch.manual_seed(config.seed)
    encoder = Encoder(config.preprocessing, config.encoder.model_copy(update={"targets": likely_targets(config)}))
    stages: list[dict[str, Any]] = []
    if config.pretraining is not None:
        stages += _measured_stage(config.pretraining, encoder)
        stages.append(_encoder_stage(config, config.pretraining, encoder))
    folder = config.language_model.folder
    if folder is None:
        assert config.language_model.built_in is not None  # noqa: S101 - one of them is given
        model = _built_in(config, config.language_model.built_in, encoder)
        parameters = {part: count(module) for part, module in model.named_children()}
        stages += [_conversation_stage(config, model, how) for how in config.stages]
        weights = BYTES["float32"] * sum(parameters.values())
    else:
        language_model = laid_out(folder)
        width = language_model.get_input_embeddings().weight.shape[1]
        projector = Projector(encoder.token_width, encoder.n_slots, encoder.n_tokens, width)
        beside = Resampler(width), Reader(width, 0.0), Comparer(encoder.config, width, 0.0)
        parameters = {
            "encoder": count(encoder),
            "projector": count(projector) + sum(count(each) for each in beside),
            "language_model": count(language_model),
            "adapters": adapter_size(language_model, folder.lora),
        }
        speed = operations_per_second()
        stages += [_folder_stage(encoder, language_model, folder, parameters, how, speed) for how in config.stages]
        small = parameters["encoder"] + parameters["projector"] + parameters["adapters"]
        weights = BYTES["bfloat16"] * parameters["language_model"] + BYTES["float32"] * small
    return {
        "name": config.name,
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "weights_gib": gib(weights),
        "stages": stages,
        "memory_gib": gib(weights) + max(stage["training_gib"] for stage in stages),
        "seconds": sum(stage["seconds"] for stage in stages),
    }


def likely_targets(config: TrainConfig) -> tuple[Target, ...]:
    """What the encoder would be trained to tell if the corpus had every statement, finding and value."""
    by_code = load_guidelines(check_sql=False).by_code
    kinds = {"diagnostic", "form", "rhythm"}
    codes = [code for code, each in by_code.items() if kinds & set(each.kinds) and code not in config.withheld]
    told: list[tuple[str, str, str]] = [(code, code, "statement") for code in codes]
    if not config.withheld:
        told += [(f"{kind}:{lead}", f"lead:{lead}", "finding") for kind in NOISE_COLUMNS for lead in LEADS]
        told += [(f"extra_beats:{name}", "extra_beats", "finding") for name in EXTRA_BEATS]
        told += [(f"infarction_stage:{name}", "infarction_stage", "finding") for name in STAGES]
        told += [(f"heart_axis:{name}", "heart_axis", "finding") for name in AXES]
    told += [(name, name, "value") for name in GLOBAL_VALUES]
    told += [(f"{name}:{part}", name, "value") for name in ANGLES for part in ("cos", "sin")]
    told += [(f"{name}_{lead}", f"lead:{lead}", "value") for lead in LEADS for name in LEAD_VALUES]
    return tuple(Target.model_validate({"name": name, "token": token, "kind": kind}) for name, token, kind in told)


def count(module: nn.Module) -> int:
    """Parameters of a module, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def gib(n_bytes: float) -> float:
    """Bytes in GiB."""
    return n_bytes / 2**30


# ------------------------------------------------------------------------------------------------------ steps, for real


def _measured_stage(pretraining: EncoderStage, encoder: Encoder) -> list[dict[str, Any]]:
    branch, how = encoder.measured, pretraining.measured
    if branch is None or pretraining.method != "supervised":
        return []
    seconds, kept = _timed(branch.parameters(), how, lambda: branch(_measured(how.batch)).square().mean())
    stage = _stage(MeasuredOnly.name, how, branch, seconds, kept)
    branch.requires_grad_(False)
    return [stage]


def _encoder_stage(config: TrainConfig, pretraining: EncoderStage, encoder: Encoder) -> dict[str, Any]:
    how = pretraining.optimisation
    views = 2 if pretraining.method == "simclr" else 1
    values = torch.randn(how.batch, len(config.preprocessing.leads), SECONDS * config.preprocessing.sampling_hz)
    mask = torch.ones_like(values, dtype=torch.bool)
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encoder(values, mask, _measured(how.batch))
        total: Tensor = views * (encoded.outputs.square().mean() + encoded.embedding.float().square().mean())
        return total

    seconds, kept = _timed((each for each in encoder.parameters() if each.requires_grad), how, loss)
    return _stage("encoder", how, encoder, views * seconds, views * kept)


def _built_in(config: TrainConfig, size: BuiltIn, encoder: Encoder) -> EcgLanguageModel:
    codec = Codec(train_tokenizer(["yes", "no"], 300, Markers()), Markers())
    return EcgLanguageModel(encoder, built_in_language_model(size.model_dump(), size.vocabulary), codec)


def _conversation_stage(config: TrainConfig, model: EcgLanguageModel, how: ConversationConfig) -> dict[str, Any]:
    module = Trained(model, how.trains)
    batch = how.optimisation.batch
    values = torch.randn(batch, len(config.preprocessing.leads), SECONDS * config.preprocessing.sampling_hz)
    packed = pack([[_made_up_branch() for _ in range(_branches(how))]] * batch)

    def loss() -> Tensor:
        with model.autocast():
            tokens = model.encode(values, torch.ones_like(values, dtype=torch.bool), _measured(batch))
            return model.loss(model.prefix([[row] for row in range(batch)], tokens, how.blank), packed).total

    model.encoder.eval()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    seconds, kept = _timed(trained, how.optimisation, loss)
    return _stage(how.name, how.optimisation, module, seconds, kept)


def _measured(batch: int) -> Tensor:
    """Made-up measurements: training takes them once, before it begins."""
    return torch.zeros(batch, len(MEASURED_COLUMNS))


def _branches(how: ConversationConfig) -> int:
    """Questions about one ECG: those of the corpus, and those made while training."""
    return how.questions + how.named + how.conditions


def _made_up_branch() -> Branch:
    answer = Branch([7] * (1 + ANSWER_TOKENS), [False] + [True] * ANSWER_TOKENS)
    return Branch([7] * QUESTION_TOKENS, children=[answer])


def _timed(parameters: Iterable[nn.Parameter], how: Optimisation, loss: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of a step once it is warm, and bytes kept from forward for backward."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=how.learning_rate)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seconds = time.perf_counter() - started
    optimiser.zero_grad(set_to_none=True)
    return seconds, float(sum(kept.values()))


def _stage(name: str, how: Optimisation, module: nn.Module, step_s: float, kept: float) -> dict[str, Any]:
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return _told(name, how, trained, step_s, kept)


def _told(name: str, how: Optimisation, trained: int, step_s: float, kept: float) -> dict[str, Any]:
    copies = 1 + _ADAM + (1 if how.average else 0)  # gradient, moments, moving average
    return {
        "name": name,
        "trained_parameters": trained,
        "steps": how.steps,
        "batch": how.batch,
        "step_s": step_s,
        "seconds": step_s * how.steps,
        "training_gib": gib(copies * BYTES["float32"] * trained + kept),
    }


# -------------------------------------------------------------------------------------- a folder, worked out on paper


def adapter_size(language_model: Any, lora: Lora | None) -> int:
    """Parameters that low-rank adapters add: rank · (inputs + outputs) of each layer they are put on."""
    if lora is None:
        return 0
    layers = [
        module
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.modules
    ]
    return sum(lora.rank * (layer.in_features + layer.out_features) for layer in layers)


def operations_per_second() -> float:
    """Multiplications and additions of a bfloat16 matrix product on the device here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = 0.0
    for _ in range(3):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the result
        seconds = time.perf_counter() - started
    return 2 * size**3 / seconds


def _folder_stage(
    encoder: Encoder,
    language_model: Any,
    folder: Folder,
    parameters: dict[str, int],
    how: ConversationConfig,
    speed: float,
) -> dict[str, Any]:
    text = _branches(how) * (QUESTION_TOKENS + 1 + ANSWER_TOKENS)
    tokens = how.optimisation.batch * (PREFIX_TOKENS + text)
    n = parameters["language_model"]
    trains_language = "language_model" in how.trains
    adapted = parameters["adapters"] if folder.lora is not None else n
    trained = (parameters["projector"] if "projector" in how.trains else 0) + (adapted if trains_language else 0)
    # forward 2, gradient of what flows through 2, of the weights themselves 2; checkpointing goes forward once more
    per_token = n * (2 + 2 + (2 if trains_language and folder.lora is None else 0) + 2 * folder.gradient_checkpointing)
    config = language_model.config
    width, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    within_a_layer = 8 * width + 3 * inner
    at_once = layers * width + within_a_layer if folder.gradient_checkpointing else layers * within_a_layer
    kept = (
        BYTES["bfloat16"] * tokens * at_once + 2 * BYTES["float32"] * how.optimisation.batch * text * config.vocab_size
    )
    return _told(how.name, how.optimisation, trained, per_token * tokens / speed, kept)


# -------------------------------------------------------------------------------------------------------------- to read


def print_plan(told: dict[str, Any]) -> None:
    """The same for people."""
    print(f"{told['name']}: nothing is trained")
    for part, n in told["parameters"].items():
        print(f"  {part:16} {n:>15,} parameters")
    print(f"  weights {told['weights_gib']:.2f} GiB")
    print(f"  {'stage':12} {'trained':>13} {'steps':>6} {'batch':>6} {'s/step':>8} {'minutes':>8} {'GiB':>6}")
    for stage in told["stages"]:
        print(
            f"  {stage['name']:12} {stage['trained_parameters']:>13,} {stage['steps']:>6,} {stage['batch']:>6}"
            f" {stage['step_s']:>8.2f} {stage['seconds'] / 60:>8.1f} {stage['training_gib']:>6.2f}"
        )
    print(
        f"about {told['seconds'] / 60:.0f} minutes on {told['device']}, {told['threads']} threads, and"
        f" {told['memory_gib']:.1f} GiB of tensors; libraries, reading pairs and waveforms, and validation come on top"
    )
