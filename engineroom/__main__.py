"""`python -m engineroom`: the same as `engineroom`."""

from engineroom.cli import main

main()
