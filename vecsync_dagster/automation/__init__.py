"""What makes Dagster act by itself, and the partitions it acts on.

Nothing is imported here: checks need the names of partitions, and sensors need checks.
"""
