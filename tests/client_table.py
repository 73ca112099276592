"""The table of clients and ways to run code: `python -m tests.client_table CLIENT…` prints the outcome of each cell as JSON.

Every cell is a replay with a real client that could reach a scripted server. Its outcome is `played` or the name of the error,
with the number of calls that reached the server. Clients that are not installed are left out.
"""

import _thread
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from typing import Any

import retold
from tests import claude_code

MODEL = "claude-haiku-4-5"
TEXT = "Hello there"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 2},
}  # fmt: skip
COMPLETION = {
    "id": "c_1", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
}  # fmt: skip
GENERATED = {"candidates": [{"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP"}]}

EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
STREAM = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS)

Work = Callable[[], str]


class Handler(BaseHTTPRequestHandler):
    """Answer in the format of the requested path, and count the calls."""

    protocol_version = "HTTP/1.1"
    calls = 0

    def do_POST(self) -> None:
        type(self).calls += 1
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        answer = COMPLETION if "completions" in self.path else GENERATED if "generateContent" in self.path else MESSAGE
        data = STREAM if asked.get("stream") else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        """Answer Claude Code's check that a server exists, without counting it as a call."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


URL = ""
"""The address of the scripted server, after `main` has started it."""


# Clients: each asks a model one question


def body(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": prompt}]}


HEADERS = {"x-api-key": "test-key", "anthropic-version": "2023-06-01", "content-type": "application/json"}


def anthropic_sync(prompt: str) -> str:
    import anthropic

    with anthropic.Anthropic(max_retries=0) as client:
        return str(client.messages.create(**body(prompt)).content[0].text)


def anthropic_async(prompt: str, **options: Any) -> str:
    import anthropic

    async def run() -> str:
        async with anthropic.AsyncAnthropic(max_retries=0, **{name: make() for name, make in options.items()}) as client:
            return str((await client.messages.create(**body(prompt))).content[0].text)

    return asyncio.run(run())


def anthropic_aiohttp(prompt: str) -> str:
    import anthropic

    return anthropic_async(prompt, http_client=anthropic.DefaultAioHttpClient)


def anthropic_transport(prompt: str) -> str:
    """Return a client with an application's own transport class, as a mount."""
    import anthropic
    import httpx2

    class Base(httpx2.HTTPTransport):
        pass

    class Own(httpx2.BaseTransport):
        def __init__(self) -> None:
            self.inner = Base()

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return self.inner.handle_request(request)

    with anthropic.Anthropic(max_retries=0, http_client=httpx2.Client(mounts={"http://": Own()})) as client:
        return str(client.messages.create(**body(prompt)).content[0].text)


def bedrock(prompt: str) -> str:
    import anthropic

    with anthropic.AnthropicBedrock(
        aws_access_key="AKIA-test", aws_secret_key="test", aws_region="us-east-1", base_url=URL, max_retries=0
    ) as client:
        return str(client.messages.create(**body(prompt)).content[0].text)


def vertex(prompt: str) -> str:
    import anthropic

    with anthropic.AnthropicVertex(region="us-east5", project_id="p", access_token="t", base_url=URL, max_retries=0) as client:
        return str(client.messages.create(**body(prompt)).content[0].text)


def httpx_raw(prompt: str, library: str = "httpx") -> str:
    module: Any = import_module(library)
    with module.Client() as client:
        answer = client.post(f"{URL}/v1/messages", json=body(prompt), headers=HEADERS)
        return str(answer.json()["content"][0]["text"])


def httpx2_raw(prompt: str) -> str:
    return httpx_raw(prompt, "httpx2")


def aiohttp_raw(prompt: str) -> str:
    import aiohttp

    async def run() -> str:
        async with (
            aiohttp.ClientSession(headers=HEADERS) as session,
            session.post(f"{URL}/v1/messages", json=body(prompt)) as answer,
        ):
            return str((await answer.json())["content"][0]["text"])

    return asyncio.run(run())


def requests_raw(prompt: str) -> str:
    requests: Any = import_module("requests")

    return str(requests.post(f"{URL}/v1/messages", json=body(prompt), headers=HEADERS, timeout=20).json()["content"][0]["text"])


def urllib_raw(prompt: str) -> str:
    from urllib.request import Request, urlopen

    request = Request(f"{URL}/v1/messages", data=json.dumps(body(prompt)).encode(), headers=HEADERS)
    with urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["content"][0]["text"])


def litellm_sync(prompt: str) -> str:
    litellm: Any = import_module("litellm")

    answer = litellm.completion(model=f"anthropic/{MODEL}", messages=body(prompt)["messages"], max_tokens=16, num_retries=0)
    return str(answer.choices[0].message.content)


def litellm_async(prompt: str) -> str:
    litellm: Any = import_module("litellm")

    async def run() -> str:
        answer = await litellm.acompletion(model=f"anthropic/{MODEL}", messages=body(prompt)["messages"], max_tokens=16)
        return str(answer.choices[0].message.content)

    return asyncio.run(run())


def langchain(prompt: str) -> str:
    chat: Any = import_module("langchain_anthropic").ChatAnthropic

    return str(chat(model=MODEL, max_tokens=16, max_retries=0).invoke(prompt).content)


def langchain_async(prompt: str) -> str:
    chat: Any = import_module("langchain_anthropic").ChatAnthropic

    return str(asyncio.run(chat(model=MODEL, max_tokens=16, max_retries=0).ainvoke(prompt)).content)


def pydantic_ai(prompt: str) -> str:
    agent: Any = import_module("pydantic_ai").Agent

    return str(agent(f"anthropic:{MODEL}").run_sync(prompt).output)


def instructor(prompt: str) -> str:
    import anthropic

    instructor: Any = import_module("instructor")

    client = instructor.from_anthropic(anthropic.Anthropic(max_retries=0), mode=instructor.Mode.ANTHROPIC_TOOLS)
    return str(client.messages.create(response_model=None, **body(prompt)).content[0].text)


def openai(prompt: str) -> str:
    openai: Any = import_module("openai")

    with openai.OpenAI(api_key="test-key", base_url=f"{URL}/v1", max_retries=0) as client:
        return str(client.chat.completions.create(model=MODEL, messages=body(prompt)["messages"]).choices[0].message.content)


def google_genai(prompt: str) -> str:
    genai: Any = import_module("google.genai")

    with genai.Client(api_key="test-key", http_options={"base_url": URL}) as client:
        return str(client.models.generate_content(model="gemini-3", contents=prompt).text)


def _counted(_request: bytes, _context: object) -> bytes:
    Handler.calls += 1
    return TEXT.encode()


@functools.cache
def grpc_address() -> str:
    """Return the address of a gRPC server that answers every call. The environment names it as the API's address."""
    grpc: Any = import_module("grpc")

    class Answers(grpc.GenericRpcHandler):  # type: ignore[misc] # gRPC is not typed
        def service(self, _call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(_counted)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Answers(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    _servers.append(server)
    os.environ["ANTHROPIC_VERTEX_BASE_URL"] = f"http://{address}"
    return address


_servers: list[Any] = []
"""gRPC servers in use. A server that is garbage-collected stops."""


def grpc_raw(prompt: str) -> str:
    grpc: Any = import_module("grpc")

    with grpc.insecure_channel(f"dns:///{grpc_address()}") as channel:
        return str(channel.unary_unary("/messages/create")(prompt.encode(), timeout=20).decode())


@functools.cache
def _older_channel() -> Any:
    return import_module("grpc").insecure_channel(grpc_address())


def grpc_older_channel(prompt: str) -> str:
    """Use a channel that is older than every block except the first, which records."""
    return str(_older_channel().unary_unary("/messages/create")(prompt.encode(), timeout=20).decode())


def grpc_async(prompt: str) -> str:
    aio: Any = import_module("grpc.aio")

    async def run() -> str:
        async with aio.insecure_channel(grpc_address()) as channel:
            return str((await channel.unary_unary("/messages/create")(prompt.encode(), timeout=20)).decode())

    return asyncio.run(run())


def agent_sdk(prompt: str) -> str:
    """Ask through Claude Code, as a child of the SDK."""
    sdk: Any = import_module("claude_agent_sdk")

    async def run() -> str:
        options = sdk.ClaudeAgentOptions(model=MODEL, max_turns=1, setting_sources=[])
        results = [each async for each in sdk.query(prompt=prompt, options=options) if isinstance(each, sdk.ResultMessage)]
        return str(results[-1].result)

    return asyncio.run(run())


CLIENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "anthropic": (anthropic_sync, "anthropic"),
    "anthropic async": (anthropic_async, "anthropic"),
    "anthropic aiohttp": (anthropic_aiohttp, "aiohttp"),
    "anthropic own transport": (anthropic_transport, "httpx2"),
    "bedrock": (bedrock, "botocore"),
    "vertex": (vertex, "google.auth"),
    "httpx": (httpx_raw, "httpx"),
    "httpx2": (httpx2_raw, "httpx2"),
    "aiohttp": (aiohttp_raw, "aiohttp"),
    "requests": (requests_raw, "requests"),
    "urllib": (urllib_raw, "urllib"),
    "litellm": (litellm_sync, "litellm"),
    "litellm async": (litellm_async, "litellm"),
    "langchain": (langchain, "langchain_anthropic"),
    "langchain async": (langchain_async, "langchain_anthropic"),
    "pydantic-ai": (pydantic_ai, "pydantic_ai"),
    "instructor": (instructor, "instructor"),
    "openai": (openai, "openai"),
    "google-genai": (google_genai, "google.genai"),
    "grpc": (grpc_raw, "grpc"),
    "grpc older channel": (grpc_older_channel, "grpc"),
    "grpc async": (grpc_async, "grpc"),
    "claude agent sdk": (agent_sdk, "claude_agent_sdk"),
}
UNKNOWN = ("requests", "urllib", "grpc", "grpc older channel", "grpc async")
"""Clients that retold does not patch. They are refused, never recorded."""

REFUSED = (("claude agent sdk", "in_fork"),)
"""Ways in which a client is not played: a forked process has no session of its parent's cassette. Nothing is sent."""


# Ways to run code: each prepares before the block, and returns a function that runs work inside it


Run = Callable[[Work], str]


@contextlib.contextmanager
def directly() -> Iterator[Run]:
    yield lambda work: work()


def _result(run: Callable[[Callable[[], None]], object], work: Work) -> str:
    """Run work elsewhere, and return its result or raise its error here."""
    outcomes: queue.Queue[str | BaseException] = queue.Queue()

    def note() -> None:
        try:
            outcomes.put(work())
        except BaseException as error:
            outcomes.put(error)

    run(note)
    outcome = outcomes.get(timeout=60)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@contextlib.contextmanager
def in_thread() -> Iterator[Run]:
    yield lambda work: _result(lambda note: threading.Thread(target=note).start(), work)


@contextlib.contextmanager
def in_raw_thread() -> Iterator[Run]:
    yield lambda work: _result(lambda note: _thread.start_new_thread(note, ()), work)


@contextlib.contextmanager
def in_older_thread() -> Iterator[Run]:
    jobs: queue.Queue[Callable[[], None]] = queue.Queue()
    threading.Thread(target=lambda: jobs.get()(), daemon=True).start()
    yield lambda work: _result(jobs.put, work)


@contextlib.contextmanager
def in_executor() -> Iterator[Run]:
    with ThreadPoolExecutor(1) as pool:
        yield lambda work: pool.submit(work).result()


@contextlib.contextmanager
def in_older_pool() -> Iterator[Run]:
    with ThreadPool(1) as pool:
        pool.apply(int)
        yield lambda work: str(pool.apply(work))


@contextlib.contextmanager
def in_older_loop() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        yield lambda work: runner.run(asyncio.to_thread(work))


@contextlib.contextmanager
def in_older_task() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        jobs: asyncio.Queue[Work] = asyncio.Queue()

        async def later() -> str:
            return await asyncio.to_thread(await jobs.get())

        async def begin() -> "asyncio.Task[str]":
            return asyncio.create_task(later())

        task = runner.run(begin())

        async def end(work: Work) -> str:
            jobs.put_nowait(work)
            return await task

        yield lambda work: runner.run(end(work))


@contextlib.contextmanager
def in_greenlet() -> Iterator[Run]:
    greenlet: Any = import_module("greenlet").greenlet

    yield lambda work: str(greenlet(work).switch())


@contextlib.contextmanager
def in_fork() -> Iterator[Run]:
    context = multiprocessing.get_context("fork")

    def run(work: Work) -> str:
        inner = context.SimpleQueue()

        def note() -> None:
            try:
                inner.put(("ok", work()))
            except BaseException as error:
                inner.put((type(error).__name__, str(error)))

        child = context.Process(target=note)
        child.start()
        kind, text = inner.get()
        child.join()
        if kind != "ok":
            raise RuntimeError(f"{kind}: {text}")
        return str(text)

    yield run


WAYS = [directly, in_thread, in_raw_thread, in_older_thread, in_executor, in_older_pool, in_older_loop, in_older_task, in_fork]


def cell(client: Callable[[str], str], way: Any, prompt: str, mode: str) -> tuple[str, int]:
    """Ask in one way. Return the outcome, and the number of calls that reached the server."""
    with way() as run:
        before = Handler.calls
        with retold.use_cassette("table.yaml", record_mode=mode, hosts=("127.0.0.1",)):
            try:
                outcome = "played" if run(lambda: client(prompt)) == TEXT else "another answer"
            except BaseException as error:
                outcome = type(error).__name__
        return outcome, Handler.calls - before


def rows(names: list[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """Return the table's rows for these clients."""
    table: dict[str, dict[str, tuple[str, int]]] = {}
    for name in names:
        client, module = CLIENTS[name]
        if not _is_installed(module):
            continue
        before = Handler.calls
        with retold.use_cassette("table.yaml", record_mode="rewrite", hosts=("127.0.0.1",)) as cassette:
            client("hi")
        row = table[name] = {"recorded": (str(cassette.recorded), Handler.calls - before)}
        ways = WAYS + ([in_greenlet] if _is_installed("greenlet") else [])
        row |= {way.__name__: cell(client, way, "hi", "none") for way in ways}
        row["once"] = cell(client, directly, "hi", "once")
        row["a miss"] = cell(client, directly, "unknown", "none")
    return table


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def main() -> None:
    """Print the table as JSON on the last line."""
    global URL
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    URL = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_API_KEY": "test-key", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    os.environ |= {"ANTHROPIC_API_BASE": URL, "IS_SANDBOX": "1", **claude_code.ENVIRONMENT}
    print("\n" + json.dumps(rows(sys.argv[1:] or list(CLIENTS))))  # the clients print the other lines


if __name__ == "__main__":
    main()
