"""The one table: medians over the repetitions, the floor beside each figure, and what is over its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.scenarios import Pair

__all__ = ["markdown"]

_HEAD = (
    "| workload | phase | floor s | vecsync s | ratio | target | CPU ratio | peak MiB floor | peak MiB vecsync "
    "(above idle) | embedded | at the end |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n"
)


def markdown(results: Mapping[str, Sequence[Sequence[Pair]]]) -> str:
    """Workload -> its repetitions -> the pairs of each."""
    lines = [
        _line(workload, [repetition[number] for repetition in repetitions])
        for workload, repetitions in results.items()
        for number in range(len(repetitions[0]))
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _line(workload: str, pairs: Sequence[Pair]) -> str:
    first, note = pairs[0], pairs[-1].note
    vecsync = [pair.vecsync for pair in pairs]
    above = median(one.peak_mib - one.idle_mib for one in vecsync)
    wall, peak = median(one.wall_s for one in vecsync), median(one.peak_mib for one in vecsync)
    texts = vecsync[0].embedded
    floors = [pair.floor for pair in pairs if pair.floor is not None]
    if not floors:
        cells = [workload, first.phase, "-", f"{wall:.2f}", "-", "-", "-", "-", f"{peak:.0f} ({above:.0f})"]
        return _row([*cells, f"{texts}", note])
    ratio = median(p.vecsync.wall_s / p.floor.wall_s for p in pairs if p.floor is not None)
    cpu = median(p.vecsync.cpu_s / p.floor.cpu_s for p in pairs if p.floor is not None)
    shown = f"{ratio:.2f}" if first.target is None or ratio <= first.target else f"**{ratio:.2f}**"
    return _row(
        [
            workload,
            first.phase,
            f"{median(one.wall_s for one in floors):.2f}",
            f"{wall:.2f}",
            shown,
            "-" if first.target is None else f"{first.target:.2f}",
            f"{cpu:.2f}",
            f"{median(one.peak_mib for one in floors):.0f}",
            f"{peak:.0f} ({above:.0f})",
            f"{floors[0].embedded} / {texts}",
            note,
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
