"""`ecglm baseline`: trains what the model is compared with, on the same ECGs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecglm.models.augment import Augmentation
from ecglm.models.baselines.subjects import Cases, cases_of, learn_subjects
from ecglm.models.baselines.trees import fit_trees, measure_waveforms
from ecglm.models.checkpoint import own_tensors, write_tensors
from ecglm.models.config import read_train_config
from ecglm.models.encoder import Encoder
from ecglm.models.fingerprint import fingerprint
from ecglm.models.loop import Optimisation, Trainer, step_seed
from ecglm.models.stages.simclr import SimClr
from ecglm.models.targets import of_statements
from ecglm.models.train import Material, id_ranges, read_material
from ecglm.models.waveforms import Waveforms
from ecglm.synth.errors import ModelError
from ecglm.synth.measure import MEASURED_VERSION

WEIGHTS, ABOUT = "baseline.safetensors", "baseline.json"
SHARES = (0.01, 0.1, 1.0)
"""Of the labels that the linear probe learns from."""
CONFIG = Path(__file__).parents[1] / "configs" / "reference.yaml"
VIEWS = Augmentation(crop=1.0, fewer_leads=0.3, noise=1.0, drift=0.5, gain=0.2)
"""How the two views of SimCLR are varied."""
SIMCLR_BATCH = 128

Progress = Callable[[str, int, int], None]
Tell = Callable[[str], None]


def train_baseline(
    kind: str,
    corpus: Path,
    ecgs: Path,
    out: Path,
    progress: Progress,
    tell: Tell,
    steps: int = 3000,
    leads: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains a baseline; gives what its folder says of it.

    Args:
        kind: trees or simclr.
        corpus: made by `synth build`; its training ECGs and their statements are learned from.
        ecgs: the folder of their waveforms.
        out: folder for the baseline.
        progress: is told how far it is.
        tell: is told what was left out.
        steps: of SimCLR.
        leads: of trees: the leads they know; all if none is named.

    Raises:
        ModelError: there is one already, or what training a model would refuse.
    """
    if (out / ABOUT).is_file():
        raise ModelError(f"{out}: holds a baseline already; choose another folder")
    config = read_train_config(CONFIG, corpus=corpus, ptbxl=ecgs)
    material = read_material(config, corpus, ecgs, tell)
    ecg_ids, table = material.train
    chosen = of_statements(table.targets)
    truth = table.values[:, chosen] > 0.5
    tells = [table.targets[number].name for number in chosen]
    about: dict[str, Any] = {"kind": kind, "tells": tells, "trained_on": id_ranges(ecg_ids), "seed": config.seed}
    if kind == "trees":
        tensors, more = _trees(material, truth, config.seed, leads, progress)
        about |= more
    else:
        tensors, more = _simclr(material, truth, config.seed, steps, out, progress)
        about |= more
    about["fingerprint"] = fingerprint(
        kind, {name: list(each.shape) for name, each in tensors.items()}, *_bytes(tensors)
    )
    out.mkdir(parents=True, exist_ok=True)
    write_tensors(out / WEIGHTS, tensors, {"kind": kind})
    (out / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


def _bytes(tensors: Mapping[str, torch.Tensor]) -> list[bytes]:
    return [tensor.detach().contiguous().numpy().tobytes() for _, tensor in sorted(tensors.items())]


def _trees(
    material: Material, truth: NDArray[np.bool_], seed: int, leads: Sequence[str], progress: Progress
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Trees for statements and classes, and for what the questions of ECG-QA ask about if the corpus has any."""
    ecg_ids = material.train[0]
    everywhere = np.arange(len(ecg_ids)), np.full(len(ecg_ids), np.nan, np.float32)
    wanted = [Cases(*everywhere, column) for column in truth.T]
    subjects = learn_subjects(material.pairs)
    asked = cases_of(material.pairs, subjects, ecg_ids)
    features = measure_waveforms(material.waveforms, ecg_ids, leads, progress)
    return fit_trees(features, [*wanted, *asked.values()], seed, progress), {
        "preprocessing": material.waveforms.wanted.model_dump(mode="json"),
        "measurements_version": MEASURED_VERSION,
        "leads": list(leads),
        "subjects": list(asked),
        "names": subjects.names,
        "forms": subjects.forms,
    }


def _simclr(
    material: Material, truth: NDArray[np.bool_], seed: int, steps: int, out: Path, progress: Progress
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    config = read_train_config(CONFIG)
    torch.manual_seed(step_seed(seed, "simclr:weights", 0))
    size = config.encoder.model_copy(update={"targets": ()})
    encoder = Encoder(config.preprocessing, size)
    ecg_ids = material.train[0]
    how = Optimisation(steps=steps, batch=min(SIMCLR_BATCH, len(ecg_ids)), learning_rate=0.001, average=0.998)
    Trainer(SimClr(encoder, material.waveforms, ecg_ids, how, VIEWS, seed), how, out / "encoder", seed).run(progress)
    (out / "encoder" / "state.safetensors").unlink()
    embedded = embed(encoder, material.waveforms, ecg_ids)
    centre, spread = embedded.mean(0), embedded.std(0) + 1e-6
    tensors = {f"encoder.{name}": tensor.detach() for name, tensor in own_tensors(encoder).items()}
    tensors |= {"centre": torch.from_numpy(centre), "spread": torch.from_numpy(spread)}
    order = np.random.default_rng(seed).permutation(len(ecg_ids))
    for number, share in enumerate(SHARES):
        chosen = np.sort(order[: max(2, round(share * len(ecg_ids)))])
        weight, bias = probe((embedded[chosen] - centre) / spread, truth[chosen])
        tensors |= {f"probe.{share:g}.weight": weight, f"probe.{share:g}.bias": bias}
        progress("linear probe", number + 1, len(SHARES))
    return tensors, {
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "encoder": size.model_dump(mode="json"),
        "shots": {f"{share:g}": max(2, round(share * len(ecg_ids))) for share in SHARES},
    }


def embed(encoder: Encoder, waveforms: Waveforms, ecg_ids: list[str], batch: int = 128) -> NDArray[np.float32]:
    """Embeddings (n_ecgs, width) of a frozen encoder."""
    encoder.eval()
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(ecg_ids), batch):
            found.append(encoder(*waveforms.batch(ecg_ids[start : start + batch])).embedding.float())
    return torch.cat(found).numpy()


def probe(features: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n_statements, width) and bias of a logistic regression for each statement.

    A statement that is never or always there among these ECGs gets its share as a constant.
    """
    from sklearn.linear_model import LogisticRegression

    weight = torch.zeros(truth.shape[1], features.shape[1])
    bias = torch.zeros(truth.shape[1])
    for number, column in enumerate(truth.T):
        positives = int(column.sum())
        if 0 < positives < len(column):
            fitted = LogisticRegression(C=0.01, max_iter=200).fit(features, column)
            weight[number] = torch.from_numpy(fitted.coef_[0].astype(np.float32))
            bias[number] = float(fitted.intercept_[0])
        else:
            share = (positives + 1) / (len(column) + 2)
            bias[number] = float(np.log(share / (1 - share)))
    return weight, bias
