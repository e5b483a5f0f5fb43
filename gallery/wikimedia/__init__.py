"""Famous people from Wikidata, with free portraits from Wikimedia Commons.

Wikimedia's rules for robots that are kept here: a User-Agent with a contact, at most 3 connections
to the API and 2 to the pictures, pauses when told to, nothing asked twice
(https://www.mediawiki.org/wiki/API:Etiquette,
https://foundation.wikimedia.org/wiki/Policy:User-Agent_policy).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from engine.errors import BadSettings, SourceDown
from engine.http import NotThere, Refused

CONTACT_ADVICE = (
    "see that gallery.contact is an address it can reach you at, and try again later; what has "
    "arrived is kept"
)


@dataclass(frozen=True, slots=True)
class Servers:
    """Whom to ask, and as whom; addresses that are bare hosts get the usual path."""

    contact: str  # e-mail address or web page of whoever runs this
    wikidata_url: str = "https://query.wikidata.org/sparql"
    commons_url: str = "https://commons.wikimedia.org/w/api.php"


@contextmanager
def refusals(url: str, setting: str) -> Iterator[None]:
    """Turns the refusals of a service into sentences; ``setting`` is where its address stands."""
    try:
        yield
    except NotThere as problem:
        raise SourceDown(f"there is no such service at {url}: see {setting}") from problem
    except Refused as problem:
        host = urlsplit(url).netloc
        raise SourceDown(f"{host} refuses ({problem.reason}): {CONTACT_ADVICE}") from problem


def user_agent(contact: str) -> str:
    """How this program names itself: ``Lookalike/0.1.0 (you@example.org) httpx/0.28.1``.

    Raises BadSettings if the contact is neither an e-mail address nor a web address.
    """
    from importlib.metadata import version

    contact = contact.strip()
    if not contact.isprintable() or not contact.isascii() or not ("@" in contact or ":" in contact):
        raise BadSettings(
            "gallery.contact should be an e-mail address or a web address, such as you@example.org"
        )
    words = contact.replace("(", "").replace(")", "")
    return f"Lookalike/{version('lookalike')} ({words}) httpx/{version('httpx')}"


def service_url(url: str, usual_path: str, setting: str) -> str:
    """The address of a service, with the usual path if it is a bare host; raises BadSettings."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return url if parts.path.strip("/") else urlunsplit(parts._replace(path=usual_path))
    raise BadSettings(f"{setting} should be a web address, not {url!r}")
