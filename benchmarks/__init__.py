"""What is measured, with the floor beside it. `python -m benchmarks --help`; see README.md here."""
