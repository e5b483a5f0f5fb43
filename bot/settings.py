"""Every setting, typed and frozen. Nobody else reads the configuration file or the environment.

Order of precedence: arguments, environment (``LOOKALIKE_SECTION__KEY``), TOML file, defaults.
"""

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, unquote_plus

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from engine.errors import BadSettings

BackboneName = Literal["resnet", "senet", "dlib"]
BACKBONES: tuple[BackboneName, ...] = ("resnet", "senet", "dlib")


def _stripped(value: object) -> object:
    """A token copied with the line's end; set to nothing, as container files do, means not set."""
    return value.strip() or None if isinstance(value, str) else value


# In a database's URL: user:password@host, or the option ?password=...
_PASSWORD = re.compile(r"://[^:/@]*:([^@]+)@|[?&]password=([^&#]+)")

OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_stripped)]
OptionalText = Annotated[str | None, BeforeValidator(_stripped)]
OptionalAddress = Annotated[
    Annotated[str, Field(pattern=r"\Ahttps?://[^\s/?#@]+/?\z")] | None, BeforeValidator(_stripped)
]
IDENTIFIED = ("telegram", "discord")  # platforms with ids of people and chats
AccessId = Annotated[str, Field(pattern=r"\A(telegram|discord):-?\d{1,20}\z")]
OptionalNetwork = Annotated[IPvAnyNetwork | None, BeforeValidator(_stripped)]
# Addresses of this machine alone, and names under which its page may be asked for.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhotoSettings(_Section):
    """Limits on what people send."""

    max_bytes: Annotated[int, Field(ge=1_000)] = 20_000_000
    max_pixels: Annotated[int, Field(ge=10_000)] = 120_000_000
    max_frames: Annotated[int, Field(ge=1)] = 2_000
    long_side_px: Annotated[int, Field(ge=200)] = 2_000
    decode_seconds: Annotated[float, Field(ge=0.5, le=600)] = 3.0
    decode_megabytes: Annotated[int, Field(ge=100)] = 600


class DetectorSettings(_Section):
    """How faces are found."""

    min_face_px: Annotated[int, Field(ge=12)] | None = None


class ModelsSettings(_Section):
    """Which backbones are used and where their weights come from."""

    fetch: bool = True
    configured: tuple[BackboneName, ...] = BACKBONES
    base_url: str = "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/"
    runtime: Literal["openvino", "tensorflow"] = "openvino"
    precision: Literal["auto", "float", "f32", "bf16", "int8"] = "auto"


class GallerySettings(_Section):
    """The gallery of celebrities."""

    url: OptionalSecret = None
    starter: bool = True
    contact: OptionalText = None
    wikidata_url: str = "https://query.wikidata.org/sparql"
    commons_url: str = "https://commons.wikimedia.org/w/api.php"


class EngineSettings(_Section):
    """An engine elsewhere (``lookalike serve-engine``); without an address it is in the bot."""

    address: OptionalAddress = None
    secret: OptionalSecret = None


class DatabaseSettings(_Section):
    """Where users' settings and match history are kept."""

    url: OptionalSecret = None
    history_days: Annotated[int, Field(ge=0)] = 30
    key: OptionalSecret = None


class QueueSettings(_Section):
    """How many photos are worked on, and for whom."""

    length: Annotated[int, Field(ge=1)] = 64
    photos_per_minute: Annotated[int, Field(ge=1)] = 20
    chat_photos_per_minute: Annotated[int, Field(ge=1)] | None = None
    deadline_s: Annotated[float, Field(gt=0)] = 30.0


class AccessSettings(_Section):
    """Who is answered: people and chats, such as ``"telegram:123456789"``."""

    blocked: tuple[AccessId, ...] = ()
    allowed: tuple[AccessId, ...] = ()
    admins: tuple[AccessId, ...] = ()

    def ignores(self, platform: str, *ids: str) -> bool:
        """Whether somebody with that id, in a chat with that id, gets no answer."""
        known = {f"{platform}:{one}" for one in ids}
        foreign = self.allowed and platform in IDENTIFIED and known.isdisjoint(self.allowed)
        return bool(foreign) or not known.isdisjoint(self.blocked)


class MemorySettings(_Section):
    """Answered photos, kept in memory only, so that buttons need no second upload."""

    url: OptionalSecret = None
    unchecked: bool = False
    minutes: Annotated[float, Field(ge=0)] = 60.0
    megabytes: Annotated[int, Field(ge=0)] = 24


class WebhookSettings(_Section):
    """Telegram webhook; used instead of long polling when ``url`` is set."""

    url: OptionalText = None
    listen: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    secret: OptionalSecret = None


class TelegramSettings(_Section):
    """The Telegram bot; off without a token."""

    token: OptionalSecret = None
    base_url: str = "https://api.telegram.org/bot"
    base_file_url: str = "https://api.telegram.org/file/bot"
    webhook: WebhookSettings = WebhookSettings()


class DiscordSettings(_Section):
    """The Discord bot; off without a token."""

    token: OptionalSecret = None
    api_url: OptionalText = None
    gateway_url: OptionalText = None
    cdn_url: OptionalText = None
    sharded: bool = False
    shard_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    shard_count: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _shards(self) -> Self:
        known = range(self.shard_count or 0)
        if (self.shard_count is None) == bool(self.shard_ids) or {*self.shard_ids} - {*known}:
            raise ValueError("shard_ids and shard_count belong together: ids from 0 to count - 1")
        return self


class WebSettings(_Section):
    """The local web chat; on when no platform has a token, or when ``enabled``."""

    enabled: bool | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    password: OptionalSecret = None
    trusted_proxy: OptionalNetwork = None

    @property
    def here_only(self) -> bool:
        """Whether whoever sees the page sits at this machine, as the operator does."""
        return self.host in LOOPBACK and self.trusted_proxy is None

    @property
    def unguarded(self) -> bool:
        """Whether others could come in and nobody would ask them for a password."""
        return self.host not in LOOPBACK and self.password is None and self.trusted_proxy is None


class LogSettings(_Section):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class MonitorSettings(_Section):
    """What monitoring systems ask, see ``bot.monitor``; off without a port."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


class Settings(BaseSettings):
    """Everything an operator can choose; `config.example.toml` explains each."""

    model_config = SettingsConfigDict(
        env_prefix="LOOKALIKE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        validate_default=True,
    )

    home: Path = Field(default_factory=lambda: platformdirs.user_data_path("lookalike", False))
    default_model: BackboneName = "resnet"
    photo: PhotoSettings = PhotoSettings()
    detector: DetectorSettings = DetectorSettings()
    models: ModelsSettings = ModelsSettings()
    engine: EngineSettings = EngineSettings()
    gallery: GallerySettings = GallerySettings()
    database: DatabaseSettings = DatabaseSettings()
    access: AccessSettings = AccessSettings()
    queue: QueueSettings = QueueSettings()
    memory: MemorySettings = MemorySettings()
    telegram: TelegramSettings = TelegramSettings()
    discord: DiscordSettings = DiscordSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    monitor: MonitorSettings = MonitorSettings()

    @field_validator("home")
    @classmethod
    def absolute(cls, home: Path) -> Path:
        """The data folder in full; ValueError if it is that of somebody who has none."""
        try:
            return home.expanduser().absolute()
        except RuntimeError as problem:
            raise ValueError(str(problem)) from None

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """The environment before the file; nothing else is read."""
        return (sources["env_settings"], sources["init_settings"])

    @property
    def gallery_url(self) -> str | None:
        """The database that keeps the gallery, password and all; None for the folder."""
        return self.gallery.url.get_secret_value() if self.gallery.url else None

    @property
    def database_url(self) -> str | None:
        """The database of choices and history, password and all; None for a file."""
        return self.database.url.get_secret_value() if self.database.url else None

    @property
    def memory_url(self) -> str | None:
        """The server that remembers for several processes, password and all; None for none."""
        return self.memory.url.get_secret_value() if self.memory.url else None

    @property
    def gallery_folder(self) -> Path:
        """Catalogue, portraits and vectors; of a gallery in a database, copies of pictures."""
        return self.home / "gallery"

    @property
    def models_folder(self) -> Path:
        """Downloaded weights."""
        return self.home / "models"

    @property
    def cache_folder(self) -> Path:
        """Compiled networks; may be deleted at any time."""
        return self.home / "cache"


def load_settings(config: Path | None = None, *, home: Path | None = None) -> Settings:
    """The settings in force; ``home``, the data folder, wins over file and environment.

    The file is ``config.toml`` in the working folder unless one is named. Raises BadSettings if the
    file can't be read, a key is unknown or a value is wrong; the sentence names the key and never
    shows a secret's value.
    """
    path = config or Path("config.toml")
    values: dict[str, Any] = {}
    try:
        if config is not None or path.is_file():
            values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadSettings(f"the settings file {path} can't be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # numbers and nesting without end, too
        raise BadSettings(f"the settings file {path} is no TOML: {problem}") from None
    _refuse_unknown_environment()
    try:
        settings = Settings(**values)
        if home is not None:
            settings = settings.model_copy(update={"home": Settings.absolute(home)})
    except ValidationError as problem:
        raise BadSettings(_sentence(problem)) from None
    except SettingsError as problem:
        raise BadSettings(f"the environment can't be used: {problem}") from None
    except ValueError as problem:
        raise BadSettings(f"--home can't be used: {problem}") from None
    return settings


def known_settings(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every setting by its full name, such as ``queue.length``, with its default."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found |= known_settings(section, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field.get_default(call_default_factory=True)
    return found


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every secret that is set, so that it can be kept out of the log."""
    telegram = settings.telegram
    found = [telegram.token, telegram.webhook.secret, settings.discord.token, settings.database.key]
    found += [settings.web.password, settings.engine.secret]
    plain = [secret.get_secret_value() for secret in found if secret is not None]
    for url in (settings.gallery_url, settings.database_url, settings.memory_url):
        passwords = [next(filter(None, found)) for found in _PASSWORD.findall(url or "")]
        if url is not None and passwords:
            plain += [url, *passwords, *map(unquote_plus, passwords), *map(unquote, passwords)]
    return tuple(dict.fromkeys(plain))


def _sentence(problem: ValidationError) -> str:
    """What is wrong; for an unknown key a name much like it, or the same in another section."""
    parts, known = [], [*known_settings(), *Settings.model_fields]
    for error in problem.errors(include_input=False, include_url=False, include_context=False):
        key, what = ".".join(map(str, error["loc"])), f"wrong: {error['msg']}"
        if error["type"] == "extra_forbidden":
            same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or same
            what = f"unknown; did you mean {near[0]}?" if near else "unknown"
        parts.append(f"the setting {key} is {what}")
    return "; ".join(parts) + " (config.example.toml explains every setting)"


def _refuse_unknown_environment() -> None:
    """A misspelt variable would otherwise be passed over in silence."""
    known = {name.replace(".", "__") for name in known_settings()}
    known_or_section = {*known, *(name.rpartition("__")[0] for name in known)} - {""}
    for variable in os.environ:
        name = variable.lower().removeprefix("lookalike_")
        if name != variable.lower() and name not in known_or_section:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"; did you mean LOOKALIKE_{near[0].upper()}?" if near else ""
            raise BadSettings(
                f"the environment variable {variable} sets nothing that is known{hint}"
            )
