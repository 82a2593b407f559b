"""What speaks against the figures of a report, in words: a line for its first screen, and the rest in a section of its own."""

from collections.abc import Collection
from typing import Final

from tapehouse.backtest.config import BacktestConfig

DEFAULT_UNIVERSE: Final = frozenset({"AAPL", "FB", "GOOG", "IBM", "MSFT"})  # what `sources.yaml` names as shipped
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
        "The size of gbm was chosen on blocks that it is tested on.",
        "Its six settings were compared by log loss on the eight blocks from 2008-08 to 2012-05, which are test blocks now. "
        "That favours gbm, and so what it is the yardstick or the signal of; on the blocks before it has no such knowledge.",
    ),
    (
        "Adapters follow the regime that their prompts print.",
        "In a run on the default data sft_orders and dpo_orders bought at each of 593 decisions whose prompt says bullish and "
        "at none of 349 that say bearish, where they sold nine times in ten: they are close to a rule. regime_limits is that "
        "rule without a model: it buys where the printed regime is bullish, sells where it is bearish and holds elsewhere, at "
        "limits as an adapter’s. Who is not ahead of it has not been shown to read more than one word of the prompt.",
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


def hindsight(symbols: Collection[str]) -> str:
    """What is known of how the traded instruments were chosen.

    Args:
        symbols: the tradable ones of the project.
    """
    if set(symbols) == DEFAULT_UNIVERSE:
        return HINDSIGHT
    which = "One instrument is" if len(symbols) == 1 else f"{len(symbols)} instruments are"
    return (
        f"{which} traded, and how they were chosen is not known here. If it was after the fact, say because they survived and "
        "grew, absolute returns are inflated, and differences favour whoever is long or follows trends."
    )
