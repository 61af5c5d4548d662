"""Downloads from servers of our own on this machine: one for files, one that speaks as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep

import pytest

from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import WeightsError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_FILE = "/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors"


@dataclass
class Server:
    """What it gives, and what it was asked for."""

    content: bytes = CONTENT
    num_bytes_sent: int = len(CONTENT)
    """Fewer than it says that it will send: a connection that breaks."""
    etag: str = SHA256
    missing: tuple[str, ...] = ()
    """Files that it has not."""
    seconds: float = 0.0
    """How long it takes over an answer."""
    gets: list[str] = field(default_factory=list)
    address: str = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                if self.path.endswith(server.missing or "?"):
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("X-Repo-Commit", "0" * 40)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.content)))
                self.send_header("ETag", f'"{server.etag}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.end_headers()

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                server.gets.append(self.path)
                sleep(server.seconds)
                self.answer()
                self.wfile.write(server.content[: server.num_bytes_sent])

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), state.handler()) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        state.address = f"http://127.0.0.1:{listening.server_port}"
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def resnet18_from(server: Server) -> BackboneSpec:
    """Its weights' name carries the start of their sha256, as torchvision's do."""
    return replace(BACKBONES["resnet18"], weights=f"{server.address}/resnet18-{SHA256[:8]}.pth")


def files_below(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_weights_are_downloaded_once(server: Server, torch_home: Path) -> None:
    spec = resnet18_from(server)
    for _ in range(2):
        weights = find_weights(spec, "default")
        assert weights.path == torch_home / "hub" / "checkpoints" / f"resnet18-{SHA256[:8]}.pth"
        assert (weights.id, weights.source) == (SHA256, spec.weights)
    assert len(server.gets) == 1
    assert files_below(torch_home) == [f"resnet18-{SHA256[:8]}.pth"]


def test_a_download_that_breaks_off_leaves_nothing(server: Server, torch_home: Path) -> None:
    server.num_bytes_sent = 1000
    with pytest.raises(WeightsError, match=r"cannot be downloaded.*invalid hash.*put it at .*--weights FILE"):
        find_weights(resnet18_from(server), "default")
    assert files_below(torch_home) == []


def test_a_download_of_something_else_leaves_nothing(server: Server, torch_home: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match="invalid hash"):
        find_weights(resnet18_from(server), "default")
    assert files_below(torch_home) == []


def test_a_cached_file_that_is_not_the_published_one_is_reported(
    server: Server, torch_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = resnet18_from(server)
    path = find_weights(spec, "default").path
    assert path is not None
    path.write_bytes(CONTENT[:1000])
    find_weights(spec, "default")
    assert "not the published weights" in caplog.text


@pytest.mark.slow
def test_processes_that_download_at_once_do_not_clash(server: Server, torch_home: Path) -> None:
    server.seconds = 1.0
    program = """
import sys
from dataclasses import replace
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import find_weights
print(find_weights(replace(BACKBONES["resnet18"], weights=sys.argv[1]), "default").id)
"""
    commands = [[sys.executable, "-c", program, resnet18_from(server).weights]] * 2
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda command: subprocess.run(command, capture_output=True, text=True), commands))
    assert [result.stdout.strip() for result in results] == [SHA256] * 2, results
    assert len(server.gets) == 1
    assert files_below(torch_home) == [f"resnet18-{SHA256[:8]}.pth"]


def with_hub(server: Server, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """vidpipe, with this server for the hub."""
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "vidpipe", "backbones", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_timms_weights_come_through_the_hubs_cache(server: Server, tmp_path: Path) -> None:
    assert not json.loads(with_hub(server, tmp_path, "vit_tiny", "--format", "json").stdout)["here"]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: with_hub(server, tmp_path, "--download", "vit_tiny"), range(2)))
    assert [result.returncode for result in results] == [0, 0], results
    assert [path for path in server.gets if not path.startswith("/api/")] == [HUB_FILE]
    row = json.loads(with_hub(server, tmp_path, "vit_tiny", "--format", "json").stdout)
    assert row["here"]
    assert results[0].stdout == f"vit_tiny: {row['path']}\n"
    assert Path(row["path"]).read_bytes() == CONTENT


def test_a_repository_that_names_its_weights_otherwise_is_read_too(server: Server, tmp_path: Path) -> None:
    server.missing = ("/model.safetensors", "/open_clip_model.safetensors")
    result = with_hub(server, tmp_path, "--download", "vit_tiny")
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip().removeprefix("vit_tiny: ")).name == "pytorch_model.bin"
    assert json.loads(with_hub(server, tmp_path, "vit_tiny", "--format", "json").stdout)["here"]


def test_a_file_of_the_hub_with_another_sha256_is_not_used(server: Server, tmp_path: Path) -> None:
    server.etag = "0" * 64
    result = with_hub(server, tmp_path, "--download", "vit_tiny")
    assert result.returncode == 1
    assert "the file does not have the sha256 000000000000… that the hub gives" in result.stderr
    assert not json.loads(with_hub(server, tmp_path, "vit_tiny", "--format", "json").stdout)["here"]


def test_without_the_hub_the_error_says_what_to_fetch_and_where_to_put_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = with_hub(server, tmp_path, "--download", "vit_tiny")
    assert result.returncode == 1
    for message in (
        BACKBONES["vit_tiny"].weights,
        str(tmp_path / "hub"),
        "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "--weights FILE",
        "--backbone efficientnet_lite0 needs no download",
    ):
        assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1


@pytest.mark.slow
def test_a_video_encoder_of_transformers_comes_through_the_hubs_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = json.dumps({"model_type": "vjepa2", "num_hidden_layers": 1}).encode()
    server.num_bytes_sent = len(server.content)
    server.etag = hashlib.sha256(server.content).hexdigest()
    server.missing = ("/preprocessor_config.json", "/video_preprocessor_config.json")
    result = with_hub(server, tmp_path, "--download", "transformers/owner/model")
    assert result.returncode == 0, result.stderr
    assert "/owner/model/resolve/main/config.json" in server.gets
    assert Path(result.stdout.strip().removeprefix("transformers/owner/model: ")).name == "model.safetensors"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # that a file is missing is remembered, too
    row = json.loads(with_hub(server, tmp_path, "transformers/owner/model", "--format", "json").stdout)
    assert (row["here"], row["dim"]) == (True, 1024)


def test_download_needs_names(server: Server, tmp_path: Path) -> None:
    result = with_hub(server, tmp_path, "--download")
    assert result.returncode == 2
    assert "name the backbones" in result.stderr
