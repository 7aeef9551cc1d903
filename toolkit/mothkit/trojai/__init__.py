"""NIST's TrojAI rounds: folders, configs, pickled models, and the way of each through hardening."""
