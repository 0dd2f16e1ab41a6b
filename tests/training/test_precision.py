import pytest
import tensorflow as tf

from components.errors import UserError
from training import precision


def test_a_policy_can_be_forced() -> None:
    assert precision.dtype_policy("mixed_float16") == "mixed_float16"
    with pytest.raises(UserError, match="'half' is none of auto, float32"):
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


@pytest.mark.parametrize(("has", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_a_processor_decides_by_its_instructions(monkeypatch, has, policy) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: has)
    assert precision.dtype_policy() == policy
