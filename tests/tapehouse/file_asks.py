"""Asking sources of files in tests: a small universe in a folder of its own, and declarations for each offer."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from tapehouse.settings import Settings, load_settings
from tapehouse.sources import files
from tapehouse.sources.base import Ask, Delivery

START, END = datetime(2000, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
BAR_COLUMNS = {"symbol": "Ticker", "session": "Date", "open": "Open", "high": "High", "low": "Low", "close": "Close"} | {
    "volume": "Volume",
    "vendor_adj_close": "Adj Close",
}
DECLARED = {
    "bars": {"columns": BAR_COLUMNS, "holds": ["AAPL", "IBM", "FB"]},
    "macro": {
        "columns": {"symbol": "series_id", "period": "date", "vintage": "vintage", "value": "value"},
        "holds": ["PAYEMS", "GDP"],
        "frequencies": {"GDP": "q"},
        "first_vintage_is_snapshot": True,
    },
    "trades": {
        "columns": {"symbol": "s", "trade_id": "t", "event_at": "T", "known_at": "R", "price": "p", "size": "q", "side": "m"},
        "holds": ["BTCUSDT"],
        "time_unit": "ms",
        "sides": {"B": "buy", "S": "sell"},
        "market": "futures",
    },
    "actions": {
        "columns": {name: name for name in ("symbol", "kind", "ex_date", "ratio", "amount")},
        "holds": ["AAPL", "MSFT"],
    },
}
TEXTS = {
    "bars": """Ticker,Date,Open,High,Low,Close,Volume,Adj Close
AAPL,2000-03-01,118.56,132.06,118.5,130.31,9616100,4.186662803811
AAPL,2000-03-02,127.0,127.94,120.69,122.0,2779100,3.9196750983419
IBM,2000-03-01,102.0,105.5,100.06,100.25,9807800,81.1
IBM,2000-03-02,100.5,105.44,99.5,103.12,9770000,83.4
FB,2012-11-23,24.08,24.12,23.8,24.0,23451300,24.0
IBM,2013-04-01,212.8,213.5,211.25,212.38,2877600,205.3
""",
    "macro": """series_id,date,vintage,value
PAYEMS,2005-01-01,2005-03-04,132573
PAYEMS,2005-01-01,2005-04-01,132511
PAYEMS,2005-02-01,2005-03-04,132835
PAYEMS,2005-02-01,2005-04-01,132754
PAYEMS,1999-01-01,2005-03-04,127724
GDP,2004-10-01,2005-03-30,11994.8
GDP,2005-01-01,2005-04-28,12191.7
""",
    "trades": """s,t,T,R,p,q,m
BTCUSDT,11,1072915200000,1072915200003,55100.1,0.010,B
BTCUSDT,12,1072915200500,1072915200502,55100.2,1.500,S
BTCUSDT,13,1072915201000,1072915201004,55100.1,0.002,S
BTCUSDT,14,1388534400000,1388534400001,55101.0,0.250,B
""",
    "actions": """symbol,kind,ex_date,ratio,amount
AAPL,split,2005-02-28,2,
AAPL,dividend,2012-08-09,,2.65
MSFT,split,2003-02-18,2,0
MSFT,dividend,2004-11-15,1,3.08
MSFT,dividend,1999-01-04,,0.1
""",
}


def settings_of(folder: Path, start: datetime = START, end: datetime = END, **keys) -> Settings:
    """Settings of a folder whose `sources.yaml` covers [start, end); `keys` replace its own."""
    line = {"id": "US:AAPL:1", "name": "Apple", "kind": "equity", "tradable": True, "source": "here"}
    content = {
        "span": {"start": start.date(), "end": end.date()},
        "days": {"start": start.date(), "end": end.date()},
        "calendar": "XNYS",
        "interval": "1d",
        "decision_lag_minutes": 5,
        "settlement_lag_days": 1,
        "benchmark": "AAPL",
        "universe": {"AAPL": line},
        "sources": {"here": {"kind": "files", "file": "bars.csv", **DECLARED["bars"]}},
        **keys,
    }
    (folder / "sources.yaml").write_text(yaml.safe_dump(content))
    return load_settings(folder, warehouse=folder / "warehouse")


def declare(offer: str, file: str, **keys) -> files.Declaration:
    """The declaration of DECLARED for an offer, with other keys where given (None: left out)."""
    content = {"kind": "files", "offer": offer, "file": file, **DECLARED[offer], **keys}
    return files.Declaration.model_validate({key: value for key, value in content.items() if value is not None})


def ask(declared: files.Declaration, settings: Settings, *symbols: str, start=START, end=END) -> Ask:
    """An ask for `symbols` (default: all that the files hold) over the span."""
    return Ask(declared.offer, "here", symbols or tuple(declared.symbols or ()), start, end, settings)


def delivered(declared: files.Declaration, settings: Settings, *symbols: str, start=START, end=END) -> Delivery:
    """What the files give, with the promise that nothing is lost held to."""
    delivery = files.deliver(declared, ask(declared, settings, *symbols, start=start, end=end))
    counts = delivery.counts
    parts = ("accepted", "outside_span", "quarantined", "duplicates")
    assert counts["received"] == sum(counts[part] for part in parts), counts
    return delivery
