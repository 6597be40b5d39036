"""An agent on the Python SDK's client. It is told of an MCP server and of nothing else, and shows what its tools answer; a
person signs in and allows it when the SDK asks for that. MCP_CLIENT says how the agent comes to be a client."""

import asyncio
import json
import os
import traceback
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

SERVER, HOW, ADDRESS = (os.environ[name] for name in ("MCP_SERVER", "MCP_CLIENT", "MCP_CLIENT_ADDRESS"))


class Storage:
    """Keeps what the SDK hands it, in memory."""

    def __init__(self, information=None):
        self.tokens, self.information = None, information

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.information

    async def set_client_info(self, client_info):
        self.information = client_info


class Agent:
    def __init__(self, redirect_uri):
        self.sent, self.came = asyncio.Queue(), asyncio.Queue()  # to the person's browser, and back from it
        information = None
        if HOW == "manifest":
            information = OAuthClientInformationFull(
                client_id=os.environ["OAUTH_CLIENT_ID"],
                client_secret=os.environ["OAUTH_CLIENT_SECRET"],
                token_endpoint_auth_method="client_secret_basic",
                redirect_uris=[redirect_uri],
            )
        self.storage = Storage(information)
        self.auth = OAuthClientProvider(
            server_url=SERVER,
            client_metadata=OAuthClientMetadata(client_name="Agent", redirect_uris=[redirect_uri]),
            storage=self.storage,
            redirect_handler=self.redirect,
            callback_handler=self.callback,
            client_metadata_url=os.environ["MCP_CLIENT_DOCUMENT"] if HOW == "document" else None,
        )

    async def redirect(self, url):
        await self.sent.put(url)

    async def callback(self):
        query = parse_qs(urlsplit(await self.came.get()).query)
        one = lambda name: query.get(name, [None])[0]
        return AuthorizationCodeResult(code=one("code"), state=one("state"), iss=one("iss"))

    async def work(self):
        async with httpx2.AsyncClient(auth=self.auth) as http:
            async with streamable_http_client(SERVER, http_client=http) as (read, write, *_):
                async with ClientSession(read, write) as session:
                    await session.initialize()
                    tools = await session.list_tools()
                    who = await session.call_tool("read")
                    first = self.storage.tokens
                    # The access token ends: the SDK refreshes it by itself.
                    self.auth.context.token_expiry_time = 1
                    await session.call_tool("read")
                    refreshed = self.storage.tokens.refresh_token != first.refresh_token
                    # This tool needs one scope more: the person is asked for it.
                    write_as = await session.call_tool("write")
        return {
            "sub": who.content[0].text,
            "tools": " ".join(tool.name for tool in tools.tools),
            "refreshed": refreshed,
            "stepped up": "threads:write" in write_as.content[0].text.split(),
            "client": self.storage.information.client_id,
        }

    async def run(self):
        try:
            await self.sent.put(await self.work())
        except BaseException:
            await self.sent.put({"error": traceback.format_exc()})


async def main():
    agent, tasks = None, []

    async def serve(reader, writer):
        nonlocal agent
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path == "/":
            agent = Agent(f"http://{ADDRESS}/callback")
            tasks.append(asyncio.create_task(agent.run()))
        else:
            await agent.came.put(path)
        answer = await agent.sent.get()
        if isinstance(answer, str):
            head, body = f"303 See Other\r\nLocation: {answer}", b""
        else:
            head, body = "200 OK\r\nContent-Type: application/json", json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    host, port = ADDRESS.split(":")
    server = await asyncio.start_server(serve, host, int(port))
    print(f"http://{ADDRESS}", flush=True)
    await server.serve_forever()


asyncio.run(main())
