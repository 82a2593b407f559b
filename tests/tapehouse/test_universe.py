from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.universe import Universe, load_universe

DEFAULT = Path(__file__).parents[2] / "sources.yaml"


def changed(tmp_path: Path, change) -> Path:
    content = yaml.safe_load(DEFAULT.read_text())
    change(content)
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_default_universe():
    universe = load_universe(DEFAULT)
    assert universe.tradable == ("AAPL", "IBM", "MSFT", "GOOG", "FB")
    assert universe.symbols == (*universe.tradable, "^GSPC", "^IXIC")
    assert universe.benchmark == "^GSPC" and not universe.universe["^GSPC"].tradable
    assert (universe.start.isoformat(), universe.end.isoformat()) == (
        "2000-03-01T00:00:00+00:00",
        "2013-04-01T00:00:00+00:00",
    )
    assert (universe.decision_lag_minutes, universe.settlement_lag_days) == (5, 1)
    assert Universe.model_validate_json(universe.model_dump_json()).declaration == universe.declaration
    assert all(source.licence for source in universe.sources.values()) and "licence" not in universe.declaration
    with pytest.raises(ValueError, match="frozen"):
        universe.calendar = "XLON"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(spam=1), "spam: unknown key"),
        (lambda c: c["universe"]["AAPL"].update(sorce="x"), "universe.AAPL.sorce: unknown key"),
        (lambda c: c["sources"]["arch-sp500"].update(fil="x"), "sources.arch-sp500.fil: unknown key"),
        (lambda c: c["universe"]["IBM"].update(kind="bond"), "universe.IBM.kind: .*'equity', 'index', 'future'"),
        (lambda c: c["universe"]["IBM"].update(kind="future"), "universe.IBM: expires is the last session of a future"),
        (lambda c: c["universe"]["IBM"].update(kind="perpetual"), "universe.IBM: funding_hours is for perpetuals"),
        (lambda c: c["universe"]["IBM"].update(roll={"sessions_before_expiry": 5}), "universe.IBM: roll is for futures alone"),
        (lambda c: c["universe"]["FB"].update(history=[{"symbol": "META"}]), "universe.FB.history ends with META"),
        (lambda c: c["universe"]["FB"].update(history=[{"symbol": "X"}, {"symbol": "FB"}]), "FB follows X and needs its first"),
        (lambda c: c["universe"]["FB"].update(history=[{"symbol": "FB", "to": "2012-01-01"}]), "said by `delisted`"),
        (lambda c: c["universe"]["IBM"].update(source="nowhere"), "universe.IBM.source 'nowhere' is not in sources"),
        (lambda c: c["universe"]["IBM"].update(source="arch-sp500"), "sources.arch-sp500 does not hold IBM"),
        (lambda c: c["universe"]["IBM"].update(id="US:AAPL:1"), "two instruments share one id"),
        (lambda c: c["universe"]["IBM"].pop("name"), "universe.IBM.name: Field required"),
        (lambda c: c.update(benchmark="^DJI"), r"benchmark \^DJI is not in universe"),
        (lambda c: c.update(interval="1h"), "interval: '1h' has no anchors, windows and horizons: .* write 1d"),
        (lambda c: c["span"].update(start="2000-03-02"), "span: start and end must be the first day of a month"),
        (lambda c: c["span"].update(end="2000-03-01"), "span: start 2000-03-01 must lie before end"),
        (lambda c: c.update(decision_lag_minutes="soon"), "decision_lag_minutes: .*integer"),
        (lambda c: c["sources"]["arch-sp500"]["columns"].update(opn="Open"), "arch-sp500: columns names .*'opn'"),
        (lambda c: c["sources"]["arch-sp500"]["columns"].pop("close"), r"arch-sp500: columns lacks \['close'\]"),
        (lambda c: c["sources"]["arch-sp500"].pop("symbol"), "give either symbol, or columns.symbol"),
        (lambda c: c["sources"]["bokeh-sampledata"].pop("holds"), "holds must list the symbols"),
        (lambda c: c.update(folder="elsewhere"), "folder: unknown key"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path, change, said):
    with pytest.raises(TapehouseError, match=rf"sources\.yaml: .*{said}"):
        load_universe(changed(tmp_path, change))


def test_unreadable_files(tmp_path):
    with pytest.raises(TapehouseError, match="no such file"):
        load_universe(tmp_path / "sources.yaml")
    path = tmp_path / "sources.yaml"
    path.write_text("universe: {AAPL: 1, AAPL: 2}\n")
    with pytest.raises(TapehouseError, match="key 'AAPL' is given twice"):
        load_universe(path)
    path.write_text("- a list\n")
    with pytest.raises(TapehouseError, match="expected a mapping"):
        load_universe(path)
    path.write_text("span: [\n")
    with pytest.raises(TapehouseError, match=r"sources\.yaml"):
        load_universe(path)


@settings(max_examples=30, deadline=None)
@given(key=st.from_regex(r"[a-z_]{3,12}", fullmatch=True))
def test_any_unknown_key_is_refused(tmp_path_factory, key):
    if key in Universe.model_fields:
        return
    path = changed(tmp_path_factory.mktemp("universe"), lambda content: content.update({key: 1}))
    with pytest.raises(TapehouseError, match=rf"{key}: unknown key"):
        load_universe(path)
