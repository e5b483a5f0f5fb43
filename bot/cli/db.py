"""`lookalike db`: the databases, of the bot and of the gallery."""

from __future__ import annotations

import asyncio

import click

from bot.cli.main import Context, common
from engine.errors import SetupProblem

__all__ = ["command"]


@click.group()
def command() -> None:
    """Look after the databases: choices and history, and the gallery's catalogue."""


@command.command()
@common
@click.pass_obj
def upgrade(context: Context) -> None:
    """Bring the tables up to date; `run` and `chat` do so by themselves."""
    try:
        from bot.store.keys import Identity, secret_key
        from bot.store.store import Store, database_url
    except ModuleNotFoundError as missing:
        raise SetupProblem(
            f"the package {missing.name} is missing: run `pip install 'lookalike[chat]'`"
        ) from None
    import migrations
    from bot.app import open_gallery
    from gallery.postgres.server import masked

    settings = context.settings()
    given = settings.database.key
    key = secret_key(settings.home / "secret.key", given.get_secret_value() if given else None)
    url = database_url(settings.database_url, settings.home)

    async def open_once() -> None:
        async with Store.open(url, Identity(key), history_days=settings.database.history_days):
            pass

    asyncio.run(open_once())
    click.echo(f"{masked(url)} is up to date ({migrations.head('store')})")
    with open_gallery(settings) as gallery:
        click.echo(f"{gallery.place} is up to date ({migrations.head('gallery')})")
