"""The `synth` command line. Heavy modules are imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from ecglm.synth.terminal import print_json, print_version, progress_bar, run_app

if TYPE_CHECKING:
    from ecglm.synth.build.config import SourceConfig

Config = TypeVar("Config", bound="SourceConfig")

app = typer.Typer(
    name="synth",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="ECG measurements and cardiology guidelines into instruction data.",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
CorpusFolder = Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder made by `synth build`.")]
GuidelineFolder = Annotated[
    Path | None, typer.Option("--guidelines", help="Folder used instead of the built-in guidelines.")
]
TemplateFolder = Annotated[
    Path | None, typer.Option("--templates", help="Folder used instead of the built-in templates.")
]
PtbxlFolder = Annotated[
    Path | None,
    typer.Option("--ptbxl", help="PTB-XL folder, or one made by `synth simulate`. Default: simulated ECGs."),
]
WfdbFolder = Annotated[Path | None, typer.Option("--wfdb", help="Folder of WFDB records, with those below it.")]
MetadataFile = Annotated[
    Path | None, typer.Option(help="With --wfdb: CSV or Parquet about the records (see docs/sources.md).")
]
Splits = Annotated[
    str | None, typer.Option(help="With --wfdb: parts of the patients in train/validation/test. [default: 80/10/10]")
]
PtbxlPlusFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--ptbxl-plus", help="Folder of PTB-XL+, or one made by `synth measure`; may be given more than once."
    ),
]
SamplingHz = Annotated[int | None, typer.Option(help="100 or 500. [default: what is there, 100 first]")]
Simulated = Annotated[int | None, typer.Option(help="Number of simulated ECGs, without --ptbxl. [default: 300]")]
Seed = Annotated[int | None, typer.Option(help="Seed of the simulated ECGs. [default: 1]")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many ECGs.")]
Resume = Annotated[
    str | None,
    typer.Option(help="never | if-possible | always: use what an earlier run finished. [default: if-possible]"),
]
Workers = Annotated[int | None, typer.Option(help="Processes. [default: one per core, 8 at most]")]


def main() -> None:
    """Runs the command line: exit code 0 fine, 1 handled failure, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit code."""
    return run_app(app, "synth", arguments)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    if version:
        print_version()
        raise typer.Exit


@app.command("build")
def build_command(
    config: Annotated[Path | None, typer.Option(help="YAML file with any of the options below.")] = None,
    ptbxl: PtbxlFolder = None,
    ptbxl_plus: PtbxlPlusFolders = None,
    wfdb: WfdbFolder = None,
    metadata: MetadataFile = None,
    splits: Splits = None,
    providers: Annotated[
        str | None,
        typer.Option(
            help="Whose measurements are used, separated by commas; per value the first that has it."
            " [default: 12sl,unig,measured, those that are there]"
        ),
    ] = None,
    simulated: Simulated = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="Corpus folder. [default: corpus]")] = None,
    limit: Limit = None,
    families: Annotated[
        str | None,
        typer.Option(help="Only these template families, separated by commas. [default: all but ecgqa]"),
    ] = None,
    ecgqa: Annotated[
        Path | None, typer.Option(help="Copy of ECG-QA, for family ecgqa: its lists of train, valid and test ECGs.")
    ] = None,
    exclude_ecgqa_test: Annotated[
        Path | None,
        typer.Option(help="Copy of ECG-QA: leave every ECG of its test patients out of the training split."),
    ] = None,
    sampling_hz: SamplingHz = None,
    guidelines: GuidelineFolder = None,
    templates: TemplateFolder = None,
    workers: Workers = None,
    resume: Resume = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be built; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Build a corpus of instruction pairs, from simulated ECGs, PTB-XL or any WFDB records."""
    if workers != 1 and not dry_run:
        from ecglm.synth.processes import start_early

        start_early()
    from ecglm.synth.build import BuildConfig, build, plan

    options = {
        "ptbxl": ptbxl,
        "wfdb": wfdb,
        "metadata": metadata,
        "splits": splits,
        "ptbxl_plus": ptbxl_plus or None,
        "providers": _words(providers),
        "simulated": simulated,
        "seed": seed,
        "out": out,
        "limit": limit,
        "families": _words(families),
        "ecgqa": ecgqa,
        "exclude_ecgqa_test": exclude_ecgqa_test,
        "sampling_hz": sampling_hz,
        "guidelines": guidelines,
        "templates": templates,
        "workers": workers,
        "resume": resume,
    }
    chosen = _configured(BuildConfig, config, options)
    if dry_run:
        planned = dataclasses.asdict(plan(chosen))
        print_json(planned) if as_json else _print_plan(planned)
        return
    with progress_bar() as progress:
        result = build(chosen, progress)
    content = dataclasses.asdict(result) | {"out": str(result.out)}
    print_json(content) if as_json else _print_result(content)


@app.command("measure")
def measure_command(
    out: Annotated[Path, typer.Option(help="Folder for the measurements; `synth build --ptbxl-plus` reads it.")],
    ptbxl: Annotated[
        Path | None, typer.Option("--ptbxl", help="PTB-XL folder, or one made by `synth simulate`.")
    ] = None,
    wfdb: WfdbFolder = None,
    metadata: MetadataFile = None,
    splits: Splits = None,
    limit: Limit = None,
    sampling_hz: SamplingHz = None,
    workers: Workers = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Measure every ECG of a source: rate, axis, amplitudes … under PTB-XL+'s column names, as Parquet."""
    from ecglm.synth.build.measuring import MeasureConfig, measure

    if ptbxl is None and wfdb is None:
        raise typer.BadParameter("name the ECGs: --ptbxl DIR or --wfdb FOLDER", param_hint="--ptbxl")
    options = {
        "out": out,
        "ptbxl": ptbxl,
        "wfdb": wfdb,
        "metadata": metadata,
        "splits": splits,
        "limit": limit,
        "sampling_hz": sampling_hz,
        "workers": workers,
        "resume": resume,
    }
    chosen = _configured(MeasureConfig, None, options)
    with progress_bar() as progress:
        result = measure(chosen, progress)
    content = dataclasses.asdict(result) | {"out": str(result.out)}
    print_json(content) if as_json else _print_measured(content)


@app.command("signals")
def signals_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="PTB-XL folder, or any folder of WFDB records.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the store. [default: the cache folder, see docs/sources.md]")
    ] = None,
    metadata: MetadataFile = None,
    limit: Limit = None,
    sampling_hz: SamplingHz = None,
    workers: Workers = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Read every waveform of a source once into int16 arrays that are memory-mapped, with a table of what is where."""
    from ecglm.synth.build.storing import StoreConfig, store
    from ecglm.synth.sources.ptbxl.metadata import DATABASE

    options = {
        "ptbxl" if (source / DATABASE).is_file() else "wfdb": source,
        "out": out,
        "metadata": metadata,
        "limit": limit,
        "sampling_hz": sampling_hz,
        "workers": workers,
        "resume": resume,
    }
    chosen = _configured(StoreConfig, None, options)
    with progress_bar() as progress:
        result = store(chosen, progress)
    content = dataclasses.asdict(result) | {"out": str(result.out)}
    print_json(content) if as_json else _print_stored(content)


@app.command("simulate")
def simulate_command(
    out: Annotated[Path, typer.Option(help="New folder, in PTB-XL's own layout.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of ECGs.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same ECGs.")] = 1,
    mix: Annotated[
        Literal["clinic", "even"],
        typer.Option(help="As in a hospital, or each rhythm and each conduction as often as any other."),
    ] = "clinic",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; the ECGs are the same.")] = 1,
    as_json: Json = False,
) -> None:
    """Write simulated 12-lead ECGs of known truth as a PTB-XL folder; `synth build --ptbxl` reads it."""
    from ecglm.synth.build import stepper
    from ecglm.synth.sources.simulator import simulate

    with progress_bar() as progress:
        simulate(out, n, seed, mix=mix, workers=workers, progress=stepper(progress, "simulating ECGs", n))
    print_json({"out": str(out), "ecgs": n, "seed": seed, "mix": mix}) if as_json else print(
        f"{n} simulated ECGs in {out}"
    )


@app.command("validate")
def validate_command(
    guidelines: GuidelineFolder = None, templates: TemplateFolder = None, as_json: Json = False
) -> None:
    """Check guidelines, templates and vocabularies; every problem at once."""
    from ecglm.synth.validate import validate

    report = validate(guidelines, templates)
    if as_json:
        violations = [dataclasses.asdict(violation) for violation in report.violations]
        print_json(dataclasses.asdict(report) | {"violations": len(violations), "problems": violations})
    else:
        for violation in report.violations:
            print(f"{violation.level}: {violation.where}: {violation.message}")
        print(
            f"{report.guidelines} guidelines ({report.executable} executable, {report.criteria} criteria),"
            f" {report.templates} templates with {report.paraphrases} ways of asking, {len(report.violations)} problems"
        )
    if report.errors:
        raise typer.Exit(1)


@app.command("preview")
def preview_command(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="Template id.")],
    number: Annotated[int, typer.Option("-n", min=1, help="How many pairs.")] = 3,
    ptbxl: PtbxlFolder = None,
    limit: Annotated[int, typer.Option(min=1, help="From the first so many ECGs.")] = 200,
    guidelines: GuidelineFolder = None,
    templates: TemplateFolder = None,
    as_json: Json = False,
) -> None:
    """Render a few pairs of one template."""
    from ecglm.synth.preview import preview

    result = preview(template, number, ptbxl=ptbxl, limit=limit, guidelines=guidelines, templates=templates)
    if as_json:
        print_json(result)
        return
    for pair in result["pairs"]:
        print(f"--- {pair['pair_id']}  {', '.join(pair['ecg_ids'])}  {pair['split']}  answers: {pair['answers']}")
        for message in pair["messages"]:
            print(f"{message['role']}: {message['content']}")
    print(f"{result['n_pairs']} pairs and {result['n_rejected']} rejected rows from {result['n_ecgs']} ECGs")
    for reason, count in result["rejected_reasons"].items():
        print(f"  rejected {count}: {reason}")


@app.command("query")
def query_command(
    corpus: CorpusFolder,
    sql: Annotated[
        str,
        typer.Argument(
            help="One SELECT over ecgs labels measurements findings pairs rejected templates guidelines, with PTB-XL+"
            " also statements snomed snomed_mapping."
        ),
    ],
    output_format: Annotated[str, typer.Option("--format", help="table | json | csv | parquet")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write here instead of to stdout (needed for parquet).")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which the query is stopped.")] = 300.0,
) -> None:
    """Ask a corpus in SQL; nothing but the corpus can be reached."""
    from ecglm.synth.query import FORMATS, query

    if output_format not in FORMATS:
        raise typer.BadParameter(f"{output_format!r} is not one of {', '.join(FORMATS)}", param_hint="--format")
    if output_format == "parquet" and out is None:
        raise typer.BadParameter("parquet needs --out FILE", param_hint="--format")
    query(corpus, sql, output_format, out, timeout)


@app.command("test")
def check_command(corpus: CorpusFolder, as_json: Json = False) -> None:
    """Run the data tests: patients in two splits, answers against evidence, broken text, damaged files …"""
    from ecglm.synth.checks import print_results, run_checks
    from ecglm.synth.corpus import Corpus

    with progress_bar() as progress:
        results = run_checks(Corpus.open(corpus), progress=progress)
    failed = sum(result.n_bad > 0 and result.severity == "error" for result in results)
    if as_json:
        print_json(
            {"passed": not failed, "failed": failed, "checks": [dataclasses.asdict(result) for result in results]}
        )
    else:
        print_results(results)
    if failed:
        raise typer.Exit(1)


@app.command("stats")
def stats_command(
    corpus: CorpusFolder,
    plot: Annotated[Path | None, typer.Option(help="Also draw a picture (.png).")] = None,
    as_json: Json = False,
) -> None:
    """Count pairs by family, type, split and code; lengths of the texts; what was rejected."""
    from ecglm.synth.corpus import Corpus
    from ecglm.synth.stats import corpus_stats, plot_stats, print_stats

    stats = corpus_stats(Corpus.open(corpus))
    print_json(stats) if as_json else print_stats(stats)
    if plot is not None:
        plot_stats(stats, plot)


@app.command("audit")
def audit_command(
    ptbxl: PtbxlFolder = None,
    ptbxl_plus: PtbxlPlusFolders = None,
    wfdb: WfdbFolder = None,
    metadata: MetadataFile = None,
    splits: Splits = None,
    providers: Annotated[
        str | None,
        typer.Option(
            help="Whose measurements are audited, each by itself, separated by commas."
            " [default: 12sl,unig,measured, those that are there]"
        ),
    ] = None,
    simulated: Simulated = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the audit. [default: audit]")] = None,
    limit: Limit = None,
    sampling_hz: SamplingHz = None,
    guidelines: GuidelineFolder = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Judge every guideline criterion by the source's labels, and list where the two disagree: tables and a page."""
    from ecglm.synth.audit import AuditConfig, audit

    options = {
        "ptbxl": ptbxl,
        "ptbxl_plus": ptbxl_plus or None,
        "wfdb": wfdb,
        "metadata": metadata,
        "splits": splits,
        "providers": _words(providers),
        "simulated": simulated,
        "seed": seed,
        "out": out,
        "limit": limit,
        "sampling_hz": sampling_hz,
        "guidelines": guidelines,
        "workers": workers,
    }
    chosen = _configured(AuditConfig, None, options)
    with progress_bar() as progress:
        result = audit(chosen, progress)
    content = dataclasses.asdict(result) | {"out": str(result.out)}
    print_json(content) if as_json else _print_audited(content)


@app.command("why")
def why_command(
    corpus: CorpusFolder,
    pair_id: Annotated[str, typer.Argument(metavar="PAIR_ID")],
    as_json: Json = False,
) -> None:
    """Show where a pair comes from: record, measurement, criterion with limit and citation, template line."""
    from ecglm.synth.corpus import Corpus
    from ecglm.synth.why import explain, print_explanation

    explanation = explain(Corpus.open(corpus), pair_id)
    print_json(explanation.as_dict()) if as_json else print_explanation(explanation)
    if not explanation.identical:
        raise typer.Exit(1)


@app.command("plot")
def plot_command(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A WFDB record, with or without .hea.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png or .svg.")],
    measured: Annotated[
        bool, typer.Option("--measured", help="Also the median beat with its onsets and offsets, and the intervals.")
    ] = False,
    gain: Annotated[float, typer.Option(help="mm per mV: 2.5, 5, 10, 20 or 40.")] = 10.0,
    start: Annotated[float, typer.Option(min=0, help="Second of the record at which the page begins.")] = 0.0,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to show, 60 at most. [default: what fits]")
    ] = None,
    dpi: Annotated[int, typer.Option(min=50, max=1200, help="Pixels per inch of a PNG; 254 is ten per mm.")] = 254,
    as_json: Json = False,
) -> None:
    """Draw an ECG as it is printed: all leads and a rhythm strip on millimetre paper, 25 mm/s and 10 mm/mV."""
    from ecglm.synth.plot import GAINS, SUFFIXES, plot_record

    if out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{out} does not end in {' or '.join(SUFFIXES)}", param_hint="--out")
    if gain not in GAINS:
        raise typer.BadParameter(
            f"{gain:g} is not one of {', '.join(f'{each:g}' for each in GAINS)}", param_hint="--gain"
        )
    content = plot_record(record, out, measured=measured, gain=gain, start_s=start, seconds=seconds, dpi=dpi)
    if as_json:
        print_json(content)
        return
    first, last = content["seconds"]
    print(f"{out}: {content['record']}, {len(content['leads'])} leads, seconds {first:g} to {last:g}")
    for note in (*content["notes"], *content["not_measured"]):
        print(f"  {note}")


@app.command("export")
def export_command(
    corpus: CorpusFolder,
    out: Annotated[Path, typer.Option(help="JSON Lines file to write; with ecgqa a folder.")],
    output_format: Annotated[str, typer.Option("--format", help="chat | sharegpt | alpaca | ecgqa")] = "chat",
    split: Annotated[str | None, typer.Option(help="Only this split: train | validation | test.")] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="With ecgqa: most questions of one split. [default: 80000]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the pairs as JSON Lines for a training framework, or questions in the layout of ECG-QA."""
    from ecglm.synth.corpus import Corpus
    from ecglm.synth.export import FORMATS, export
    from ecglm.synth.schema import SPLITS

    if output_format == "ecgqa":
        if split is not None:
            raise typer.BadParameter("ECG-QA has splits of its own; leave it out", param_hint="--split")
        _export_ecgqa(corpus, out, questions, as_json)
        return
    if questions is not None:
        raise typer.BadParameter("goes with --format ecgqa", param_hint="--questions")
    if output_format not in FORMATS:
        raise typer.BadParameter(f"{output_format!r} is not one of {', '.join(FORMATS)}, ecgqa", param_hint="--format")
    if split is not None and split not in SPLITS:
        raise typer.BadParameter(f"{split!r} is not one of {', '.join(SPLITS)}", param_hint="--split")
    with progress_bar() as progress:
        rows = export(Corpus.open(corpus), output_format, out, split, progress=progress)
    content = {"out": str(out), "format": output_format, "pairs": rows}
    print_json(content) if as_json else print(f"{rows} pairs in {out}")


def _export_ecgqa(corpus: Path, out: Path, questions: int | None, as_json: bool) -> None:
    from ecglm.synth.corpus import Corpus
    from ecglm.synth.export_ecgqa import QUESTIONS, export_ecgqa

    content = export_ecgqa(Corpus.open(corpus), out, questions or QUESTIONS)
    if as_json:
        print_json(content)
        return
    told = ", ".join(f"{split} {count:,}" for split, count in content["questions"].items())
    print(f"{content['out']}: {told} questions")
    print(f"  {content['not_in_one_list']:,} pairs left out: no list, or no one list, names their ECGs")


def _words(text: str | None) -> tuple[str, ...] | None:
    """The parts of a list separated by commas; None if it was not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _configured(kind: type[Config], path: Path | None, options: dict[str, Any]) -> Config:
    """A configuration of options and perhaps a file; a wrong option is wrong usage."""
    from ecglm.synth.build import read_config
    from ecglm.synth.errors import DefinitionError

    try:
        return read_config(path, kind, **options)
    except DefinitionError as error:
        if path is not None:
            raise
        raise typer.BadParameter(str(error)) from error


def _print_measured(result: dict[str, Any]) -> None:
    cells = result["measured"] * result["columns"]
    print(
        f"{result['out']}: {result['measured']:,} of {result['ecgs']:,} ECGs measured in {result['seconds']:.1f} s,"
        f" {result['columns']} columns, {result['values'] / max(cells, 1):.1%} of the values"
    )
    for reason, count in result["rejected_reasons"].items():
        print(f"  {count:,}: {reason}")


def _print_audited(result: dict[str, Any]) -> None:
    print(
        f"{result['out']}: {result['criteria']} criteria of {result['statements']} statements, {result['labelled']} of"
        f" them labelled, on {result['ecgs']:,} ECGs of {result['patients']:,} patients in {result['seconds']:.1f} s"
    )
    for provider, kinds in result["disagreements"].items():
        print(f"  {provider}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))


def _print_stored(result: dict[str, Any]) -> None:
    print(
        f"{result['out']}: {result['stored']:,} of {result['ecgs']:,} ECGs in {result['arrays']} arrays,"
        f" {result['bytes'] / 1e6:,.1f} MB, in {result['seconds']:.1f} s"
    )
    for reason, count in result["rejected_reasons"].items():
        print(f"  {count:,}: {reason}")


def _print_plan(plan: dict[str, Any]) -> None:
    print(f"{plan['source']}: {plan['ecgs']} ECGs ({plan['rejected']} rejected), {plan['statements']} statements")
    print(f"{len(plan['templates'])} templates: {', '.join(plan['templates'])}")
    print("the corpus is up to date" if plan["up_to_date"] else "nothing was written")


def _print_result(result: dict[str, Any]) -> None:
    print(
        f"{result['out']}: {result['pairs']:,} pairs about {result['ecgs']:,} ECGs in {result['seconds']:.1f} s"
        f" ({result['rendered']} templates rendered, {result['reused']} unchanged)"
    )
    for template, reason in result["skipped"].items():
        print(f"  skipped {template} ({reason})")
    for reason, count in result["rejected_reasons"].items():
        print(f"  rejected {count:,}: {reason}")
    print(f"  content fingerprint {result['content_fingerprint']}")


if __name__ == "__main__":
    main()
