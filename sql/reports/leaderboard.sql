-- One row per (subject, fold): what a predictor earned over a test block, and how well it foresaw the barriers.
-- Ranked within the fold by Sharpe ratio; a subject that never traded has none, and is not ranked. The verdict is on all blocks
-- of the subject together. A strategy has no method, and no predictions of its own.
with

backtests as (
    select subject, fold, metric, value
    from reports.backtests
),

evaluations as (
    select subject, fold, metric, value
    from reports.evaluations
    where split = 'test' and slice = 'all'
),

models as (
    select adapter, fold, method
    from models.adapters
),

judged as (
    select subject, kind, verdict
    from reports.verdicts
),

-- A metric occurs once for each subject and fold, so that max is the value itself.
earned as (
    select
        subject,
        fold,
        max(value) filter (where metric = 'return') as "return",
        max(value) filter (where metric = 'return_before_costs') as return_before_costs,
        max(value) filter (where metric = 'sharpe') as sharpe,
        max(value) filter (where metric = 'sharpe_low') as sharpe_low,
        max(value) filter (where metric = 'sharpe_high') as sharpe_high,
        max(value) filter (where metric = 'sortino') as sortino,
        max(value) filter (where metric = 'max_drawdown') as max_drawdown,
        max(value) filter (where metric = 'hit_rate') as hit_rate,
        max(value) filter (where metric = 'turnover') as turnover,
        max(value) filter (where metric = 'trades') as trades,
        max(value) filter (where metric = 'exposure') as exposure,
        max(value) filter (where metric = 'costs') as costs
    from backtests
    group by subject, fold
),

foresaw as (
    select
        subject,
        fold,
        max(value) filter (where metric = 'n') as predictions,
        max(value) filter (where metric = 'unparseable') as unparseable,
        max(value) filter (where metric = 'accuracy') as accuracy,
        max(value) filter (where metric = 'mcc') as mcc,
        max(value) filter (where metric = 'hit_rate') as label_hit_rate,
        max(value) filter (where metric = 'rank_ic') as rank_ic
    from evaluations
    group by subject, fold
)

select
    earned.subject,
    earned.fold,
    judged.kind,
    models.method,
    judged.verdict,
    case
        when earned.sharpe is not null
            then rank() over (partition by earned.fold order by earned.sharpe desc nulls last)
    end as rank,

    earned."return",
    earned.return_before_costs,
    earned.sharpe,
    earned.sharpe_low,
    earned.sharpe_high,
    earned.sortino,
    earned.max_drawdown,
    earned.hit_rate,
    earned.turnover,
    cast(earned.trades as bigint) as trades,
    earned.exposure,
    earned.costs,

    cast(foresaw.predictions as bigint) as predictions,
    foresaw.unparseable,
    foresaw.accuracy,
    foresaw.mcc,
    foresaw.label_hit_rate,
    foresaw.rank_ic
from earned
inner join judged
    on earned.subject = judged.subject
left join models
    on earned.subject = models.adapter
    and earned.fold = models.fold
left join foresaw
    on earned.subject = foresaw.subject
    and earned.fold = foresaw.fold
