"""The connection to the API: TLS, the proxy of the environment, and URLs that are not an API."""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.errors import InputError
from retold.recorder.proxy.upstream import Upstream
from tests.wire import Wire, raw, request_bytes, wire

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key and a certificate for localhost, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *options.split(), *names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


class Listener:
    """Accept one connection, as an API over TLS or as a proxy that relays to one."""

    def __init__(self, certificate: Path | None = None, target: int = 0, refusal: bytes = b"") -> None:
        self._certificate = certificate
        self._target = target
        self._refusal = refusal
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []

    def __enter__(self) -> "Listener":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        try:
            connection = self._socket.accept()[0]
            if self._certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._certificate)
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                self.requests.append(connection.recv(65536))
                if not self._target:
                    connection.sendall(self._refusal or ANSWER)
                    return
                with socket.create_connection(("127.0.0.1", self._target)) as target:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(target, connection))
                    back.start()
                    _pump(connection, target)
                    back.join()
        except OSError:
            pass  # closed, or the client does not trust the certificate


def _pump(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def failure_of(running: Wire) -> str:
    assert running.use.run is not None
    (exchange,) = exchanges_of(running.log, running.use.run)
    return repr(exchange.failure)


def test_the_api_is_reached_over_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    with Listener(certificate) as api, wire(f"https://localhost:{api.port}") as running:
        assert raw(running.url, request_bytes()) == ANSWER
    assert api.requests[0].startswith(b"POST /v1/messages HTTP/1.1\r\nHost: localhost:%d\r\n" % api.port)


def test_an_untrusted_certificate_is_refused(certificate: Path) -> None:
    with Listener(certificate) as api, wire(f"https://localhost:{api.port}") as running, pytest.raises(ConnectionResetError):
        raw(running.url, request_bytes())
    assert "CERTIFICATE_VERIFY_FAILED" in failure_of(running)
    assert api.requests == []


def test_the_environments_proxy_is_used(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS to the API goes through the proxy, as it would for the client. Only the proxy gets the proxy's credentials."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("no_proxy", "")
    with Listener(certificate) as api, Listener(target=api.port) as proxy:
        monkeypatch.setenv("https_proxy", f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
        with wire(f"https://localhost:{api.port}") as running:
            assert raw(running.url, request_bytes()) == ANSWER
    asked = (
        f"CONNECT localhost:{api.port} HTTP/1.1\r\nHost: localhost:{api.port}\r\nProxy-Authorization: Basic YW5uOnBAc3M=\r\n\r\n"
    )
    assert proxy.requests == [asked.encode()]
    assert b"Authorization" not in api.requests[0]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_plain_http_to_another_machine_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The URL is absolute, as a proxy expects. The credentials for the proxy are not recorded."""
    for each in ("no_proxy", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(each, raising=False)
    with Listener() as proxy:
        monkeypatch.setenv(name, f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
        with wire("http://api.example:8080/base") as running:
            assert raw(running.url, request_bytes()) == ANSWER
        assert running.use.run is not None
        (recorded,) = exchanges_of(running.log, running.use.run)
    assert proxy.requests[0].startswith(
        b"POST http://api.example:8080/base/v1/messages HTTP/1.1\r\nProxy-Authorization: Basic YW5uOnBAc3M=\r\n"
    )
    assert recorded.request.uri == "http://api.example:8080/base/v1/messages"
    assert "proxy-authorization" not in dict(recorded.request.headers)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_plain_http_to_this_machine_does_not_use_the_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Listener() as api, wire(f"http://{host}:{api.port}") as running:
        assert raw(running.url, request_bytes()) == ANSWER


@pytest.mark.parametrize("name", ["NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_the_client_trusts_are_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are added to those of the system. As in Node, a missing file adds nothing and is not an error."""
    for each in ("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(each, "not/there.pem")
    monkeypatch.setenv(name, f"{certificate}.crt")
    with Listener(certificate) as api, wire(f"https://localhost:{api.port}") as running:
        assert raw(running.url, request_bytes()) == ANSWER


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY", "all_proxy"])
def test_every_variable_for_a_tls_proxy_is_used(certificate: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("no_proxy", "example.com,localhost:1")
    with Listener(certificate) as api, Listener(target=api.port) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with wire(f"https://localhost:{api.port}") as running:
            assert raw(running.url, request_bytes()) == ANSWER
    assert proxy.requests[0].startswith(f"CONNECT localhost:{api.port} HTTP/1.1\r\n".encode())


def test_https_proxy_precedes_all_proxy_and_no_proxy_precedes_both(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    for excepted in ("", "localhost:{port}"):
        with Listener(certificate) as api, Listener(target=api.port) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", excepted.format(port=api.port))
            with wire(f"https://localhost:{api.port}") as running:
                assert raw(running.url, request_bytes()) == ANSWER
            assert len(proxy.requests) == (0 if excepted else 1)


def test_the_error_of_a_refusing_proxy_has_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    with Listener(refusal=b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        with wire("https://localhost:9") as running, pytest.raises(ConnectionResetError):
            raw(running.url, request_bytes())
    assert "refused CONNECT: HTTP/1.1 407" in failure_of(running)


@pytest.mark.parametrize("url", ["", "api.anthropic.com", "ftp://x", "http://", "http://x:port", "http://x/?a=b", "http://u:p@x"])
def test_a_url_that_is_not_an_upstream_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no upstream") as refusal:
        Upstream.parse(url)
    assert "u:p" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://api.anthropic.com", "api.anthropic.com", ""),
        ("https://api.anthropic.com:443/", "api.anthropic.com", ""),
        ("http://localhost:8080/base/", "localhost:8080", "/base"),
        ("http://[::1]:80", "[::1]", ""),
    ],
)
def test_an_api_has_an_authority_and_a_path(url: str, authority: str, path: str) -> None:
    parsed = Upstream.parse(url)
    assert (parsed.authority, parsed.path) == (authority, path)
