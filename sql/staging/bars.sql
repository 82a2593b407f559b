-- One row per (symbol, interval, session): the bar as it is known now, in the raw prices of its day.
-- What was known at an earlier time is in staging.bar_versions.
select
    symbol,
    interval,
    session,
    event_at,
    known_at,
    open,
    high,
    low,
    close,
    volume
from staging.bar_versions
where event_at >= $start and event_at < $end
    and superseded_at is null
