"""What was known at T: a staging table asked for T, after all corrections, equals the one that was built at T."""

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tapehouse.engine import materialise
from tapehouse.warehouse import LAKE
from tests.house import House, copy_project

FOLDS = "{min_train_sessions: 20, test_sessions: 10, count: 1}\n"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


class Corrected(House):
    """Raw and staging bars over two months of 2005, fed from a file that is corrected between ingests."""

    def __init__(self, home: Path):
        import gzip

        import yaml

        from tapehouse.sources.files import locate

        copy_project(home, date(2005, 2, 1), date(2005, 4, 1), folds=FOLDS)
        for path in home.rglob("*"):
            kept = path.parent.name in ("raw", "staging") or path.suffix not in (".py", ".sql", ".yaml") or path.parent == home
            if path.is_file() and not kept and path.name != "folds.yaml":
                path.unlink()
        content = yaml.safe_load((home / "sources.yaml").read_text())
        packed = locate(content["sources"]["bokeh-sampledata"]["file"], home)
        content["sources"]["bokeh-sampledata"]["file"] = "stocks.csv"
        (home / "sources.yaml").write_text(yaml.safe_dump(content))
        self.stocks = home / "stocks.csv"
        header, *lines = gzip.decompress(packed.read_bytes()).decode().splitlines()
        self.lines = [line for line in lines if line.split(",")[1][:7] in ("2005-01", "2005-02", "2005-03")]
        self.header = header
        self.store()
        super().__init__(home)

    def store(self) -> None:
        self.stocks.write_text("\n".join([self.header, *self.lines]) + "\n")

    def ingest(self, clock: datetime) -> None:
        for name in ("raw.bars", "staging.bars"):
            assert not materialise(self.project, self.warehouse, name, ingested_at=clock).failed

    def corrupt(self, rng: random.Random) -> None:
        """Some closes are corrected within [low, high], some bars vanish, one that vanished comes back changed."""
        for at in rng.sample(range(len(self.lines)), 6):
            cells = self.lines[at].split(",")
            opened, low = float(cells[2]), float(cells[4])
            cells[5] = str(round(rng.uniform(min(opened, low), max(opened, low)), 2))
            self.lines[at] = ",".join(cells)
        for at in sorted(rng.sample(range(len(self.lines)), 3), reverse=True):
            del self.lines[at]
        self.store()

    def as_known(self, at: datetime, snapshot: int | None = None) -> pl.DataFrame:
        """`staging.bars_as_known(at)` in the newest state, or the latest versions in the state of a snapshot."""
        with self.warehouse.reading(snapshot) as (cursor, _):
            if snapshot is None:
                asked = f"select * from {LAKE}.staging.bars_as_known(timestamptz '{at.isoformat()}') order by all"
            else:
                asked = f"select * exclude (superseded_at) from {LAKE}.staging.bars where superseded_at is null order by all"
            return cursor.execute(asked).pl()


@pytest.mark.parametrize("seed", [1, 2])
def test_as_known_at_every_ingest_equals_what_was_built_then(tmp_path, seed):
    house, rng = Corrected(tmp_path), random.Random(seed)
    built: list[tuple[datetime, int]] = []
    late = house.lines[-5:]  # history that is first ingested later: left out on both sides
    house.lines = house.lines[:-5]
    house.store()
    for number in range(4):
        clock = FIRST + timedelta(days=number)
        if number == 2:
            house.lines += late
        house.ingest(clock)
        built.append((clock + timedelta(hours=1), house.warehouse.snapshot()))
        house.corrupt(rng)
    first_seen = house.rows("select symbol, session, min(ingested_at) from raw.bars group by all")
    arrived = pl.DataFrame(first_seen, schema=["symbol", "session", "arrived"], orient="row")
    seen = 0
    for at, snapshot in built:
        then = house.as_known(at, snapshot)
        now = house.as_known(at).join(arrived.filter(pl.col("arrived") <= at), on=["symbol", "session"], how="semi")
        assert now.sort(now.columns).equals(then.sort(then.columns)), at
        seen += then.filter(pl.col("version") > 1).height
    assert seen > 0 and house.rows("select max(version) from staging.bars")[0][0] > 1


def test_nothing_is_known_before_its_close(tmp_path):
    house = Corrected(tmp_path)
    house.ingest(FIRST)
    close = datetime(2005, 3, 8, 21, tzinfo=UTC)
    before, after = (house.as_known(close + timedelta(minutes=m)) for m in (-1, 0))  # 15:59 and 16:00 in New York
    assert before.filter(pl.col("session") == date(2005, 3, 8)).is_empty()
    assert after.filter(pl.col("session") == date(2005, 3, 8)).height == 6
    assert before.height == after.height - 6


def test_every_staging_table_can_be_asked_for_a_past_state(tmp_path):
    house = Corrected(tmp_path)
    staged = [name for name in house.project.tables if name.startswith("staging.")]
    assert len(staged) >= 6
    for name in house.data_assets():
        assert not materialise(house.project, house.warehouse, name, ingested_at=FIRST).failed
    at = "timestamptz '2005-03-08 20:59:00+00'"
    for name in staged:
        keys = ", ".join(column for column in house.project.tables[name].doc.grain if column != "known_at")
        ((rows, distinct, latest),) = house.rows(
            f"select count(*), count(distinct ({keys})), max(known_at) from {name}_as_known({at})"
        )
        assert rows == distinct, f"{name}: one version of each key is in force"
        assert latest is None or latest <= datetime(2005, 3, 8, 20, 59, tzinfo=UTC)
    # Of a series its latest period, a week after its end: the yields of February 2005 are known on 2005-03-08.
    asked = f"select series_id, period from staging.macro_latest_as_known({at}) where series_id in ('AAA', 'BAA') order by all"
    assert house.rows(asked) == [("AAA", date(2005, 2, 1)), ("BAA", date(2005, 2, 1))]
