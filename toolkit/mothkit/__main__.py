"""``python -m mothkit``: the console script, looked up since the toolkit does not import it."""

import sys
from importlib.metadata import entry_points

if __name__ == "__main__":
    script = next(iter(entry_points(group="console_scripts", name="mothkit")), None)
    if script is None:
        sys.stderr.write("mothkit is not installed: its console script is not registered\n")
        sys.exit(2)
    script.load()()
