"""Makes whatever is stale in a project folder, one wave after another; killed at some point by the test that started it."""

import sys
from pathlib import Path

from tests.house import House

if __name__ == "__main__":
    home, warehouse = map(Path, sys.argv[1:3])
    house = House(home, warehouse)
    print("ready", flush=True)
    house.refresh()
    print("done", flush=True)
