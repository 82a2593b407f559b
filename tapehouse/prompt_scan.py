"""What a prompt may say: numbers that its own decision point shows, and no word that names an outcome.

The scan reads a prompt as text and knows nothing of how it was rendered. Every number in it must be one that its template
shows of the row's own decision point, at the format of the template, or one that the template or the objective's words say
themselves. So nothing known later can stand in a prompt, from wherever it came: a limit, a reward, a barrier, a later close,
a return that lies ahead, or the right feature of the wrong decision. A later value that happens to print as a number which
the decision point shows tells nothing that the prompt does not say anyway.

Words are read with `_` and `-` as blanks: the name of a column is the words that it is made of. The actions that are answers
(buy, strong_sell, enable_trail) may stand in a prompt as often as its template or its objective's words say them, since a
template may list what can be answered, and no more often.

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
NUMBER: Final = r"[-+]?\p{Nd}+(?:[.,:]\p{Nd}+)*%?"  # digits of any script
ONLY_ITS_POINT: Final = "prompt_shows_only_numbers_of_its_own_decision_point"
NO_OUTCOME: Final = "prompt_has_no_word_that_names_an_outcome"

# Pattern (of whole words, in any case, `_` and `-` being blanks) to what it would tell.
OUTCOME_WORDS: Final[dict[str, str]] = {
    r"(?:is )?chosen|rejected|preferred answer": "which answer of a pair was paid better",
    r"label\w*": "that a label is there to be read",
    r"(?:(?:upper|lower|vertical|horizontal|triple|profit|stop) )?barriers?": "a barrier, touched after the decision",
    r"rewards?|payoffs?": "what an answer was paid",
    r"(?:take profits?|profit targets?|stop loss(?:es)?|stops?|targets?|limits?|orders?) "
    r"(?:(?:was|were|is|are|gets?|got) )?(?:hit|reached|touched|triggered|filled|unfilled|executed)|"
    r"(?:hits?|reaches|reached|touches|touched) (?:the |its )?(?:take profit|profit target|stop|target|limit)":
        "an exit or a fill that lies ahead",
    r"exit (?:price|return|time)s?": "an exit that lies ahead",
    r"(?:next|following|subsequent|later|coming|tomorrow'?s) (?:[\w']+ )?(?:close|open|high|low|price|return|move)[sd]?|"
    r"(?:close|open|high|low|price|return) (?:tomorrow|next)|t ?\+ ?[0-9]+":
        "a price after the decision",
    r"tomorrow": "the day after the decision",
    r"(?:forward|future|ahead|fwd) (?:returns?|ret|prices?|moves?|closes?|volatility|vol)|(?:ret|return|returns|vol) fwd":
        "a return that lies ahead",
    r"(?:will|is going to|going to) (?:go|move|be|rise|fall|gain|lose|drop|rally|close|open|recover|reach|hit|fill)":
        "a forecast stated as a fact",
    r"(?:went on|turned out|ended up|subsequently) ?(?:to )?\w*": "what came after, told in hindsight",
    r"(?:correct|right|true|best|winning|ground truth) (?:answer|action|class|decision|order|side)|ground ?truth": "the answer",
    r"outcomes?|hindsight|ex post|markouts?|shortfall|oracle": "what became of an order",
    r"(?:signal|five) class(?:es)?": "a class of the five-class signal, which is cut from later returns",
}  # fmt: skip
ANSWERS: Final = r"(?:strong )?(?:buy|sell)|hold|move to be|(?:en|dis)able trail"  # of all families


def _whole(pattern: str) -> str:
    """A pattern of whole words, in any case, whose blanks are what may join the words of a name."""
    joined = pattern.replace(" ?", r"[ \t_-]*").replace(" ", r"[ \t_-]+")
    return rf"(?i)(?:\b|_)(?:{joined})(?:\b|_)"


_ANY_OUTCOME: Final = _whole("|".join(OUTCOME_WORDS))
_ANY_ANSWER: Final = _whole(ANSWERS)


def numbers(texts: pl.Expr) -> pl.Expr:
    """Every number of each text as it is written, in order: a list of texts."""
    return texts.str.extract_all(NUMBER)


def scan(
    rows: pl.DataFrame,
    shown: pl.Series,
    key: Sequence[str],
    naming: Callable[[int, list[str]], list[str]] | None = None,
    said: pl.Series | None = None,
) -> list[Result]:
    """Two results, as of two expectations of a contract; their rows are positions in `rows`.

    Args:
        rows: a column `prompt`, and the columns of `key`.
        shown: for each row the numbers that its decision point shows, as texts.
        key: the columns that name a row in a result.
        naming: for a row that fails and its foreign numbers, what each of them is, in words.
        said: for each row what its template and its objective say in any case; default: nothing.
    """
    prompts = rows[PROMPT]
    answered = prompts.str.count_matches(_ANY_ANSWER)
    allowed = pl.Series([0], dtype=pl.UInt32) if said is None else said.str.count_matches(_ANY_ANSWER)
    told = (prompts.str.contains(_ANY_OUTCOME) | (answered > allowed)).fill_null(False)
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
    """The words of a prompt that name an outcome or an answer, each with what it would tell."""
    found = []
    text = pl.Series([prompt], dtype=pl.String)
    for pattern, why in (OUTCOME_WORDS | {ANSWERS: "an answer, more often than the template says it"}).items():
        hits = text.str.extract_all(_whole(pattern))[0]
        found += [f"{hit.strip('_')!r} tells {why}" for hit in dict.fromkeys(hits)]
    return found


def _key_text(rows: pl.DataFrame, key: Sequence[str], row: int) -> str:
    values = (rows[column][row] for column in key)
    return " ".join(f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value) for value in values)


def _numbers_of(row: int, prompts: pl.Series, foreign: pl.Series, naming: Callable[[int, list[str]], list[str]] | None) -> str:
    if prompts[row] is None:
        return "no prompt"
    found = sorted(foreign[row].to_list())
    return ", ".join(naming(row, found) if naming else found)
