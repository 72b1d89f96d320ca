# Written in chapters/gpt.md; edit it there, then run make export.
"""What others call the weights of a GPT: tables for `load_named`."""

from functools import partial

import torch

from litformer.gpt import GPTConfig
from litformer.positions import interleaved_to_half

__all__ = ["gguf_names", "gpt2_names", "llama_names"]


def gguf_names(config: GPTConfig) -> dict:
    """A Llama in a GGUF file.

    Its rows of queries and keys are stored for rotated neighbours; they are
    put back into halves.
    """
    names = {
        "attn_norm": "norm_attn",
        "attn_q": "attn.q_proj",
        "attn_k": "attn.k_proj",
        "attn_v": "attn.v_proj",
        "attn_output": "attn.o_proj",
        "ffn_norm": "norm_ff",
        "ffn_gate": "ff.gate_proj",
        "ffn_up": "ff.up_proj",
        "ffn_down": "ff.down_proj",
    }
    table: dict = {
        f"blk.*.{theirs}.weight": f"blocks.*.{ours}.weight"
        for theirs, ours in names.items()
    }
    table["token_embd.weight"] = "embed.weight"
    table["output_norm.weight"] = "norm.weight"
    table["output.weight"] = "lm_head.weight"  # not there if it is tied
    heads = {"q": config.n_heads, "k": config.n_kv_heads or config.n_heads}
    for kind, n in heads.items():
        reorder = partial(interleaved_to_half, n_heads=n)
        ours = f"blocks.*.attn.{kind}_proj.weight"
        table[f"blk.*.attn_{kind}.weight"] = (ours, reorder)
    return table


def llama_names() -> dict:
    """A Llama of Hugging Face's library: names only."""
    names = {
        "input_layernorm": "norm_attn",
        "post_attention_layernorm": "norm_ff",
    }
    names |= {f"self_attn.{n}_proj": f"attn.{n}_proj" for n in "qkvo"}
    names |= {f"mlp.{n}_proj": f"ff.{n}_proj" for n in ("gate", "up", "down")}
    table: dict = {
        f"model.layers.*.{theirs}.weight": f"blocks.*.{ours}.weight"
        for theirs, ours in names.items()
    }
    table["model.embed_tokens.weight"] = "embed.weight"
    table["model.norm.weight"] = "norm.weight"
    table["lm_head.weight"] = "lm_head.weight"
    return table


def gpt2_names() -> dict:
    """A GPT-2 of Hugging Face's library: transposed, q, k and v in one."""
    names = {"ln_1": "norm_attn", "ln_2": "norm_ff"}
    turned = {"attn.c_proj": "attn.o_proj"}
    turned |= {"mlp.c_fc": "ff.up_proj", "mlp.c_proj": "ff.down_proj"}
    table: dict = {
        "transformer.wte.weight": "embed.weight",
        "transformer.wpe.weight": "positions.table.weight",
        "lm_head.weight": None,  # the embedding again
    }
    for kind in ("weight", "bias"):
        # t() leaves a bias, which has one axis, as it is
        three = tuple(f"blocks.*.attn.{n}_proj.{kind}" for n in "qkv")
        cut = (three, lambda packed: packed.t().chunk(3))
        table[f"transformer.h.*.attn.c_attn.{kind}"] = cut
        table[f"transformer.ln_f.{kind}"] = f"norm.{kind}"
        for theirs, ours in names.items():
            name = f"transformer.h.*.{theirs}.{kind}"
            table[name] = f"blocks.*.{ours}.{kind}"
        for theirs, ours in turned.items():
            name = f"transformer.h.*.{theirs}.{kind}"
            table[name] = (f"blocks.*.{ours}.{kind}", torch.t)
    return table
