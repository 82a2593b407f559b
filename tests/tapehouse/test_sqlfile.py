from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.sqlfile import Lineage, SqlFile, analyse, described, parse_sql_file

PATH = Path("sql/features/f.sql")
HEADER = "-- One row per (symbol): a test.\n"
TABLES = {
    "raw.bars": {"symbol": "varchar", "event_at": "timestamptz", "close": "double", "volume": "bigint", "fee": "decimal(18,4)"},
    "staging.rates": {"event_at": "timestamptz", "rate": "double", "series": "varchar"},
}


def parse(query: str, header: str = HEADER) -> SqlFile:
    return parse_sql_file(PATH, header + query)


def lineage(query: str) -> Lineage:
    return analyse(parse(query), TABLES)


@pytest.fixture
def con():
    with duckdb.connect() as con:
        for name, columns in TABLES.items():
            con.execute(f"create schema {name.split('.')[0]}")
            body = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
            con.execute(f"create table {name} ({body})")
        yield con


# ---------------------------------------------------------------------- header and inputs


def test_header_and_inputs():
    file = parse_sql_file(
        PATH,
        "-- One row per (symbol, event_at): a price.\n"
        "-- More words.\n"
        "-- lookback: 2 months\n"
        "-- lookahead: 1 month\n"
        "with bars as (select * from raw.bars where event_at >= $start), -- not the table staging.other\n"
        "rates as (select * from staging.rates)\n"
        "select bars.symbol from bars asof join rates on bars.event_at >= rates.event_at where bars.event_at < $end\n",
    )
    assert file.doc == "One row per (symbol, event_at): a price.\nMore words."
    assert (file.window.lookback_months, file.window.lookahead_months) == (2, 1)
    assert file.reads == ("raw.bars", "staging.rates")
    assert file.parameters == {"start", "end"}


def test_a_table_macro_counts_as_its_table(con):
    file = parse("select b.symbol, b.close from raw.bars_as_known($end) as b join raw.bars as c using (symbol)")
    assert file.reads == ("raw.bars",)
    assert analyse(file, TABLES).columns["close"] == (("raw.bars", "close"),)
    con.execute("create macro raw.bars_as_known(cutoff) as table select * from raw.bars where event_at <= cutoff")
    assert described(file, con) == {"symbol": "varchar", "close": "double"}


def test_a_cte_hides_a_table_without_schema_alone():
    file = parse("with bars as (select * from staging.rates) select * from bars, raw.bars")
    assert sorted(file.reads) == ["raw.bars", "staging.rates"]
    assert parse("select * from raw.bars cross join unnest([1, 2]) as u(n) cross join range(3) as r(m)").reads == ("raw.bars",)


def test_version_is_of_the_query_not_of_its_words():
    base = parse("select symbol, close from raw.bars")
    assert parse("select symbol,\n  close -- the price\nfrom raw.bars;", "-- Other words.\n").version == base.version
    others = [
        parse("select symbol, volume from raw.bars"),
        parse("select symbol, close from raw.bars where close > 0"),
        parse("select symbol, close from raw.bars", HEADER + "-- lookback: 1 months\n"),
        parse("select symbol, close from raw.bars", HEADER + "-- lookahead: 1 months\n"),
    ]
    assert len({file.version for file in [base, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "select symbol,\n  close\nfrom raw.bars\nwhere where", r"f\.sql:5: does not parse: .*near 'where'"),
        (HEADER + "select symbol\nfrom raw.bars where (", r"f\.sql:3: does not parse"),
        (HEADER + "\nselect 'open\nfrom raw.bars", r"f\.sql:3: does not parse: .*unterminated quoted string"),
        (HEADER + "select 1 /* open", r"f\.sql:2: does not parse: .*unterminated /\* comment"),
        (HEADER + "select 1 as symbol; select 2 as symbol", r"f\.sql: a SQL asset is exactly one SELECT, found 2 statements"),
        (HEADER + "insert into raw.bars select * from raw.bars", r"f\.sql: a SQL asset is exactly one SELECT"),
        (HEADER, r"f\.sql: a SQL asset is exactly one SELECT, found 0 statements"),
        ("select symbol from raw.bars", r"f\.sql:1: the first line must be a comment, '-- One row per"),
        (HEADER + "select symbol\nfrom bars", r"f\.sql:3: table 'bars' has no schema; write it as schema\.bars"),
        (HEADER + "select * from read_csv('x.csv')", r"f\.sql:2: table .*READ_CSV.* reads the tables of assets alone"),
        (HEADER + "-- lookback: two months\nselect 1 as symbol", r"f\.sql: header 'lookback: two months': write it as"),
        (HEADER + "-- lookback: 3 hours\nselect 1 as symbol", r"f\.sql: header 'lookback: 3 hours': write it as"),
        (HEADER + "-- cadence: daily\nselect 1 as symbol", r"f\.sql: header 'cadence: daily': write it as"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(TapehouseError, match=f"(?s)^sql/features/{said}"):
        parse_sql_file(PATH, text)


# ---------------------------------------------------------------------- types


def test_described(con):
    file = parse(
        "select symbol, event_at, close * volume as turnover, [volume] as volumes, close > 1 as dear, event_at::date as day "
        "from raw.bars where event_at >= $start and event_at < $end"
    )
    assert described(file, con) == {
        "symbol": "varchar",
        "event_at": "timestamptz",
        "turnover": "double",
        "volumes": "bigint[]",
        "dear": "boolean",
        "day": "date",
    }


@pytest.mark.parametrize("column", ["sum(volume)", "[volume::hugeint]"])
def test_a_type_that_the_lake_does_not_keep_is_refused(con, column):
    with pytest.raises(TapehouseError, match=r"f\.sql: v is hugeint.*cast it to bigint"):
        described(parse(f"select {column} as v from raw.bars" + (" group by symbol" if "sum" in column else "")), con)


def test_what_does_not_bind_is_duckdbs_own_words(con):
    with pytest.raises(TapehouseError, match=r'(?s)f\.sql: .*"closed" not found.*LINE 2'):
        described(parse("select closed from raw.bars"), con)


# ---------------------------------------------------------------------- lineage


def test_columns_through_ctes_joins_and_expressions():
    found = lineage(
        """
        with
        bars as (select symbol, event_at, close as price, close * volume as turnover from raw.bars where fee > 0),
        rates as (select event_at, rate / 100 as rate from staging.rates where series = 'x')
        select
            bars.symbol, turnover + rate as mixed, 1 as one,
            lag(price) over (partition by bars.symbol order by bars.event_at) as before
        from bars
        left join rates on bars.event_at >= rates.event_at
        where bars.event_at < $end
        """
    )
    assert found.columns == {
        "symbol": (("raw.bars", "symbol"),),
        "mixed": (("raw.bars", "close"), ("raw.bars", "volume"), ("staging.rates", "rate")),
        "before": (("raw.bars", "close"), ("raw.bars", "event_at"), ("raw.bars", "symbol")),
        "one": (),
    }
    # What filtered, joined and ordered the rows, whichever CTE it was in.
    assert found.row_sources == (
        ("raw.bars", "event_at"),
        ("raw.bars", "fee"),
        ("raw.bars", "symbol"),
        ("staging.rates", "event_at"),
        ("staging.rates", "series"),
    )


def test_columns_of_a_union_come_from_both_sides():
    found = lineage(
        "with both_sides as (select symbol as name, close as value from raw.bars "
        "union all select series as name, rate as value from staging.rates) "
        "select name, max(value) as highest from both_sides group by name having count(*) > 1"
    )
    assert found.columns["name"] == (("raw.bars", "symbol"), ("staging.rates", "series"))
    assert found.columns["highest"] == (("raw.bars", "close"), ("staging.rates", "rate"))
    assert set(found.row_sources) == {("raw.bars", "symbol"), ("staging.rates", "series")}


def test_rows_of_joins_by_using_qualify_and_subqueries():
    found = lineage(
        "select b.symbol from raw.bars as b join raw.bars as c using (symbol) "
        "where b.event_at in (select event_at from staging.rates where rate > 0) "
        "qualify row_number() over (partition by b.symbol order by b.volume) = 1"
    )
    assert {("raw.bars", c) for c in ("symbol", "event_at", "volume")} <= set(found.row_sources)
    assert ("staging.rates", "rate") in found.row_sources


def test_rows_of_named_windows_and_distinct_on():
    found = lineage(
        "select distinct on (symbol) symbol, max(close) over w as v from raw.bars "
        "window w as (partition by fee order by event_at)"
    )
    assert set(found.row_sources) == {("raw.bars", c) for c in ("symbol", "fee", "event_at")}


def test_rows_ordered_by_a_name_that_was_selected():
    found = lineage("select symbol, close * volume as turnover from raw.bars order by turnover limit 3")
    assert found.row_sources == (("raw.bars", "close"), ("raw.bars", "volume"))


def test_a_star_is_every_column():
    assert lineage("select * from raw.bars").columns == {c: (("raw.bars", c),) for c in TABLES["raw.bars"]}
    found = lineage("with b as (select * from raw.bars) select b.* exclude (fee), event_at::date as day from b")
    assert list(found.columns) == ["symbol", "event_at", "close", "volume", "day"]
    assert found.columns["day"] == (("raw.bars", "event_at"),)


# ---------------------------------------------------------------------- promise 3

REFUSED = [
    "sum(close)",
    "avg(close)",
    "stddev(close)",
    "fsum(close)",
    "kahan_sum(close)",
    "avg(close) over (order by event_at rows 19 preceding)",
    "sum(close) filter (where volume > 0)",
    "sum(close * volume)",
    "sum(volume / 2)",
    "sum(round(close))",
    "corr(close, volume)",
    "regr_slope(close, volume)",
    # In doubles, whatever they are given.
    "stddev(volume)",
    "var_pop(fee)",
    "skewness(volume)",
    "product(close)",
    "geomean(close)",
    "approx_quantile(close, 0.5)",
]
ACCEPTED = [
    "sum(volume)::bigint",
    "sum(fee)",
    "avg(volume)",
    "sum(distinct volume)::bigint",
    "cast(sum(volume) over (order by event_at) as bigint)",
    "sum(cast(close as decimal(18, 6)))",
    "cast(sum(case when close > 1 then 1 else 0 end) as integer)",
    "count(*)",
    "count(distinct close)",
    "min(close)",
    "max(close) over (order by event_at)",
    "lag(close, 2) over (order by event_at)",
    "median(close)",
    "list_sum(list(close) over (order by event_at rows 19 preceding))",
    "list_avg(list(close order by event_at))",
]


def query_of(call: str) -> str:
    return f"select symbol, {call} as v from raw.bars" + ("" if " over " in call else " group by symbol")


@pytest.mark.parametrize("call", REFUSED)
def test_sums_that_depend_on_order_are_refused(call, con):
    described(parse(query_of(call)), con)  # DuckDB itself has nothing against it
    with pytest.raises(TapehouseError, match=r"f\.sql: \w+\(.*promise 3.*list_sum\(list\(x order by"):
        lineage(query_of(call))


@pytest.mark.parametrize("call", REFUSED[:4])
def test_they_are_found_in_ctes_and_over_ctes(call):
    for query in (
        f"with a as ({query_of(call)}) select symbol, v from a",
        f"with a as (select *, close + 0 as c from raw.bars) {query_of(call).replace('raw.bars', 'a').replace('close', 'c')}",
        f"select symbol, close as v from raw.bars union all {query_of(call)}",
    ):
        with pytest.raises(TapehouseError, match="promise 3"):
            lineage(query)


@pytest.mark.parametrize("call", ACCEPTED)
def test_what_is_exact_is_accepted(call, con):
    described(parse(query_of(call)), con)
    assert set(lineage(query_of(call)).columns) == {"symbol", "v"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["close", "volume", "fee"]), min_size=1, max_size=4), st.integers(0, 3))
def test_lineage_survives_any_depth_of_ctes(columns, depth):
    layers = ["a0 as (select symbol, close, volume, fee from raw.bars)"]
    layers += [f"a{i + 1} as (select symbol, close, volume, fee from a{i})" for i in range(depth)]
    greatest = f"greatest({', '.join(columns)}, 0)"
    found = lineage(f"with {', '.join(layers)} select symbol, {greatest} as v from a{depth}")
    assert found.columns["v"] == tuple(sorted({("raw.bars", c) for c in columns}))


@pytest.mark.parametrize("call", ["random()", "now()", "current_date", "any_value(close)", "first(close)", "uuid()"])
def test_what_another_run_would_not_repeat_is_refused(call):
    query = f"-- One row per (symbol): x.\nselect symbol, {call} as v from raw.bars group by symbol"
    file = parse_sql_file(Path("f.sql"), query)
    with pytest.raises(TapehouseError, match=r"f\.sql: \w+\(\) gives other values when the query runs again"):
        analyse(file, {"raw.bars": {"symbol": "varchar", "close": "double"}})
