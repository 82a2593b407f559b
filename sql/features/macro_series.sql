-- One row per (series_id, interval, decision_at): the latest value of a declared series that is known at a decision, and its changes.
-- Joined on when a value was known, whatever calendar the series and the decision keep. A value that was known for longer than
-- 120 days without a successor is none. The value of the period before is taken as it is known now, revisions included.
-- lookback: 13 months
-- lookahead: 3 months
with

decisions as (
    select distinct interval, decision_at
    from features.price
    where decision_at >= $start
      and decision_at < $end
),

latest as (
    select series_id, known_at, period, frequency, event_at, value
    from staging.macro_latest
    where known_at < $end
      and known_at >= $start - interval 150 day
),

series as (
    select distinct series_id
    from latest
),

asked as (
    select series.series_id, decisions.interval, decisions.decision_at, decisions.decision_at - interval 28 day as month_ago
    from decisions
    cross join series
),

now_known as (
    select
        asked.series_id,
        asked.interval,
        asked.decision_at,
        asked.month_ago,
        latest.known_at,
        latest.period,
        latest.frequency,
        latest.event_at,
        latest.value
    from asked
    asof inner join latest
        on asked.series_id = latest.series_id
        and asked.decision_at >= latest.known_at
    where latest.known_at >= asked.decision_at - interval 120 day
),

with_month_ago as (
    select
        now_known.*,
        case
            when latest.known_at >= now_known.month_ago - interval 120 day then latest.value
        end as value_month_ago
    from now_known
    asof left join latest
        on now_known.series_id = latest.series_id
        and now_known.month_ago >= latest.known_at
),

-- All versions of the periods before the latest one: the last of them that is known by the decision. Two versions of a period
-- differ in known_at, so the order is complete.
versions as (
    select series_id, period, event_at, known_at, value
    from staging.macro
    where not revised
      and event_at >= $start - interval 12 month
),

before as (
    select
        now_known.series_id,
        now_known.interval,
        now_known.decision_at,
        versions.period as period_before,
        versions.known_at as known_at_before,
        versions.value as value_before
    from now_known
    inner join versions
        on now_known.series_id = versions.series_id
        and versions.period < now_known.period
        and versions.known_at <= now_known.decision_at
        and versions.event_at >= now_known.decision_at - interval 12 month
    qualify row_number() over (
        partition by now_known.series_id, now_known.interval, now_known.decision_at
        order by versions.period desc, versions.known_at desc
    ) = 1
)

select
    with_month_ago.series_id,
    with_month_ago.interval,
    with_month_ago.decision_at,
    greatest(with_month_ago.known_at, before.known_at_before) as known_at,
    with_month_ago.period,
    with_month_ago.frequency,
    before.period_before,

    with_month_ago.value as level,
    with_month_ago.value - before.value_before as change_1p,
    with_month_ago.value - with_month_ago.value_month_ago as change_28d,
    date_diff('day', with_month_ago.event_at, with_month_ago.decision_at) as age_days
from with_month_ago
left join before
    on with_month_ago.series_id = before.series_id
    and with_month_ago.interval = before.interval
    and with_month_ago.decision_at = before.decision_at
