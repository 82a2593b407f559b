-- One row per (series_id, known_at): from then on, the latest period that was known, and of it the latest vintage.
-- An as-of join on known_at gives a decision its value. A late revision of an old period is no row: it displaces nothing.
-- Left out are the latest values of revised series, what was published more than a year after its period, and forecasts:
-- what was published more than three months before its period's end. A value known by an upper bound is known at the bound.
-- lookback: 12 months
-- lookahead: 3 months
with

-- The look-ahead is of periods that end later than they are published, as those of surveys do. All is known before $end.
published as (
    select series_id, period, frequency, event_at, value, vintage, known_as, source, known_at, version
    from staging.macro
    where event_at >= $start - interval 12 month
        and event_at < $end + interval 3 month
        and known_at < $end
        and known_at <= event_at + interval 12 month
        and known_at > event_at - interval 3 month
        and not revised
),

compared as (
    select
        series_id, period, frequency, event_at, value, vintage, known_as, source, known_at, version,
        max(period) over (
            partition by series_id
            order by known_at
            range between unbounded preceding and current row
        ) as latest_period
    from published
)

select
    series_id,
    known_at,
    period,
    frequency,
    event_at,
    value,
    vintage,
    known_as,
    source,
    version
from compared
where period = latest_period
    and known_at >= $start
