-- One row per (symbol, interval, session, known_at): a version of a bar, with the span over which it was the latest known.
-- Content received again unchanged is no version. Where two sources speak at one instant, the first by name is taken.
with

received as (
    select symbol, interval, session, event_at, known_at, ingested_at, source, open, high, low, close, volume
    from raw.bars
    where event_at >= $start and event_at < $end
),

one_per_instant as (
    select symbol, interval, session, event_at, known_at, source, open, high, low, close, volume
    from received
    qualify row_number() over (
        partition by symbol, interval, session, known_at
        order by source, ingested_at, open, high, low, close, volume
    ) = 1
),

compared as (
    select
        symbol, interval, session, event_at, known_at, source, open, high, low, close, volume,
        struct_pack(o := open, h := high, l := low, c := close, v := volume) as content,
        lag(struct_pack(o := open, h := high, l := low, c := close, v := volume)) over (
            partition by symbol, interval, session
            order by known_at
        ) as content_before
    from one_per_instant
),

versions as (
    select symbol, interval, session, event_at, known_at, source, open, high, low, close, volume
    from compared
    where content_before is null or content_before is distinct from content
)

select
    symbol,
    interval,
    session,
    event_at,
    open,
    high,
    low,
    close,
    volume,
    source,
    known_at,
    lead(known_at) over (partition by symbol, interval, session order by known_at) as superseded_at,
    row_number() over (partition by symbol, interval, session order by known_at) as version
from versions
