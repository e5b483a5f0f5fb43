"""`python -m bot` is `lookalike`."""

from bot.cli.main import main

main()
