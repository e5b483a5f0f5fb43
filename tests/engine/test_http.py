"""Downloads against a server that truncates, stalls, refuses, moves and changes its mind."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from http_source import Behaviour, Source, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import SetupProblem, SourceDown
from engine.http import HttpClient, NotThere, Patience, Progress, Refused, Stopped, TooSlow

CONTENT = random.Random(0).randbytes(300_000)
QUICK = Patience(connect_s=2.0, stall_s=0.3, tries=3, first_pause_s=0.01, longest_pause_s=0.02)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "weights.h5.part"


def download(
    url: str, part: Path, patience: Patience = QUICK, progress: Progress = lambda *_: None
) -> None:
    with HttpClient("tests", patience=patience, advice="try again later") as client:
        client.download(url, part, progress)


def get(source: Source, part: Path, progress: Progress = lambda *_: None) -> bytes:
    download(f"{source.url}weights.h5", part, progress=progress)
    return part.read_bytes()


def test_a_file_arrives_whole(source: Source, part: Path) -> None:
    """Bytes as they are, and a progress that only rises, to the end."""
    steps: list[tuple[int, int | None]] = []

    assert get(source, part, progress=lambda *step: steps.append(step)) == CONTENT
    assert steps == sorted(steps)
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_truncated_answer_is_continued(source: Source, part: Path) -> None:
    """What has arrived is not sent again."""
    source.script = [Behaviour(bytes_sent=200_000)]

    assert get(source, part) == CONTENT
    assert source.ranges == [None, "bytes=200000-"]


def test_tries_count_only_when_nothing_new_arrives(source: Source, part: Path) -> None:
    """A line that drops every 30 kB still brings the file, with three tries."""
    source.usual = Behaviour(bytes_sent=30_000)

    assert get(source, part) == CONTENT
    assert len(source.requests) == 10


def test_a_stalled_answer_is_continued(source: Source, part: Path) -> None:
    """Silence is a broken line."""
    source.script = [Behaviour(bytes_sent=100_000, stall_s=30)]
    began = time.monotonic()

    assert get(source, part) == CONTENT
    assert source.ranges == [None, "bytes=100000-"]
    assert time.monotonic() - began < 10


def test_a_later_call_continues(source: Source, part: Path) -> None:
    """A server that gives up for good is down; what it sent serves the next call."""
    source.script = [Behaviour(bytes_sent=150_000)]
    source.usual = Behaviour(status=500)

    with pytest.raises(SourceDown, match=r"answers 500.*try again later"):
        get(source, part)
    assert part.stat().st_size == 150_000

    source.usual = Behaviour()
    assert get(source, part) == CONTENT
    assert source.ranges[-1] == "bytes=150000-"


def test_a_finished_part_is_not_fetched_again(source: Source, part: Path) -> None:
    """Killed after the last byte, the next call needs no request."""
    get(source, part)

    assert get(source, part) == CONTENT
    assert len(source.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_passing_trouble_is_waited_for(source: Source, part: Path, status: int) -> None:
    """A server may be busy for a moment, and may say how long."""
    source.script = [Behaviour(status=status, headers={"Retry-After": "0"})]

    assert get(source, part) == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_repeated(source: Source, part: Path, status: int) -> None:
    """Asking again would not help."""
    source.usual = Behaviour(status=status)

    with pytest.raises(Refused, match=rf"answers {status} ") as caught:
        get(source, part)
    assert isinstance(caught.value, NotThere) == (status in (404, 410))
    assert len(source.requests) == 1
    assert not part.exists()


def test_a_server_that_ignores_ranges(source: Source, part: Path) -> None:
    """It sends all of it again; nothing is appended to what was there."""
    source.script = [Behaviour(bytes_sent=200_000), Behaviour(ranges=False)]

    assert get(source, part) == CONTENT


@pytest.mark.parametrize("checks_validator", [True, False])
def test_a_file_that_changes_is_never_mixed(
    source: Source, part: Path, checks_validator: bool
) -> None:
    """Whether the server heeds If-Range or not: the bytes are of one file."""
    source.script = [Behaviour(bytes_sent=200_000)]
    source.usual = Behaviour(status=503)
    with pytest.raises(SourceDown):
        get(source, part)

    source.content = CONTENT[::-1]
    source.usual = Behaviour(checks_validator=checks_validator)

    assert get(source, part) == CONTENT[::-1]


def test_a_file_that_shrinks_is_fetched_anew(source: Source, part: Path) -> None:
    """416: the range lies beyond the end of what the server has now."""
    source.script = [Behaviour(bytes_sent=200_000)]
    source.usual = Behaviour(status=503)
    with pytest.raises(SourceDown):
        get(source, part)

    source.content = CONTENT[:1000]
    source.usual = Behaviour(checks_validator=False)

    assert get(source, part) == CONTENT[:1000]


def test_without_a_validator_nothing_is_continued(source: Source, part: Path) -> None:
    """Without ETag or date nobody can say that it is still the same file."""
    source.script = [Behaviour(bytes_sent=200_000, etag=False)]

    assert get(source, part) == CONTENT
    assert source.ranges == [None, None]


def test_a_date_vouches_as_well(source: Source, part: Path) -> None:
    """If-Range takes the Last-Modified date where there is no strong ETag."""
    dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    source.script = [
        Behaviour(bytes_sent=200_000, etag=False, headers={"ETag": 'W/"weak"', **dated}),
        Behaviour(checks_validator=False, etag=False, headers=dated),
    ]

    assert get(source, part) == CONTENT
    assert source.ranges == [None, "bytes=200000-"]


def test_another_url_starts_anew(source: Source, part: Path) -> None:
    """What one mirror sent is not continued from another."""
    source.script = [Behaviour(bytes_sent=200_000)]
    source.usual = Behaviour(status=503)
    with pytest.raises(SourceDown):
        get(source, part)
    source.usual = Behaviour()

    download(f"{source.url}elsewhere/weights.h5", part)

    assert part.read_bytes() == CONTENT
    assert source.ranges[-1] is None


def test_a_body_of_unknown_length(source: Source, part: Path) -> None:
    """Without Content-Length the end of the connection is the end of the file."""
    source.usual = Behaviour(length=False)
    totals: set[int | None] = set()

    assert get(source, part, progress=lambda _done, total: totals.add(total)) == CONTENT
    assert totals == {None}


def test_redirects_to_another_host_are_followed(source: Source, part: Path) -> None:
    """As a release page answers; the part is continued behind the redirect too."""
    with serving(b"") as front:
        front.usual = Behaviour(status=302, headers={"Location": f"{source.url}storage/weights"})
        source.script = [Behaviour(bytes_sent=200_000)]

        assert get(front, part) == CONTENT
    assert source.requests == [("/storage/weights", None), ("/storage/weights", "bytes=200000-")]


def test_endless_redirects_are_refused(source: Source, part: Path) -> None:
    """A loop is a wrong URL, not a slow server."""
    source.usual = Behaviour(status=302, headers={"Location": "/again"})

    with pytest.raises(Refused, match="too many redirects"):
        get(source, part)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For https on loopback; this process trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "public.pem", tmp_path / "private.pem"
    public.write_bytes(signed.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context


def test_https_is_never_left(source: Source, part: Path, certificate: ssl.SSLContext) -> None:
    """Nobody on the way can put another file in: a redirect to http is refused."""
    with serving(CONTENT, certificate) as safe:
        assert get(safe, part) == CONTENT
        part.unlink()
        safe.usual = Behaviour(status=302, headers={"Location": f"{source.url}weights.h5"})

        with pytest.raises(Refused, match="leads away from https"):
            get(safe, part)
    assert not part.exists()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/w.h5", "nonsense", "http://[", "http://"])
def test_an_unusable_url_is_named(part: Path, url: str) -> None:
    """The address is in the sentence."""
    with pytest.raises(Refused, match=re.escape(url)):
        download(url, part)


def test_nobody_listening_is_a_source_that_is_down(part: Path) -> None:
    """A refused connection may work later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w.h5"
        with pytest.raises(SourceDown, match="try again later"):
            download(url, part)


def test_an_absurd_size_is_refused(source: Source, part: Path) -> None:
    """A mirror can't fill the disk."""
    source.script = [Behaviour(length=False, headers={"Content-Length": "5000000000"})]

    with pytest.raises(Refused, match="far too large"):
        get(source, part)


def test_a_damaged_note_is_no_obstacle(source: Source, part: Path) -> None:
    """What the note says can't be read: the download starts again."""
    part.write_bytes(b"x" * 1000)
    part.with_name(f"{part.name}.json").write_text(json.dumps({"url": 1}))

    assert get(source, part) == CONTENT


def test_a_folder_that_can_not_be_written(source: Source, tmp_path: Path) -> None:
    """The operator learns which one."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(SetupProblem, match="can't be written"):
        get(source, tmp_path / "file" / "weights.h5.part")


LIMITED = """
import resource, sys
from pathlib import Path
from engine.http import HttpClient
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
HttpClient("tests").download(sys.argv[1], Path(sys.argv[2]))
"""


def test_no_room_for_the_file(source: Source, part: Path) -> None:
    """The system's refusal to write more becomes a sentence; what has arrived is kept."""
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, f"{source.url}weights.h5", str(part)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "SetupProblem" in run.stderr
    assert "can't be written" in run.stderr
    assert part.stat().st_size == 100_000
    assert get(source, part) == CONTENT


KILLED = """
import sys
from pathlib import Path
from engine.http import HttpClient
HttpClient("tests").download(sys.argv[1], Path(sys.argv[2]))
"""


def test_a_killed_download_is_continued(source: Source, part: Path) -> None:
    """SIGKILL leaves a part that the next call goes on with."""
    source.script = [Behaviour(bytes_sent=200_000, stall_s=60)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, f"{source.url}weights.h5", str(part)])
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    arrived = part.stat().st_size

    assert 0 < arrived <= 200_000
    assert get(source, part) == CONTENT
    assert source.ranges[-1] == f"bytes={arrived}-"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.builds(
            Behaviour,
            status=st.sampled_from([200, 200, 200, 503]),
            bytes_sent=st.integers(1, 60_000),
            ranges=st.booleans(),
            checks_validator=st.booleans(),
            etag=st.booleans(),
            length=st.just(True),
        ),
        max_size=6,
    )
)
def test_however_it_is_cut_it_arrives_whole(
    source: Source, tmp_path_factory: pytest.TempPathFactory, script: list[Behaviour]
) -> None:
    """Whatever the server does on the way, a finished download is the file."""
    source.content = CONTENT[:100_000]
    source.script = list(script)
    part = tmp_path_factory.mktemp("download") / "w.part"
    patience = Patience(tries=10, first_pause_s=0.001, longest_pause_s=0.002)

    download(f"{source.url}weights.h5", part, patience)

    assert part.read_bytes() == source.content


HURRIED = Patience(
    first_pause_s=0.01, longest_pause_s=0.05, stall_s=0.3, tries=5, tries_to_connect=2
)


def ask(source: Source, patience: Patience = HURRIED, stop: threading.Event | None = None) -> bytes:
    with HttpClient("tests", connections=2, patience=patience, stop=stop) as client:
        return client.get(source.url, lambda body, _pause_s: body)


def test_pauses_are_as_long_as_the_server_says(source: Source) -> None:
    date = email.utils.formatdate(time.time() + 3, usegmt=True)
    source.script = [Behaviour(429, {"Retry-After": "1"}), Behaviour(503, {"Retry-After": date})]
    began = time.monotonic()
    assert ask(source) == CONTENT
    assert 1.9 < time.monotonic() - began < 10


def test_what_is_not_there_is_not_asked_for_again(source: Source) -> None:
    source.script = [Behaviour(404), Behaviour(410)]
    for _ in range(2):
        with pytest.raises(NotThere):
            ask(source)
    assert len(source.requests) == 2


def test_a_server_that_is_too_slow_is_given_up(source: Source) -> None:
    source.usual = Behaviour(delay_s=5)
    with pytest.raises(TooSlow):
        ask(source, Patience(stall_s=0.1, tries_when_slow=1))
    assert len(source.requests) == 1


def test_an_answer_cut_short_is_asked_for_again(source: Source) -> None:
    source.script = [Behaviour(bytes_sent=2)]
    assert ask(source) == CONTENT


def test_a_pause_ends_when_the_work_is_given_up(source: Source) -> None:
    source.script = [Behaviour(429, {"Retry-After": "60"})]
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        ask(source, stop=stop)
    assert time.monotonic() - began < 5
