"""The entry point `lookalike`: Ctrl-C ends it without a traceback while its modules are still being imported, too."""

import sys


def main() -> None:
    """Import the commands, and run the one of the command line."""
    try:
        from lookalike.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("lookalike: interrupted\n")
        raise SystemExit(130) from None
    run()
