"""The five endpoints as MCP tools, before a real MCP client; skipped where the extra `gradio[mcp]`
is not installed."""

from __future__ import annotations

import ast
import asyncio
import base64

import pytest

from app import build_demo, limits
from app.api_types import RESULTS
from app.service.server import start
from tests.app.stub import StubPredictor

mcp = pytest.importorskip("mcp", reason="gradio[mcp] is not installed")


@pytest.fixture(scope="module")
def address(upload_folder):
    demo = build_demo(lambda name: StubPredictor(delay=0.05), ("stub",), stored={})
    yield start(demo, quiet=True, mcp_server=True)
    demo.close(verbose=False)


def test_endpoints_are_tools_and_answer(address, picture_file):
    from mcp.client.streamable_http import streamablehttp_client

    async def visit():
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            picture = (
                "data:image/png;base64," + base64.b64encode(picture_file.read_bytes()).decode()
            )
            good = await session.call_tool("match", {"media": picture, "texts": ["a dog", "a cat"]})
            bad = await session.call_tool("match", {"media": picture, "texts": []})
            crowd = [
                session.call_tool("match", {"media": picture, "texts": ["a dog"]})
                for _ in range(2 * limits.JOBS_A_SESSION)
            ]
            return (await session.list_tools()).tools, good, bad, await asyncio.gather(*crowd)

    tools, good, bad, crowd = asyncio.run(visit())
    assert not any(answer.isError for answer in crowd)
    assert {tool.name for tool in tools} == set(RESULTS)
    assert all(tool.description and "media" in tool.inputSchema["properties"] for tool in tools)
    answer = ast.literal_eval(good.content[0].text)  # Gradio writes values as Python does
    assert not good.isError and {found["text"] for found in answer["matches"]} == {"a dog", "a cat"}
    assert bad.isError and "[text/empty]" in bad.content[0].text
