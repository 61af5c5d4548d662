"""Hostile input: files that name other files or addresses, names that send commands to the terminal, pickles."""

import ctypes
import http.server
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.files import make_deep
from tests.media import read_number, write_video
from vidpipe.backbones.table import find_backbone
from vidpipe.cli import main
from vidpipe.cli.options import json_line, printable
from vidpipe.config import Sampling, TrainConfig
from vidpipe.errors import DecodeError, NotAVideoError, RunError, UnreadableFileError, VideoError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import build_head
from vidpipe.heads.members import Member
from vidpipe.runs.run import Run, RunMember, RunStream, save_run
from vidpipe.runs.tables import Epoch, SplitRow
from vidpipe.video.files import find_videos
from vidpipe.video.reader import open_video

CHECKOUT = Path(__file__).parents[1]
NOBODY = 65534
IN_ACCESS, IN_OPEN, IN_ISDIR = 0x1, 0x20, 0x40000000


class Watch:
    """Which files of a folder were opened or read, by whatever program and path, as the kernel saw it (inotify)."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        if libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN | IN_ACCESS) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def opened(self) -> set[str]:
        """Their names, since the last call."""
        names: set[str] = set()
        try:
            events = os.read(self._fd, 2**20)
        except BlockingIOError:
            return names
        while events:
            _, mask, _, length = struct.unpack_from("iIII", events)
            if not mask & IN_ISDIR:
                names.add(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return names

    def close(self) -> None:
        os.close(self._fd)


class CountingServer(http.server.ThreadingHTTPServer):
    """Serves a folder, and counts who connects."""

    num_connections = 0

    def get_request(self) -> Any:
        self.num_connections += 1
        return super().get_request()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class Canary:
    """What nobody may open: real videos in a folder that is watched, and the address of a server that has them too."""

    folder: Path
    watch: Watch
    server: CountingServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def is_silent(self) -> bool:
        """Whether nothing was opened and nobody connected; forgets both."""
        opened, connections = self.watch.opened(), self.server.num_connections
        self.server.num_connections = 0
        return not opened and not connections


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux's inotify reports which files were opened")
    folder = tmp_path_factory.mktemp("hostile") / "secret"
    write_video(folder / "canary.mp4", 5, first_number=77)
    write_video(folder / "canary.ts", 5, first_number=77, codec="mpeg2video")
    write_video(folder / "canary.gif", 5, first_number=77, codec="gif", pixel_format="rgb8")
    Image.new("RGB", (64, 48)).save(folder / "canary.png")
    server = CountingServer(("127.0.0.1", 0), lambda *args: _Silent(*args, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    watch = Watch(folder)
    yield Canary(folder, watch, server)
    watch.close()
    server.shutdown()
    server.server_close()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
KEYED = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n'
MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
)
SMOOTH = (
    '<?xml version="1.0"?>\n<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{}"/></SmoothStreamingMedia>\n'
)
CONCAT = "ffconcat version 1.0\nfile '{}'\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\na=control:{}\n"
PLS = "[playlist]\nFile1={}\nNumberOfEntries=1\n"
ASX = '<asx version="3"><entry><ref href="{}"/></entry></asx>\n'
REDIRECT = "[Reference]\nRef1={}\n"

PLAYLISTS = {
    **dict.fromkeys(("hls.m3u8", "hls.mp4", "hls.avi", "hls.ts"), HLS),
    **dict.fromkeys(("master.m3u8", "master.mp4"), MASTER),
    **dict.fromkeys(("dash.mpd", "dash.mp4"), DASH),
    **dict.fromkeys(("smooth.ism", "smooth.mp4"), SMOOTH),
    **dict.fromkeys(("concat.txt", "concat.ffconcat", "concat.mp4"), CONCAT),
    **dict.fromkeys(("session.sdp", "session.mp4"), SDP),
    **dict.fromkeys(("list.pls", "list.mp4"), PLS),
    **dict.fromkeys(("list.asx", "list.wmv"), ASX),
    "keyed.m3u8": KEYED,
    "byte_order_mark.mp4": "\ufeff" + HLS,
    "empty_line_first.ts": "\n" + HLS,
    "version_not_first.mp4": "s=x\n" + SDP.removeprefix("v=0\n"),
    "redirect.asf": REDIRECT,
}
"""File name -> text that names a file where it has `{}`."""

TARGETS: dict[str, Callable[[Canary], str]] = {
    "absolute": lambda canary: str(canary.folder / "canary.ts"),
    "relative": lambda canary: "../secret/canary.ts",
    "beside": lambda canary: "link_to_the_canary.ts",
    "file": lambda canary: f"file://{canary.folder}/canary.ts",
    "address": lambda canary: f"{canary.url}/canary.ts",
    "subfile": lambda canary: f"subfile,,start,0,end,0,,:{canary.folder}/canary.ts",
}


def write_playlist(name: str, target: str, canary: Canary) -> Path:
    """A playlist that names the canary, in a folder with links to it."""
    path = canary.folder.parent / target / name
    path.parent.mkdir(exist_ok=True)
    if not (link := path.with_name("link_to_the_canary.ts")).is_symlink():
        link.symlink_to("../secret/canary.ts")
    path.write_text(PLAYLISTS[name].format(TARGETS[target](canary)))
    return path


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_refused_and_the_files_it_names_are_not_opened(canary: Canary, name: str, target: str) -> None:
    path = write_playlist(name, target, canary)
    canary.is_silent()
    with pytest.raises(NotAVideoError, match="a playlist or a reference to other files"):
        open_video(path)
    assert canary.is_silent()


def with_external_data(video: bytes, path: Path) -> bytes:
    """A QuickTime file whose samples are said to lie in another file: its data reference becomes a Macintosh alias."""
    name = str(path).encode()
    record = bytes(10 + 28 + 12) + bytes([len(path.name)]) + path.name.encode().ljust(63, b"\0") + bytes(16)
    record += struct.pack(">HH", 2, 2) + bytes(16) + struct.pack(">HH", 2, len(name)) + name + b"\0" * (len(name) % 2)
    record += struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    return _replace_data_reference(video, entry)


def _replace_data_reference(video: bytes, entry: bytes) -> bytes:
    content = bytearray(video)
    moov = content.rindex(b"moov")  # behind the samples, whose offsets therefore stay right
    old = content.index(b"url ", content.index(b"dref", moov)) - 4
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = content.index(box, moov) - 4
        size = int.from_bytes(content[start : start + 4], "big") + len(entry) - 12
        content[start : start + 4] = size.to_bytes(4, "big")
    content[old : old + 12] = entry
    return bytes(content)


@pytest.fixture(scope="module")
def references(canary: Canary) -> Path:
    """Files of other kinds that name the canary, or lead FFmpeg to it by their own name."""
    folder = canary.folder.parent / "references"
    plain = write_video(folder / "plain.mp4", 5).read_bytes()
    transport = write_video(folder / "plain.ts", 5, codec="mpeg2video").read_bytes()
    hls = HLS.format("../secret/canary.ts").encode()
    url = str(canary.folder / "canary.mp4").encode() + b"\0"
    files = {
        "polyglot.mp4": hls + transport,
        "polyglot.ts": hls + transport,
        "dash_inside.ts": transport + DASH.format(f"{canary.url}/canary.mp4").encode(),
        "alias.mov": with_external_data(plain, canary.folder / "canary.mp4"),
        "url.mp4": _replace_data_reference(plain, struct.pack(">I4sI", 12 + len(url), b"url ", 0) + url),
        "subtitles.idx": b"# VobSub index file, v7 (do not modify this line!)\nsize: 64x48\nid: en, index: 0\n",
        "raw.mlv": b"MLVI" + struct.pack("<I", 52) + b"v2.0\0".ljust(44, b"\0"),
        "frame%03d.png": (canary.folder / "canary.png").read_bytes(),
        "anim%03d.gif": write_video(folder / "plain.gif", 5, codec="gif", pixel_format="rgb8").read_bytes(),
        "picture.svg": f'<svg xmlns:xlink="x"><image xlink:href="{canary.url}/canary.gif"/></svg>'.encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for link, target in {
        "subtitles.sub": "canary.mp4",
        "raw.M00": "canary.mp4",
        "raw.m00": "canary.mp4",
        "anim001.gif": "canary.gif",
        "frame001.png": "canary.png",
    }.items():
        (folder / link).symlink_to(f"../secret/{target}")
    canary.is_silent()
    return folder


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("polyglot.mp4", NotAVideoError, "a playlist"),
        ("polyglot.ts", NotAVideoError, "a playlist"),
        ("dash_inside.ts", NotAVideoError, "a playlist"),
        ("alias.mov", DecodeError, "holds no frames"),
        ("subtitles.idx", NotAVideoError, "a playlist"),
        ("raw.mlv", NotAVideoError, "a playlist"),
        ("frame%03d.png", NotAVideoError, "reads its name as that of a sequence of images"),
        ("picture.svg", NotAVideoError, "not a media file"),
    ],
)
def test_a_reference_of_another_kind_is_refused_too(
    canary: Canary, references: Path, name: str, error: type[VideoError], message: str
) -> None:
    canary.is_silent()
    with pytest.raises(error, match=message):
        open_video(references / name)
    assert canary.is_silent()


@pytest.mark.parametrize("name", ["url.mp4", "anim%03d.gif"])
def test_a_reference_that_no_decoder_follows_is_read_as_the_file_itself(
    canary: Canary, references: Path, name: str
) -> None:
    canary.is_silent()
    frames = next(open_video(references / name).blocks([3]))
    assert read_number(frames[0]) == 3
    assert canary.is_silent()


def _read_all(path: Path, **options: str) -> None:
    with av.open(str(path), options=options) as container:
        list(container.demux(video=0))


def test_without_vidpipes_checks_the_canary_is_opened_and_the_test_sees_it(canary: Canary, references: Path) -> None:
    playlist = write_playlist("hls.m3u8", "absolute", canary)
    script = write_playlist("concat.txt", "beside", canary)
    canary.is_silent()
    _read_all(playlist)
    assert canary.watch.opened() == {"canary.ts"}
    _read_all(script)
    assert canary.watch.opened() == {"canary.ts"}
    _read_all(references / "alias.mov", enable_drefs="1")
    assert canary.watch.opened() == {"canary.mp4"}
    _read_all(references / "frame%03d.png")
    assert canary.watch.opened() == {"canary.png"}
    open_video(canary.folder / "canary.mp4")
    assert canary.watch.opened() == {"canary.mp4"}
    with urllib.request.urlopen(f"{canary.url}/canary.ts") as response:
        response.read(1)
    assert canary.server.num_connections == 1
    canary.is_silent()


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (65_535, 2_100)])
def test_a_header_of_a_few_bytes_cannot_ask_for_gigabytes(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "huge.y4m"
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F25:1 C420jpeg\nFRAME\n".encode() + bytes(1000))
    with pytest.raises(DecodeError, match=rf"pictures of {width} × {height} pixels; at most 134217728 are decoded"):
        open_video(path)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (65_535, 65_535)])
def test_a_size_that_no_decoder_takes_is_refused(tmp_path: Path, width: int, height: int) -> None:
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6)
    picture = b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"
    (tmp_path / "huge.gif").write_bytes(screen + picture)
    (tmp_path / "huge.y4m").write_bytes(f"YUV4MPEG2 W{width} H{height} F25:1 C420jpeg\nFRAME\n".encode())
    for name in ("huge.gif", "huge.y4m"):
        with pytest.raises(VideoError):
            open_video(tmp_path / name)


PLAIN_NAMES = (
    b"with space.mp4",
    b"new\nline.mp4",
    "\N{CLAPPER BOARD} \N{LATIN SMALL LETTER E WITH ACUTE}.mp4".encode(),
    b"x" * 251 + b".mp4",
    b"a folder.mp4/inside.mp4",
    b"/".join([b"deep"] * 60) + b"/down.mp4",
    b"-o.mp4",
    b"%s%n$(id).mp4",
)
NOT_UTF8 = b"no utf-8 \xff\xe9.mp4"
COMMANDS_TO_A_TERMINAL = ("\x1b]0;title\x07", "\x1b[31m", "\x9b2J", "\u202e", "\r", "\nfailed: forged.mp4: ", "\x7f")


@pytest.fixture(scope="module")
def odd_names(canary: Canary, references: Path) -> Path:
    """A folder of real videos under odd names, of things that are no videos, and of all references to the canary."""
    folder = canary.folder.parent / "odd"
    folder.mkdir()
    video = write_video(canary.folder.parent / "plain.mp4", 3).read_bytes()
    for plain_name in (*PLAIN_NAMES, NOT_UTF8):
        path = folder / os.fsdecode(plain_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video)
    for number, command in enumerate(COMMANDS_TO_A_TERMINAL):
        (folder / f"bad {number} {command}.mp4").write_bytes(b"no video")
    (folder / "empty.mp4").touch()
    (folder / "nowhere.mp4").symlink_to("nothing here")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp4")
    for target in ("absolute", "address"):
        for name in PLAYLISTS:
            path = write_playlist(name, target, canary)
            (folder / f"{target} {name}").write_bytes(path.read_bytes())
    for path in references.iterdir():
        if not path.is_symlink():
            (folder / path.name).write_bytes(path.read_bytes())
    canary.is_silent()
    return folder


def test_a_folder_of_hostile_input_is_extracted_apart_from_the_files_named(canary: Canary, odd_names: Path) -> None:
    store = odd_names.parent / "features"
    command = ["extract", str(odd_names), "-o", str(store), "--backbone", "efficientnet_lite0", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "vidpipe", *command, "--num-frames", "1", "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=CHECKOUT,
    )
    assert canary.is_silent()
    assert done.returncode == 3, done.stderr
    assert [line for line in (done.stdout + done.stderr).split("\n") if not line.isprintable()] == []
    found = {video.id for video in find_videos([odd_names])}
    stored = set(FeatureStore.open(store).ids)
    named = [line.removeprefix("failed: ") for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert {name.decode("utf-8", "backslashreplace") for name in PLAIN_NAMES} <= stored
    assert len(named) == len(found - stored)
    for video_id in found - stored:
        assert len([line for line in named if line.startswith(f"{printable(video_id)}: ")]) == 1, video_id
    assert not [video_id for video_id in stored if video_id.startswith(("absolute", "address", "bad", "poly", "alias"))]


def test_a_name_that_is_no_utf8_can_be_used(odd_names: Path) -> None:
    frames = next(open_video(odd_names / os.fsdecode(NOT_UTF8)).blocks([2]))
    assert read_number(frames[0]) == 2


def test_a_pipe_or_a_device_is_refused_unopened(odd_names: Path) -> None:
    for name in ("pipe.mp4", "zero.mp4"):
        with pytest.raises(NotAVideoError, match="not a regular file"):
            open_video(odd_names / name)
    for name in ("nowhere.mp4", "itself.mp4", "never was.mp4"):
        with pytest.raises(UnreadableFileError, match="cannot be read"):
            open_video(odd_names / name)


READ_AS_NOBODY = f"""
import os, sys
from pathlib import Path
from vidpipe.errors import UnreadableFileError
from vidpipe.video.files import find_videos
from vidpipe.video.reader import open_video

if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
reported = []
videos = find_videos([Path(sys.argv[1])], on_unreadable=lambda *one: reported.append(one))
print([(folder.name, error.strerror) for folder, error in reported])
for video in videos:
    try:
        print(video.id, open_video(video.path).info.num_frames)
    except UnreadableFileError as error:
        print(video.id, error)
"""


def test_an_unreadable_file_is_reported_and_the_others_are_found() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        for path in ("good.mp4", "locked.mp4", "locked/a.mp4", "names only/a.mp4"):
            write_video(folder / path, 3)
        (folder / "locked.mp4").chmod(0)
        (folder / "locked").chmod(0)
        (folder / "names only").chmod(0o444)
        program = [sys.executable, "-c", READ_AS_NOBODY, name]
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, cwd=CHECKOUT)
        for path in ("locked", "names only"):
            (folder / path).chmod(0o755)
    assert done.stdout.splitlines() == [
        "[('locked', 'Permission denied')]",
        "good.mp4 3",
        "locked.mp4 cannot be read (Permission denied)",
        "names only/a.mp4 cannot be read (Permission denied)",
    ], done.stderr


@pytest.mark.parametrize("command", COMMANDS_TO_A_TERMINAL)
def test_an_error_with_a_name_sends_no_commands_to_the_terminal(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["info", f"{tmp_path}/{command}.mp4"])
    assert result.exit_code == 2
    assert result.stderr == f"Error: {tmp_path}/{printable(command)}.mp4: no such file or folder\n"


@pytest.mark.parametrize("form", ["table", "json"])
def test_info_of_a_video_of_any_name_is_printable(odd_names: Path, form: str) -> None:
    for plain_name in PLAIN_NAMES:
        result = CliRunner().invoke(main, ["info", str(odd_names / os.fsdecode(plain_name)), "--format", form])
        assert result.exit_code == 0, result.output
        assert all(line.isprintable() for line in result.stdout.split("\n"))
        if form == "json":
            assert os.fsencode(json.loads(result.stdout)["path"]).endswith(plain_name)


def untrained_run(path: Path, class_names: tuple[str, ...]) -> Path:
    sampling, preprocessing = Sampling("uniform", 1), find_backbone("efficientnet_lite0").preprocessing
    key = FeatureKey.of(
        sampling,
        backbone="efficientnet_lite0",
        weights_id="random",
        pooling="avg",
        preprocessing=preprocessing,
        dtype="float32",
    )
    config = TrainConfig(head="statistics", motion="raw")
    classifiers = []
    for name in ("statistics", "mean"):
        head = build_head(name, 1280, len(class_names), config)
        classifiers.append(Fusion([MemberHeads(Member(("efficientnet_lite0",), name), [head])]))
    splits = [SplitRow("a.mp4", class_names[0], "train", "", 1)]
    streams = (RunStream("efficientnet_lite0", key, 1280),)
    members = (RunMember(("efficientnet_lite0",), "statistics", 1.0, ({},)),)
    run = Run(path, config, class_names, streams, members, {}, "none", ("train",))
    path.mkdir()
    save_run(
        run,
        path,
        classifiers=dict(zip(("fusion", "mean"), classifiers, strict=True)),
        tables={"splits": splits, "history": [Epoch(1, 0.0, 0.0)]},
    )
    return path


def test_predict_prints_names_and_labels_as_text_only(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", ("left\x1b[31m", "right\u202e"))
    for command in COMMANDS_TO_A_TERMINAL:
        (tmp_path / "videos" / f"bad {command}.mp4").parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / f"bad {command}.mp4").write_bytes(b"no video")
    write_video(tmp_path / "videos" / "good\n.mp4", 2)
    make_deep(tmp_path / "videos", "x" * 250, 20)
    arguments = ["predict", str(run), str(tmp_path / "videos"), "--device", "cpu", "--workers", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    lines = result.stdout.splitlines()
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert len(lines) == 1 + len(COMMANDS_TO_A_TERMINAL)
    for command in COMMANDS_TO_A_TERMINAL:
        assert len([line for line in lines if line.startswith(f"bad {printable(command)}.mp4 ")]) == 1
    assert "cannot be read: " in result.stderr
    assert "File name too long" in result.stderr
    (good,) = [line for line in lines if line.startswith(r"good\n.mp4 ")]
    assert r"left\x1b[31m" in good
    assert r"right\u202e" in good


def test_only_invisible_text_is_escaped() -> None:
    assert printable("a b\\n 'é' \N{CLAPPER BOARD}") == "a b\\n 'é' \N{CLAPPER BOARD}"
    assert printable("\n\x1b\x9b\u202e\udcff") == "\\n\\x1b\\x9b\\u202e\\udcff"
    assert json_line({"a": "é"}) == '{"a": "é"}'
    assert json_line({"é": "\x9b\udcff"}) == '{"\\u00e9": "\\u009b\\udcff"}'


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch '{self.path}'",))


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors"])
def test_weights_that_are_a_program_are_refused_and_not_run(tmp_path: Path, name: str) -> None:
    touched, weights = tmp_path / "touched", tmp_path / name
    weights.write_bytes(pickle.dumps(_Malicious(touched)))
    write_video(tmp_path / "a.mp4", 2)
    arguments = ["extract", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "features"), "--weights", str(weights)]
    result = CliRunner().invoke(main, [*arguments, "--backbone", "efficientnet_lite0", "--device", "cpu"])
    assert result.exit_code == 1
    assert f"{weights}: " in result.stderr
    assert not touched.exists()


def test_a_run_whose_model_is_a_program_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    preprocessing = {"resize": 256, "crop": 224}
    key = FeatureKey({"method": "uniform", "num_frames": 4}, "efficientnet_lite0", "x", "avg", preprocessing, "float32")
    streams, members = (RunStream("a", key, 8),), (RunMember(("a",), "mean", 1.0, ({},)),)
    run = Run(tmp_path, TrainConfig(head="mean"), ("a", "b"), streams, members, {}, "none", ("train",))
    for content in (pickle.dumps(_Malicious(touched)), b"PK\x03\x04" + pickle.dumps(_Malicious(touched))):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(RunError, match="cannot be loaded"):
            run.load_classifiers(torch.device("cpu"))
    assert not touched.exists()


def test_the_program_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Malicious(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()
