import pytest
import tensorflow as tf

from core.errors import UserError
from training import precision


def test_a_policy_can_be_forced() -> None:
    assert precision.dtype_policy("mixed_float16") == "mixed_float16"
    with pytest.raises(UserError, match="unknown precision 'half'; choose auto, float32"):
        precision.dtype_policy("half")


@pytest.mark.parametrize(
    ("capability", "policy"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")],
)  # fmt: skip
def test_a_gpu_decides_by_its_capability(monkeypatch, capability, policy) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert precision.dtype_policy() == policy


@pytest.mark.parametrize(
    ("vendor", "flags", "policy"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "mixed_bfloat16"),
        # A virtual machine may hide AMX.
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "float32"),
        ("AuthenticAMD", "avx512f avx512_bf16", "mixed_bfloat16"),
        ("AuthenticAMD", "avx2 fma", "float32"),
    ],
)
def test_a_processor_decides_by_what_it_is_quick_in(
    monkeypatch, tmp_path, vendor, flags, policy
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu vme {flags} md_clear\n")
    monkeypatch.setattr(precision, "Path", lambda name: cpuinfo)
    assert precision.dtype_policy() == policy
    cpuinfo.unlink()  # not Linux
    assert precision.dtype_policy() == "float32"
