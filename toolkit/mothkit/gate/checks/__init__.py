"""The checks, one file a family: each takes its settings and the bench, and returns findings."""
