"""Shared fixtures: the real data layer over two years and a half, made once a session, and toy projects."""

import os
from datetime import date

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.house import House, copy_project, toy_project

# How long one example takes is the machine's affair: on a busy one it says nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config):
    # Said once for every dependency and expectation; neither is ours to change.
    config.addinivalue_line("filterwarnings", "ignore:Parameter `allow_nonexistent_upstream_partitions`")
    config.addinivalue_line("filterwarnings", "ignore:This pattern is interpreted as a regular expression:UserWarning")


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> House:
    """The real declarations from November 2002 to June 2005, raw to tokens, each table made as one range. Do not write to it.

    AAPL split in February 2005, MSFT in February 2003; MSFT paid its special dividend in November 2004; GOOG came in 2004.
    """
    house = House(copy_project(tmp_path_factory.mktemp("real"), date(2002, 11, 1), date(2005, 7, 1)))
    house.make_data()
    return house


@pytest.fixture
def toy(tmp_path) -> House:
    """A toy project of its own, nothing made yet."""
    return House(toy_project(tmp_path / "toy"))
