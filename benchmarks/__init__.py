"""What is measured, with the floor beside it."""
