from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.report.curves import loss_curve_png

REPORTS = [
    {"step": 1, "steps": 3, "loss": 2.0, "tokens": 10},
    {"step": 2, "steps": 3, "loss": 1.5, "tokens": 20},
    {"step": 2, "steps": 3, "validation_loss": 1.75},
    {"step": 3, "steps": 3, "loss": 1.25, "tokens": 30},
]


def test_a_picture_is_a_function_of_the_reports():
    picture = loss_curve_png(REPORTS)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (700, 320)
    assert picture == loss_curve_png(REPORTS) != loss_curve_png(REPORTS[:-1])
    assert loss_curve_png([line for line in REPORTS if "loss" in line]) != picture  # the validation is drawn


@settings(max_examples=8)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=16), max_size=5))
def test_any_run_has_a_picture(losses):
    reports = [{"step": step, "steps": 5, "loss": loss} for step, loss in enumerate(losses, start=1)]
    assert loss_curve_png(reports)[:4] == b"\x89PNG"
