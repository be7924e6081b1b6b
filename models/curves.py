"""Learning curves of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curves(out: Path) -> None:
    """Draws OUT/curves.png from the logs of all stages; without matplotlib there is no picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    logs = sorted(out.glob("*/log.jsonl"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return
    figure = Figure(figsize=(4 * len(logs), 3), layout="constrained")
    axes = figure.subplots(1, len(logs), squeeze=False)[0]
    for axis, log in zip(axes, logs, strict=True):
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        axis.plot([row["step"] for row in rows], [row["loss"] for row in rows], color="0.4", linewidth=0.8)
        axis.set(title=log.parent.name, xlabel="step", ylabel="loss")
        looked = [row for row in rows if "validation_macro_auc" in row]
        if looked:
            other = axis.twinx()
            other.plot([r["step"] for r in looked], [r["validation_macro_auc"] for r in looked], "o-", color="C3")
            other.set_ylabel("macro-AUC, fold 9", color="C3")
    figure.savefig(out / "curves.png", dpi=120)
