"""What a prompt may say: numbers that its own decision point shows, and no word that names an outcome.

The scan reads a prompt as text and knows nothing of how it was rendered. Every number in it must be one that its template
shows of the row's own decision point, at the format of the template, or one that the template or the objective's words say
themselves. So nothing known later can stand in a prompt, from wherever it came: a limit, a reward, a barrier, a later close,
a return that lies ahead, or the right feature of the wrong decision. A later value that happens to print as a number which
the decision point shows tells nothing that the prompt does not say anyway.

It is part of the contract of every table of `datasets` that has a column `prompt` (`tapehouse.shown_values`): judged on the
new rows before they are visible, without exemption.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import polars as pl

from tapehouse.expectations import Result

PROMPT: Final = "prompt"
SHOWN: Final = 3  # examples in a result
# Signs and per cent signs belong to a number: a return of the wrong sign is another number.
NUMBER: Final = r"[-+]?[0-9]+(?:[.,:][0-9]+)*%?"
ONLY_ITS_POINT: Final = "prompt_shows_only_numbers_of_its_own_decision_point"
NO_OUTCOME: Final = "prompt_has_no_word_that_names_an_outcome"

# Pattern (of whole words, in any case) to what it would tell.
OUTCOME_WORDS: Final[dict[str, str]] = {
    r"chosen|rejected|preferred answer": "which answer of a pair was paid better",
    r"label(?:s|led|ed)?|label_\w+": "that a label is there to be read",
    r"(?:(?:upper|lower|vertical|horizontal|triple|profit|stop)[-_ ])?barriers?": "a barrier, touched after the decision",
    r"rewards?|payoffs?|reward_\w+": "what an answer was paid",
    r"(?:take[- ]profits?|stop[- ]loss(?:es)?|stops?|targets?|limits?|orders?) (?:(?:was|were|is|are|gets?|got) )?"
    r"(?:hit|reached|touched|triggered|filled|unfilled|executed)": "an exit or a fill that lies ahead",
    r"(?:next|following|subsequent|later|coming|tomorrow'?s) (?:\w+ )?(?:close|open|high|low|price|return|move)s?":
        "a price after the decision",
    r"tomorrow": "the day after the decision",
    r"(?:forward|future|ahead) (?:returns?|prices?|moves?|closes?|volatility)|ret_fwd\w*|forward_\w+":
        "a return that lies ahead",
    r"will (?:rise|fall|gain|lose|drop|rally|close|open|recover|reach|hit|fill|be filled)": "a forecast stated as a fact",
    r"(?:went on|turned out|ended up|subsequently) ?(?:to )?\w*": "what came after, told in hindsight",
    r"(?:correct|right|true|best|winning|ground[- ]truth) (?:answer|action|class|decision|order|side)": "the answer",
    r"outcomes?|hindsight|ex[- ]post|markouts?|shortfall|oracle": "what became of an order",
    r"signal[_ ]class(?:es)?": "a class of the five-class signal, which is cut from later returns",
}  # fmt: skip
_ANY_OUTCOME: Final = r"(?i)\b(?:" + "|".join(OUTCOME_WORDS) + r")\b"


def numbers(texts: pl.Expr) -> pl.Expr:
    """Every number of each text as it is written, in order: a list of texts."""
    return texts.str.extract_all(NUMBER)


def scan(
    rows: pl.DataFrame,
    shown: pl.Series,
    key: Sequence[str],
    naming: Callable[[int, list[str]], list[str]] | None = None,
) -> list[Result]:
    """Two results, as of two expectations of a contract; their rows are positions in `rows`.

    Args:
        rows: a column `prompt`, and the columns of `key`.
        shown: for each row the numbers that its decision point shows, as texts.
        key: the columns that name a row in a result.
        naming: for a row that fails and its foreign numbers, what each of them is, in words.
    """
    prompts = rows[PROMPT]
    told = prompts.str.contains(_ANY_OUTCOME).fill_null(False)
    foreign = foreign_numbers(prompts, shown)
    bad = (foreign.list.len().fill_null(0) > 0) | prompts.is_null()
    results = []
    for name, failed, say in (
        (ONLY_ITS_POINT, bad, lambda row: _numbers_of(row, prompts, foreign, naming)),
        (NO_OUTCOME, told, lambda row: ", ".join(words_of(prompts[row]))),
    ):
        positions = tuple(failed.arg_true().to_list())
        examples = "; ".join(f"{_key_text(rows, key, row)}: {say(row)}" for row in positions[:SHOWN])
        detail = f"{len(positions)} prompts, such as {examples}" if positions else ""
        results.append(Result(name, not positions, positions, detail))
    return results


def foreign_numbers(prompts: pl.Series, shown: pl.Series) -> pl.Series:
    """For each prompt its numbers that are not among those shown; an empty list where all are."""
    both = pl.DataFrame({"prompt": prompts, "shown": shown})
    return both.select(numbers(pl.col("prompt")).list.set_difference("shown"))["prompt"]


def words_of(prompt: str | None) -> list[str]:
    """The words of a prompt that name an outcome, each with what it would tell."""
    found = []
    for pattern, why in OUTCOME_WORDS.items():
        hits = pl.Series([prompt], dtype=pl.String).str.extract_all(rf"(?i)\b(?:{pattern})\b")[0]
        found += [f"{hit!r} tells {why}" for hit in dict.fromkeys(hits)]
    return found


def _key_text(rows: pl.DataFrame, key: Sequence[str], row: int) -> str:
    values = (rows[column][row] for column in key)
    return " ".join(f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value) for value in values)


def _numbers_of(row: int, prompts: pl.Series, foreign: pl.Series, naming: Callable[[int, list[str]], list[str]] | None) -> str:
    if prompts[row] is None:
        return "no prompt"
    found = sorted(foreign[row].to_list())
    return ", ".join(naming(row, found) if naming else found)
