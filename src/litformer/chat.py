# Written in chapters/gpt.md; edit it there, then run make export.
"""Dialogues in the form that SmolLM2 was trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from litformer.generation import sample
from litformer.tokenizer import BPETokenizer

__all__ = [
    "END",
    "ROLES",
    "START",
    "SYSTEM",
    "Message",
    "chat_ids",
    "chat_text",
    "reply",
]

ROLES = ("system", "user", "assistant")
START, END = "<|im_start|>", "<|im_end|>"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Message(NamedTuple):
    """One turn of a dialogue."""

    role: str  # one of ROLES
    content: str


def _with_system(messages: Sequence[Message]) -> list[Message]:
    """The messages, checked, behind the model's usual instruction."""
    if not messages:
        raise ValueError("chat: no message. Begin with one of role 'user'.")
    for i, (role, _) in enumerate(messages):
        if role not in ROLES:
            raise ValueError(
                f"chat: message {i} has role {role!r}, which the model does "
                f"not know. Roles are {', '.join(ROLES)}."
            )
    first = [Message("system", SYSTEM)]
    return [*(first if messages[0].role != "system" else []), *messages]


def chat_text(messages: Sequence[Message], *, answer: bool = True) -> str:
    """The dialogue as one page, for people to read.

    With `answer` it ends where the assistant is to speak. A mark that stands
    in a message looks like a real one here; `chat_ids` knows better.

    Raises:
        ValueError: no message, or an unknown role.
    """
    page = "".join(
        f"{START}{role}\n{content}{END}\n"
        for role, content in _with_system(messages)
    )
    return page + (f"{START}assistant\n" if answer else "")


def chat_ids(
    tokenizer: BPETokenizer, messages: Sequence[Message], *, answer: bool = True
) -> list[int]:
    """The dialogue as token ids; no message can forge a mark.

    Raises:
        ValueError: no message, or an unknown role.
    """
    start, end = (tokenizer.special_tokens[mark] for mark in (START, END))
    newline = tokenizer.encode("\n")
    ids = []
    for role, content in _with_system(messages):
        # rare bytes without a token are left out, as its makers' code does
        said = tokenizer.encode(f"{role}\n{content}", errors="ignore")
        ids += [start, *said, end, *newline]
    return ids + ([start, *tokenizer.encode("assistant\n")] if answer else [])


def reply(
    model: nn.Module,
    tokenizer: BPETokenizer,
    messages: Sequence[Message],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    **options: object,
) -> str:
    """What the assistant says next; `options` are those of `sample`.

    An answer that reaches `max_new_tokens` breaks off.

    Raises:
        ValueError: as `chat_ids` and `sample`.
    """
    ids = torch.tensor([chat_ids(tokenizer, messages)])
    end = tokenizer.special_tokens[END]
    rows = sample(
        model,
        ids.to(next(model.parameters()).device),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        eos_id=end,
        **options,
    )
    said = rows[0, ids.shape[1] :].tolist()
    return tokenizer.decode(i for i in said if i != end).strip()
