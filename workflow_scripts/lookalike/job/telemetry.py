"""No usage statistics: docs/privacy.md promises that a run sends nothing but requests for weights."""

import os


def switch_off_telemetry() -> None:
    """Keep the hub's library from sending more than its own version and Python's; what a user has set stays.

    It reads the variable once, when it is imported: call this before that.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
