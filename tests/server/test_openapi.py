"""Tests of lookonce.server.openapi: what it says, held against the routes."""

import re

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
from lookonce.server import api, label_studio
from lookonce.server.openapi import docs_page, openapi
from lookonce.server.requests import NAMES

DESCRIPTION = openapi()


def test_every_route_of_ours_is_described_with_its_method():
    described = {(path, method.upper()) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    routes = {(route.path, method) for route in api.ROUTES for method in route.methods - {"HEAD"}}
    assert routes <= described
    others = {path for path, _ in described - routes}
    assert others == {"/v2/models/{name}/infer", "/predict"}
    assert "/predict" in {route.path for route in label_studio.ROUTES}


def test_every_option_is_described():
    assert [each["name"] for each in DESCRIPTION["paths"]["/v1/detect"]["post"]["parameters"]] == list(NAMES)


def test_references_lead_somewhere():
    for name in re.findall(r"#/components/schemas/(\w+)", str(DESCRIPTION)):
        assert name in DESCRIPTION["components"]["schemas"]


def test_the_page_shows_all_without_a_script():
    page = docs_page(DESCRIPTION)
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!/)', page)
    for path in DESCRIPTION["paths"]:
        assert path in page
