"""Packs: what is written can be read, whatever happens to the writer, and nothing else can."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest

from conformance.errors import ConformanceError
from conformance.pack import store as pack_store
from conformance.pack.format import GRAPH, MANIFEST, REQUIRED_FILES, Pack, open_pack
from conformance.pack.request import SCHEMA, PackRequest, pack_key, weights_identity
from conformance.pack.sealed import whole_file, write_text
from conformance.pack.store import find_pack, list_packs, write_pack
from conformance.processes.child import child_environment

from .tiny_pack import CLASSES, INPUTS, LAYER_SHAPE, PRODUCER, fill_tiny, tiny_manifest, write_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Pack:
    """A fresh tiny pack."""
    return write_tiny(tmp_path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Optional[dict[str, str]]], None]:
    """A function that sets which producer is installed, None for no TensorFlow."""

    def install(producer: Optional[dict[str, str]]) -> None:
        monkeypatch.setattr(pack_store, "request_versions", lambda request: producer)

    return install


def test_what_is_written_is_read_back(tiny: Pack) -> None:
    """An opened pack holds the manifest and the arrays that were written."""
    opened = open_pack(tiny.path)
    assert opened == tiny
    assert opened.load("outputs_f64").shape == (INPUTS, CLASSES)
    assert opened.load("outputs_f64").dtype == np.float64
    assert opened.graph_path.stat().st_size == 2000
    assert opened.load_archive("preprocessing.npz")["image"].dtype == np.uint8


def test_layers_come_with_their_samples(tiny: Pack) -> None:
    """A layer gives one value a precision for each position, and each image's two extremes."""
    (layer,) = tiny.layers()
    assert (layer.node, layer.op, layer.inputs) == ("conv1", "Conv2D", ("x",))
    assert layer.shape == tuple(LAYER_SHAPE)
    assert layer.positions().shape == (np.prod(LAYER_SHAPE),)
    assert layer.f32.shape == layer.f64.shape == (np.prod(LAYER_SHAPE) + 2 * LAYER_SHAPE[0],)
    np.testing.assert_allclose(layer.f32, layer.f64, rtol=1e-6)


@pytest.mark.parametrize("name", [*REQUIRED_FILES, MANIFEST])
def test_flipped_byte_is_noticed(tiny: Pack, name: str) -> None:
    """One bit flipped in the middle of any file is an error that names the file and the remedy."""
    content = bytearray((tiny.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tiny.path / name).write_bytes(bytes(content))
    with pytest.raises(ConformanceError, match=rf"{name}.*pack build mobilenet"):
        open_pack(tiny.path)


def test_truncated_graph_is_noticed(tiny: Pack) -> None:
    """A frozen graph cut short is an error that says how many bytes are there."""
    with tiny.graph_path.open("r+b") as file:
        file.truncate(1234)
    with pytest.raises(ConformanceError, match=r"frozen_graph.pb: has 1234 bytes instead of 2000"):
        open_pack(tiny.path)


@pytest.mark.parametrize("name", [*REQUIRED_FILES, MANIFEST])
def test_missing_file_is_noticed(tiny: Pack, name: str) -> None:
    """A pack that lacks a file, pack.json included, is an error that names the file."""
    (tiny.path / name).unlink()
    with pytest.raises(ConformanceError, match=rf"{name}: no such file"):
        open_pack(tiny.path)


def test_writer_that_leaves_a_file_out_is_noticed(tmp_path: Path) -> None:
    """A pack whose manifest lists too few files is not accepted, though all hashes match."""

    def fill(folder: Path) -> None:
        fill_tiny(folder)
        (folder / "logits_f64.npy").unlink()

    with pytest.raises(ConformanceError, match=r"lists no logits_f64.npy"):
        open_pack(write_pack(tmp_path, tiny_manifest(), fill).path)


def test_newer_schema_says_upgrade(tmp_path: Path) -> None:
    """A pack of a later schema is an error that names both schemas and says to upgrade."""
    pack = write_tiny(tmp_path, schema=SCHEMA + 1)
    with pytest.raises(ConformanceError, match=rf"schema {SCHEMA + 1}.*schema {SCHEMA}; upgrade"):
        open_pack(pack.path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "one"}', '{"schema": 1}', "\xff"])
def test_pack_json_of_any_other_content_is_refused(tiny: Pack, text: str) -> None:
    """A pack.json that is empty, of another kind or undecodable is a ConformanceError."""
    (tiny.path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConformanceError, match=r"pack\.json"):
        open_pack(tiny.path)


class _Payload:
    """Creates a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.victim,))


def _save_pickle(file: Path, payload: _Payload) -> None:
    file.write_bytes(pickle.dumps(payload))


def _save_object_array(file: Path, payload: _Payload) -> None:
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("save", [_save_pickle, _save_object_array])
def test_pickle_disguised_as_array_is_not_run(
    tmp_path: Path, save: Callable[[Path, _Payload], None]
) -> None:
    """A pickle in an .npy file, hashes and all, is refused and its code does not run."""
    victim = tmp_path / "victim"

    def fill(folder: Path) -> None:
        fill_tiny(folder)
        save(folder / "inputs.npy", _Payload(victim))

    pack = open_pack(write_pack(tmp_path / "packs", tiny_manifest(), fill).path)
    with pytest.raises(ConformanceError, match=r"inputs\.npy"):
        pack.load("inputs")
    assert not victim.exists()


def test_full_device_is_explained_and_the_next_run_recovers(tmp_path: Path) -> None:
    """ENOSPC from the kernel, here from /dev/full, names the folder; a second build succeeds."""

    def fill(folder: Path) -> None:
        fill_tiny(folder)
        (folder / GRAPH).unlink()
        (folder / GRAPH).symlink_to("/dev/full")
        (folder / GRAPH).write_bytes(b"x")

    with pytest.raises(ConformanceError, match=r"no space left .*mobilenet.*--packs") as caught:
        write_pack(tmp_path, tiny_manifest(), fill)
    assert str(tmp_path) in str(caught.value)
    _assert_only_the_lock_is_left(tmp_path)
    assert open_pack(write_tiny(tmp_path).path)


def test_short_write_of_an_array_is_explained(tmp_path: Path) -> None:
    """NumPy's own error for a full disk, which has no errno, is recognised too."""

    def fill(folder: Path) -> None:
        (folder / "inputs.npy").symlink_to("/dev/full")
        np.save(folder / "inputs.npy", np.zeros(100_000))

    with pytest.raises(ConformanceError, match="no space left"):
        write_pack(tmp_path, tiny_manifest(), fill)
    _assert_only_the_lock_is_left(tmp_path)


_LIMITED = """
import resource, sys
from pathlib import Path
from conformance.selftest.tiny_pack import write_tiny
from conformance.errors import ConformanceError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_tiny(Path(sys.argv[1]))
except ConformanceError as error:
    print(error)
"""


def test_full_disk_met_by_native_code_is_explained(tmp_path: Path) -> None:
    """A full disk that TensorFlow reports in an exception of its own is recognised too."""

    def fill(folder: Path) -> None:
        raise RuntimeError(f"{folder}/frozen_graph.pb; {os.strerror(errno.ENOSPC)}")

    with pytest.raises(ConformanceError, match="no space left"):
        write_pack(tmp_path, tiny_manifest(), fill)


def test_memory_that_is_full_is_explained(tmp_path: Path) -> None:
    """A pack that there is no memory for is one error, and leaves nothing."""

    def fill(folder: Path) -> None:
        raise MemoryError("unable to allocate 4 GiB")

    with pytest.raises(ConformanceError, match=r"mobilenet: there is not enough memory .* 4 GiB"):
        write_pack(tmp_path, tiny_manifest(), fill)
    _assert_only_the_lock_is_left(tmp_path)


def test_limit_of_the_file_system_is_explained(tmp_path: Path) -> None:
    """A process that may write 1000 bytes a file fails as on a full disk and leaves nothing."""
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert f"pack folder {tmp_path}: no space left while writing" in run.stdout
    _assert_only_the_lock_is_left(tmp_path)
    assert open_pack(write_tiny(tmp_path).path)


def _assert_only_the_lock_is_left(root: Path) -> None:
    assert {path.name for path in (root / "mobilenet").iterdir()} <= {".lock"}
    assert list_packs(root) == []


_HALF_WRITTEN = """
import sys, time
from pathlib import Path
from conformance.pack.store import write_pack
from conformance.selftest.tiny_pack import tiny_manifest

def fill(folder):
    (folder / "frozen_graph.pb").write_bytes(b"half a gra")
    print("half", flush=True)
    time.sleep(60)

write_pack(Path(sys.argv[1]), tiny_manifest(), fill)
"""


def test_killed_writer_leaves_no_pack_and_the_next_cleans_up(tmp_path: Path) -> None:
    """A writer killed midway leaves nothing that looks like a pack; the next removes the rest."""
    command = [sys.executable, "-c", _HALF_WRITTEN, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        writer.kill()
    leftovers = list((tmp_path / "mobilenet").glob(".tmp-*/frozen_graph.pb"))
    assert len(leftovers) == 1
    assert list_packs(tmp_path) == []

    def fill(folder: Path) -> None:
        assert not leftovers[0].exists(), "its space is needed before the new pack is written"
        fill_tiny(folder)

    write_pack(tmp_path, tiny_manifest(), fill)
    assert len(list_packs(tmp_path)) == 1


def test_interrupted_fill_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the files are written removes them and stays what it is."""

    def fill(folder: Path) -> None:
        fill_tiny(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pack(tmp_path, tiny_manifest(), fill)
    _assert_only_the_lock_is_left(tmp_path)


def test_file_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path) -> None:
    """What a killed writer left beside its file goes with the next one, a living one's does not."""
    path, other = tmp_path / "bench.json", tmp_path / "other.json"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from conformance.pack.sealed import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for name in (path, other):
        subprocess.run([sys.executable, "-c", code, str(name)], env=child_environment())
    assert len(list(tmp_path.iterdir())) == 2
    with whole_file(path) as mine, whole_file(path) as theirs:
        assert mine != theirs
        write_text(path, "whole")
        mine.write_text("mine")
        theirs.write_text("theirs")
    assert path.read_text() == "mine"
    (left,) = (file for file in tmp_path.iterdir() if file != path)
    write_text(other, "whole")
    assert sorted(tmp_path.iterdir()) == [path, other]
    assert not left.exists()


def test_pack_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Writing a pack again puts the new one in its place and leaves nothing of the old."""
    (write_tiny(tmp_path).path / "stray").touch()
    again = write_tiny(tmp_path)
    assert sorted(f.name for f in again.path.iterdir()) == sorted([*REQUIRED_FILES, MANIFEST])
    assert open_pack(again.path)
    assert [f.name for f in again.path.parent.glob(".tmp-*")] == []


def test_unusable_pack_folder_is_explained(tmp_path: Path) -> None:
    """A pack folder that is a file is an error that says to choose another."""
    (tmp_path / "packs").touch()
    with pytest.raises(ConformanceError, match=r"packs: cannot be created.*--packs"):
        write_tiny(tmp_path / "packs")


def test_only_the_installed_versions_pack_will_do(
    tmp_path: Path, installed: Callable[[Optional[dict[str, str]]], None]
) -> None:
    """Where TensorFlow is installed, a pack of another TensorFlow version is not found."""
    write_tiny(tmp_path)
    installed(PRODUCER)
    assert find_pack(tmp_path, PackRequest("mobilenet")) is not None
    installed({**PRODUCER, "tensorflow": "2.1"})
    assert find_pack(tmp_path, PackRequest("mobilenet")) is None


def test_without_tensorflow_the_newest_matching_pack_is_found(
    tmp_path: Path, installed: Callable[[Optional[dict[str, str]]], None]
) -> None:
    """Without TensorFlow the newest pack of the same request is found, and no other request's."""
    installed(None)
    for key, created in (("a", "2025-01-02"), ("b", "2025-01-03"), ("c", "2025-01-01")):
        write_tiny(tmp_path, key=key, created=created)
    write_tiny(tmp_path, key="d", created="2026", request=PackRequest("mobilenet", graph="raw"))
    found = find_pack(tmp_path, PackRequest("mobilenet"))
    assert found is not None
    assert found.manifest.key == "b"
    assert find_pack(tmp_path, PackRequest("mobilenet", weights="imagenet")) is None
    assert find_pack(tmp_path, PackRequest("resnet50")) is None


def test_without_tensorflow_an_unreadable_pack_is_named(
    tmp_path: Path, installed: Callable[[Optional[dict[str, str]]], None]
) -> None:
    """A folder whose only pack is of a newer schema says so instead of "no pack"."""
    installed(None)
    write_tiny(tmp_path, schema=SCHEMA + 1)
    with pytest.raises(ConformanceError, match="upgrade"):
        find_pack(tmp_path, PackRequest("mobilenet"))
    write_tiny(tmp_path, key="readable")
    assert find_pack(tmp_path, PackRequest("mobilenet")) is not None


def test_key_changes_with_everything_that_changes_the_pack(tmp_path: Path) -> None:
    """Request, weights, versions and recipe each change the key; asking twice does not."""
    weights = tmp_path / "mobilenet.h5"
    weights.write_bytes(b"some weights")
    requests = [
        PackRequest("mobilenet"),
        PackRequest("mobilenetv2"),
        PackRequest("mobilenet", weights="imagenet"),
        PackRequest("mobilenet", weights=str(weights)),
        PackRequest("mobilenet", graph="raw"),
        PackRequest("mobilenet", keras="legacy"),
    ]
    keys = [pack_key(request, PRODUCER) for request in requests]
    keys += [pack_key(requests[0], {**PRODUCER, name: "other"}) for name in PRODUCER]
    assert len(set(keys)) == len(keys)
    assert pack_key(requests[0], PRODUCER) == keys[0]
    assert len(keys[0]) == 16


def test_weights_are_known_by_content(tmp_path: Path) -> None:
    """The same weights under another path are the same; an altered file is another identity."""
    first, second = tmp_path / "one.h5", tmp_path / "folder" / "mobilenet.weights.h5"
    second.parent.mkdir()
    for file in (first, second):
        file.write_bytes(b"weights")
    identity = weights_identity(PackRequest("mobilenet", weights=str(first)))
    assert identity == weights_identity(PackRequest("mobilenet", weights=str(second.parent)))
    first.write_bytes(b"other weights")
    assert identity != weights_identity(PackRequest("mobilenet", weights=str(first)))
    assert identity == weights_identity(PackRequest("mobilenet", weights=identity))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A missing folder and a folder without the model's file each name what was looked for."""
    with pytest.raises(ConformanceError, match=r"nowhere.*no such file or folder"):
        weights_identity(PackRequest("mobilenet", weights=str(tmp_path / "nowhere")))
    with pytest.raises(ConformanceError, match=r"has none of mobilenet\.weights\.h5"):
        weights_identity(PackRequest("mobilenet", weights=str(tmp_path)))


def test_request_for_what_does_not_exist_is_refused() -> None:
    """An unknown model, graph or Keras is refused when the request is made."""
    with pytest.raises(ConformanceError, match="mobilenet"):
        PackRequest("moblenet")
    with pytest.raises(ConformanceError, match="opencv, rewritten, raw"):
        PackRequest("mobilenet", graph="cooked")


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    """Two processes writing one pack at once leave one pack whose files all check."""
    script = (
        "import sys; from pathlib import Path; from conformance.selftest.tiny_pack import "
        "write_tiny; [write_tiny(Path(sys.argv[1])) for _ in range(20)]"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    writers = [subprocess.Popen(command) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    (folder,) = list_packs(tmp_path)
    assert open_pack(folder)
    assert [f.name for f in folder.parent.iterdir() if f.name.startswith(".tmp")] == []


def test_manifest_is_plain_json(tiny: Pack) -> None:
    """pack.json can be read by anything that reads JSON and lists every file's hash."""
    data = json.loads((tiny.path / MANIFEST).read_text())
    assert data["schema"] == SCHEMA
    assert set(data["files"]) == set(REQUIRED_FILES)
    assert all(len(entry["sha256"]) == 64 for entry in data["files"].values())
