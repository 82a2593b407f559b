"""Which subjects have no page to be linked."""

from __future__ import annotations

from typing import Any, Final

from tapehouse.warehouse import LAKE

PAGES: Final = "reports.pages"


def pageless(b: Any) -> set[str]:
    """Subjects whose page is made by name alone and has not been made; a run makes the pages of all others.

    The rows of other pages lie beside the asker's own, in the table that it writes: as an input they would be a circle. Where a
    link leads is no figure, so that nothing is made again for it.

    Args:
        b: the `tapehouse.building.Build` of the page that links.
    """
    pages = {name.removeprefix(f"{PAGES}."): a for name, a in b.project.assets.items() if name.startswith(f"{PAGES}.")}
    waiting = {name for name, asset in pages.items() if asset.optional}
    if b.filled is not None and PAGES not in b.filled:
        return waiting
    return waiting - {page for (page,) in b.cursor.execute(f"select page from {LAKE}.{PAGES}").fetchall()}
