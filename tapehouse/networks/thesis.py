"""The thesis policy: from the features of a decision to what a thesis states of it, in three heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tapehouse.prompts.thesis import ACTIONS, CLAIMS, SECTIONS

SIGNS = (-1, -1, 0, 1, 1)  # of the five decisions, strong_sell to strong_buy: what an account would do


class ThesisPolicy(nn.Module):
    """A shared encoder, two layers, and linear heads: sections, claims (Bernoulli each) and the decision (categorical)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.sections = nn.Linear(width, len(SECTIONS))
        self.claims = nn.Linear(width, len(CLAIMS))
        self.decision = nn.Linear(width, len(ACTIONS))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of (n, F) rows: (n, 14) of sections and claims, (n, 5) of the decision."""
        state = self.encoder(rows)
        return torch.cat([self.sections(state), self.claims(state)], dim=-1), self.decision(state)


class Directions(nn.Module):
    """The probabilities of SELL, HOLD and BUY that a thesis policy implies: of its decisions, added up by sign."""

    def __init__(self, policy: ThesisPolicy):
        super().__init__()
        self.policy = policy
        signs = torch.tensor(SIGNS)
        self.register_buffer("by_sign", torch.stack([(signs == sign).float() for sign in (-1, 0, 1)], dim=-1))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, 3) of (n, F)."""
        return self.policy(rows)[1].softmax(dim=-1) @ self.by_sign
