"""What Dagster shows of checks, what `status` says, and the open alerts agree with each other and with the store: after
each step of any sequence of runs, breakages and repairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from vecsync_dagster_tests.assets.shown import ALL, TENANTS, Shown, Status, shown_world

CHECKS = ("counts", "identity", "isolation", "removal_guard", "statuses", "truncation", "validation")


class Model:
    """What must be known: `red`, the partitions that differed when they were last compared, or were repaired then
    (`repaired`); `all_red`, whether the last comparison of all found one, or one since. `warned`: warnings are alerted,
    too."""

    def __init__(self, shown: Shown, *, warned: bool) -> None:
        self.shown = shown
        self.warned = warned
        self.red: set[str] = set()
        self.repaired: set[str] = set()
        self.all_red = False

    def compared(self, partitions: set[str], found: set[str], *, repaired: bool = False) -> None:
        """By a run."""
        self.red = self.red - partitions | found & partitions
        self.repaired = self.repaired - partitions | (found & partitions if repaired else set())
        if self.red != self.repaired:
            self.all_red = True
        elif self.all_red:
            self.compared_all(self.shown.truly_broken())  # it is made again

    def compared_all(self, found: set[str]) -> None:
        """What a run repaired is a warning until the next run of the partition, if it is well."""
        self.repaired -= found
        self.red, self.all_red = found | self.repaired, bool(found)

    # -- steps -------------------------------------------------------------------------------------

    def lose(self, tenant: str) -> None:
        self.shown.lose_points(tenant, 1)

    def full(self, tenant: str) -> None:
        found = self.shown.truly_broken()
        self.shown.full(tenant)
        self.compared({f"works|{tenant}"}, found)

    def nightly(self, _: str) -> None:
        found = self.shown.truly_broken()
        self.shown.full()
        self.compared(ALL, found)

    def repairing(self, tenant: str) -> None:
        found = self.shown.truly_broken()
        self.shown.repairing(tenant)
        self.compared({f"works|{tenant}"}, found, repaired=True)

    def by_command(self, tenant: str) -> None:
        found = self.shown.truly_broken()
        self.shown.full_by_command(tenant)
        self.compared({f"works|{tenant}"}, found)

    def incremental(self, tenant: str) -> None:
        self.shown.incremental(tenant)
        if f"works|{tenant}" in self.repaired:
            self.compared({f"works|{tenant}"}, set())  # it was reported, once

    def by_id(self, tenant: str) -> None:
        self.shown.by_id(tenant)

    def write_again(self, tenant: str) -> None:
        self.shown.write_again(tenant)

    def retried(self, _: str) -> None:
        self.shown.retried()

    def fresh(self, _: str) -> None:
        self.shown.run("freshness_job")

    def compare(self, _: str) -> None:
        self.shown.run("reconcile_job")
        self.compared_all(self.shown.truly_broken())

    def execute_all(self, _: str) -> None:
        self.shown.execute_all()
        self.compared(ALL, self.shown.truly_broken())

    def reconciled(self, _: str) -> None:
        found = self.shown.truly_broken()
        self.shown.reconciled()
        if found:
            self.repaired -= found
            self.compared_all(set())

    # -- what must hold ----------------------------------------------------------------------------

    def check(self) -> None:
        shown, failing = self.shown, self.shown.failing()
        assert {partition for check, partition in failing if check == "identity"} == self.red
        assert (("reconciliation", "") in failing) is self.all_red
        assert shown.alerts() == shown.failing(errors=not self.warned, alerted=True)
        for check in CHECKS:
            red = {partition for name, partition in failing if name == check}
            expected = {Status.FAILED: red, Status.SUCCEEDED: ALL - red}
            assert shown.grid(check) == {status: there for status, there in expected.items() if there}
            passed, message = shown.headline(check)
            assert passed is not bool(red)
            assert all(partition in str(message) for partition in red)
            assert shown.grid_headline(check) is passed
        if self.all_red:
            assert not shown.headline("reconciliation")[0]


BREAKS: tuple[Callable[[Model, str], None], ...] = (Model.lose,)
RUNS: tuple[Callable[[Model, str], None], ...] = (
    Model.full,
    Model.nightly,
    Model.repairing,
    Model.by_command,
    Model.incremental,
    Model.by_id,
    Model.write_again,
    Model.retried,
    Model.fresh,
    Model.compare,
    Model.execute_all,
    Model.reconciled,
)


def play(folder: Path, seed: int, steps: int) -> None:
    random = Random(seed)
    warned = bool(seed % 2)
    with shown_world(folder, "warning" if warned else "error") as shown:
        shown.full()
        model = Model(shown, warned=warned)
        told = []
        for _ in range(steps):
            tenant = random.choice(TENANTS)
            step = random.choice(BREAKS if random.random() < 0.3 else RUNS)
            told.append(f"{step.__name__}({tenant})")
            try:
                step(model, tenant)
                model.check()
            except AssertionError as error:
                error.add_note(f"seed {seed}: {', '.join(told)}")
                raise


@pytest.mark.parametrize("seed", [22, pytest.param(29, marks=pytest.mark.many)])
def test_all_agree_after_each_step(tmp_path: Path, seed: int) -> None:
    """UI, `status` and alerts name the same partitions: those that the store was found to lack points of."""
    play(tmp_path, seed, 6)


@pytest.mark.many
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 140))
def test_all_agree_after_many_steps(tmp_path: Path, seed: int) -> None:
    """The same in longer sequences."""
    play(tmp_path, seed, 15)
