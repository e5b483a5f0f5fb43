"""`python -m bot` is `lookalike`."""

from bot.cli import main

main()
