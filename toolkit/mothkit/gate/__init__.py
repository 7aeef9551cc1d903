"""The gate: may this model be deployed? A policy, checks, a verdict, and views of the record."""
