"""Half precision where the processor has it."""

from __future__ import annotations

import contextlib

import torch


def half_type(device: str | torch.device) -> torch.dtype | None:
    """bfloat16 where products of it are fast, else None: float32 then is."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    # AVX-512 alone widens bfloat16 to float32, which is slower than float32
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.bfloat16 if amx() else None


def autocast(device: str | torch.device) -> contextlib.AbstractContextManager[object]:
    """What a forward pass runs under."""
    half = half_type(device)
    if half is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, half)
