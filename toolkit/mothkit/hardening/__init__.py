"""Hardening methods: one per file, all behind the Protocol in ``base.py``; none sees a known trigger."""
