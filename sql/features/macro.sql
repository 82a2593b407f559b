-- One row per (symbol, interval, decision_at): volatility index, oil, credit spread, prices and the market as known at the decision.
-- The series of FRED's names VIXCLS, DCOILWTICO, AAA, BAA and CPILFESL; one that is not declared, or not known, is null. Any
-- other declared series is in features.macro_series. What closes after the decision (the VIX at 16:15 New York) is not in it.
with

price as (
    select symbol, interval, decision_at, known_at, close, ret_1d, ret_20d
    from features.price
    where decision_at >= $start
      and decision_at < $end
),

benchmark as (
    select distinct symbol
    from raw.instruments
    where benchmark
),

series as (
    select series_id, interval, decision_at, known_at, level, change_1p, change_28d
    from features.macro_series
    where decision_at >= $start
      and decision_at < $end
),

-- One row a decision: max over a single value.
wide as (
    select
        interval,
        decision_at,
        max(known_at) filter (where series_id in ('VIXCLS', 'DCOILWTICO', 'AAA', 'BAA', 'CPILFESL')) as macro_known_at,
        max(level) filter (where series_id = 'VIXCLS') as vix,
        max(change_1p) filter (where series_id = 'VIXCLS') as vix_change_1p,
        max(change_28d) filter (where series_id = 'VIXCLS') as vix_change_28d,
        max(level) filter (where series_id = 'DCOILWTICO') as oil_usd,
        max(change_1p) filter (where series_id = 'DCOILWTICO') as oil_change_1p,
        max(change_28d) filter (where series_id = 'DCOILWTICO') as oil_change_28d,
        max(level) filter (where series_id = 'BAA') as baa,
        max(level) filter (where series_id = 'AAA') as aaa,
        max(change_1p) filter (where series_id = 'BAA') as baa_change_1p,
        max(change_1p) filter (where series_id = 'AAA') as aaa_change_1p,
        max(change_28d) filter (where series_id = 'BAA') as baa_change_28d,
        max(change_28d) filter (where series_id = 'AAA') as aaa_change_28d,
        max(level) filter (where series_id = 'CPILFESL') as core_cpi,
        max(change_1p) filter (where series_id = 'CPILFESL') as core_cpi_change_1p
    from series
    group by interval, decision_at
),

-- The benchmark's row of the same decision, where its session closed with the symbol's.
market as (
    select interval, decision_at, known_at, close, ret_1d, ret_20d
    from price
    where symbol in (select symbol from benchmark)
)

select
    price.symbol,
    price.interval,
    price.decision_at,
    coalesce(greatest(wide.macro_known_at, market.known_at), price.known_at) as known_at,

    wide.vix,
    wide.vix_change_1p,
    wide.vix_change_28d,
    wide.oil_usd,
    wide.oil_change_1p,
    wide.oil_change_28d,
    wide.baa - wide.aaa as credit_spread,
    wide.baa_change_1p - wide.aaa_change_1p as credit_spread_change_1p,
    wide.baa_change_28d - wide.aaa_change_28d as credit_spread_change_28d,
    wide.core_cpi,
    wide.core_cpi_change_1p,
    market.close as index_level,
    market.ret_1d as index_ret_1d,
    market.ret_20d as index_ret_20d
from price
left join wide
    on price.interval = wide.interval
    and price.decision_at = wide.decision_at
left join market
    on price.interval = market.interval
    and price.decision_at = market.decision_at
