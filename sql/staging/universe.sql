-- One row per (instrument_id, valid_from, known_at): a version of an instrument's membership under one ticker, from valid_from to valid_to.
-- Who was a member on a day, as known at an instant: staging.universe_as_known(instant) where the day lies from valid_from to
-- valid_to, or valid_to is null. A member that has gone stays in its past, and is one still before its end was announced.
select
    instrument_id,
    symbol,
    ticker,
    name,
    kind,
    tradable,
    benchmark,
    currency,
    calendar,
    valid_from,
    valid_to,
    event_at,
    known_at,
    lead(known_at) over (partition by instrument_id, valid_from order by known_at) as superseded_at,
    row_number() over (partition by instrument_id, valid_from order by known_at) as version
from raw.instruments
