"""build_store: from configuration to a store, without touching anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from qdrant_client.qdrant_remote import QdrantRemote

from vecsync_dagster.config.models import EnvRef, QdrantStore
from vecsync_dagster.errors import ConfigError, StoreUnavailable
from vecsync_dagster.stores import VectorStore, build_store
from vecsync_dagster.stores.places import place_of
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster.stores.qdrant_server import QdrantServerStore
from vecsync_dagster_tests.fakes.qdrant_rest import QdrantRest
from vecsync_dagster_tests.stores.engines import SPACE


def build(tmp_path: Path, config: QdrantStore) -> VectorStore:
    return build_store(config, key="stores.main", path_of=lambda relative: tmp_path / relative)


def test_path_gives_the_embedded_engine(tmp_path: Path) -> None:
    """A relative path starts where path_of says; the prefix goes before the collection's folder."""
    store = build(tmp_path, QdrantStore(type="qdrant", path="state/qdrant", prefix="dev-"))
    assert isinstance(store, QdrantEmbeddedStore)
    assert isinstance(store, VectorStore)
    assert list(tmp_path.iterdir()) == []
    store.ensure_collection("materials", SPACE)
    store.close()
    assert (tmp_path / "state" / "qdrant" / f"dev-{SPACE.physical_name('materials')}").is_dir()


def test_url_gives_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URL and key come from the environment when the store is built; the prefix goes before every name."""
    with QdrantRest() as rest:
        monkeypatch.setenv("SOME_QDRANT", rest.url)
        store = build(tmp_path, QdrantStore(type="qdrant", url=EnvRef(env="SOME_QDRANT"), prefix="dev-"))
        assert isinstance(store, QdrantServerStore)
        assert isinstance(store, VectorStore)
        assert rest.requests == []
        store.ensure_collection("materials", SPACE)
        store.close()
        assert ("PUT", f"/collections/dev-{SPACE.physical_name('materials')}") in rest.requests


@pytest.mark.parametrize("missing", ["url", "api_key"])
def test_unset_variable_names_key_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """A variable that is not set is a ConfigError with the key of the store."""
    monkeypatch.setenv("SET", "http://127.0.0.1:1")
    monkeypatch.delenv("UNSET", raising=False)
    refs = {name: EnvRef(env="UNSET" if name == missing else "SET") for name in ("url", "api_key")}
    with pytest.raises(ConfigError, match=rf"stores\.main\.{missing}.*UNSET"):
        build(tmp_path, QdrantStore(type="qdrant", url=refs["url"], api_key=refs["api_key"]))


def test_a_key_that_no_header_holds_names_key_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And repeats nothing of it."""
    monkeypatch.setenv("SET", "s\u00e9cret")
    config = QdrantStore(type="qdrant", url="http://127.0.0.1:1", api_key=EnvRef(env="SET"))
    with pytest.raises(ConfigError, match=r"^stores\.main\.api_key: the environment variable SET does not hold a key$"):
        build(tmp_path, config)


@pytest.mark.parametrize(
    "url", ["localhost:6333", "ftp://host", "http://", "http://user:sesame@host:port", "http://[1"]
)
def test_unusable_url_is_a_config_error(tmp_path: Path, url: str) -> None:
    """A URL that is none names the key; what it holds is not repeated."""
    with pytest.raises(ConfigError, match=r"stores\.main\.url") as caught:
        build(tmp_path, QdrantStore(type="qdrant", url=url))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://q.example.com/?api_key=sesame", "a query"),
        ("https://q.example.com#sesame", "a fragment"),
        ("http://user:sesame@q.example.com", "a user or password"),
    ],
)
def test_what_the_client_would_leave_out(tmp_path: Path, url: str, part: str) -> None:
    """A part of the URL that no server would see is refused by its name, with the place where a key belongs."""
    config = QdrantStore(type="qdrant", url=url)
    with pytest.raises(ConfigError, match=rf"^stores\.main\.url: the URL has {part} .* api_key$") as caught:
        build(tmp_path, config)
    assert "sesame" not in str(caught.value)
    with pytest.raises(ConfigError, match=part):
        place_of(config, key="stores.main", path_of=Path)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://q.example.com", "https://q.example.com:443"),
        ("HTTPS://q.example.com/", "https://q.example.com:443"),
        ("https://proxy.example.com/qdrant", "https://proxy.example.com:443"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("http://localhost", "http://localhost:80"),
        ("http://localhost:", "http://localhost:80"),
        ("http://[::1]", "http://[::1]:80"),
        ("http://localhost:6333", "http://localhost:6333"),
        ("https://q.example.com:6333/sesame", "https://q.example.com:6333"),
    ],
)
def test_the_port_is_that_of_the_scheme(tmp_path: Path, url: str, asked: str) -> None:
    """A URL without a port means that of its scheme; an address for people has nothing else of the URL."""
    store = build(tmp_path, QdrantStore(type="qdrant", url=url))
    assert isinstance(store, QdrantServerStore)
    connection = store._connection
    assert connection.address == asked
    remote = connection._client()._client
    assert isinstance(remote, QdrantRemote)
    # The client's own way to write an address; the brackets of IPv6 are httpx's affair.
    assert remote.rest_uri.startswith(asked)
    store.close()


def test_check_tells_the_address(tmp_path: Path) -> None:
    """The address that was asked is in the line of a check that went well, and in the error of one that did not."""
    with QdrantRest() as rest:
        store = build(tmp_path, QdrantStore(type="qdrant", url=f"{rest.url}/", attempts=1))
        assert f" at {rest.url}, 0 collections" in store.check()
        store.close()
    with pytest.raises(StoreUnavailable, match=f"connection at {rest.url}: "):
        store.check()
    store.close()


@pytest.mark.parametrize(
    ("place", "used", "unused"),
    [("path='x'", "qdrant_edge", "qdrant_client"), ("url='http://h'", "qdrant_client", "qdrant_edge")],
)
def test_unused_engine_is_not_imported(place: str, used: str, unused: str) -> None:
    """Importing the package loads no engine; building a store loads its own alone."""
    program = f"""
import sys
from pathlib import Path
from vecsync_dagster.config.models import QdrantStore
from vecsync_dagster.stores import build_store
assert not {{"qdrant_edge", "qdrant_client"}} & set(sys.modules)
build_store(QdrantStore(type="qdrant", {place}), key="stores.main", path_of=Path)
assert "{used}" in sys.modules
assert "{unused}" not in sys.modules
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
