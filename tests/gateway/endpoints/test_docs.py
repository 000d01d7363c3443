"""The description is true, complete, and shown with no internet."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import swagger_ui_bundle

from gateway.endpoints.admission_answers import Facts
from gateway.openapi.operations import OPERATIONS
from gateway.routes import DIRECT_ENDPOINTS
from tests.browser import CHROMIUM, NO_CHROMIUM, QUIET
from tests.conftest import KEY, RunningGateway, StartGateway, config_for, digest

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


async def described(start_gateway: StartGateway) -> tuple[RunningGateway, dict[str, Any]]:
    gateway = await start_gateway(config_for(admin={"digest": digest(KEY)}, server={"unmatched": "refuse"}))
    response, document = await gateway.get("/openapi.json", key=None)
    assert response.status == 200
    return gateway, document


async def test_openapi_describes_every_direct_endpoint(start_gateway: StartGateway) -> None:
    _, document = await described(start_gateway)
    assert document["openapi"].startswith("3.1")
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    parts = ("/docs/", "/dashboard/")
    assert told == {(method, path) for method, path, _ in DIRECT_ENDPOINTS if not path.startswith(parts)}
    names = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names)


async def test_openapi_is_written_from_the_models_that_validate(start_gateway: StartGateway) -> None:
    _, document = await described(start_gateway)
    schemas = document["components"]["schemas"]
    for (method, path), operation in OPERATIONS.items():
        if operation.body is None or path not in document["paths"]:
            continue
        body = document["paths"][path][method.lower()]["requestBody"]
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schemas[name].get("required", []) == [
            field for field, info in operation.body.model_fields.items() if info.is_required()
        ]


async def test_openapi_has_an_example_of_every_body_and_a_meaning_of_every_parameter(
    start_gateway: StartGateway,
) -> None:
    _, document = await described(start_gateway)
    operations = [(f"{method} {path}", each) for path, methods in document["paths"].items()
                  for method, each in methods.items()]  # fmt: skip
    bodies = {name: each["requestBody"]["content"] for name, each in operations if "requestBody" in each}
    assert len(bodies) > 10
    assert not [name for name, content in bodies.items() for kind in content.values() if not kind.get("example")]
    queries = [
        (name, query) for name, each in operations for query in each.get("parameters", ()) if query["in"] == "query"
    ]
    assert not [name for name, query in queries if not query["description"]]
    answer = {query["name"]: query["schema"] for name, query in queries if name == "post /v1/admissions/{id}/answer"}
    assert answer.keys() == Facts.model_fields.keys()
    assert answer["input_tokens"]["type"] == "integer"
    assert answer["accuracy"]["enum"] == ["exact", "bounded", "estimate"]


async def test_openapi_examples_are_accepted_by_the_models_that_validate(start_gateway: StartGateway) -> None:
    await described(start_gateway)
    for operation in OPERATIONS.values():
        if operation.body is not None:
            operation.body.model_validate(operation.example)


async def test_openapi_has_every_reference_it_makes(start_gateway: StartGateway) -> None:
    gateway, document = await described(start_gateway)
    _, raw = await gateway.get("/openapi.json", key=None)
    references = set(re.findall(r"'#/components/schemas/(\w+)'", str(raw)))
    assert references
    assert references <= document["components"]["schemas"].keys()


async def test_docs_pages_name_nothing_outside(start_gateway: StartGateway) -> None:
    gateway, _ = await described(start_gateway)
    response, page = await gateway.get("/docs", key=None)
    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert b"//" not in page.replace(b"<!doctype html>", b"")
    for name in re.findall(rb'(?:src|href)="([^"]+)"', page):
        assert (await gateway.get("/" + name.decode(), key=None))[0].status == 200
    for name in ("../app.py", "..%2F..%2Fapp.py", "index.html", "swagger-ui.js"):
        assert (await gateway.get(f"/docs/{name}", key=None))[0].status == 404


def test_swagger_ui_reads_openapi_3_1() -> None:
    assert re.search(r"swagger-ui-5\.", str(swagger_ui_bundle.swagger_ui_path))


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
async def test_docs_show_the_operations_and_ask_only_this_gateway(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway, document = await described(start_gateway)
    log = tmp_path / "net.json"
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}/profile", f"--log-net-log={log}", "--virtual-time-budget=8000",
        "--enable-logging=stderr", "--dump-dom", f"{gateway.url}/docs",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    out, complaints = await asyncio.wait_for(process.communicate(), 60)
    page = out.decode()
    assert "Unable to render" not in page
    for path in document["paths"]:
        assert f'data-path="{path}"' in page
    assert "CONSOLE" not in complaints.decode(errors="replace")  # nor a refusal by the page's own policy
    asked = asked_by_page(await asyncio.to_thread(log.read_text), gateway.url)
    assert {f"{gateway.url}/openapi.json", f"{gateway.url}/docs/swagger-ui-bundle.js"} <= asked
    assert not {url for url in asked if not url.startswith(gateway.url + "/")}


def asked_by_page(net_log: str, origin: str) -> set[str]:
    """The addresses that a page of this origin made Chromium ask, by its own record."""
    events = (event.get("params", {}) for event in json.loads(net_log)["events"])
    return {each["url"] for each in events if each.get("initiator") == origin and not each["url"].startswith("data:")}


async def test_answers_stay_inside_the_description_whatever_is_sent(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway, _ = await described(start_gateway)
    made, _ = await gateway.post("/admin/keys", {"id": "carol"})  # the one that the examples are about
    assert made.status == 201
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    process = await asyncio.create_subprocess_exec(
        str(SCHEMATHESIS), "run", f"{gateway.url}/openapi.json", "--checks", checks,
        "--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--seed", "4",
        "--request-timeout", "30", "--continue-on-failure", "--generation-database", "none", "--no-color",
        "-H", f"Authorization: Bearer {KEY}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, out.decode()
    generated = re.search(r"(\d+) generated, (\d+) passed", out.decode())
    assert generated is not None, out.decode()
    assert int(generated[1]) == int(generated[2]) > 200
