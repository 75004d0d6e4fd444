"""``python -m jhub_safety``."""

from jhub_safety.cli import main

main()
