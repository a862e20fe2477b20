"""`python -m flashhold`: the same as the `flashhold` command."""

from flashhold.cli import main

main()
