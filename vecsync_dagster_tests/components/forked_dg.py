"""`dg` as people type it, each command in a process of its own, of which all have Dagster imported from the start.

    python -m vecsync_dagster_tests.components.forked_dg

forks a process for each line of its input, a JSON list: the folder to be in, the files for what the command prints
and for its errors, and its arguments. For each line one is answered: the process's exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from typing import NoReturn

from dagster_dg_cli.cli import main as dg

_NEEDED = (
    "dagster._cli.definitions",
    "dagster._core.workspace.context",
    "dagster.components.list",
    "dagster_dg_cli.cli.check",
    "dagster_dg_cli.cli.list",
    "dagster_dg_cli.cli.scaffold",
    "dagster_dg_core.check",
    "dagster_shared.record",
    "vecsync_dagster.components",
)


def run_and_exit(folder: str, out: str, err: str, *arguments: str) -> NoReturn:
    status = 1
    try:
        os.chdir(folder)
        for file, stream in ((out, 1), (err, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = ["dg", *arguments]
        dg()  # type: ignore[no-untyped-call]
    except SystemExit as ended:
        status = int(ended.code or 0)
    except Exception:  # noqa: BLE001 (the process ends here, whatever it was)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for name in _NEEDED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all that it shares with this one
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_and_exit(*json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
