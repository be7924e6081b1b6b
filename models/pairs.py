"""The pairs of a corpus as training examples, drawn so that rare statements are not drowned by common ones."""

from __future__ import annotations

import itertools
import mmap
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecglm.models.packing import Branch
from ecglm.models.text import Codec
from ecglm.synth.corpus import Corpus
from ecglm.synth.errors import ModelError
from ecglm.synth.signal_store import cache_folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

HELD_OUT_FOLDS = (9, 10)
LONGEST_SHORT_ANSWER = 80
"""Characters; what is longer is an answer in sentences only."""
FULL_WEIGHT = 0.2
"""Of a token in an answer in sentences: a yes or no is one token, a sentence twenty."""
YES_NO = ("yes", "no")
_ANNOTATED = re.compile(r"annotat|cardiologist|\breaders?\b|\breports?\b|\breported\b", re.IGNORECASE)
_COLUMNS = [
    *("pair_id", "ecg_ids", "strat_folds", "split", "family", "template_id", "messages", "answers", "options", "codes")
]


def training_pairs(corpus: Corpus, families: Collection[str] | None = None) -> pl.DataFrame:
    """The pairs of the split `train`; their texts stay on disk (see `mapped`).

    Raises:
        ModelError: a pair is about an ECG that is held out, whatever its split says; names it.
    """
    import pyarrow.dataset as ds

    wanted = ds.field("split") == "train"
    if families is not None:
        wanted &= ds.field("family").isin(sorted(families))
    few = {"batch_readahead": 1, "fragment_readahead": 1}
    pairs = mapped(corpus.table("pairs").scanner(columns=_COLUMNS, filter=wanted, **few))
    refuse_held_out(pairs, ecgs_of(corpus))
    return pairs.drop("strat_folds", "split")


def mapped(rows: ds.Scanner) -> pl.DataFrame:
    """Rows as a frame whose texts are read from a file when they are looked at, and not held in memory.

    The file is in the cache folder; it has no name, so that it is gone with the frame or with the process.
    """
    import pyarrow as pa

    def with_views(table: pa.Table) -> pa.Table:  # as polars holds it, so that it need not copy
        return frame_of(table).to_arrow(compat_level=pl.CompatLevel.newest())

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, with_views(rows.projected_schema.empty_table()).schema) as writer:
            for batch in filter(len, rows.to_batches()):
                writer.write_table(with_views(pa.Table.from_batches([batch])))
        file.flush()
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return frame_of(pa.ipc.open_file(pa.BufferReader(content)).read_all())


def ecgs_of(corpus: Corpus) -> pl.DataFrame:
    """The table `ecgs` of a corpus."""
    return frame_of(corpus.table("ecgs").to_table())


def frame_of(table: pa.Table) -> pl.DataFrame:
    """An Arrow table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a Series
    return frame


def refuse_held_out(pairs: pl.DataFrame, ecgs: pl.DataFrame) -> None:
    """Looks at the folds that pairs name and at those of their ECGs.

    Raises:
        ModelError: some pair is about an ECG of fold 9 or 10, of another split than train, or that is not known.
    """
    named = pairs.filter(pl.col("strat_folds").list.eval(pl.element().is_in(HELD_OUT_FOLDS)).list.any())
    each = pairs.select("pair_id", pl.col("ecg_ids").alias("ecg_id")).explode("ecg_id", empty_as_null=True).drop_nulls()
    each = each.join(ecgs.select("ecg_id", "strat_fold", fold_split="split"), on="ecg_id", how="left")
    held_out = pl.col("strat_fold").is_in(HELD_OUT_FOLDS).fill_null(False)
    bad = each.filter(held_out | pl.col("fold_split").ne_missing("train"))
    if named.height or bad.height:
        pair_id = bad["pair_id"][0] if bad.height else named["pair_id"][0]
        count = len(set(bad["pair_id"]) | set(named["pair_id"]))
        raise ModelError(
            f"{count} pairs of the split train are about ECGs that are held out (folds 9 and 10, or not of the split"
            f" train), for example {pair_id}; nothing is trained on them. Build the corpus again, and see `synth test`"
        )


@dataclass(frozen=True)
class Drawn:
    """Pairs about the same ECGs."""

    ecg_ids: tuple[str, ...]
    rows: list[int]


class Sampler:
    """Draws ECGs, and some pairs about each.

    A batch is about single ECGs or about pairs of them, so that its rows are of one length. An ECG with a rare answer
    is drawn more often (by how rare, to the power of `evening`, at most six times), one with few pairs less often, and
    of its pairs those of each family by the family's weight, rare answers first.
    """

    def __init__(
        self,
        pairs: pl.DataFrame,
        families: Collection[str] | None,
        family_weights: Mapping[str, float],
        most: int,
        evening: float = 0.5,
    ) -> None:
        self.most = most
        chosen = pl.lit(True) if families is None else pl.col("family").is_in(list(families))
        rows = pairs.lazy().with_row_index("row").filter(chosen)
        about = rows.select(
            pl.col("row").cast(pl.Int64),
            pl.col("ecg_ids").list.len().fill_null(0).alias("n_ecgs"),
            pl.col("ecg_ids").list.join("\x1f").fill_null("").alias("group"),
            "family",
            pl.concat_str(
                [pl.col("codes").list.first().fill_null(""), pl.col("answers").list.first().fill_null("")],
                separator="\x1f",
            ).alias("said"),
        ).collect()
        if about.is_empty():
            raise ModelError("no pairs to train on: the corpus has none of the families asked for in its split train")
        counts = about.group_by("said").len("n_said")
        middle = float(counts["n_said"].median() or 1)  # type: ignore[arg-type]
        about = about.join(counts, on="said", how="left", maintain_order="left").with_columns(
            ((middle / pl.col("n_said")) ** evening).clip(0.5, 6.0).alias("rarity"),
            pl.col("family").replace_strict(dict(family_weights), default=1.0, return_dtype=pl.Float64).alias("share"),
            pl.len().over("group", "family").alias("n_family"),
        )
        about = about.with_columns((pl.col("share") * pl.col("rarity") / pl.col("n_family")).alias("weight"))
        about = about.sort("n_ecgs", "group", "row", maintain_order=True)
        groups = about.group_by("n_ecgs", "group", maintain_order=True).agg(
            pl.len().alias("n"), pl.col("rarity").max(), pl.col("weight").max()
        )
        self.rows: NDArray[np.int64] = about["row"].to_numpy()
        self.weights: NDArray[np.float64] = np.maximum(about["weight"].to_numpy(), 1e-12)
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(groups["n"].to_numpy())]).astype(np.int64)
        self.names = [tuple(name.split("\x1f")) if name else () for name in groups["group"]]
        chances = groups["rarity"].clip(1.0, 6.0).to_numpy() * (groups["weight"].to_numpy() > 0)
        chances = chances * np.minimum(groups["n"].to_numpy(), most)
        self.chances: NDArray[np.float64] = np.concatenate([[0], np.cumsum(chances / chances.sum())])
        bounds = np.flatnonzero(np.diff(groups["n_ecgs"].to_numpy(), prepend=-1, append=-1))
        self.kinds = list(itertools.pairwise(bounds.tolist()))
        """Ranges of groups that are about equally many ECGs."""

    def draw(self, n_groups: int, chance: np.random.Generator) -> list[Drawn]:
        """ECGs, or pairs of them, with some pairs of the corpus each."""
        drawn = []
        first, behind = self._kind(chance.random())
        low, high = self.chances[first], self.chances[behind]
        found = np.searchsorted(self.chances, low + chance.random(n_groups) * (high - low), side="right") - 1
        for number in found.clip(first, behind - 1).tolist():
            inside = slice(self.starts[number], self.starts[number + 1])
            keys = np.log(self.weights[inside]) + chance.gumbel(size=inside.stop - inside.start)
            best = np.argsort(-keys)[: self.most]
            drawn.append(Drawn(self.names[number], self.rows[inside][best].tolist()))
        return drawn

    def _kind(self, place: float) -> tuple[int, int]:
        """The range of groups that a place between 0 and 1 falls in."""
        return next((kind for kind in self.kinds if place < self.chances[kind[1]]), self.kinds[-1])


class ExampleMaker:
    """Pairs as branches of tokens."""

    def __init__(
        self,
        pairs: pl.DataFrame,
        codec: Codec,
        full_share: float,
        n_options: int,
        longest: int,
        named: Callable[[str], tuple[int, ...]],
    ) -> None:
        self.texts = pairs.select("messages", "answers", "options", "template_id")
        self.answers = open_answers(pairs)
        self.named = named
        self.codec, self.full_share, self.n_options, self.longest = codec, full_share, n_options, longest
        self.too_long = 0

    def examples(self, drawn: Sequence[Drawn], chance: np.random.Generator) -> list[list[Branch]]:
        """For each group one branch per pair; pairs that are too long are left out and counted.

        Sentences that rest on an annotation or a report are not learned: the model sees neither, and must not say so.
        """
        texts = self.texts[[row for group in drawn for row in group.rows]].iter_rows()
        built: list[list[Branch]] = []
        for group in drawn:
            branches = []
            for _ in group.rows:
                messages, answers, options, template_id = next(texts)
                known = options or self.answers.get(template_id, ())
                branch = self.example(messages, answers or [], known, chance)
                if not branch.children:
                    continue
                if _length(branch) > self.longest:
                    self.too_long += 1
                else:
                    branches.append(branch)
            built.append(branches)
        return built

    def example(
        self, messages: Sequence[Mapping[str, str]], answers: Sequence[str], options: Sequence[str], chance: Any
    ) -> Branch:
        """A question with what is to be learned of it: options to be judged, a short answer, an answer in sentences."""
        codec = self.codec
        asked = messages[0]["content"]
        question = Branch([*codec.user, *codec.encode(asked)])
        single = len(messages) == 2
        if single and options and tuple(options) != YES_NO:
            question.children += [
                self._judged(option, option in answers, weight, self.named(option) or self.named(asked))
                for option, weight in self._options(answers, options, chance)
            ]
        short = ", ".join(answers)
        if single and answers and len(short) <= LONGEST_SHORT_ANSWER:
            end = () if tuple(answers) in (("yes",), ("no",)) else codec.end
            about = self.named(asked) if tuple(answers) in (("yes",), ("no",)) else ()
            question.children.append(said(codec.short, [*codec.encode(short), *end], about))
        wanted = not question.children or chance.random() < self.full_share
        if wanted and not any(_ANNOTATED.search(message["content"]) for message in messages[1:]):
            question.children.append(self._conversation(messages))
        return question

    def _options(self, answers: Sequence[str], options: Sequence[str], chance: Any) -> list[tuple[str, float]]:
        """True options and about as many false ones, never more than wanted, each with its weight.

        The weights make up for the drawing: true and false options count for as much as there are of them among all,
        so that what is learned is how likely an option holds, not how likely it does among those drawn.
        """
        true = [option for option in options if option in answers]
        false = [option for option in options if option not in answers]
        chance.shuffle(true)
        chance.shuffle(false)
        n_true = min(len(true), max(1, self.n_options // 2))
        n_false = min(len(false), self.n_options - n_true)
        drawn = []
        for kind, n in ((true, n_true), (false, n_false)):
            drawn += [(option, len(kind) / n * (n_true + n_false) / len(options)) for option in kind[:n]]
        return drawn

    def _judged(self, option: str, holds: bool, weight: float, about: tuple[int, ...]) -> Branch:
        codec = self.codec
        tokens = [*codec.option, *codec.encode(option), *codec.short, codec.yes if holds else codec.no]
        return Branch(tokens, [False] * (len(tokens) - 1) + [True], weight, about)

    def _conversation(self, messages: Sequence[Mapping[str, str]]) -> Branch:
        """The first answer, and all further turns."""
        codec = self.codec
        tokens: list[int] = []
        learned: list[bool] = []
        for message in messages[1:]:
            text = codec.encode(message["content"])
            if message["role"] == "assistant":
                tokens += [*codec.full, *text, *codec.end]
                learned += [False] * len(codec.full) + [True] * (len(text) + len(codec.end))
            else:
                tokens += [*codec.user, *text]
                learned += [False] * (len(codec.user) + len(text))
        return Branch(tokens, learned, FULL_WEIGHT)


def open_answers(pairs: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    """For each template of ECG-QA that asks without options all answers that it gets: candidates to judge."""
    asked = pairs.lazy().filter(pl.col("family") == "ecgqa", pl.col("options").list.len().fill_null(0) == 0)
    each = asked.select("template_id", "answers").explode("answers", empty_as_null=True)
    told = each.drop_nulls().unique().collect()
    found = {str(name): tuple(sorted(group["answers"])) for (name,), group in told.group_by("template_id")}
    return {name: answers for name, answers in found.items() if not set(answers) <= {*YES_NO, "not sure"}}


def said(marker: Sequence[int], answer: Sequence[int], about: tuple[int, ...]) -> Branch:
    """An answer to be learned behind its marker, and the ECG tokens that it rests on."""
    return Branch([*marker, *answer], [False] * len(marker) + [True] * len(answer), about=about)


def _length(branch: Branch) -> int:
    return len(branch.tokens) + max((_length(child) for child in branch.children), default=0)
