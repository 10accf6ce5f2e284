"""The parts of FastAPI that ingress uses although FastAPI does not document them."""

import tomllib
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.routing import iter_route_contexts
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def check() -> None:
    """Do nothing; a dependency of the path functions below."""


router = APIRouter(prefix="/names", dependencies=[Depends(check)])


@router.get("/{name}")
def show(name: str, limit_: Annotated[int, Query(alias="limit")] = 1) -> str:
    """Return both parameters."""
    return f"{name} {limit_}"


@router.put("/{name}")
def put(name: str) -> str:
    """Return the name."""
    return name


@pytest.fixture
def application() -> FastAPI:
    application = FastAPI()
    application.include_router(router)
    return application


def test_the_routes_of_included_routers_have_paths_methods_and_dependencies(
    application: FastAPI,
) -> None:
    found = [
        (route.path_format, route.methods, [each.call for each in route.dependant.dependencies])
        for route in iter_route_contexts(application.routes)
        if route.path_regex.fullmatch("/names/a")
    ]
    assert found == [("/names/{name}", {"GET"}, [check]), ("/names/{name}", {"PUT"}, [check])]


async def test_a_dependency_finds_the_query_parameters_of_its_route() -> None:
    known: list[list[str]] = []

    def observe(request: Request) -> None:
        known.append([each.alias for each in request.scope["route"].dependant.query_params])

    async def send(_message: object) -> None: ...

    application = FastAPI(dependencies=[Depends(observe)])
    application.include_router(router)
    scope = {"type": "http", "method": "GET", "path": "/names/a", "query_string": b"",
             "headers": [], "root_path": "", "scheme": "http", "http_version": "1.1"}  # fmt: skip
    await application(scope, receive=_receive, send=send)
    assert known == [["limit"]]


async def _receive() -> dict[str, object]:
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize("name", ["fastapi", "faststream"])
def test_a_library_of_which_we_use_undocumented_parts_has_a_ceiling(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = (r for r in map(Requirement, project["dependencies"]) if r.name == name)
    minor = {"fastapi": "<0.166", "faststream": "<0.8"}[name]
    assert minor in str(found.specifier)
