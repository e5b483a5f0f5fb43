"""Every setting, typed and frozen. Nobody else reads the configuration file or the environment.

Order of precedence: arguments, environment (``LOOKALIKE_SECTION__KEY``), TOML file, defaults.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from engine.errors import BadSettings

__all__ = ["Settings", "default_home", "load_settings"]

BACKBONES = ("resnet", "senet", "dlib")
BackboneName = Literal["resnet", "senet", "dlib"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhotoSettings(_Section):
    """Limits on what people send."""

    max_bytes: Annotated[int, Field(ge=1_000)] = 20_000_000
    max_pixels: Annotated[int, Field(ge=10_000)] = 120_000_000
    max_frames: Annotated[int, Field(ge=1)] = 2_000
    long_side_px: Annotated[int, Field(ge=200)] = 2_000


class DetectorSettings(_Section):
    """How faces are found."""

    min_face_px: Annotated[int, Field(ge=12)] | None = None


class ModelsSettings(_Section):
    """Which backbones are used and where their weights come from."""

    fetch: bool = True
    configured: tuple[BackboneName, ...] = BACKBONES
    base_url: str = "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/"
    runtime: Literal["openvino", "tensorflow"] = "openvino"
    precision: Literal["auto", "f32", "bf16"] = "auto"


class GallerySettings(_Section):
    """The gallery of celebrities."""

    url: str | None = None
    contact: str | None = None


class DatabaseSettings(_Section):
    """Where users' settings and match history are kept."""

    url: str | None = None
    history_days: Annotated[int, Field(ge=0)] = 30
    key: SecretStr | None = None


class QueueSettings(_Section):
    """How many photos are worked on, and for whom."""

    length: Annotated[int, Field(ge=1)] = 64
    photos_per_minute: Annotated[int, Field(ge=1)] = 20
    deadline_s: Annotated[float, Field(gt=0)] = 30.0


class WebhookSettings(_Section):
    """Telegram webhook; used instead of long polling when ``url`` is set."""

    url: str | None = None
    listen: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    secret: SecretStr | None = None


class TelegramSettings(_Section):
    """The Telegram bot; off without a token."""

    token: SecretStr | None = None
    base_url: str = "https://api.telegram.org/bot"
    base_file_url: str = "https://api.telegram.org/file/bot"
    webhook: WebhookSettings = WebhookSettings()


class DiscordSettings(_Section):
    """The Discord bot; off without a token."""

    token: SecretStr | None = None
    api_url: str | None = None
    gateway_url: str | None = None
    cdn_url: str | None = None
    sharded: bool = False


class WebSettings(_Section):
    """The local web chat; on when no platform has a token, or when ``enabled``."""

    enabled: bool | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080


class LogSettings(_Section):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """Everything an operator can choose; `config.example.toml` explains each."""

    model_config = SettingsConfigDict(
        env_prefix="LOOKALIKE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        validate_default=True,
    )

    home: Path = Field(default_factory=lambda: default_home())
    default_model: BackboneName = "resnet"
    photo: PhotoSettings = PhotoSettings()
    detector: DetectorSettings = DetectorSettings()
    models: ModelsSettings = ModelsSettings()
    gallery: GallerySettings = GallerySettings()
    database: DatabaseSettings = DatabaseSettings()
    queue: QueueSettings = QueueSettings()
    telegram: TelegramSettings = TelegramSettings()
    discord: DiscordSettings = DiscordSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)

    @property
    def gallery_folder(self) -> Path:
        """Catalogue, portraits and vectors."""
        return self.home / "gallery"

    @property
    def models_folder(self) -> Path:
        """Downloaded weights."""
        return self.home / "models"

    @property
    def cache_folder(self) -> Path:
        """Compiled networks; may be deleted at any time."""
        return self.home / "cache"


def default_home() -> Path:
    """The platform's folder for a user's data."""
    return Path(platformdirs.user_data_dir("lookalike", appauthor=False))


def load_settings(config: Path | None = None, *, home: Path | None = None) -> Settings:
    """The settings in force.

    Args:
        config: A TOML file; without it ``config.toml`` in the working folder, if there is one.
        home: The data folder; wins over file and environment.

    Raises:
        BadSettings: If the file can't be read, a key is unknown or a value is wrong; the
            sentence names the key and never shows a secret's value.
    """
    values = _read(config)
    try:
        settings = Settings(**values)
    except ValidationError as problem:
        raise BadSettings(_sentence(problem)) from None
    _refuse_unknown_environment()
    if home is not None:
        settings = settings.model_copy(update={"home": home.expanduser().absolute()})
    return settings


def _read(config: Path | None) -> dict[str, Any]:
    path = config or Path("config.toml")
    if config is None and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadSettings(f"the settings file {path} can't be read: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadSettings(f"the settings file {path} is no TOML: {problem}") from None


def _sentence(problem: ValidationError) -> str:
    parts = []
    for error in problem.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            parts.append(f"the setting {key} is unknown")
        else:
            parts.append(f"the setting {key} is wrong: {error['msg']}")
    return "; ".join(parts) + " (config.example.toml explains every setting)"


def _refuse_unknown_environment() -> None:
    sections = Settings.model_fields
    for name in os.environ:
        if not name.upper().startswith("LOOKALIKE_"):
            continue
        path = name.upper().removeprefix("LOOKALIKE_").lower().split("__")
        field = sections.get(path[0])
        if field is None:
            raise BadSettings(f"the environment variable {name} sets nothing that is known")


