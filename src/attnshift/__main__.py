"""``python -m attnshift`` is the command line."""

from attnshift.cli import main

main()
