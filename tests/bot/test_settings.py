"""Settings: precedence, mistakes named with a suggestion, secrets never shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bot.settings import Settings, known_settings, load_settings, secrets_of
from engine.errors import BadSettings

EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.toml"
TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_environment_wins_over_the_file_and_the_argument_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, 'home = "/from/file"\n[queue]\nlength = 5\nphotos_per_minute = 7\n')
    monkeypatch.setenv("LOOKALIKE_QUEUE__LENGTH", "9")
    monkeypatch.setenv("LOOKALIKE_HOME", "/from/environment")
    settings = load_settings(config)
    assert (settings.queue.length, settings.queue.photos_per_minute) == (9, 7)
    assert settings.home == Path("/from/environment")
    assert load_settings(config, home=tmp_path).home == tmp_path


def test_config_toml_of_the_working_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('default_model = "dlib"\n', encoding="utf-8")
    assert load_settings().default_model == "dlib"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[telegram]\ntokn = 'x'\n", ("telegram.tokn", "did you mean telegram.token?")),
        ("[telegramm]\ntoken = 'x'\n", ("telegramm", "did you mean telegram?")),
        ("history_days = 3\n", ("history_days", "did you mean database.history_days?")),
        ("[queue]\nlength = 0\n", ("queue.length", "greater than or equal to 1")),
        ("default_model = 'facenet'\n", ("default_model", "'resnet'")),
        ("[web]\nport = 'eighty'\n", ("web.port", "integer")),
        ("not toml", ("no TOML",)),
        ("home = " + "9" * 10_000, ("no TOML", "digits")),
        ("home = " + "[" * 10_000, ("no TOML",)),
        ("[access]\nblocked = ['13']\n", ("access.blocked",)),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(BadSettings) as problem:
        load_settings(written(tmp_path, text))
    for word in words:
        assert word in str(problem.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LOOKALIKE_TELEGRAM_TOKEN", "LOOKALIKE_TELEGRAM__TOKEN"),
        ("LOOKALIKE_TELEGRAM__TOKN", "LOOKALIKE_TELEGRAM__TOKEN"),
        ("LOOKALIKE_QUEUE__LENGHT", "LOOKALIKE_QUEUE__LENGTH"),
        ("LOOKALIKE_NOTHING_LIKE_IT", ""),
    ],
)
def test_an_unknown_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setenv(name, TOKEN)
    with pytest.raises(BadSettings) as problem:
        load_settings()
    assert name in str(problem.value)
    assert f"did you mean {hint}?" in str(problem.value) or not hint
    assert TOKEN not in str(problem.value)


def test_a_section_given_as_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MODELS__CONFIGURED", '["dlib"]')
    assert load_settings().models.configured == ("dlib",)
    monkeypatch.setenv("LOOKALIKE_MODELS__CONFIGURED", "[dlib")
    with pytest.raises(BadSettings) as problem:
        load_settings()
    assert "dlib" not in str(problem.value)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="can't be read"):
        load_settings(tmp_path / "nowhere.toml")


def test_secrets_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_TELEGRAM__TOKEN", f" {TOKEN}\n")
    config = written(tmp_path, "[discord]\ntoken = 'a-discord-token'\n")
    settings = load_settings(config)
    assert TOKEN not in repr(settings)
    assert "a-discord-token" not in str(settings.model_dump())
    assert set(secrets_of(settings)) == {TOKEN, "a-discord-token"}


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_TELEGRAM__TOKEN", "")
    monkeypatch.setenv("LOOKALIKE_DATABASE__URL", " ")
    settings = load_settings()
    assert settings.telegram.token is None
    assert settings.database.url is None


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.queue.length = 3  # type: ignore[misc]


def test_the_example_loads_and_says_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_the_example_explains_every_setting_with_its_default() -> None:
    """What has a default stands there; what has none stands there as a comment."""
    text = EXAMPLE.read_text(encoding="utf-8")
    stands = dict(_flat(tomllib.loads(text)))
    offered = dict(_flat(tomllib.loads(re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text))))
    known = known_settings()
    assert set(offered) == set(known)
    for name, default in known.items():
        if default is None or name == "home":
            assert name not in stands, f"{name} has no default that could stand there"
        else:
            value = stands[name]
            assert (tuple(value) if isinstance(value, list) else value) == default, name
    settings = [line for line in text.splitlines() if re.match(r"(# )?[a-z_]+ = ", line)]
    assert len(settings) == len(known)
    lines = text.splitlines()
    for line in settings:
        before = lines[lines.index(line) - 1]
        assert before.startswith("#") or re.match(r"(# )?[a-z_]+ = ", before), line


def _flat(table: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
