"""Chooses the fastest number format of the hardware that does no harm."""

from pathlib import Path
from typing import Literal, get_args

from core.errors import UserError

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
AUTO: Precision = "auto"
POLICIES = get_args(Precision)[1:]


def dtype_policy(precision: str = AUTO) -> str:
    """Returns the Keras dtype policy to train under.

    Args:
      precision: one of `POLICIES`, or `auto`: bfloat16 on GPUs of compute capability 8, on processors
        with AMX and on AMD's with AVX512-BF16, float16 on GPUs of capability 7 (tensor cores), else
        float32. Weights are float32 under all of them.

    Raises:
      UserError: the precision is unknown.
    """
    if precision != AUTO:
        if precision not in POLICIES:
            raise UserError(
                f"unknown precision {precision!r}; choose {', '.join((AUTO, *POLICIES))}"
            )
        return precision
    import tensorflow as tf  # takes seconds, and commands need no more than the names above

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        capability = min(detail.get("compute_capability", (0, 0)) for detail in details)
        if capability >= (8, 0):
            return "mixed_bfloat16"
        return "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if _quick_in_bfloat16(processor()) else "float32"


def processor() -> set[str]:
    """Returns the words of Linux' description of the processor, including its flags; elsewhere none."""
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()


def _quick_in_bfloat16(words: set[str]) -> bool:
    # Intel's AVX-512 has the instructions as well, but they do not help: if a virtual machine hides AMX,
    # training in bfloat16 takes 1.4 times as long as in float32 (`make bench ONLY=precisions`).
    return "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words
