"""The ``mothkit`` command: prints, exits and draws progress; no logic lives here."""
