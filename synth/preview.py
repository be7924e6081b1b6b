"""`synth preview`: a few rendered pairs of one template, made by a real build into a temporary folder."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ecglm.synth.build import BuildConfig, build
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import DefinitionError
from ecglm.synth.templates import load_templates


def preview(
    template_id: str,
    number: int,
    *,
    ptbxl: Path | None = None,
    limit: int = 200,
    guidelines: Path | None = None,
    templates: Path | None = None,
) -> dict[str, Any]:
    """Pairs of one template from the first `limit` ECGs, `number` of them evenly spread, and what was rejected.

    Raises:
        DefinitionError: no such template, or it was skipped because a table it needs has no rows.
    """
    known = load_templates(templates).by_id
    if template_id not in known:
        near = difflib.get_close_matches(template_id, known, 3) or sorted(known)
        raise DefinitionError(f"no template {template_id!r}; did you mean {', '.join(near)}?")
    with tempfile.TemporaryDirectory() as folder:
        config = BuildConfig(
            ptbxl=ptbxl,
            simulated=limit,
            limit=limit,
            guidelines=guidelines,
            templates=templates,
            families=(known[template_id].header.family,),
            out=Path(folder) / "corpus",
            workers=1,
        )
        result = build(config)
        if template_id in result.skipped:
            raise DefinitionError(f"template {template_id} was skipped: {result.skipped[template_id]}")
        corpus = Corpus.open(config.out)
        chosen = pc.field("template_id") == template_id
        pairs = corpus.table("pairs").to_table(filter=chosen)
        rejected = corpus.table("rejected").to_table(filter=chosen)
    step = max(pairs.num_rows // number, 1)
    rows = list(range(0, pairs.num_rows, step))[:number]
    reasons = rejected["reason"].value_counts().to_pylist()
    return {
        "template_id": template_id,
        "n_ecgs": result.ecgs,
        "n_pairs": pairs.num_rows,
        "n_rejected": rejected.num_rows,
        "rejected_reasons": {row["values"]: row["counts"] for row in reasons},
        "pairs": pairs.take(rows).to_pylist(),
    }
