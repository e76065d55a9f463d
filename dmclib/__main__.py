"""``python -m dmclib`` is the same as ``dmc``."""

from dmclib.cli import main

main()
