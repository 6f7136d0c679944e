"""What the real webserver answers to the UI's questions about checks, while one of three tenants is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import pytest

from vecsync_dagster.assets.recording import dagster_home
from vecsync_dagster.stores import GLOBAL
from vecsync_dagster_tests.assets.pages import Page, Pages
from vecsync_dagster_tests.assets.shown import ALL, TENANTS, Shown, shown_world
from vecsync_dagster_tests.automation.deployment import Deployment
from vecsync_dagster_tests.chromium import PROGRAM, Window, chromium
from vecsync_dagster_tests.world import ENTITY

pytestmark = pytest.mark.xdist_group("pages")  # the webserver is started once, not by each worker
BROKEN = "works|brick"
OF_PARTITIONS = ("counts", "identity", "isolation", "removal_guard", "statuses", "truncation", "validation")
OF_ALL = ("isolation_of_all", "reconciliation", "freshness")


@dataclass(frozen=True)
class Seen:
    """`shown`: the runs, `pages`: what the webserver shows of them."""

    shown: Shown
    pages: Pages

    def assert_green(self) -> None:
        health, grid = self.pages.health(), self.pages.grid()
        assert {name for name, page in health.items() if page.status != "SUCCEEDED"} <= {"freshness"}
        assert {name: page.status for name, page in grid.items()} == dict.fromkeys(OF_PARTITIONS, "SUCCEEDED")
        assert {name: page.grid for name, page in grid.items()} == {key: {"succeeded": ALL} for key in OF_PARTITIONS}
        assert self.shown.failing() == set()
        assert self.shown.alerts() == set()

    def assert_red(self) -> None:
        """The headline, the grid, `status` and the alerts name the same tenant, and no other."""
        health, grid = self.pages.health(), self.pages.grid()
        red = {name for name, page in grid.items() if page.grid != {"succeeded": ALL}}
        assert "identity" in red
        for name in red:
            assert grid[name].grid == {"failed": {BROKEN}, "succeeded": ALL - {BROKEN}}
            assert (grid[name].status, health[name].status) == ("FAILED", "FAILED")
            assert BROKEN in health[name].message
        assert {name for name in health if _is_red(health[name]) and name not in OF_ALL} == red
        of_all = {(name, "") for name in OF_ALL if _is_red(health[name])}
        assert self.shown.failing() == {(name, BROKEN) for name in red} | of_all
        assert self.shown.alerts() == self.shown.failing(alerted=True)


def _is_red(page: Page) -> bool:
    return page.status == "FAILED"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """All green to begin with; each test leaves it so."""
    with shown_world(tmp_path_factory.mktemp("pages")) as shown:
        shown.full()
        shown.run("reconcile_job")
        shown.run("freshness_job")
        web = Deployment(dagster_home(shown.world.config), {"VECSYNC_CONFIG": str(shown.file)})
        try:
            web.start_pages()
            yield Seen(shown, Pages(web))
        finally:
            web.stop_all()


RUNS: dict[str, Callable[[Shown], None]] = {
    "full runs of the others": lambda shown: shown.full("acme", "cedar"),
    "incremental runs of the others": lambda shown: shown.incremental("acme", "cedar"),
    "a record of another by its id": lambda shown: shown.by_id("cedar"),
    "a retried document of another": lambda shown: shown.retried(),
    "another alone": lambda shown: shown.single("cedar"),
    "an incremental run of the broken one": lambda shown: shown.incremental("brick"),
    "a record of the broken one by its id": lambda shown: shown.by_id("brick"),
    "a nightly run": lambda shown: shown.full(),
    "the comparison of everything": lambda shown: shown.run("reconcile_job"),
    "the look for freshness": lambda shown: shown.run("freshness_job"),
    "execute all": lambda shown: shown.execute_all(),
}
"""What may run while a tenant is broken."""

FOUND: dict[str, Callable[[Shown], None]] = {
    "its own run": lambda shown: shown.full("brick"),
    "a nightly run": lambda shown: shown.full(),
    "the comparison of everything": lambda shown: shown.run("reconcile_job"),
    "execute all": lambda shown: shown.execute_all(),
    "the command line": lambda shown: shown.full_by_command("brick"),
}
"""What finds it."""

REPAIRED: dict[str, Callable[[Shown], None]] = {
    "reconcile --repair": lambda shown: shown.reconciled(),
    "a run that repairs": lambda shown: shown.repairing("brick"),
    "its records, by their ids": lambda shown: shown.write_again("brick"),
    "ledger rebuild": lambda shown: shown.command("ledger", "rebuild", "--force"),
    "drop": lambda shown: shown.command("drop", "works", "--force", "--yes"),
}
"""How it is repaired. But for the command that checks what it repaired, the next run sees that it is."""


def broken_and_repaired(seen: Seen, found: str, runs: tuple[str, ...], repaired: str) -> None:
    seen.assert_green()
    seen.shown.lose_points("brick")
    assert seen.shown.truly_broken() == {BROKEN}
    FOUND[found](seen.shown)
    seen.assert_red()
    for run in runs:
        RUNS[run](seen.shown)
        seen.assert_red()
    REPAIRED[repaired](seen.shown)
    if repaired != "reconcile --repair":
        seen.shown.full()
    assert seen.shown.truly_broken() == set()
    seen.assert_green()


NAMES = tuple(RUNS)
SOME = (
    ("its own run", NAMES[:4], "reconcile --repair"),
    ("the comparison of everything", NAMES[4:7], "its records, by their ids"),
    ("a nightly run", NAMES[7:], "a run that repairs"),
)


@pytest.mark.parametrize(
    ("found", "runs", "repaired"), [SOME[0], *(pytest.param(*one, marks=pytest.mark.many) for one in SOME[1:])]
)
def test_the_broken_tenant_is_red_until_it_is_repaired(
    seen: Seen, found: str, runs: tuple[str, ...], repaired: str
) -> None:
    """Whatever runs after it was found: headline, grid, `status` and alerts name it alone, and then nothing."""
    broken_and_repaired(seen, found, runs, repaired)


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_broken_tenant(seen: Seen) -> None:
    """Headline and grid are red for it alone, and green again after its repair; nothing covers the pages, and nothing
    goes wrong in them."""
    green = {"works": "green", **dict.fromkeys((GLOBAL, *TENANTS), "green")}
    seen.shown.lose_points("brick")
    seen.shown.full("brick")
    seen.shown.full("acme")
    # The browser only while it looks: its event loop is in the way of ours.
    with chromium(seen.pages.url) as window:
        assert_shown(window, "cancel", {**green, "works": "red", "brick": "red"})
    seen.shown.reconciled()
    with chromium(seen.pages.url) as window:
        assert_shown(window, "check_circle", green)


BANNERS = "[class*=Alert_], [role=alert]:not(#__next-route-announcer__)"


def assert_shown(window: Window, icon: str, dots: dict[str, str]) -> None:
    """`icon`: of the check `identity`, `dots`: of its grid's collections and tenants."""
    page = window.open_checks(ENTITY, "health")
    assert window.icons()["identity"] == icon
    assert page.get_by_role("dialog").count() == 0
    assert page.get_by_text("newsletter").count() == 0
    page = window.open_grid(ENTITY, "checks")
    assert window.icons()["identity"] == icon
    assert window.colours() == dots
    assert page.locator(BANNERS).all_inner_texts() == []
    assert window.problems == []


@pytest.mark.many
@pytest.mark.timeout(900)
@pytest.mark.parametrize("repaired", REPAIRED)
@pytest.mark.parametrize("found", FOUND)
def test_in_any_order(seen: Seen, found: str, repaired: str) -> None:
    """The same after any two runs in either order."""
    pairs = list(permutations(NAMES, 2))
    turn = list(FOUND).index(found) * len(REPAIRED) + list(REPAIRED).index(repaired)
    for pair in pairs[turn :: len(FOUND) * len(REPAIRED)]:
        broken_and_repaired(seen, found, pair, repaired)
