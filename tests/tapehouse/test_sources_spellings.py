from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.sources.spellings import ACTIONS, SPELLINGS, Unreadable, read_action, read_date

DAY = date(2016, 6, 30)  # a Thursday


@pytest.mark.parametrize(
    "text",
    [
        *("2016-06-30", "2016/6/30", "2016.06.30", "20160630", "2016-Jun-30", " 2016-06-30\n"),
        *("30 June 2016", "30 Jun 2016", "30-Jun-2016", "30th of June, 2016", "30. June 2016", "30/JUN/2016"),
        *("June 30, 2016", "June 30th, 2016", "Jun. 30 2016", "Thursday, June 30, 2016", "Thu 30 June 2016"),
        *("06/30/2016", "6/30/2016", "06-30-2016", "30/06/2016", "30.06.2016", "30.6.2016"),
        *("2016-06-30T16:00:00", "2016-06-30 16:00", "June 30, 2016 4:00 PM", "June 30, 2016 at 16:00", "20160630T160000"),
        *("2016-06-30T16:00:00Z", "2016-06-30T23:59:59-04:00", "Thu, 30 Jun 2016 16:30:00 +0000", "June 30, 2016, 9 pm ET"),
        *("2016-07-01T02:00:00Z", "2016-07-01 01:30 UTC", "2016-07-01T05:30:00+05:30", "July 1, 2016 3:00 AM GMT"),
    ],
)
def test_common_forms_of_one_date(text):
    assert read_date(text) == DAY


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty date"),
        ("soon", "unreadable date"),
        ("June 2016", "unreadable date"),
        ("1467244800", "unreadable date"),
        ("2016-06-30 17", "unreadable time"),
        ("2016-06-30 25:00", "unreadable time"),
        ("June 30, 2016 13:00 pm", "unreadable time"),
        ("2016-06-31", "no such day"),
        ("2015-02-29", "no such day"),
        ("0216-06-30", "no such day"),
        ("31/31/2016", "no such day"),
        ("06/30/16", "two digits"),
        ("30 June 16", "two digits"),
        ("Friday, June 30, 2016", "another day of the week"),
        ("03/04/2016", "either 2016-03-04 or 2016-04-03; declare date_order"),
        ("٢٠١٦-06-30", "unreadable date"),
    ],
)
def test_what_is_no_date_says_why(text, reason):
    with pytest.raises(Unreadable, match=reason):
        read_date(text)


def test_a_declared_order_decides_and_is_held_to():
    assert read_date("03/04/2016", "month_first") == date(2016, 3, 4)
    assert read_date("03/04/2016", "day_first") == date(2016, 4, 3)
    assert read_date("07/07/2016") == date(2016, 7, 7)  # both readings agree
    with pytest.raises(Unreadable, match="no such day with date_order month_first"):
        read_date("30/06/2016", "month_first")


@given(st.dates(date(1900, 1, 1), date(2199, 12, 31)), st.sampled_from(["month_first", "day_first"]))
def test_every_day_is_read_in_every_form(day, order):
    numbers = "%m/%d/%Y" if order == "month_first" else "%d/%m/%Y"
    for form in ("%Y-%m-%d", "%Y%m%d", "%d %B %Y", "%B %d, %Y", "%A, %d %b %Y", "%d.%m.%Y", numbers, f"{numbers} 09:30"):
        assert read_date(day.strftime(form), order) == day
    assert read_date(f"{day}T23:30:00Z", order) == day  # evening in London, afternoon in New York
    if day > date(1900, 1, 1):
        assert read_date(f"{day}T03:30:00Z", order) == day - timedelta(days=1)


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-z/., :+-]{1,24}", fullmatch=True))
def test_no_text_breaks_the_reader(text):
    for read in (read_date, read_action):
        try:
            assert read(text) is not None
        except Unreadable as error:
            assert str(error)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        *((text, "strong_buy") for text in ("Strong Buy", "STRONG_BUY", "strong-buy", "StrongBuy", " strong  buy. ")),
        *((text, "buy") for text in ("buy", "BUY", "Outperform", "overweight", "Accumulate")),
        *((text, "hold") for text in ("Hold", "neutral", "Market Perform", "equal-weight", "In-line")),
        *((text, "sell") for text in ("sell", "Underperform", "REDUCE", "short")),
        *((text, "strong_sell") for text in ("strong sell", "Strong_Sell", "conviction sell")),
    ],
)
def test_common_spellings_of_actions(text, action):
    assert read_action(text) == action


@pytest.mark.parametrize("text", ["", "hold/buy", "1", "buy?", "not buy", "buy buy", "do nothing", "Verkaufen"])
def test_what_is_no_action_is_refused(text):
    with pytest.raises(Unreadable, match="action"):
        read_action(text)


def test_declared_spellings_win():
    assert read_action("Verkaufen", {"verkaufen": "sell"}) == "sell"
    assert read_action("add", {"add": "hold"}) == "hold"
    assert read_action("5 / 5", {"5/5": "strong_buy"}) == "strong_buy"
    assert set(SPELLINGS.values()) == set(ACTIONS)
