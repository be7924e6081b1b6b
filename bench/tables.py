"""Scores as text for a terminal: each number with its interval, its constant predictor, and what must be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ecglm.bench.published import figures_for

DASH = "–"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns of text, the first ones flush left."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(headers, *rows, strict=True)]
    lines = []
    for row in (headers, *rows):
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def figure(value: float | None, digits: int = 3) -> str:
    """`0.912`, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def interval(estimate: dict[str, Any] | None) -> str:
    """`0.912 [0.901, 0.922]`."""
    if not estimate or estimate.get("value") is None:
        return DASH
    if estimate.get("low") is None:
        return figure(estimate["value"])
    return f"{figure(estimate['value'])} [{figure(estimate['low'])}, {figure(estimate['high'])}]"


def share(value: Any) -> str:
    """`3.1 %`, or the word itself."""
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else str(value)


def scores_text(scores: dict[str, Any]) -> str:
    """What `bench run` and `bench score` print."""
    parts = [f"model {scores['model']['name']}" + (f", the first {scores['limit']} only" if scores["limit"] else "")]
    for task, content in scores["tasks"].items():
        parts += ["", _task(task, content)]
    return "\n".join(parts)


def _task(task: str, content: dict[str, Any]) -> str:
    lines = [f"{task}: {content['title']}"]
    lines += {"statements": _statements, "choices": _choices, "numbers": _numbers}[content["kind"]](content)
    leak = content["leakage"]
    lines.append(f"  trained on {_seen(leak)}")
    if leak.get("clean", {}).get("test_ecgs"):
        lines.append(f"  track clean: trained on {_seen(leak['clean'])}")
    if content["failures"]:
        told = ", ".join(f"{count:,} {name}" for name, count in content["failures"].items())
        lines.append(f"  without an answer, or cut: {told}; a question without an answer counts as wrong")
    lines += published_lines(task, content=content)
    return "\n".join(lines)


def _seen(leak: dict[str, Any]) -> str:
    return (
        f"{share(leak['trained_on_ecgs'])} of the {leak['test_ecgs']:,} test ECGs,"
        f" {share(leak['trained_on_patients'])} of their {leak['test_patients']:,} patients"
    )


def _headline(content: dict[str, Any]) -> str:
    headline = content["headline"]
    if headline.get("value") is None:
        return f"  {headline['metric']}: {headline.get('unavailable', 'not available')}"
    told = [str(headline[key]) for key in ("rule", "records", "track", "scoring", "over") if headline.get(key)]
    source = f", from {headline['from']}" if headline.get("from") not in (None, "scores") else ""
    return f"  {headline['metric']} {interval(headline)} ({', '.join(told)}{source})"


def _statements(content: dict[str, Any]) -> list[str]:
    about = content["about"]
    test = ", ".join(map(str, about["folds"]["test"]))
    asked = "one yes-or-no question per statement" if content["ask"] == "statement" else "one question per ECG"
    rules = ", ".join(f"{count} without a label by {rule}" for rule, count in about["without_label"].items())
    lines = [
        _headline(content),
        f"  {about['n_ecgs']['test']:,} ECGs of {about['n_patients']:,} patients,"
        f" fold {test} of {about['source']['name']} {about['source']['version']} ({rules}); asked by {asked}",
        *_class_lines(content),
    ]
    if about["excluded_by_source"]:
        lines.append(f"  {about['excluded_by_source']} ECGs of the dataset have no waveform here and are left out")
    rows = []
    notes: dict[str, None] = {}
    for view in content["views"]:
        if "unavailable" in view:
            notes[f"{view['rule']}, {view['records']}, {view['classes']}: {view['unavailable']}"] = None
            continue
        for name in ("scores", "strict", "lenient"):
            if name not in view:
                continue
            metrics = view[name]["metrics"]
            rows.append(
                [
                    view["rule"],
                    f"{view['records']} ({view['n_records']:,})",
                    f"{view['classes']} ({view['n_classes']})",
                    name if name == "scores" else f"text, {name}",
                    *(interval(metrics.get(metric)) for metric in ("macro_auc", "f1_macro")),
                    *(
                        f"{figure(metrics[f'f1_{average}']['value'])} ({figure(view['constant'][f'f1_{average}'])})"
                        if f"f1_{average}" in metrics
                        else DASH
                        for average in ("macro", "micro", "weighted", "samples")
                    ),
                    *(
                        figure(metrics[metric]["value"]) if metric in metrics else DASH
                        for metric in ("fmax", "brier", "ece")
                    ),
                    share(view[name]["unparsed_rate"]),
                ]
            )
            notes |= dict.fromkeys(
                text for text in view[name]["unavailable"].values() if name == "scores" or "scores" not in view
            )
    headers = [
        "rule",
        "ECGs",
        "classes",
        "from",
        "macro AUC",
        "F1 macro",
        *(f"F1 {a} (const.)" for a in ("macro", "micro", "weighted", "samples")),
        "Fmax*",
        "Brier",
        "ECE",
        "unparsed",
    ]
    lines.append(table(headers, rows))
    lines.append(f"  F1 from scores: {content['thresholds']}; in brackets the best constant answer")
    lines.append("  * test-set maximum: its threshold was fitted to these ECGs, good for comparison only")
    return lines + [f"  {note}" for note in notes]


def _class_lines(content: dict[str, Any]) -> list[str]:
    """The classes in their order with their test positives, and which are left out of what."""
    classes = content["about"]["classes"]
    first = next(iter(content["rare"]))
    counts = ", ".join(f"{row['class']} {row['positives']['test'][first]:,}" for row in classes)
    lines = [f"  {len(classes)} classes in order, with test positives by {first}: {counts}"]
    for rule, rare in content["rare"].items():
        if rare:
            least = content["min_positives"]
            lines.append(
                f"  left out of 'at least {least} positives' by {rule}, {len(rare)} classes: {', '.join(rare)}"
            )
    undefined: dict[str, None] = {}
    for view in content["views"]:
        for name in view.get("scores", view.get("strict", {})).get("undefined_classes", ()):
            undefined[f"{name} ({view['rule']})"] = None
    if undefined:
        lines.append(f"  without an AUC, for want of positives or negatives: {', '.join(undefined)}")
    return lines


def class_table(content: dict[str, Any]) -> str:
    """The per-class table of the first view."""
    view = next((view for view in content["views"] if "unavailable" not in view), None)
    if view is None:
        return "  no class table"
    source = next(name for name in ("scores", "strict", "lenient") if name in view)
    names = {row["class"]: row["name"] for row in content["about"]["classes"]}
    rows = [
        [
            row["name"],
            names[row["name"]],
            str(row["n_positive"]),
            interval(row["auc"]),
            interval(row["f1"]),
            figure(row["constant_f1"]),
            figure(row["sensitivity"]),
            figure(row["specificity"]),
        ]
        for row in view[source]["per_class"]
    ]
    headers = ["class", "name", "positives", "AUC", "F1", "F1 if always", "sensitivity", "specificity"]
    return table(headers, rows)


def _choices(content: dict[str, Any]) -> list[str]:
    about = content["about"]
    told = about["ecgqa"]
    lines = [
        _headline(content),
        f"  {about['n_questions']:,} questions ({about['n_asked_once']:,} different ones), {told['wording']} wording,"
        f" {told['split']} split; {told['questions']:,} of the {'' if told['generated_again'] else 'official '}"
        f"{told['of_questions']:,} are here",
    ]
    if told["generated_again"]:
        lines.append("  questions that ecglm generated again, not the official ones: published figures are of others")
    if told["missing_files"]:
        lines.append(f"  missing files: {', '.join(told['missing_files'])}")
    lines += [f"  not whole: {name} has {text}" for name, text in told["incomplete_files"].items()]
    if told["ids_beyond"]:
        lines.append(f"  {told['ids_beyond']:,} questions have ids beyond those that the files should have")
    if about["missing_types"]:
        lines.append(f"  question types with no question here: {', '.join(about['missing_types'])}")
    lines += [f"  left out {count:,}: {reason}" for reason, count in about["left_out"].items()]
    lines += [f"  odd {count:,}: {reason}" for reason, count in about["odd"].items()]
    rows = []
    for track, made in content["tracks"].items():
        for scoring in ("free", "candidates", "candidates_argmax"):
            if scoring not in made:
                continue
            groups = {"all questions": made[scoring]["overall"], **made[scoring]["by"]["question_type"]}
            groups["unweighted mean of types"] = made[scoring]["means"]["question_type"]
            rows += [
                [
                    track,
                    scoring,
                    name,
                    f"{rates['n_questions']:,}",
                    interval(rates["strict"]),
                    interval(rates["lenient"]) if scoring == "free" else DASH,
                    share(rates["unparsed_strict"]["value"]),
                ]
                for name, rates in groups.items()
            ]
        if "unavailable" in made:
            lines.append(f"  track {track}: {made['unavailable']}")
    headers = ["track", "scoring", "questions", "n", "strict", "lenient", "unparsed"]
    lines.append(table(headers, rows))
    lines += [f"  {name}: {text}" for name, text in content["scorings"].items() if any(row[1] == name for row in rows)]
    lines.append("  official: all test questions; clean: those whose ECGs all lie in fold 10 of PTB-XL")
    return lines


def _numbers(content: dict[str, Any]) -> list[str]:
    about = content["about"]
    lines = [
        _headline(content),
        f"  {about['n_ecgs']['test']:,} ECGs of {about['n_patients']:,} patients;"
        f" true values: provider {about['provider']}",
    ]
    rows = []
    for name, rates in content["within_tolerance"]["by"]["reading"].items():
        errors, limit = content["errors"][name], content["tolerances"][name]
        parts = [f"{limit['absolute']:g} {errors['unit']}"] * bool(limit["absolute"])
        parts += [f"{100 * limit['relative']:g} %"] * bool(limit["relative"])
        median = errors["median_absolute_error"]
        rows.append(
            [
                name,
                f"{rates['n_questions']:,}",
                " or ".join(parts),
                interval(rates["strict"]),
                interval(rates["lenient"]),
                share(rates["unparsed_strict"]["value"]),
                DASH if median is None else f"{median:.3g} {errors['unit']} of {errors['n_read']:,} read",
            ]
        )
    headers = ["reading", "n", "tolerance", "within, strict", "within, lenient", "unparsed", "median error"]
    return [*lines, table(headers, rows)]


def published_lines(task: str, metric: str | None = None, content: dict[str, Any] | None = None) -> list[str]:
    """Published figures of a task, of one metric if it is given, beside ours, with their caveats."""
    figures = [each for each in figures_for(task) if metric in (None, each["metric"])]
    if not figures:
        return []
    ours = [[] if content is None else [interval(_nearest(content, each))] for each in figures]
    rows = [
        [each["metric"], figure(each["value"]), *own, each["system"], each["caveat"], each["cite"]]
        for each, own in zip(figures, ours, strict=True)
    ]
    headers = ["metric", "value", *["ours, nearest"] * (content is not None), "system", "caveat", "source"]
    return ["  published, not measured here:", table(headers, rows, "    ")]


def _nearest(content: dict[str, Any], published: dict[str, Any]) -> dict[str, Any] | None:
    """Our score that is counted most like a published one."""
    if content["kind"] != "statements":
        return dict(content["headline"])
    for view in content["views"]:
        if all(view[key] == value for key, value in published["view"].items()):
            for name in ("scores", "strict"):
                found = view.get(name, {}).get("metrics", {}).get(published["metric"])
                if found:
                    return dict(found)
    return None


def arrays_text(content: dict[str, Any]) -> str:
    """What `bench score --arrays` prints."""
    lines = [
        f"{content['task']}: {content['n_records']:,} records, {len(content['classes'])} classes, {content['records']}"
    ]
    rows = []
    for name in content:
        if name in ("task", "n_records", "n_patients", "n_without_label", "level", "intervals"):
            continue
        if content[name] is None or isinstance(content[name], float):
            low, high = content["intervals"].get(name, (None, None))
            constant = content["constant"].get(name)
            label = content["labels"].get(name, "")
            rows.append([name, interval({"value": content[name], "low": low, "high": high}), figure(constant), label])
    lines.append(table(["metric", "value", "best constant", ""], rows))
    lines.append(f"  classes in order: {', '.join(content['classes'])}")
    lines += [f"  {note}" for note in dict.fromkeys([*content["unavailable"].values(), *content["notes"]])]
    return "\n".join([*lines, *published_lines(content["task"])])


def comparison_text(content: dict[str, Any]) -> str:
    """What `bench compare` prints."""
    first, second = content["first"], content["second"]
    lines = [f"first: {first['model']} ({first['run']})", f"second: {second['model']} ({second['run']})"]
    rows = []
    for task, made in content["tasks"].items():
        test = made["mcnemar"]
        rows.append(
            [
                task,
                _metric(made),
                figure(made["first"]),
                figure(made["second"]),
                interval(made["difference"]),
                DASH if made["p_value"] is None else f"{made['p_value']:.4f}",
                f"{made['p_holm']:.4f}",
                "yes" if made["different"] else "no",
                DASH if test is None else f"{test['only_first']:,} / {test['only_second']:,}, p {test['p_value']:.2g}",
            ]
        )
    headers = [
        "task",
        "metric",
        "first",
        "second",
        "difference",
        "p",
        "p (Holm)",
        "different",
        "McNemar: only first / second right",
    ]
    lines.append(table(headers, rows))
    lines.append(
        f"  paired bootstrap over patients, {content['settings']['n_resamples']} resamples, seed"
        f" {content['settings']['seed']}; it decides, McNemar takes answers as independent and is only shown"
    )
    return "\n".join(lines)


def _metric(content: dict[str, Any]) -> str:
    """The metric, and of ECG-QA which scoring and track it is of."""
    told = [content[key] for key in ("scoring", "track") if key in content]
    return f"{content['metric']} ({', '.join(told)})" if told else str(content["metric"])


def leaderboard_text(content: dict[str, Any]) -> str:
    """What `bench leaderboard` prints."""
    lines = []
    for task, board in content["tasks"].items():
        lines.append(f"{task}: {_metric(board)}")
        rows = [
            [
                row["model"],
                interval(row) if row["value"] is not None else f"{DASH} ({row.get('unavailable')})",
                " ".join(row["groups"]),
                share(row["unparsed"]["strict"]) if row["unparsed"]["strict"] is not None else DASH,
                f"{row['failed']:,}",
                f"{share(row['leakage']['trained_on_ecgs'])} / {share(row['leakage']['trained_on_patients'])}",
            ]
            for row in board["runs"]
        ]
        headers = ["model", "value", "group", "unparsed", "failed", "trained on test ECGs / patients"]
        lines.append(table(headers, rows))
        lines += published_lines(task)
    lines.append(
        "models that share a letter cannot be told apart (paired bootstrap over patients, Holm over all pairs)"
    )
    return "\n".join(lines)
