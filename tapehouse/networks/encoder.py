"""A Transformer encoder over windows of feature rows, and a linear head of classes on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from tapehouse.networks.recipe import EncoderSection

CLASSES = 3  # SELL, HOLD, BUY


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual path."""

    def __init__(self, section: EncoderSection):
        super().__init__()
        self.heads = section.heads
        self.before_attention, self.before_hidden = nn.LayerNorm(section.width), nn.LayerNorm(section.width)
        self.queries = nn.Linear(section.width, 3 * section.width)
        self.output = nn.Linear(section.width, section.width)
        self.up, self.down = nn.Linear(section.width, section.hidden), nn.Linear(section.hidden, section.width)
        self.dropout = nn.Dropout(section.dropout)

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """(n, t, width) of the same; `there` (n, 1, 1, t) says which rows may be attended to."""
        n, t, width = states.shape
        parts = self.queries(self.before_attention(states)).view(n, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=there)
        states = states + self.dropout(self.output(mixed.transpose(1, 2).reshape(n, t, width)))
        return states + self.dropout(self.down(gelu(self.up(self.before_hidden(states)))))


class WindowEncoder(nn.Module):
    """(n, window, F) and which rows are there (n, window) to (n, width): the state of the last row, which always is there.

    Places are learned and counted from the decision backwards, so that a window with few rows has the places of the latest.
    """

    def __init__(self, section: EncoderSection):
        super().__init__()
        self.enter = nn.Linear(len(section.features), section.width)
        self.places = nn.Parameter(0.02 * torch.randn(section.window, section.width))
        self.blocks = nn.ModuleList(Block(section) for _ in range(section.layers))
        self.norm = nn.LayerNorm(section.width)

    def forward(self, windows: Tensor, there: Tensor) -> Tensor:
        states = self.enter(windows) + self.places
        for block in self.blocks:
            states = block(states, there[:, None, None, :])
        return self.norm(states[:, -1])


class WindowClassifier(nn.Module):
    """Logits (n, 3) of SELL, HOLD and BUY."""

    def __init__(self, section: EncoderSection):
        super().__init__()
        self.encoder = WindowEncoder(section)
        self.head = nn.Linear(section.width, CLASSES)

    def forward(self, windows: Tensor, there: Tensor) -> Tensor:
        return self.head(self.encoder(windows, there))


class Chances(nn.Module):
    """Probabilities (n, 3) of a classifier's logits, less what the weights of its loss have added to them.

    `prior` are the log weights of the classes: weighting a class by w trains logits that are log w above those of the world
    (Saerens and others 2002).
    """

    def __init__(self, classifier: nn.Module, weights: Tensor | None = None):
        super().__init__()
        self.classifier = classifier
        self.register_buffer("prior", torch.zeros(CLASSES) if weights is None else weights.log())

    def forward(self, windows: Tensor, there: Tensor) -> Tensor:
        return (self.classifier(windows, there) - self.prior).softmax(dim=-1)
