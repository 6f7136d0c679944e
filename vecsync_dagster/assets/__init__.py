"""The algorithm as software-defined assets."""
