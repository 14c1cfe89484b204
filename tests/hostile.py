"""Files as somebody would make them who means harm: each a small case that writes itself into a folder.

CANARY in a payload stands for the file that it makes when it is run; no test may ever find it.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Content = dict[str, Any]
CLIP = "clip.mp4"
_CHECKPOINT = ("predict", "eval", "extract")


@dataclass(frozen=True)
class Case:
    """kind: what is wrong. make: writes the files into a folder, given a sound checkpoint's content and the canary's
    path. commands: what is run beside them. harmless: what it says may be skipped, and then all goes well.
    """

    kind: str
    name: str
    make: Callable[[Path, Content, str], None]
    commands: tuple[str, ...]
    harmless: bool = False


def cases() -> Iterator[Case]:
    """All of them, kind after kind."""
    yield from _pickles()
    yield from _archives()
    yield from _targets()
    yield from _interpolations()
    yield from _shapes()
    yield from _numbers()
    yield from _starts()
    yield from _folders()
    yield from _runs()
    yield from _pipes_and_links()


# ---------------------------------------------------------------- pickles that call

_CALLS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("os system", ("touch CANARY",)),
    ("posix system", ("touch CANARY",)),
    ("os popen", ("touch CANARY",)),
    ("os mkdir", ("CANARY",)),
    ("subprocess Popen", (["touch", "CANARY"],)),
    ("subprocess run", (["touch", "CANARY"],)),
    ("subprocess getoutput", ("touch CANARY",)),
    ("builtins exec", ("open('CANARY', 'w')",)),
    ("builtins eval", ("open('CANARY', 'w')",)),
    ("builtins open", ("CANARY", "w")),
    ("__builtin__ eval", ("open('CANARY', 'w')",)),
    ("io open", ("CANARY", "w")),
    ("_io FileIO", ("CANARY", "w")),
    ("pathlib Path.touch", ("CANARY",)),
    ("shutil copyfile", ("/etc/hostname", "CANARY")),
    ("runpy _run_code", ("open('CANARY', 'w')", {})),
    ("timeit timeit", ("open('CANARY', 'w')", "pass", 1)),
    ("code InteractiveInterpreter.runcode", ("open('CANARY', 'w')",)),
    ("pty spawn", (["touch", "CANARY"],)),
    ("importlib import_module", ("antigravity",)),
    ("pickle loads", (pickle.dumps(print),)),
    ("marshal loads", (b"i\x00\x00\x00\x00",)),
    ("functools partial", (print, "CANARY")),
    ("operator methodcaller", ("system", "touch CANARY")),
    ("ctypes CDLL", ("CANARY",)),
    ("numpy fromfile", ("/etc/hostname",)),
    ("numpy.testing._private.utils runstring", ("open('CANARY', 'w')", {})),
    ("torch load", ("CANARY",)),
    ("torch.hub load", ("CANARY", "x")),
    ("torch.jit load", ("CANARY",)),
    ("torch.storage _load_from_bytes", (pickle.dumps(print),)),
    ("torch._utils _import_dotted_name", ("os.system",)),
    ("torch._inductor.codecache load_by_key_path", ("k", "CANARY")),
    ("torch.utils._config_module ConfigModule.load_config", (b"",)),
    ("torch._tensor _rebuild_from_type_v2", (print, str, (), "CANARY")),
    ("torch._utils _rebuild_tensor_v2", (None, 0, (2,), (1,), False, {})),
    ("torch._utils _rebuild_parameter", ("x", True, {})),
    ("torch._utils _rebuild_wrapper_subclass", (str, torch.float32, (1,), (1,), 0, None, None, False)),
    ("torch FloatTensor", (10**14,)),
    ("vidtrain.data.motion.motion make_motion", ("CANARY",)),
    ("argparse Namespace", ()),
    ("collections OrderedDict", ()),
)


def _call(name: str, arguments: tuple[Any, ...], protocol: int) -> bytes:
    """The instructions of a pickle that calls, without the head and the end."""
    module, function = name.split()
    given = pickle.dumps(arguments, protocol)[2:-1]
    if protocol == 2:
        return b"c" + f"{module}\n{function}\n".encode() + given + b"R"
    # without frames, so that it can stand within another one
    given = pickle._dumps(arguments, 3)[2:-1]  # type: ignore[attr-defined]  # the one in Python has no frames below 4
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, function))
    return texts + b"\x93" + given + b"R"


def _pickles() -> Iterator[Case]:
    for number, (name, arguments) in enumerate(_CALLS):
        for protocol in (2, 4):
            command = (*_CHECKPOINT, "inspect", "resume", "weights")[(number + protocol) % 6]
            for shell in ("zip", "bare"):

                def make(
                    folder: Path,
                    content: Content,
                    canary: str,
                    name: str = name,
                    arguments: Any = arguments,
                    protocol: int = protocol,
                    shell: str = shell,
                ) -> None:
                    called = _call(name, _with_canary(arguments, canary), protocol)
                    head, key = b"\x80" + bytes([protocol]), b"X\x05\x00\x00\x00model"
                    whole = head + b"}" + key + called + b"s."
                    data = _zipped({"archive/data.pkl": whole, "archive/version": b"3\n"}) if shell == "zip" else whole
                    _write(folder, data)

                yield Case("pickle that calls", f"{name}, protocol {protocol}, {shell}", make, (command,))


def _with_canary(value: Any, canary: str) -> Any:
    if isinstance(value, str):
        return value.replace("CANARY", canary)
    if isinstance(value, (list, tuple)):
        return type(value)(_with_canary(inner, canary) for inner in value)
    return value


def _write(folder: Path, data: bytes) -> None:
    for name in ("best.pt", "last.pt"):
        (folder / name).write_bytes(data)


def _zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# ---------------------------------------------------------------- archives without end


def _archives() -> Iterator[Case]:
    def raw(name: str, data: Callable[[], bytes]) -> Case:
        commands = ("predict", "inspect", "resume", "weights")
        return Case("archive without end", name, lambda folder, content, canary: _write(folder, data()), commands)

    def saved(value: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    def pickled(program: bytes) -> bytes:
        return _zipped({"archive/data.pkl": b"\x80\x02" + program + b".", "archive/version": b"3\n"})

    def shared_lists(depth: int) -> Any:
        value: Any = []
        for _ in range(depth):
            value = [value, value]
        return value

    itself: list[Any] = []
    itself.append(itself)
    zeros = torch.zeros(1)
    for name, value in {
        "lists that share each other": lambda: saved({"model": shared_lists(60)}),
        "a list in itself": lambda: saved({"model": itself}),
        "sparse": lambda: saved({"w": torch.sparse_coo_tensor([[0]], [1.0], (10**15,))}),
        "expanded": lambda: saved({"w": zeros.expand(10**12)}),
        "no numbers": lambda: saved({"w": torch.empty(10**12, device="meta")}),
        "quantised": lambda: saved({"w": torch.quantize_per_tensor(zeros, 1.0, 0, torch.qint8)}),
        # ((((),()),((),())),...) as a key of a dict: its hash takes 2 ** 60 steps
        "tuples that share each other": lambda: pickled(b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s"),
        "bytes": lambda: pickled(b"c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R"),
        "a bomb": lambda: _zipped({"archive/data.pkl": b"\0" * (1 << 26)}, zipfile.ZIP_DEFLATED),
        "two of one name": lambda: pickled(b"}") + pickled(b"}"),
        "torchscript": lambda: _zipped({f"archive/{name}.pkl": b"\x80\x02}." for name in ("data", "constants")}),
        "nothing": lambda: b"",
        "text": lambda: b"hello",
        "an end of a zip": lambda: b"PK\x05\x06" + b"\0" * 18,
        "a deep pickle": lambda: pickled(b"]" * 100_000 + b"a" * 99_999),
        "a pickle without end": lambda: pickled(b"]" * 1000),
        "marks": lambda: pickled(b"(" * 1000),
        "an integer of a megabyte": lambda: pickled(b"\x8b\x00\x00\x10\x00" + b"\x11" * (1 << 20)),
    }.items():
        yield raw(name, value)


# ---------------------------------------------------------------- what the configuration calls


def _changed(
    kind: str, name: str, change: Callable[[Content, str], Any], commands: Any, harmless: bool = False
) -> Case:
    def make(folder: Path, content: Content, canary: str) -> None:
        content = copy.deepcopy(content)
        change(content, canary)
        torch.save(content, folder / "best.pt")
        torch.save(content, folder / "last.pt")

    return Case(kind, name, make, tuple(commands), harmless)


_READS = {"model": _CHECKPOINT, "data": ("eval", "extract"), "decoder": _CHECKPOINT, "task": ("eval", "predict")}
"""Section -> the commands that call it."""

_STRANGE_TARGETS: tuple[dict[str, Any], ...] = (
    {"_target_": "os.system", "command": "touch CANARY"},
    {"_target_": "subprocess.call", "popenargs": ["touch", "CANARY"]},
    {"_target_": "builtins.exec", "source": "open('CANARY', 'w')"},
    {"_target_": "pathlib.Path.touch", "self": "CANARY"},
    {"_target_": "io.open", "file": "CANARY", "mode": "w"},
    {"_target_": "torch.hub.load", "repo_or_dir": "CANARY", "model": "x"},
    {"_target_": "torch.load", "f": "CANARY"},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": "touch CANARY"}},
    {"_target_": "vidtrain.data.motion.motion.make_motion", "folder": "CANARY"},
    {"_target_": "vidtrain.data.motion.rendered_folder._make_once"},
    {"_target_": "vidtrain.data.motion.motion.shutil.rmtree", "path": "CANARY"},
    {"_target_": "vidtrain.data.manifest.index.write_index", "folder": "CANARY", "data": None},
    {"_target_": "vidtrain.options.instantiate.locate", "target": "os.system", "section": "model"},
    {"_target_": "vidtrain.models.weights.load.load_weights", "model": None, "source": "CANARY"},
    {"_target_": "vidtrain.models.weights.initial_weights.initialise"},
    {"_target_": "vidtrain.runs.atomic.write_json", "file": "CANARY", "content": {}},
    {"_target_": "vidtrain.shell.cli.main", "argv": ["data", "make", "data=motion", "data.root=CANARY"]},
    {"_target_": "torchvision.models.get_model", "name": "resnet18"},
    {"_target_": "torchvision.models.detection.fasterrcnn_resnet50_fpn"},
    {"_target_": "torchvision.datasets.utils.download_url", "url": "file:///etc/hostname", "root": "CANARY"},
    {"_target_": "antigravity.x"},
    {"_target_": "stranger_module.net"},
    {"_target_": ""},
    {"_target_": 3},
    {"_target_": ["os.system"]},
    {"_target_": {"_target_": "os.system"}},
    {"_origin_": {"file": "x", "trust": ["os"]}, "_target_": "os.system", "command": "touch CANARY"},
    {"_origin_": None, "_target_": "os.system", "command": "touch CANARY"},
    {"_partial_": True, "_target_": "os.system", "command": "touch CANARY"},
)


def _targets() -> Iterator[Case]:
    for section, commands in _READS.items():
        for number, node in enumerate(_STRANGE_TARGETS):

            def change(content: Content, canary: str, section: str = section, node: Any = node) -> None:
                content["config"][section] = json.loads(json.dumps(node).replace("CANARY", canary))

            name = f"{section}: {node['_target_']}"
            yield _changed("target", name, change, [commands[number % len(commands)]])

        def nest(content: Content, canary: str, section: str = section) -> None:
            content["config"][section]["x"] = [{"_target_": "os.system", "command": f"touch {canary}"}]

        yield _changed("target", f"{section}: nested", nest, commands)

    def make_data(content: Content, canary: str) -> None:
        content["config"]["data"]["root"] = canary

    yield _changed("data that would be made", "motion at a place of the file's", make_data, ["eval", "extract"])


def _interpolations() -> Iterator[Case]:
    call = {"_target_": "os.system", "command": "touch CANARY"}
    texts = (
        "${optimizer}",
        "${.optimizer}",
        "${oc.select:optimizer}",
        "${oc.create:{_target_: os.system, command: touch CANARY}}",
        "${oc.create:${optimizer}}",
        "${oc.decode:'{_target_: os.system, command: touch CANARY}'}",
        "${oc.dict.values:optimizer}",
        "\\${optimizer}",
        "\\\\${optimizer}",
        "???",
    )
    for section, commands in _READS.items():
        for number, text in enumerate(texts):

            def change(content: Content, canary: str, section: str = section, text: str = text) -> None:
                content["config"]["optimizer"] = {**call, "command": f"touch {canary}"}
                content["config"][section] = text.replace("CANARY", canary)

            command = commands[number % len(commands)]
            yield _changed("interpolation", f"{section} is {text}", change, [command])

            def inside(content: Content, canary: str, section: str = section, text: str = text) -> None:
                content["config"]["optimizer"] = {**call, "command": f"touch {canary}"}
                content["config"][section]["_target_"] = text.replace("CANARY", canary)

            yield _changed("interpolation", f"{section}._target_ is {text}", inside, [command])
    for key, text in (
        ("sampler.num_frames", "${oc.env:HOME}"),
        ("transform.mean", "${optimizer}"),
        ("eval.clips", "${oc.decode:3}"),
        ("trainer.device", "${oc.env:HOME}"),
        ("sampler", "${optimizer}"),
        ("trainer", "${oc.create:{a: 1}}"),
        ("flow", "${flow}"),
    ):

        def at(content: Content, canary: str, key: str = key, text: str = text) -> None:
            *parents, last = key.split(".")
            node = content["config"]
            for name in parents:
                node = node[name]
            node[last] = text

        yield _changed("interpolation", f"{key} is {text}", at, ["predict", "eval"])


# ---------------------------------------------------------------- shapes, numbers, starts


def _shapes() -> Iterator[Case]:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    shared: Any = []
    for _ in range(40):
        shared = [shared, shared]
    values: dict[str, Any] = {
        "a list": [1, 2],
        "a number": 3,
        "a text": "x",
        "nothing": None,
        "empty": {},
        "number keys": {1: 2},
        "tuple keys": {("a", "b"): 2},
        "bytes": {"_target_": b"os.system"},
        "a set": {"a": {1, 2}},
        "a tensor": {"a": torch.zeros(2)},
        "a device": {"a": torch.device("cpu")},
        "deep": {"a": deep},
        "wide": {"a": list(range(100_000))},
        "shared": {"a": shared},
        "a long text": {"a": "x" * (1 << 20)},
        "a long key": {"x" * (1 << 20): 1},
        "a null": {"root": "a\0b", "_target_": "vidtrain.data.formats.folder.folder"},
        "nan": {"a": float("nan")},
        "a huge number": {"a": 10**4000},
    }
    for section, commands in _READS.items():
        for number, (name, value) in enumerate(values.items()):
            yield _changed(
                "section that is none",
                f"{section} is {name}",
                lambda content, canary, section=section, value=value: content["config"].update({section: value}),
                [commands[number % len(commands)]],
            )
    for key, wrong in {
        "config": (None, [], "x", {}, {"model": {}}, {1: 2}),
        "class_names": (None, {}, "abc", [1], [], ["x" * (1 << 20)], [["a"]]),
        "model": (None, [], {1: torch.zeros(1)}, {"a": 1}, {"a": {"b": torch.zeros(1)}}, {"a": torch.zeros(3)}),
        "format": (None, "2", 2.0, [], 99, True),
        "sharded": ("../x", "/tmp", "last.1.shards", 1, True),
    }.items():
        for value in wrong:
            yield _changed(
                "content that is none",
                f"{key}={str(value)[:20]}",
                lambda content, canary, key=key, value=value: content.update({key: value}),
                ["predict", "eval"],
            )


def _numbers() -> Iterator[Case]:
    for key, value in (
        ("model.width", 10**9),
        ("model.width", 10**5),
        ("model.width", -1),
        ("model.width", "x"),
        ("model.dropout", float("inf")),
        ("model.num_frames", 10**9),
        ("sampler.num_frames", 10**9),
        ("sampler.num_frames", 10**6),
        ("sampler.num_frames", -1),
        ("sampler.num_frames", 10**30),
        ("sampler.num_frames", [1]),
        ("sampler.stride", 0),
        ("sampler.mode", "x"),
        ("sampler.surprise", 1),
        ("transform.size", 10**6),
        ("transform.mean", ["x"]),
        ("eval.clips", 10**9),
        ("eval.crops", 10**9),
        ("eval.batch_size", 10**12),
        ("trainer.num_workers", 10**6),
        ("trainer.device", "cuda:999999"),
        ("trainer.device", "/dev/null"),
        ("trainer.precision", "x"),
        ("decoder.timeout", "x"),
        ("decoder.timeout", -1),
        ("decoder.surprise", "x"),
    ):

        def change(content: Content, canary: str, key: str = key, value: Any = value) -> None:
            section, name = key.split(".")
            content["config"][section][name] = value

        yield _changed("number without bounds", f"{key}={str(value)[:20]}", change, ["predict"])
    for target, options in (
        ("vidtrain.models.cnn_lstm.cnn_lstm_tiny", {"size": 32, "layers": 10**6}),
        ("vidtrain.models.cnn_lstm.cnn_lstm_tiny", {"size": 32, "hidden": 10**6}),
        ("vidtrain.models.timesformer.timesformer_tiny", {"num_frames": 8, "size": 32, "depth": 10**6}),
        ("vidtrain.models.timesformer.timesformer_tiny", {"num_frames": 10**6, "size": 10**6}),
        ("torchvision.models.video.r3d_18", {"norm_layer": "os.system"}),
        ("torchvision.models.video.r3d_18", {"weights": "KINETICS400_V1"}),
        ("torchvision.models.video.r3d_18", {"weights": ["x"]}),
    ):
        yield _changed(
            "number without bounds",
            f"{target} {options}",
            lambda content, canary, node={"_target_": target, **options}: content["config"].update(model=node),
            ["predict"],
        )


def _starts() -> Iterator[Case]:
    """Options that name other files: a checkpoint holds its weights itself, and what they began with is not opened."""
    for key in ("weights", "inflate_from", "pretrained", "backbone_weights", "network_weights"):
        for value in ("CANARY", "imagenet", "../../x", 3, ["CANARY"], {"a": 1}, True):

            def change(content: Content, canary: str, key: str = key, value: Any = value) -> None:
                content["config"]["model"][key] = _with_canary(value, canary)

            yield _changed("start of the model's", f"{key}={value}", change, ["predict"], harmless=True)
    for options in (
        {"network": "os.system", "clip": 4},
        {"network": "slow_fusion", "network_options": {"pretrained": "imagenet"}, "clip": 4},
        {"network": "slow_fusion", "network_options": {"weights": "CANARY"}, "clip": 4},
        {"network": "timm:hf_hub:someone/net", "clip": 4},
        {"network": "../../x", "clip": 4},
    ):
        node = {"_target_": "vidtrain.models.feature_rnn.feature_rnn_tiny", "size": 32, **options}
        yield _changed(
            "start of the model's",
            f"network {options}",
            lambda content, canary, node=node: content["config"].update(model=node),
            ["predict"],
        )


# ---------------------------------------------------------------- folders

_NESTED = "[" * 100_000
_DEEP_JSON = '{"a":' * 900 + "1" + "}" * 900


def _folders() -> Iterator[Case]:
    yield from _features()
    for text in (_NESTED, _DEEP_JSON, "[]", "{}", '{"version": 1}', "null", "3", '{"version": [1]}', "{"):

        def make(folder: Path, content: Content, canary: str, text: str = text) -> None:
            (folder / "index.json").write_text(text)

        yield Case("index folder", text[:20], make, ("data=index",))

        def flow(folder: Path, content: Content, canary: str, text: str = text) -> None:
            (folder / "flow.json").write_text(text)

        yield Case("flow folder", text[:20], flow, ("flow=cache",))
    good = {"columns": ["labels", "missing", "missing_offsets", "path_offsets", "paths"], "relative": True}
    for name, splits, arrays in (
        ("another folder", {"../x": good}, {}),
        ("another split", {"all": good}, {}),
        ("another column", {"train": {**good, "columns": [*good["columns"], "../x"]}}, {}),  # type: ignore[misc]
        ("columns missing", {"train": {**good, "columns": ["labels"]}}, {}),
        ("no columns", {"train": {"columns": 3, "relative": True}}, {}),
        ("labels of no class", {"train": good}, {"labels": np.array([5])}),
        ("labels below", {"train": good}, {"labels": np.array([-2])}),
        ("labels of text", {"train": good}, {"labels": np.array(["a"])}),
        ("objects", {"train": good}, {"labels": np.array([print], dtype=object)}),
        ("offsets beyond", {"train": good}, {"path_offsets": np.array([0, 10**12])}),
        ("offsets backwards", {"train": good}, {"path_offsets": np.array([0, -5])}),
        ("more rows", {"train": good}, {"labels": np.arange(2) * 0}),
        ("two dimensions", {"train": good}, {"labels": np.zeros((1, 1), np.int64)}),
    ):

        def index(folder: Path, content: Content, canary: str, splits: Any = splits, arrays: Any = arrays) -> None:
            write_index_by_hand(folder, splits, arrays)

        yield Case("index folder", name, index, ("data=index",))
    for name, data in (
        ("terabytes", b"\x93NUMPY\x01\x00v\x00" + _header("(1000000000000,)", "<i8")),
        ("more than there is", b"\x93NUMPY\x01\x00v\x00" + _header("(4611686018427387904, 8)", "<i8")),
        ("nested", b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000),
        ("a pickle", pickle.dumps([1])),
        ("an archive", _zipped({"a.npy": b""})),
        ("nothing", b""),
    ):

        def array(folder: Path, content: Content, canary: str, data: bytes = data) -> None:
            write_index_by_hand(folder, {"train": good}, {})
            (folder / "train.labels.npy").write_bytes(data)

        yield Case("index folder", f"labels: {name}", array, ("data=index",))

    def journal(folder: Path, content: Content, canary: str) -> None:
        write_journal(folder)

    yield Case(
        "prepared folder", "a journal that has files elsewhere deleted", journal, ("data prepare",), harmless=True
    )


def write_index_by_hand(folder: Path, splits: Any, arrays: dict[str, Any]) -> None:
    """An index of one row, with some of its arrays replaced."""
    content = {"version": 1, "class_names": ["a", "b"], "flip_pairs": [], "notes": [], "splits": splits}
    (folder / "index.json").write_text(json.dumps(content))
    columns = {
        "paths": np.frombuffer(b"clip.mp4", np.uint8),
        "path_offsets": np.array([0, 8]),
        "labels": np.array([0]),
        "missing": np.empty(0, np.uint8),
        "missing_offsets": np.array([0]),
        **arrays,
    }
    for name, column in columns.items():
        np.save(folder / f"train.{name}.npy", column, allow_pickle=True)


def write_journal(folder: Path) -> None:
    """A finished copy, whose source has changed since and whose own file lies outside of the folder."""
    for target in ("../watched/precious", str((folder.parent / "watched" / "precious").absolute())):
        line = {
            "source": str((folder.parent / "videos" / "train" / "a" / "0.mp4").absolute()),
            "stamp": {"size": 1, "mtime_ns": 1, "folder": False},
            "settings": {},
            "target": target,
            **dict.fromkeys(("bytes", "frames", "height", "width"), 1),
            **dict.fromkeys(("fps", "psnr"), 1.0),
            "note": "",
        }
        with (folder / "copies.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _header(shape: str, dtype: str) -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"


def _features() -> Iterator[Case]:
    for text in (
        *(_NESTED, _DEEP_JSON, "[]", "3", "{", '{"version": 1}'),
        '{"version": 1, "length": "x", "made_by": {}}',
        '{"version": 1, "length": -1, "made_by": {}}',
        '{"version": 1, "length": 1e400, "made_by": {}}',
        '{"version": 1, "length": 100000000000000000000, "made_by": {}}',
        '{"version": 1, "length": 4, "made_by": []}',
        '{"version": 1, "length": 4, "made_by": {"a": NaN}}',
    ):

        def make(folder: Path, content: Content, canary: str, text: str = text) -> None:
            (folder / "features.json").write_text(text)
            write_index_by_hand(folder, {}, {})

        yield Case("feature folder", text[:40], make, ("data=features", "extract into"))


# ---------------------------------------------------------------- runs to be continued


def _runs() -> Iterator[Case]:
    for key, wrong in {
        "progress": (None, [], {}, {"surprise": 1}, {"epoch": "x"}, {"epoch": -5}, {"update": 10**30}, {"sums": [1]}),
        "optimizer": (None, [], {}, {"state": {}, "param_groups": []}, {"state": {0: {"x": 1}}, "param_groups": [{}]}),
        "ranks": (None, [], [{}], 3, [{"rng": {}, "sums": [0, 0, 0], "bad": {}}], [{"rng": {"cpu": 3}, "sums": 1}]),
        "scaler": (None, [], {"scale": "x"}),
        "ema": (3, {"average": {}}),
        "model": ({}, {"a": torch.zeros(1)}, {"head.weight": torch.zeros(1)}),
    }.items():
        for value in wrong:
            yield _changed(
                "run to be continued",
                f"{key}={str(value)[:30]}",
                lambda content, canary, key=key, value=value: content.update({key: value}),
                ["resume"],
                harmless=key in ("scaler", "ema"),
            )
    for name in ("config.json", "result.json", "metrics.jsonl"):
        for text in (_NESTED, "[]", "{", '{"test": 3}', "3\n[]\nnull\n{}\n"):

            def make(folder: Path, content: Content, canary: str, name: str = name, text: str = text) -> None:
                torch.save(content, folder / "last.pt")
                (folder / name).write_text(text)

            yield Case("run to be continued", f"{name}: {text[:20]!r}", make, ("resume",), harmless=True)


# ---------------------------------------------------------------- what is no file, or one elsewhere


def _pipes_and_links() -> Iterator[Case]:
    """A pipe, whose end never comes, or a link to a file of the user's, in place of each file that is read or written.

    Each folder is else as it should be.
    """
    if not hasattr(os, "mkfifo"):
        return
    good = {"columns": ["labels", "missing", "missing_offsets", "path_offsets", "paths"], "relative": True}

    def run(folder: Path, content: Content) -> None:
        for name in ("best.pt", "last.pt"):
            torch.save(content, folder / name)

    def index(folder: Path, content: Content) -> None:
        write_index_by_hand(folder, {"train": good}, {})

    def features(folder: Path, content: Content) -> None:
        index(folder, content)
        settings = {"version": 1, "length": 4, "dtype": "float16", "made_by": {}}
        (folder / "features.json").write_text(json.dumps(settings))

    def prepared(folder: Path, content: Content) -> None:
        write_journal(folder)

    logs = ("config.json", "result.json", "metrics.jsonl", "train.log", ".hydra/config.yaml", ".hydra/overrides.yaml")
    arrays = tuple(f"train.{name}.npy" for name in ("labels", "paths", "path_offsets", "missing"))
    for make, commands, names in (
        (run, ("predict", "eval", "extract", "inspect", "weights"), ("best.pt",)),
        (run, ("resume",), ("last.pt", "best.pt", *logs, "figures", "tensorboard")),
        (index, ("data=index",), ("index.json", *arrays)),
        (features, ("data=features", "extract into"), ("features.json", "videos.jsonl", "index.json", *arrays)),
        (lambda folder, content: None, ("flow=cache",), ("flow.json",)),
        (prepared, ("data prepare",), ("copies.jsonl", "report.csv", "index.json")),
    ):
        for name in names:
            for kind in ("pipe", "link"):

                def put(
                    folder: Path, content: Content, canary: str, make: Any = make, name: str = name, kind: str = kind
                ) -> None:
                    make(folder, content)
                    file = folder / name
                    file.parent.mkdir(exist_ok=True)
                    file.unlink(missing_ok=True)
                    if kind == "pipe":
                        os.mkfifo(file)
                    else:
                        file.symlink_to(Path(canary).parent / "precious")

                yield Case(f"{kind} in place of a file", f"{make.__name__}: {name}", put, commands, harmless=True)
