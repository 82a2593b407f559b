-- One row per (symbol, interval, decision_at): a decision that can be taken, all its features known, beside the market's.
-- Tradable instruments only. The market's row is the latest that was known at the decision, at most ten days old; the book's
-- at most a minute old. What is not declared or not known (a macro series, a book) is null and takes no decision away.
-- lookback: 1 months
with

price as (
    select *
    from features.price
    where decision_at >= $start
      and decision_at < $end
),

-- Of an instrument and a ticker the version that was known at the decision: an end that was announced later has not come.
tradable as (
    select
        symbol,
        valid_from,
        valid_to,
        known_at,
        lead(known_at) over (partition by instrument_id, valid_from order by known_at) as next_known_at
    from raw.instruments
    where tradable
),

benchmark as (
    select symbol
    from raw.instruments
    where benchmark
),

-- An as-of join needs a unique key. Two rows of the market can share a known_at only if a correction arrives within the
-- decision lag; the later decision is then taken.
market as (
    select
        interval,
        known_at as market_known_at,
        ret_20d as market_ret_20d,
        realised_vol_20d as market_vol_20d
    from features.price
    where symbol in (select symbol from benchmark)
      and decision_at >= $start - interval 10 day
      and decision_at < $end
    qualify row_number() over (partition by interval, known_at order by decision_at desc) = 1
),

macro as (
    select *
    from features.macro
    where decision_at >= $start
      and decision_at < $end
),

regime as (
    select *
    from features.regime
    where decision_at >= $start
      and decision_at < $end
),

written as (
    select *
    from features.text
    where decision_at >= $start
      and decision_at < $end
),

-- One book a symbol: of several the first by market and source.
book as (
    select *
    from features.book
    where decision_at >= $start - interval 1 minute
      and decision_at < $end
    qualify row_number() over (partition by symbol, decision_at order by market, source) = 1
),

-- Bounded here, so that no range shows an older book than a month alone does.
quoted as (
    select
        price.symbol,
        price.interval,
        price.decision_at,
        book.known_at,
        book.spread_bps,
        book.imbalance_1,
        book.imbalance_5,
        book.microprice_bps,
        book.ofi_60s,
        book.trade_flow_60s,
        book.mid_vol_60s_bps
    from price
    asof inner join book
        on price.symbol = book.symbol
        and price.decision_at >= book.decision_at
    where book.decision_at >= price.decision_at - interval 1 minute
)

select
    price.symbol,
    price.interval,
    price.decision_at,
    price.session,
    greatest(
        price.known_at, market.market_known_at, macro.known_at, regime.known_at, written.known_at, quoted.known_at
    ) as known_at,

    price.open,
    price.high,
    price.low,
    price.close,
    price.volume,

    price.ret_1d,
    price.ret_5d,
    price.ret_20d,
    price.atr_14,
    price.rsi_14,
    price.macd,
    price.macd_signal,
    price.macd_hist,
    price.realised_vol_20d,
    price.momentum_10d,
    price.momentum_30d,
    price.vwap_distance_20d,
    price.relative_strength_20d,
    price.volume_zscore_20d,
    price.bars_of_history,

    -- Null where they need more history than what a decision point must have.
    price.ret_10d,
    price.ret_63d,
    price.plus_di_14,
    price.minus_di_14,
    price.adx_14,
    price.parkinson_vol_20d,
    price.garman_klass_vol_20d,
    price.gap_1d,
    price.range_1d,
    price.bollinger_position_20d,
    price.support_distance_20d,
    price.resistance_distance_20d,
    price.market_divergence_1d,
    price.market_divergence_5d,

    market.market_ret_20d,
    market.market_vol_20d,

    macro.vix,
    macro.vix_change_1p,
    macro.vix_change_28d,
    macro.oil_usd,
    macro.oil_change_1p,
    macro.oil_change_28d,
    macro.credit_spread,
    macro.credit_spread_change_1p,
    macro.credit_spread_change_28d,
    macro.core_cpi,
    macro.core_cpi_change_1p,
    macro.index_level,

    regime.mean_ret_20d,
    regime.ret_deviation_20d,
    regime.drift_score_20d,
    regime.regime,

    written.news_1d,
    written.news_7d,
    written.news_30d,
    written.news_sentiment_7d,
    written.news_sentiment_30d,
    written.filings_30d,
    written.filings_90d,
    written.filing_sentiment_90d,
    written.theses_30d,
    written.thesis_action_30d,
    written.thesis_sentiment_30d,

    quoted.spread_bps as book_spread_bps,
    quoted.imbalance_1 as book_imbalance_1,
    quoted.imbalance_5 as book_imbalance_5,
    quoted.microprice_bps as book_microprice_bps,
    quoted.ofi_60s as book_ofi_60s,
    quoted.trade_flow_60s as book_trade_flow_60s,
    quoted.mid_vol_60s_bps as book_mid_vol_60s_bps
from price
inner join tradable
    on price.symbol = tradable.symbol
    and price.session >= tradable.valid_from
    and (tradable.valid_to is null or price.session <= tradable.valid_to)
    and price.decision_at >= tradable.known_at
    and (tradable.next_known_at is null or price.decision_at < tradable.next_known_at)
asof inner join market
    on price.interval = market.interval
    and price.decision_at >= market.market_known_at
left join macro
    on price.symbol = macro.symbol
    and price.interval = macro.interval
    and price.decision_at = macro.decision_at
left join regime
    on price.symbol = regime.symbol
    and price.interval = regime.interval
    and price.decision_at = regime.decision_at
left join written
    on price.symbol = written.symbol
    and price.interval = written.interval
    and price.decision_at = written.decision_at
left join quoted
    on price.symbol = quoted.symbol
    and price.interval = quoted.interval
    and price.decision_at = quoted.decision_at
where market.market_known_at >= price.decision_at - interval 10 day
  and market.market_ret_20d is not null
  and market.market_vol_20d is not null
  and price.ret_1d is not null
  and price.ret_5d is not null
  and price.ret_20d is not null
  and price.atr_14 is not null
  and price.rsi_14 is not null
  and price.macd is not null
  and price.macd_signal is not null
  and price.macd_hist is not null
  and price.realised_vol_20d is not null
  and price.momentum_10d is not null
  and price.momentum_30d is not null
  and price.vwap_distance_20d is not null
  and price.relative_strength_20d is not null
  and price.volume_zscore_20d is not null
