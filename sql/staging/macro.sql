-- One row per (series_id, period, revised, known_at): a version of a published value, with the span over which it was the latest known.
-- Content received again unchanged is no version, and nor is an empty value before the first. Where two sources speak at one
-- instant, the first by name is taken. Values that are the latest alone of a revised series (`revised`) are versions apart:
-- they were not known when they claim, and displace none that was.
with

received as (
    select series_id, period, frequency, event_at, known_at, value, vintage, known_as, revised, source, ingested_at
    from raw.macro_observations
    where event_at >= $start and event_at < $end
),

one_per_instant as (
    select series_id, period, frequency, event_at, known_at, value, vintage, known_as, revised, source
    from received
    qualify row_number() over (
        partition by series_id, period, revised, known_at
        order by source, ingested_at, value, vintage
    ) = 1
),

compared as (
    select
        series_id, period, frequency, event_at, known_at, value, vintage, known_as, revised, source,
        lag(value) over (partition by series_id, period, revised order by known_at) as value_before
    from one_per_instant
),

versions as (
    select series_id, period, frequency, event_at, known_at, value, vintage, known_as, revised, source
    from compared
    where value is distinct from value_before
)

select
    series_id,
    period,
    frequency,
    event_at,
    value,
    vintage,
    known_as,
    revised,
    source,
    known_at,
    lead(known_at) over (partition by series_id, period, revised order by known_at) as superseded_at,
    row_number() over (partition by series_id, period, revised order by known_at) as version
from versions
