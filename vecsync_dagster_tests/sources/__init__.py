"""Tests of the sources: one contract for all (source_contract.py), and what is each one's own."""
