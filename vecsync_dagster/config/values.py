"""What all parts of the configuration are made of: frozen models, names, and values that stand in the environment."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from vecsync_dagster.errors import ConfigError

__all__ = [
    "CollectionName",
    "Duration",
    "EnvRef",
    "EnvText",
    "Model",
    "Name",
    "Prefix",
    "Text",
    "environment",
    "resolve",
    "trimmed",
]

# What editors, `echo`, secret files and web pages leave around a value: blanks and line ends, a byte order mark, and
# characters that have no width.
_NOTHING = r"[\s\ufeff\u200b-\u200f\u2060]+"
_AROUND = re.compile(rf"\A{_NOTHING}|{_NOTHING}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f]")


class Model(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
        raise ValueError("a name begins with a letter and has letters, digits and _ only, 64 at most")
    return name


def _collection_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise ValueError("a collection's name begins with a letter and has letters, digits, _ and - only, 64 at most")
    return name


def _variable(name: str) -> str:
    # A secret pasted here by mistake would be repeated in the message that the variable is not set.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("not the name of an environment variable")
    return name


Name = Annotated[str, AfterValidator(_name)]
"""Names of entities, sources, stores: they become Dagster names, which allow no more than this."""

CollectionName = Annotated[str, AfterValidator(_collection_name)]
Text = Annotated[str, Field(min_length=1)]
Duration = Annotated[timedelta, Field(ge=timedelta(0))]
# A prefix's last blank belongs to it: "query: ".
Prefix = Annotated[str, StringConstraints(strip_whitespace=False)]


class EnvRef(Model):
    """`{env: NAME}`: a value that stands in the environment and is read when it is used."""

    env: Annotated[str, AfterValidator(_variable)]

    def get(self) -> str | None:
        """The value without blanks, line ends and byte order marks around it; None where nothing is left."""
        return environment(self.env) or None


EnvText = Annotated[EnvRef | str, Field(union_mode="left_to_right")]


def environment(name: str) -> str:
    """The variable's value, trimmed; empty where it is not set."""
    return trimmed(os.environ.get(name, ""))


def trimmed(text: str) -> str:
    """Without blanks, line ends and byte order marks around it."""
    return _AROUND.sub("", text)


def resolve(value: EnvRef | str, key: str) -> str:
    """The text itself, trimmed. Raises ConfigError, with the key and the variable's name, if there is none, or one that
    no client could send."""
    if isinstance(value, str):
        if not (text := trimmed(value)):
            raise ConfigError(f"{key}: this is empty", key=key)
        if _CONTROL.search(text):
            raise ConfigError(f"{key}: this has a line end or another control character in it", key=key)
        return text
    text, state = value.get() or "", "is empty" if value.env in os.environ else "is not set"
    try:
        text.encode()
    except UnicodeEncodeError:
        text, state = "", "is not UTF-8"
    if _CONTROL.search(text):
        text, state = "", "has a line end or another control character in it"
    if text:
        return text
    raise ConfigError(f"{key}: the environment variable {value.env} {state}", key=key, env=value.env)
