"""Entry point of the ``mothkit`` command."""
def main() -> None:
    """Run the command line."""
