"""What speaks against the figures of a report, in words: a line for its first screen, and the rest in a section of its own."""

from typing import Final

from tapehouse.backtest.config import BacktestConfig

HINDSIGHT: Final = (
    "The default universe is five companies that were chosen with hindsight: all of them survived and grew. Absolute "
    "returns are therefore inflated, differences favour whoever is long or follows trends, and nothing here is evidence "
    "that any of it could be traded."
)
_COSTS: Final = BacktestConfig()
# Head and text of each.
DETAILS: Final = (
    (
        "The designers have seen these years.",
        "No model is trained on its test block. But the ranges that preference pairs are drawn from were chosen on the whole "
        "span, test blocks included, and the form of the DPO recipe (no likelihood term, starting from the fine-tuned adapter) "
        "was chosen after its answers on the first test block had been looked at. So the test blocks are not wholly unseen.",
    ),
    (
        "Adapters and baselines execute differently.",
        "Adapters answer with limit orders, and a resting limit fills without slippage or not at all. Baselines send market "
        f"orders, which pay {_COSTS.slippage_bps:g} bps. So a part of any difference between an adapter and a baseline can be "
        "execution, not foresight: coin_limits sends limit orders by the toss of a coin, coin_market sends the same tosses at "
        "market, and what these two differ by is what limits are worth to somebody without any view.",
    ),
    (
        "Shorts are free to hold, and cash earns nothing.",
        "A short position pays no borrow fee and can always be opened, which favours whoever sells; idle cash and the proceeds "
        "of shorts earn no interest, which favours whoever is invested.",
    ),
)
