"""Numbers in a text beside what was measured: on which side of a limit an ECG is.

A language model reads a number digit by digit, and learns to compare numbers only roughly and only those it met. Here
the number is subtracted from the measurement that its text is about, so every limit is compared alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecglm.models.encoder import EncoderConfig
from ecglm.models.measured import ANGLES

MOST_ECGS = 2
"""A comparison is about two."""
ANGLE_SPREAD = 30.0
"""Degrees that count as one standard deviation of an angle."""
SHARPNESS = (20.0, 4.0, 1.0, 0.25)
"""How steeply a side is told: from which side of the limit, to how far away, by standard deviation."""


@dataclass(frozen=True)
class Quantity:
    """A measurement that an encoder tells."""

    name: str
    token: int
    """The ECG token that tells it."""
    targets: tuple[int, ...]
    """Its place among the encoder's targets; of an angle those of cosine and sine."""


def quantities(config: EncoderConfig) -> list[Quantity]:
    """The measurements that an encoder tells, in the order of its targets."""
    token = {name: number for number, name in enumerate(config.tokens)}
    found: dict[str, Quantity] = {}
    for place, target in enumerate(config.targets):
        if target.kind == "value":
            name = target.name.partition(":")[0]
            before = found[name].targets if name in found else ()
            found[name] = Quantity(name, token[target.token], (*before, place))
    return list(found.values())


def in_units(config: EncoderConfig, outputs: Tensor) -> Tensor:
    """What an encoder tells of each of its quantities in its own unit: (n, n_targets) → (n, n_quantities)."""
    targets = config.targets
    raw = outputs.double() * outputs.new_tensor([t.scale for t in targets]) + outputs.new_tensor(
        [t.mean for t in targets]
    )
    told = [
        raw[:, each.targets[0]]
        if len(each.targets) == 1
        else torch.rad2deg(torch.atan2(raw[:, each.targets[1]], raw[:, each.targets[0]]))
        for each in quantities(config)
    ]
    return torch.stack(told, 1) if told else raw[:, :0]


class Comparer(nn.Module):
    """Tells a text, where it gives a number, on which side of it the measurement is that the text asks for.

    Measurements are found by their names, as the reader finds ECG tokens; what is told is how far the measurement is
    above the number, and, by the state of the text, whether that is what the text asks for.
    """

    def __init__(self, config: EncoderConfig, width: int, gate: float) -> None:
        super().__init__()
        known = quantities(config)
        self.names = nn.Parameter(torch.randn(len(known), width) * 0.02)
        spread = [ANGLE_SPREAD if each.name in ANGLES else config.targets[each.targets[0]].scale for each in known]
        self.register_buffer("spread", torch.tensor(spread), persistent=False)
        self.register_buffer("angle", torch.tensor([each.name in ANGLES for each in known]), persistent=False)
        self.spread: Tensor
        self.angle: Tensor
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        n_sides = MOST_ECGS * len(SHARPNESS)
        self.plain, self.asked = nn.Linear(n_sides, width, bias=False), nn.Linear(n_sides, width, bias=False)
        self.wanted = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, states: Tensor, numbers: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What each number of a text finds, and which quantity it looks at.

        Args:
            states: (batch, length, width) of the text within the language model.
            numbers: (batch, length), NaN where no number ends.
            values: (batch, n_ecgs, n_quantities) in their units, NaN where one is not known.

        Returns:
            (batch, length, width), 0 where no number is; (n_numbers, n_quantities) in the order of places.
        """
        found = torch.zeros_like(states)
        rows, places = torch.nonzero(numbers.isfinite(), as_tuple=True)
        if not len(rows) or not len(self.names):
            return found, self.names.new_zeros(0, len(self.names))
        state = self.norm(states[rows, places])  # (n, width)
        query = functional.normalize(self.query(state).float(), dim=-1)
        key = functional.normalize(self.key(self.names).float(), dim=-1)
        weights = (query @ key.T * self.sharpness).softmax(-1)  # (n, n_quantities)
        away = values[rows] - numbers[rows, places, None, None]  # (n, n_ecgs, n_quantities)
        away = torch.where(self.angle, torch.remainder(away + 180, 360) - 180, away) / self.spread
        sides = torch.stack([(away * each).tanh() for each in SHARPNESS], -1).nan_to_num()
        told = (weights[:, None, :, None].to(sides.dtype) * sides).sum(2).flatten(1)  # (n, n_ecgs · n_sharpness)
        told = functional.pad(told, (0, MOST_ECGS * len(SHARPNESS) - told.shape[1])).to(states.dtype)
        each = self.output(self.plain(told) + self.asked(told) * self.wanted(state))
        return found.index_put((rows, places), (self.gate.tanh() * each).to(states.dtype)), weights
