"""Models that others trained: where they are found, what is in them, and how their parts become ours."""
