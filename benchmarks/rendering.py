"""Pairs per second of rendering: ecglm, datasets.map and distilabel with the same template and the same prepared rows.

python benchmarks/rendering.py --make-peers DIR      # once: an environment with the peers
python benchmarks/rendering.py --peers DIR           # all contenders, in turn, three rounds
python benchmarks/rendering.py                       # ecglm alone
python benchmarks/rendering.py --profile             # where ecglm's time goes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import venv
from itertools import pairwise
from pathlib import Path
from typing import Any

from measuring import ECGLM_VERSIONS, machine, median, print_json, show, show_environment, versions
from rendering_shared import TURN_END, Timer, digest_of, peak_mib

HERE = Path(__file__).resolve().parent
TEMPLATE = "finding-present"
SOURCE = "benchmark"
PEERS = ("datasets==5.2.0", "distilabel==1.5.3", "requests==2.34.2")
"""requests is imported by distilabel, whose metadata does not name it."""
DISTILABEL = {"distilabel": (10_000, 50), "distilabel, large batches": (50_000, 1000)}
"""Rows and batch size of each distilabel run: 50 is its default; it takes fewer rows because it takes longer."""
ROWS_PER_ECG = 4
BATCH_ROWS = 4096

STATEMENTS = (
    ("1AVB", "a prolonged PR interval", "first degree AV block", "PR interval", "ms", 200, 320),
    ("AFIB", "atrial fibrillation", "atrial fibrillation", None, None, 0, 0),
    ("ALMI", "an anterolateral infarction", "anterolateral infarction", None, None, 0, 0),
    ("CLBBB", "complete left bundle branch block", "complete left bundle branch block", "QRS duration", "ms", 120, 190),
    (
        "CRBBB",
        "complete right bundle branch block",
        "complete right bundle branch block",
        "QRS duration",
        "ms",
        120,
        180,
    ),
    ("IMI", "an inferior infarction", "inferior infarction", None, None, 0, 0),
    ("LAFB", "left anterior fascicular block", "left anterior fascicular block", "QRS axis", "degrees", -85, -45),
    ("LNGQT", "a prolonged QT interval", "long QT interval", "QTc", "ms", 460, 560),
    ("LVH", "left ventricular hypertrophy", "left ventricular hypertrophy", "S V1 + R V5", "mV", 4, 6),
    ("LVOLT", "low QRS voltage", "low QRS voltage in the limb leads", "QRS amplitude in lead II", "mV", 0, 1),
    ("PVC", "ventricular premature beats", "ventricular premature complex", None, None, 0, 0),
    ("SBRAD", "sinus bradycardia", "sinus bradycardia", "ventricular rate", "/min", 35, 59),
    ("STACH", "sinus tachycardia", "sinus tachycardia", "ventricular rate", "/min", 101, 160),
    ("WPW", "ventricular pre-excitation", "Wolff-Parkinson-White syndrome", "PR interval", "ms", 80, 119),
)
ANNOTATIONS = (
    "the cardiologist's annotation",
    "the automatic annotation, not validated by a cardiologist",
)


# ----------------------------------------------------------------------------------------------------------- the input


def prepare(folder: Path, n_rows: int) -> Path:
    """Writes prepared rows, in the order of a corpus, and the job file that every contender reads."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import xxhash

    from ecglm.synth.templates import load_templates

    template = load_templates(HERE / "templates").by_id[TEMPLATE]
    choose = random.Random(1)
    rows = []
    for number in range(n_rows):
        if number % ROWS_PER_ECG == 0:
            codes = sorted(choose.sample(range(len(STATEMENTS)), ROWS_PER_ECG))
            annotation = choose.choice(ANNOTATIONS)
        code, phrase, name, measured, unit, low, high = STATEMENTS[codes[number % ROWS_PER_ECG]]
        is_present = choose.random() < 0.5
        is_certain = choose.random() < 0.7
        value = f"{choose.uniform(low, high):.2f}" if unit == "mV" else f"{choose.uniform(low, high):.0f}"
        rows.append(
            {
                "ecg_id": f"{SOURCE}:{number // ROWS_PER_ECG + 1:07d}",
                "code": code,
                "phrase": phrase,
                "answer": "yes" if is_present else "no",
                "certainty_phrase": phrase if is_certain else f"probable {name}",
                "because_phrase": choose.choice(STATEMENTS)[1],
                "evidence_text": f"{measured} {value} {unit}" if measured and is_present else None,
                "annotation_text": annotation,
            }
        )
    keys = [TURN_END.join((SOURCE, TEMPLATE, row["ecg_id"], row["code"])).encode() for row in rows]
    wordings = template.variants(np.array([xxhash.xxh3_64_intdigest(key) for key in keys], np.uint64))
    table = pa.Table.from_pylist(rows)
    for turn, chosen in zip(("user", "assistant"), wordings, strict=True):
        table = table.append_column(f"{turn}_wording", pa.array(chosen, pa.int8()))
    pq.write_table(table, folder / "rows.parquet")
    path = folder / "job.json"
    job = {
        "path": str(path),
        "rows": str(folder / "rows.parquet"),
        "fields": list(template.variables),
        "user": template.turns[0].alternatives,
        "assistant": template.turns[1].alternatives,
        "n_rows": n_rows,
    }
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


# --------------------------------------------------------------------------------------------------------------- ecglm


def render_alone(template: Any, rows: Any) -> list[str]:
    """Prepared rows to texts, in batches, in the sandbox: Arrow to Python, the choice of wordings, one Jinja loop."""
    texts: list[str] = []
    for start in range(0, rows.num_rows, BATCH_ROWS):
        batch = rows.slice(start, BATCH_ROWS)
        variants = [batch[f"{turn}_wording"].to_numpy() for turn in ("user", "assistant")]
        spoken = template.compiled.render(batch, variants)
        starts = [0, *(spoken.ends[1::2] + 1).tolist()]
        texts += [spoken.text[start : stop - 1].decode() for start, stop in pairwise(starts)]
    return texts


def register_of(rows: Any) -> Any:
    """A register of the rows' ECGs: each its own patient, in ten folds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ecglm.synth.render import EcgRegister
    from ecglm.synth.schema import split_of_fold

    ecg_ids = pc.unique(rows["ecg_id"])
    folds = [number % 10 + 1 for number in range(len(ecg_ids))]
    return EcgRegister(
        ecg_ids,
        pc.replace_substring(ecg_ids, f"{SOURCE}:", f"{SOURCE}:patient-"),
        pa.array(folds, pa.int8()),
        pa.array(map(split_of_fold, folds)),
    )


def whole_path(template: Any, rows: Any, register: Any, path: Path) -> int:
    """What a build does with one template: its SELECT, identities, texts, hashes, and the Parquet file."""
    from ecglm.synth.corpus import ParquetFile
    from ecglm.synth.database import LockedConnection
    from ecglm.synth.render import render_block
    from ecglm.synth.schema import PAIRS

    with LockedConnection({"prepared": rows}) as connection, ParquetFile(path, PAIRS) as file:
        for part in render_block(template, connection, register, SOURCE):
            file.write(part.pairs)
    return file.rows


def run_ecglm(job: dict[str, Any]) -> dict[str, Any]:
    """Rendering alone and the whole path, in this process."""
    import pyarrow.parquet as pq

    from ecglm.synth.templates import load_templates

    template = load_templates(HERE / "templates").by_id[TEMPLATE]
    rows = pq.read_table(job["rows"]).combine_chunks()
    register = register_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        render_alone(template, rows.slice(0, 2000))
        whole_path(template, rows.slice(0, 2000), register, path)
        with Timer() as whole:
            n_pairs = whole_path(template, rows, register, path)
        peak = peak_mib()
        with Timer() as alone:
            texts = render_alone(template, rows)
        digest = digest_of(texts)
        del texts
        messages = pq.read_table(path, columns=["messages"])["messages"].to_pylist()
    written = digest_of([TURN_END.join(message["content"] for message in pair) for pair in messages])
    if n_pairs != rows.num_rows or written != digest:
        raise SystemExit("the whole path wrote other texts than rendering alone")
    return {
        "rows": rows.num_rows,
        "digest": digest,
        "peak_mib": peak,
        "render": {"wall_s": alone.wall, "cpu_s": alone.cpu},
        "whole": {"wall_s": whole.wall, "cpu_s": whole.cpu},
        "versions": versions(*ECGLM_VERSIONS),
    }


def profile(job: dict[str, Any]) -> None:
    """Prints where the whole path spends its time."""
    import cProfile
    import pstats

    import pyarrow.parquet as pq

    from ecglm.synth.templates import load_templates

    template = load_templates(HERE / "templates").by_id[TEMPLATE]
    rows = pq.read_table(job["rows"]).combine_chunks()
    register = register_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        whole_path(template, rows.slice(0, 2000), register, path)
        profiler = cProfile.Profile()
        profiler.runcall(whole_path, template, rows, register, path)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


# --------------------------------------------------------------------------------------------------------- the rounds


def make_peers(folder: Path) -> None:
    """Creates the peers' environment."""
    venv.create(folder, with_pip=True)
    subprocess.run([python_of(folder), "-m", "pip", "install", "--quiet", *PEERS], check=True)
    print(f"{folder}: {', '.join(PEERS)}")


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def run_contender(name: str, job: Path, peers: Path | None) -> dict[str, Any]:
    """One contender in a process of its own."""
    result = job.with_name("result.json")
    if name == "ecglm":
        command = [sys.executable, __file__, "--contender", job, result]
    else:
        assert peers is not None
        if name in DISTILABEL:
            n_rows, batch = DISTILABEL[name]
            content = json.loads(job.read_text(encoding="utf-8"))
            job = job.with_name(f"job-{batch}.json")
            content |= {"path": str(job), "n_rows": min(n_rows, content["n_rows"]), "batch": batch}
            job.write_text(json.dumps(content), encoding="utf-8")
        command = [python_of(peers), HERE / f"rendering_{name.split(',')[0]}.py", job, result]
    settings = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(job.parent / "huggingface"),
        "DISTILABEL_LOG_LEVEL": "WARNING",
    }
    finished = subprocess.run(
        [str(part) for part in command], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"{name} failed:\n{finished.stderr[-4000:]}")
    return json.loads(result.read_text(encoding="utf-8"))


def summary_of(rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians over the rounds, as pairs per second."""
    rows = []
    for name, results in rounds.items():
        row: dict[str, Any] = {"contender": name, "rows": results[0]["rows"]}
        for part in ("render", "whole"):
            row[f"{part}_pairs_per_s"] = median([result["rows"] / result[part]["wall_s"] for result in results])
            seconds = [result[part].get("cpu_s") for result in results]
            row[f"{part}_pairs_per_cpu_s"] = median([results[0]["rows"] / s for s in seconds]) if seconds[0] else None
        row["start_up_s"] = median([result["start_up_s"] for result in results]) if "start_up_s" in results[0] else None
        row["peak_mib"] = median([result["peak_mib"] for result in results])
        rows.append(row)
    return rows


def ratios_of(rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """How many times as fast as each peer, round by round; the median of the rounds."""
    rows = []
    for peer in rounds:
        if peer == "ecglm":
            continue
        row: dict[str, Any] = {"ecglm against": peer}
        for label, ours, theirs in (
            ("rendering alone", "render", "render"),
            ("whole path", "whole", "whole"),
            ("our whole path / their rendering alone", "whole", "render"),
        ):
            row[label] = median(
                [
                    (our["rows"] / our[ours]["wall_s"]) / (their["rows"] / their[theirs]["wall_s"])
                    for our, their in zip(rounds["ecglm"], rounds[peer], strict=True)
                ]
            )
        rows.append(row)
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="prepared rows (default 200000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (default 3)")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="environment with the peers")
    parser.add_argument("--make-peers", type=Path, metavar="DIR", help="create that environment and stop")
    parser.add_argument("--profile", action="store_true", help="profile ecglm's whole path instead")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--contender", nargs=2, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs the rounds and prints medians and ratios."""
    options = arguments()
    if options.contender:
        job, result = options.contender
        result.write_text(json.dumps(run_ecglm(json.loads(job.read_text(encoding="utf-8")))), encoding="utf-8")
        return
    if options.make_peers:
        make_peers(options.make_peers)
        return
    content: dict[str, Any] = {"benchmark": "rendering", "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(Path(folder), options.rows)
        if options.profile:
            profile(json.loads(job.read_text(encoding="utf-8")))
            return
        names = ["ecglm", "datasets", *DISTILABEL] if options.peers else ["ecglm"]
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                rounds[name].append(run_contender(name, job, options.peers))
    for name in names:
        if rounds[name][0]["rows"] == options.rows and rounds[name][0]["digest"] != rounds["ecglm"][0]["digest"]:
            raise SystemExit(f"{name} rendered other texts than ecglm")
    content["versions"] = {name: rounds[name][0]["versions"] for name in names}
    content["contenders"] = summary_of(rounds)
    content["ratios"] = ratios_of(rounds)
    content["rounds"] = rounds
    if options.json:
        print_json(content)
        return
    show_environment(content)
    show(f"median of {options.rounds} rounds, {options.rows:,} rows", content["contenders"])
    show("times as fast, same rounds", content["ratios"])


if __name__ == "__main__":
    main()
