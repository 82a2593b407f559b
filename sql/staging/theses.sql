-- One row per (thesis_id, known_at): a version of a thesis, cleaned, with the span over which it was the latest known.
-- Content received again unchanged is no version. Where two sources speak at one instant, the first by name is taken.
with

cleaned as (
    select
        thesis_id,
        upper(trim(symbol)) as symbol,
        as_of,
        event_at,
        known_at,
        ingested_at,
        source,
        action,
        trim(regexp_replace(reasoning, '\s+', ' ', 'g')) as reasoning,
        nullif(trim(regexp_replace(support, '\s+', ' ', 'g')), '') as support,
        generated_by,
        version as generator_version
    from raw.theses
    where event_at >= $start and event_at < $end
),

one_per_instant as (
    select thesis_id, symbol, as_of, event_at, known_at, source, action, reasoning, support, generated_by, generator_version
    from cleaned
    qualify row_number() over (
        partition by thesis_id, known_at
        order by source, ingested_at, action, reasoning, support
    ) = 1
),

compared as (
    select
        thesis_id, symbol, as_of, event_at, known_at, source, action, reasoning, support, generated_by, generator_version,
        struct_pack(a := action, r := reasoning, s := support) as content,
        lag(struct_pack(a := action, r := reasoning, s := support)) over (
            partition by thesis_id
            order by known_at
        ) as content_before
    from one_per_instant
),

versions as (
    select thesis_id, symbol, as_of, event_at, known_at, source, action, reasoning, support, generated_by, generator_version
    from compared
    where content_before is null or content_before is distinct from content
)

select
    thesis_id,
    symbol,
    as_of,
    event_at,
    action,
    reasoning,
    support,
    generated_by,
    generator_version,
    source,
    known_at,
    lead(known_at) over (partition by thesis_id order by known_at) as superseded_at,
    row_number() over (partition by thesis_id order by known_at) as version
from versions
