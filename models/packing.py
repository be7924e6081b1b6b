"""Many questions about one ECG in one pass: every question is a branch that sees the ECG's tokens and itself.

A branch may have branches of its own (a question, and each of its options), which see it too. So the ECG is encoded
once, and a question once for all its options. Positions count along a branch: what a branch holds does not depend on
the others beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Branch:
    """Tokens of a question, an option or an answer."""

    tokens: Sequence[int]
    learned: Sequence[bool] = ()
    """Which tokens are learned, that is predicted from those before; never the first. Left out, none."""
    weight: float = 1.0
    """Of each learned token."""
    about: Sequence[int] = ()
    """ECG tokens that what is learned first rests on; left out, not known."""
    verdict: float | None = None
    """The logit of yes over no that is learned after the last token; left out, none."""
    compared: Sequence[int] = ()
    """For each number in the tokens the quantity it is a limit of; left out, not known."""
    children: list[Branch] = field(default_factory=list)


@dataclass
class Packed:
    """A batch of ECGs with their branches, without the ECG tokens in front."""

    tokens: Tensor
    """(batch, length), 0 where padded."""
    positions: Tensor
    """(batch, length) along the branch, from 0 after the ECG tokens."""
    segment: Tensor
    """(batch, length) number of the branch, −1 where padded."""
    parent: Tensor
    """(batch, length) number of the branch it grows from, −2 if none."""
    targets: Tensor
    """(batch, length) the token to be predicted at a place, −100 where none is."""
    weights: Tensor
    """(batch, length) of what is to be predicted there."""
    last: list[list[int]]
    """For each ECG the place of the last token of every leaf, in order."""
    about: list[tuple[int, int, tuple[int, ...]]]
    """(row, place, ECG tokens) where an answer begins of which is known what it rests on."""
    verdicts: list[tuple[int, int, float]]
    """(row, place, logit of yes over no) to be told there."""
    compared: list[tuple[int, int, int, tuple[int, ...]]]
    """(row, first place, place behind the last, quantities) of branches of which is known what their numbers limit."""


def pack(batch: Sequence[Sequence[Branch]], multiple: int = 1) -> Packed:
    """Lays out the branches of each ECG one after another.

    Args:
        batch: for each ECG its branches.
        multiple: of which the length is one; the rest is padded.
    """
    rows = [_Row(branches) for branches in batch]
    longest = max(1, max((len(row.tokens) for row in rows), default=1))
    length = longest + -longest % multiple

    def column(name: str, filler: float) -> Tensor:
        table = torch.full((len(rows), length), filler)
        for number, row in enumerate(rows):
            values = getattr(row, name)
            table[number, : len(values)] = torch.tensor(values, dtype=table.dtype)
        return table

    return Packed(
        column("tokens", 0),
        column("positions", 0),
        column("segment", -1),
        column("parent", -2),
        column("targets", -100),
        column("weights", 0.0),
        [row.last for row in rows],
        [(number, *each) for number, row in enumerate(rows) for each in row.about],
        [(number, *each) for number, row in enumerate(rows) for each in row.verdicts],
        [(number, *each) for number, row in enumerate(rows) for each in row.compared],
    )


class _Row:
    def __init__(self, branches: Sequence[Branch]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segment: list[int] = []
        self.parent: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.last: list[int] = []
        self.about: list[tuple[int, tuple[int, ...]]] = []
        self.verdicts: list[tuple[int, float]] = []
        self.compared: list[tuple[int, int, tuple[int, ...]]] = []
        self.n_segments = 0
        for branch in branches:
            self._add(branch, -2, 0)

    def _add(self, branch: Branch, parent: int, start: int) -> None:
        number, self.n_segments = self.n_segments, self.n_segments + 1
        place = len(self.tokens)
        n = len(branch.tokens)
        self.tokens += branch.tokens
        self.positions += range(start, start + n)
        self.segment += [number] * n
        self.parent += [parent] * n
        self.targets += [-100] * n
        self.weights += [0.0] * n
        for offset, learned in enumerate(branch.learned):
            if learned and not offset:
                raise ValueError("the first token of a branch has nothing of its own before it to be learned from")
            if learned:
                self.targets[place + offset - 1] = branch.tokens[offset]
                self.weights[place + offset - 1] = branch.weight
        if branch.verdict is not None:
            self.verdicts.append((place + n - 1, branch.verdict))
        if branch.about and (any(branch.learned) or branch.verdict is not None):
            first = list(branch.learned).index(True) if any(branch.learned) else n
            self.about.append((place + first - 1, tuple(branch.about)))
        if branch.compared:
            self.compared.append((place, place + n, tuple(branch.compared)))
        for child in branch.children:
            self._add(child, number, start + n)
        if not branch.children:
            self.last.append(place + n - 1)


def attention(packed: Packed, n_prefix: int, prefix_known: Tensor) -> Tensor:
    """What may be seen from where: (batch, 1, n_prefix + length, n_prefix + length).

    Args:
        packed: the branches.
        n_prefix: ECG tokens in front.
        prefix_known: (batch, n_prefix) which of them are there; a row without an ECG has none.
    """
    batch, length = packed.tokens.shape
    place = torch.arange(n_prefix + length)
    segment = torch.cat([torch.full((batch, n_prefix), -3), packed.segment], 1)
    parent = torch.cat([torch.full((batch, n_prefix), -2), packed.parent], 1)
    same = segment[:, :, None] == segment[:, None, :]
    grown = parent[:, :, None] == segment[:, None, :]
    in_prefix = torch.zeros(batch, n_prefix + length, dtype=torch.bool)
    in_prefix[:, :n_prefix] = prefix_known
    seen = (same | grown | in_prefix[:, None, :]) & (place[:, None] >= place[None, :])
    seen[:, :, :n_prefix] &= prefix_known[:, None, :]
    seen |= torch.eye(n_prefix + length, dtype=torch.bool)  # a row that sees nothing would be NaN
    return seen[:, None]
