"""The classifier of a run: one or more members, whose predictions are fused.

    member                               sees                         gives
    efficientnet_lite0/statistics        one stream                   the head's calibrated logits
    efficientnet_lite0+flow/statistics   both streams (early fusion)  the sum of the logits of a linear head for each

Late fusion adds the members' log-probabilities, each times its weight.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vidpipe.heads.heads import Head
from vidpipe.heads.members import WITHOUT, Member, name_classifier

__all__ = ["Fusion", "MemberHeads", "Padded"]

Padded = tuple[Tensor, Tensor]
"""Padded sequences (N, T, D) and their lengths (N,)."""


class MemberHeads(nn.Module):
    """A fitted member: one head, or the linear heads of early fusion, whose logits add up.

    Args:
        member: its name and its streams.
        heads: one for each of its streams.
    """

    def __init__(self, member: Member, heads: Sequence[Head]) -> None:
        super().__init__()
        self.member = member
        self.parts = nn.ModuleList(heads)

    @property
    def heads(self) -> list[Head]:
        """The head of each of the streams."""
        return [part for part in self.parts if isinstance(part, Head)]

    def forward(self, sequences: Mapping[str, Padded]) -> Tensor:
        """Classify padded sequences of each stream: calibrated logits (N, K)."""
        return self.apply_heads(lambda stream, head: head(*sequences[stream]))

    def apply_heads(self, compute: Callable[[str, Head], Tensor]) -> Tensor:
        """Return the sum of what `compute` gives for each stream and its head, (N, K)."""
        logits = [compute(stream, head) for stream, head in zip(self.member.streams, self.heads, strict=True)]
        return logits[0] if len(logits) == 1 else torch.stack(logits).sum(dim=0)


class Fusion(nn.Module):
    """The classifier of a run: padded sequences of each stream in, logits out.

    Args:
        members: M fitted members.
        weights: (M,) of the members' log-probabilities, not negative; None for 1 each.
        temperature: what the sum is divided by, so that the probabilities are calibrated.
    """

    weights: Tensor
    """(M,) float32"""
    temperature: Tensor
    """() float32"""

    def __init__(
        self, members: Sequence[MemberHeads], weights: Sequence[float] | None = None, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.member_heads = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights or [1.0] * len(members), dtype=torch.float32))
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    @property
    def fitted(self) -> dict[str, MemberHeads]:
        """The members by name."""
        return {one.member.name: one for one in self.member_heads if isinstance(one, MemberHeads)}

    @property
    def members(self) -> tuple[Member, ...]:
        """What the members are."""
        return tuple(one.member for one in self.fitted.values())

    @property
    def name(self) -> str:
        """`fusion`, or the name of the only head where it sees one stream."""
        return name_classifier(self.members)

    def forward(self, sequences: Mapping[str, Padded]) -> Tensor:
        """Classify padded sequences.

        Args:
            sequences: by stream.

        Returns:
            Calibrated logits (N, K); of a single member, its own.
        """
        return self.fuse(torch.stack([member(sequences) for member in self.fitted.values()]))

    def fuse(self, logits: Tensor) -> Tensor:
        """Fuse the calibrated logits of all members: (M, N, K) -> (N, K)."""
        if len(logits) == 1:
            return logits[0]
        weights = self.weights.to(logits)[:, None, None]  # (M, 1, 1)
        return (weights * logits.log_softmax(dim=2)).sum(dim=0) / self.temperature.to(logits)

    def select(self, members: Sequence[Member]) -> "Fusion":
        """Return the fusion of some members; their weights keep their ratios and have the same sum.

        Args:
            members: at least one of `members`.

        Returns:
            The fusion, over the same heads.
        """
        kept = [index for index, member in enumerate(self.members) if member in members]
        chosen, total = self.weights.cpu()[kept], float(self.weights.sum())
        chosen = chosen if chosen.sum() > 0 else torch.ones(len(kept))
        fitted = list(self.fitted.values())
        weights = (chosen * total / chosen.sum()).tolist()
        return Fusion([fitted[index] for index in kept], weights, float(self.temperature))

    def parts(self) -> "dict[str, Fusion]":
        """Return the classifiers to report: the fusion, each member, each stream alone, and without each stream.

        A classifier of one member has itself only. A stream alone is the members that see no other stream. Of two
        streams, the one that is left is the other one alone.
        """
        found: dict[str, list[Member]] = {self.name: list(self.members)}
        if len(self.members) > 1:
            found |= {member.name: [member] for member in self.members}
        streams = dict.fromkeys(stream for member in self.members for stream in member.streams)
        if len(streams) > 1:
            found |= {name: [one for one in self.members if one.streams == (name,)] for name in streams}
        if len(streams) > 2:
            found |= {f"{WITHOUT}{name}": [one for one in self.members if name not in one.streams] for name in streams}
        return {name: self.select(members) for name, members in found.items() if members}
