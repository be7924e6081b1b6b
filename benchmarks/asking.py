"""How quickly a model answers: (ECG, option) scores a second over PTB-XL's statements, and one cold `ecglm ask`.

python benchmarks/asking.py --ptbxl DIR [--model reference] [--ecgs 300]
python benchmarks/asking.py --random            # a model of the reference's size with random weights

Reading waveforms is not counted; measuring and encoding them is. Processor seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import ECGLM_VERSIONS, machine, print_json, show, show_environment, versions

from ecglm.models.config import read_train_config
from ecglm.models.dry_run import likely_targets
from ecglm.models.ecg_lm import EcgLanguageModel, built_in_language_model
from ecglm.models.ecglm import ECGLM, YES_NO, Asked
from ecglm.models.encoder import Encoder
from ecglm.models.preprocessing import Prepared, prepare
from ecglm.models.text import Codec, Markers, train_tokenizer
from ecglm.models.wording import statement_questions
from ecglm.synth.measure import MEASURED_VERSION
from ecglm.synth.signals import read_record
from ecglm.synth.sources.ptbxl import open_ptbxl

PART = 64


def random_model(folder: Path) -> Path:
    """A model of the reference configuration with random weights."""
    config = read_train_config(Path("reference"))
    encoder = Encoder(config.preprocessing, config.encoder.model_copy(update={"targets": likely_targets(config)}))
    size = config.language_model.built_in
    assert size is not None
    codes = [target.name for target in encoder.config.targets if target.kind == "statement"]
    texts = [*statement_questions(codes).values(), "yes", "no"] * 20
    codec = Codec(train_tokenizer(texts, size.vocabulary, Markers()), Markers())
    about: dict[str, Any] = {
        "name": "random weights",
        "preprocessing": encoder.preprocessing.model_dump(mode="json"),
        "encoder": encoder.config.model_dump(mode="json"),
        "measurements_version": MEASURED_VERSION,
        "language_model": {"kind": "built_in", "built_in": size.model_dump()},
        "markers": Markers().model_dump(),
        "trained_on": {},
    }
    model = EcgLanguageModel(encoder, built_in_language_model(size.model_dump(), codec.size), codec)
    ECGLM(model, about).save(folder)
    return folder


def recordings(lm: ECGLM, root: Path, n: int) -> list[Prepared]:
    """The first ECGs of fold 10, prepared."""
    table = open_ptbxl(root).ecgs.collect()
    rows = table.filter(table["strat_fold"] == 10).head(n).select("signal_path", "sampling_hz").iter_rows()
    found = []
    for path, hz in rows:
        record = read_record(root, path)
        found.append(prepare(record.millivolts(), record.leads, hz, lm.model.encoder.preprocessing))
    return found


def main() -> None:
    """Asks about every statement of some ECGs and prints scores a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", type=Path, required=True, help="folder of PTB-XL")
    parser.add_argument("--model", default="reference", help="name or folder of a model")
    parser.add_argument("--random", action="store_true", help="random weights of the reference's size instead")
    parser.add_argument("--ecgs", type=int, default=300, help="ECGs asked about (default 300)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name = str(random_model(Path(scratch) / "random")) if options.random else options.model
        lm = ECGLM.load(name)
        ready = recordings(lm, options.ptbxl, options.ecgs)
        questions = list(statement_questions(lm.statements).values())
        lm.answer_all(lm.encode(ready[:2]), [Asked((0,), questions[0], YES_NO)])  # the first call is slow
        started, used = time.perf_counter(), time.process_time()
        for first in range(0, len(ready), PART):
            part = ready[first : first + PART]
            lm.answer_all(lm.encode(part), [Asked((n,), q, YES_NO) for n in range(len(part)) for q in questions])
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        record = str(options.ptbxl / open_ptbxl(options.ptbxl).ecgs.collect()["signal_path"][0])
        ask = [sys.executable, "-c", "from ecglm.models.cli import main; main()", "ask", record]
        started = time.perf_counter()
        subprocess.run([*ask, "Is this a normal ECG?", "--model", name], check=True, stdout=subprocess.DEVNULL)
        cold = time.perf_counter() - started
    n = len(ready) * len(questions)
    content: dict[str, Any] = {
        "benchmark": "asking",
        "machine": machine(),
        "versions": {"ecglm": versions(*ECGLM_VERSIONS, "torch")},
        "model": lm.about["name"],
        "threads": torch.get_num_threads(),
        "ecgs": len(ready),
        "scores": n,
        "scores_per_s": n / seconds,
        "scores_per_cpu_s": n / cpu,
        "cold_ask_s": cold,
    }
    if options.json:
        print_json(content)
        return
    show_environment(content)
    figures = ("ecgs", "scores", "threads", "scores_per_s", "scores_per_cpu_s", "cold_ask_s")
    show(str(content["model"]), [{name: content[name] for name in figures}])


if __name__ == "__main__":
    main()
