"""The loop of policies on paper: every row once an epoch, stopping, annealing, and a loss that is none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tapehouse.errors import TapehouseError
from tapehouse.networks.loop import Plan, places_of_step, train
from tapehouse.networks.recipe import StageSection
from tapehouse.recipe_sections import EvaluationSection, OptimiserSection, PlateauSection
from tapehouse.training.checkpoints import newest


class Slope(nn.Module):
    """One weight; its loss falls by the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))


def plan(network, measure=None, steps=20, loss=None, plateau=None, patience=3, threshold=0.001) -> Plan:
    return Plan(
        name="slope",
        stage=StageSection(steps=steps, batch_size=2),
        optimiser=OptimiserSection(learning_rate=0.1),
        plateau=plateau,
        evaluation=EvaluationSection(every=2, patience=patience, threshold=threshold),
        seed=1,
        rows=5,
        loss=loss or (lambda places, generator: -network.weight.sum()),
        measure=measure,
        describe=lambda place: f"row {place}",
        trained=tuple(network.parameters()),
    )


def silent(progress, loss):
    """No report."""


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 1000))
def test_every_row_once_an_epoch(rows, batch, seed):
    steps = [places_of_step(seed, rows, batch, step) for step in range(2 * rows + 4)]
    assert {len(places) for places in steps} == {min(batch, rows)}
    drawn = np.concatenate(steps)
    for epoch in range(len(drawn) // rows):
        assert sorted(drawn[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert (places_of_step(seed, rows, batch, 3) == steps[3]).all()  # of the step alone, not of what came before


def test_it_stops_on_paper_and_returns_the_best():
    """Measured at the start and every second step: 1.0, 0.9, 0.8995 (too little), 0.95, 0.95: three without improvement."""
    network, told = Slope(), iter([1.0, 0.9, 0.8995, 0.95, 0.95, 0.1])
    reports = []
    progress = train(network, plan(network, lambda: next(told)), lambda p, loss: reports.append((p.step, loss)))
    assert progress.measured == [1.0, 0.9, 0.8995, 0.95, 0.95] and progress.stopped
    assert (progress.step, progress.best_step, progress.best) == (8, 4, 0.8995)
    # Adam on a constant slope moves by the learning rate at each step: after four of them 0.4.
    assert network.weight.item() == pytest.approx(0.4, rel=1e-5)
    assert [step for step, _ in reports] == [2, 4, 6, 8] and not network.training


def test_what_no_stage_makes_better_stays_as_it_was():
    network, told = Slope(), iter([0.5, 0.6, 0.7, 0.8])
    progress = train(network, plan(network, lambda: next(told)), silent)
    assert progress.best_step == 0 and network.weight.item() == 0.0


def test_without_a_tail_every_step_is_run():
    network = Slope()
    progress = train(network, plan(network, None), silent)
    assert progress.step == 20 and progress.measured == [] and not progress.stopped
    assert network.weight.item() == pytest.approx(2.0, rel=1e-5)


def test_the_learning_rate_falls_to_its_floor_where_nothing_improves():
    """Factor 1/2 after each second measurement without improvement, and never below 0.03."""
    network = Slope()
    told = iter([1.0] * 20)
    steps = []
    fall = PlateauSection(factor=0.5, patience=1, floor=0.03)
    stay = plan(network, lambda: next(told), steps=20, plateau=fall, patience=None)

    def loss(places, generator):
        steps.append(network.weight.item())
        return -network.weight.sum()

    train(network, Plan(**{**vars(stay), "loss": loss}), silent)
    moved = np.diff(steps)
    # The first measurement in the loop sets the mark; of those after it each second one without improvement halves.
    assert moved[:6] == pytest.approx([0.1] * 6, rel=1e-4)
    assert moved[6:10] == pytest.approx([0.05] * 4, rel=1e-4)
    assert moved[10:] == pytest.approx([0.03] * 9, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_move(bad, tmp_path):
    network = Slope()

    def loss(places, generator):
        return network.weight.sum() * (bad if len(seen) == 5 else -1.0) if seen.append(places) is None else None

    seen: list[np.ndarray] = []
    with pytest.raises(
        TapehouseError, match=r"slope: the loss of step 5 is (nan|inf|-inf); its batch has 2 rows: row \d, row \d"
    ):
        train(network, plan(network, lambda: 1.0, loss=loss, patience=None), silent, tmp_path)
    assert network.weight.item() == pytest.approx(0.4, rel=1e-5) and torch.isfinite(network.weight).all()
    kept = newest(tmp_path)
    assert kept is not None and kept.step == 4 and kept.tensors()["weight"].item() == network.weight.item()


def test_random_numbers_follow_from_the_step_alone():
    """Dropout and what a loss draws: the same at step 7 of any run, whatever ran before."""
    draws = []
    for before in (0, 5):
        torch.manual_seed(before)
        torch.rand(before)
        network, mine = Slope(), []

        def loss(places, generator, network=network, mine=mine):
            mine.append((torch.rand(1).item(), torch.rand(1, generator=generator).item(), places.tolist()))
            return -network.weight.sum()

        train(network, plan(network, loss=loss), silent)
        draws.append(mine)
    assert draws[0] == draws[1] and len({drawn[0] for drawn in draws[0]}) == 20
