import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.data.cifar10 import CIFAR10, Archive, download, open_cifar10
from foveate.errors import DataError, OutputError
from foveate.progress import untracked

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def records(seed: int, count: int) -> bytes:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 256, (count, 3073), np.uint8)
    values[:, 0] = generator.integers(0, 10, count)
    return values.tobytes()


def batches() -> dict[str, bytes]:
    """The files of a small binary version: 5 × 30 images to train on, 20 to test."""
    return {f"data_batch_{number}.bin": records(number, 30) for number in range(1, 6)} | {
        "test_batch.bin": records(6, 20),
        "batches.meta.txt": "\n".join(NAMES).encode(),
    }


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Server:
    """A web server of one file that can misbehave."""

    content: bytes
    ranges: bool = True
    cut_after: int | None = None
    requests: list[str | None] = field(default_factory=list)
    url: str = ""

    def archive(self, content: bytes | None = None) -> Archive:
        whole = self.content if content is None else content
        return Archive(f"{self.url}/cifar-10-binary.tar.gz", len(whole), hashlib.sha256(whole).hexdigest())


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(tarball(batches()))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_after])

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOVEATE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


def check(source: Any) -> None:
    """That a source is what `batches` holds."""
    data = batches()
    assert source.name == source.location == "cifar10"
    assert source.class_names == tuple(NAMES)
    assert source.side == 32
    assert np.bincount(source.declared).tolist() == [150, 0, 20]
    images = [np.asarray(image) for block in source.blocks for image in block.images()]
    whole = np.frombuffer(b"".join(data[name] for name in data if name.endswith(".bin")), np.uint8).reshape(
        -1, 3073
    )
    assert source.labels.tolist() == whole[:, 0].tolist()
    assert np.array_equal(images, whole[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert "here are {'train': 150, 'test': 20}" in source.notes[0]


def unpack(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, data in batches().items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("place", [".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_the_binary_version_unpacked(place: str, tmp_path: Path) -> None:
    unpack(tmp_path / "data" / place)
    check(open_cifar10(tmp_path / "data", untracked))


@pytest.mark.parametrize("place", [".", "cifar10"])
def test_the_archive_is_read_where_it_lies(place: str, tmp_path: Path, server: Server) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / CIFAR10.url.rpartition("/")[2]).write_bytes(server.content)
    check(open_cifar10(tmp_path, untracked))
    assert [path.name for path in folder.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_the_environment_and_then_the_cache_are_looked_through(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack(own_cache / "cifar10")
    check(open_cifar10(None, untracked))
    unpack(tmp_path / "named" / "cifar10")
    (own_cache / "cifar10" / "data_batch_1.bin").write_bytes(b"damaged")
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "named"))
    check(open_cifar10(None, untracked))


def test_the_real_shards(cifar10: str) -> None:
    source = open_cifar10(Path(cifar10), untracked)
    assert source.class_names == tuple(NAMES)
    assert np.bincount(source.labels[source.declared == 0]).tolist() == [5000] * 10
    assert np.bincount(source.labels[source.declared == 2]).tolist() == [1000] * 10
    assert source.notes == ()
    assert open_cifar10(Path(cifar10).parent, untracked).content == source.content


def test_shards_of_another_data_set_are_not_taken(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"img": pa.array([encode()], pa.binary()), "label": ["cow"]}), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError, match="does not hold CIFAR-10"):
        open_cifar10(tmp_path, untracked)


def test_a_data_folder_without_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not hold CIFAR-10: put cifar-10-binary\.tar\.gz .* there$"):
        open_cifar10(tmp_path, untracked)


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "cifar10/cifar-10-python.tar.gz"])
def test_the_pickled_version_is_never_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(
        DataError, match=r"holds only the pickled cifar-10-.*, which is never opened: put cifar-10-bin"
    ):
        open_cifar10(tmp_path, untracked)


def test_damaged_batches(tmp_path: Path) -> None:
    unpack(tmp_path / "data")
    path = tmp_path / "data" / "data_batch_2.bin"
    path.write_bytes(records(0, 2)[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin is cut off: download CIFAR-10 again"):
        open_cifar10(tmp_path / "data", untracked)
    path.write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match=r"data_batch_2\.bin has a label above 9"):
        open_cifar10(tmp_path / "data", untracked)


@pytest.mark.parametrize(
    "content", [b"", b"not gzip", tarball(batches())[:5000]], ids=["empty", "not gzip", "cut off"]
)
def test_a_damaged_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*cifar-10-binary\.tar\.gz: .*: copy or download it again"):
        open_cifar10(tmp_path, untracked)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tarball({"readme.txt": b"hello"}))
    with pytest.raises(DataError, match=r"has no data_batch_\*\.bin: download it again"):
        open_cifar10(tmp_path, untracked)


def test_it_is_downloaded_once_with_progress(server: Server, own_cache: Path) -> None:
    followed = []

    def track(items: Iterable[object], *, total: int, label: str, images_each: int = 1) -> Iterator[object]:
        followed.append((label, total))
        yield from items

    check(open_cifar10(None, track, server.archive()))
    check(open_cifar10(None, untracked, server.archive()))
    assert server.requests == [None]
    assert ("downloading cifar-10-binary.tar.gz (MiB)", 1) in followed
    assert sorted(path.name for path in (own_cache / "cifar10").iterdir() if path.suffix != ".lock") == [
        "cifar-10-binary.tar.gz"
    ]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_resumed(ranges: bool, server: Server, tmp_path: Path) -> None:
    target, part = tmp_path / "a.tar.gz", tmp_path / "a.tar.gz.part"
    server.cut_after, server.ranges = 1000, ranges
    with pytest.raises(DataError, match=r"broke off after 1,000 bytes: run again to go on from there"):
        download(server.archive(), target, untracked)
    assert part.read_bytes() == server.content[:1000]
    server.cut_after = None
    download(server.archive(), target, untracked)
    assert target.read_bytes() == server.content
    assert server.requests == [None, "bytes=1000-"]
    assert not part.exists()


def test_a_part_that_is_whole_needs_no_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz.part").write_bytes(server.content)
    download(server.archive(), tmp_path / "a.tar.gz", untracked)
    download(server.archive(), tmp_path / "a.tar.gz", untracked)
    assert server.requests == []
    assert (tmp_path / "a.tar.gz").read_bytes() == server.content


def test_a_wrong_checksum_is_removed_and_said(server: Server, tmp_path: Path) -> None:
    archive = replace(server.archive(), sha256="0" * 64)
    with pytest.raises(DataError, match="wrong checksum and was removed: run again"):
        download(archive, tmp_path / "a.tar.gz", untracked)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_no_network_says_where_to_put_the_file(server: Server, own_cache: Path) -> None:
    closed = replace(server.archive(), url="http://127.0.0.1:9/cifar-10-binary.tar.gz")
    with pytest.raises(DataError) as caught:
        open_cifar10(None, untracked, closed)
    message = str(caught.value)
    assert message.startswith("cannot download CIFAR-10 (")
    assert f"into {own_cache / 'cifar10'}" in message
    assert "$FOVEATE_DATA" in message
    assert "\n" not in message
    missing = replace(server.archive(), url=f"{server.url[:-1]}x/nothing")
    with pytest.raises(DataError, match="cannot download CIFAR-10"):
        open_cifar10(None, untracked, missing)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        download(server.archive(), tmp_path / "file" / "a.tar.gz", untracked)
    assert server.requests == []


def test_the_official_archive() -> None:
    assert CIFAR10.size == 170_052_171
    assert CIFAR10.name == "cifar-10-binary.tar.gz"
    assert len(CIFAR10.sha256) == 64
    assert os.environ.get("FOVEATE_DATA") is None
