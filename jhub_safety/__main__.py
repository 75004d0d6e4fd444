"""``jhub-safety``, and ``python -m jhub_safety``."""

from __future__ import annotations

import gc

# A command lives for seconds. The collector's walks over all that is imported and parsed were a
# fifth of the time of one that lists 10,000 claims.
gc.disable()

from jhub_safety.cli import main  # noqa: E402 - what it imports is what is not to be walked over


def run() -> None:
    """Entry point."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()
    main()


if __name__ == "__main__":
    run()
