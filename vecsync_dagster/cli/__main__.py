"""`python -m vecsync_dagster.cli`: the same as the program `vecsync`."""

from vecsync_dagster.cli.main import main

main()
