"""place_of: one place has one name, however it is written, and the name tells no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vecsync_dagster.config.models import EnvRef, QdrantStore
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.stores.places import place_of

FOLDER = Path("/srv/project")


def place(**settings: Any) -> str:
    config = QdrantStore(type="qdrant", **settings)
    return place_of(config, key="stores.main", path_of=lambda relative: (FOLDER / relative).resolve())


@pytest.mark.parametrize(
    "url",
    [
        "http://qdrant.example:80",
        "http://QDRANT.example/",
        "https://qdrant.example:80",
    ],
)
def test_spellings_of_a_server_are_one_place(url: str) -> None:
    assert place(url=url, api_key={"env": "KEY"}) == place(url="http://qdrant.example")


def test_spellings_of_a_folder_are_one_place() -> None:
    assert (
        place(path="state/qdrant") == place(path="/srv/project/state/qdrant") == place(path="./state/../state/qdrant")
    )


def test_places_differ() -> None:
    """By host, port, path, folder and prefix."""
    places = [
        place(url="http://qdrant.example"),
        place(url="https://qdrant.example"),  # another port
        place(url="http://other.example"),
        place(url="http://qdrant.example/second"),
        place(url="http://qdrant.example", prefix="dev_"),
        place(path="qdrant"),
        place(path="qdrant2"),
        place(path="qdrant", prefix="dev_"),
    ]
    assert len(set(places)) == len(places)


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_QDRANT", " http://qdrant.example ")
    assert place(url=EnvRef(env="SOME_QDRANT")) == place(url="http://qdrant.example")
    monkeypatch.delenv("SOME_QDRANT")
    with pytest.raises(ConfigError, match=r"stores\.main\.url"):
        place(url=EnvRef(env="SOME_QDRANT"))
