"""KServe's protocols, asked by KServe's own clients."""

import base64
import io
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient
from PIL import Image

from core.artifacts import VERSION
from core.files import read_json, write_json
from serving import local, store
from serving.cluster import known_answers
from serving.local import Server
from tests.serving.files import PATIENT, awaited, dicom, encoded, v1


@pytest.fixture
def radiograph(picture) -> bytes:
    return encoded(picture(180, 160))


@pytest.fixture
def expected(url: str, radiograph: bytes) -> dict[str, float]:
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(radiograph), timeout=60)
    (prediction,) = answer.raise_for_status().json()["predictions"]
    return prediction["probabilities"]


def request(content: bytes, *, binary: bool = True) -> InferRequest:
    tensor = InferInput("image_bytes", [1], "BYTES")
    element = content if binary else base64.b64encode(content)
    tensor.set_data_from_numpy(np.array([element], object), binary_data=binary)
    return InferRequest("cxrflow", [tensor], request_id="7")


def require_same(response, expected: dict[str, float]) -> None:
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    names = [x.decode() if isinstance(x, bytes) else x for x in outputs["classes"]]
    assert names == list(expected)
    assert outputs["probabilities"].shape == (1, len(names))
    assert outputs["probabilities"][0] == pytest.approx(list(expected.values()), abs=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_kserves_rest_client(
    server: Server, radiograph: bytes, expected: dict[str, float], binary: bool
) -> None:
    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        assert await client.is_server_ready(server.url)
        assert await client.is_model_ready(server.url, "cxrflow")
        infer = request(radiograph, binary=binary)
        return await client.infer(server.url, infer, model_name="cxrflow")

    require_same(awaited(ask()), expected)


def test_kserves_rest_client_explains(server: Server, radiograph: bytes) -> None:
    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v1"))
        return await client.explain(server.url, "cxrflow", v1(radiograph))

    answer = awaited(ask())
    assert set(answer) == {"model_name", "model_version", "predictions", "explanations"}


@pytest.mark.parametrize("raw", [True, False])
def test_kserves_grpc_client(
    server: Server, radiograph: bytes, expected: dict[str, float], raw: bool
) -> None:
    async def ask():
        client = InferenceGRPCClient(server.grpc)
        assert await client.is_model_ready("cxrflow")
        infer = request(radiograph)
        if not raw:
            tensor = InferInput("image_bytes", [1], "BYTES", [radiograph])
            infer = InferRequest("cxrflow", [tensor])
        return await client.infer(infer)

    response = awaited(ask())
    require_same(response, expected)
    assert response.model_version == httpx.get(f"{server.url}/model").json()["version"]


def test_metadata_states_names_shapes_datatypes_and_classes(url: str) -> None:
    told = httpx.get(f"{url}/v2/models/cxrflow").json()
    assert told["inputs"] == [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}]
    probabilities = told["outputs"][1]
    assert probabilities == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [-1, 2],
        "parameters": {"classes": ["normal", "covid"]},
    }
    assert told["versions"] == [httpx.get(f"{url}/model").json()["version"]]


def test_only_the_outputs_that_are_asked_for_are_sent(url: str, radiograph: bytes) -> None:
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    body = {
        "inputs": [{**tensor, "data": [base64.b64encode(radiograph).decode()]}],
        "outputs": [{"name": "label"}],
    }
    answer = httpx.post(f"{url}/v2/models/cxrflow/infer", json=body, timeout=60).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]


def test_an_explanation_over_v2_is_sent_if_a_request_names_it(url: str, radiograph: bytes) -> None:
    tensor = {"name": "image_bytes", "shape": [2], "datatype": "BYTES"}
    body = {"inputs": [{**tensor, "data": [base64.b64encode(radiograph).decode()] * 2}]}
    path = f"{url}/v2/models/cxrflow/infer"
    plain = httpx.post(path, json=body, timeout=60).json()["outputs"]
    assert not {"picture", "overlay"} & {output["name"] for output in plain}
    asked = {**body, "outputs": [{"name": "overlay"}, {"name": "trust"}]}
    told = httpx.post(path, json=asked, timeout=60).json()["outputs"]
    data = {output["name"]: output["data"] for output in told}
    explained = httpx.post(
        f"{url}/v1/models/cxrflow:explain", json=v1(radiograph), timeout=60
    ).json()
    expected = drawn(explained["explanations"][0]["overlay"]["b64"])
    assert len(data["overlay"]) == 2
    for overlay in data["overlay"]:  # a batch of two is rounded in another way
        assert np.abs(drawn(overlay) - expected).max() <= 3
    assert data["trust"] == [explained["predictions"][0]["trust"]["verdict"]]
    wrong = httpx.post(path, json={**body, "outputs": [{"name": "map"}]}, timeout=60)
    assert wrong.status_code == 400
    assert "picture, overlay" in wrong.json()["error"]


def drawn(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), np.int16)


def test_an_explanation_is_a_map_and_a_layer_for_the_picture(url: str, radiograph: bytes) -> None:
    answer = httpx.post(f"{url}/v1/models/cxrflow:explain", json=v1(radiograph, radiograph))
    told = answer.raise_for_status().json()
    assert len(told["explanations"]) == 2
    explanation, prediction = told["explanations"][0], told["predictions"][0]
    shares = prediction["probabilities"]
    assert explanation["label"] == max(shares, key=shares.get)
    heat = np.array(explanation["map"])
    assert heat.min() >= 0
    assert heat.max() in (0, 1)
    picture, overlay = (
        Image.open(io.BytesIO(base64.b64decode(explanation[name]["b64"])))
        for name in ("picture", "overlay")
    )
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(radiograph))))
    assert (overlay.size, overlay.mode) == (picture.size, "RGBA")
    assert (np.asarray(overlay)[..., 3].max() > 200) == (heat.max() == 1)


def test_a_radiograph_scores_the_same_in_whatever_it_is_stored(url: str, picture) -> None:
    values = picture(90, 80)
    deep = values.astype(np.uint16) * 257
    turned = Image.fromarray(np.rot90(values, -1).copy())
    exif = turned.getexif()
    exif[0x0112] = 8  # to be turned left by 90 degrees
    grey = Image.fromarray(values)
    same = [
        encoded(values),
        encoded(grey.convert("RGB")),
        encoded(grey.convert("RGBA")),
        encoded(grey.convert("P")),
        encoded(deep),
        encoded(turned, "PNG", exif=exif),
        encoded(grey, "WEBP", lossless=True),
        dicom(values),
        dicom(255 - values, photometric="MONOCHROME1"),
        dicom(deep, bits=16),
    ]
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(*same), timeout=60)
    scores = [
        prediction["probabilities"]["covid"]
        for prediction in answer.raise_for_status().json()["predictions"]
    ]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(Image.linear_gradient("L").resize((800, 200))), "shape"),
        (encoded(Image.linear_gradient("L").resize((8, 8))), "too small"),
        (encoded(Image.new("L", (180, 160), 7)), "blank"),
        (
            encoded(
                Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * i) for i in range(3)])
            ),
            "colour",
        ),
    ],
)
def test_what_does_not_look_like_a_chest_x_ray_is_said_so(
    url: str, content: bytes, reason: str
) -> None:
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(content), timeout=60)
    (prediction,) = answer.raise_for_status().json()["predictions"]
    assert prediction["suspect"]
    assert reason in prediction["reasons"][0]


def test_a_chest_x_ray_is_not_doubted(url: str, radiograph: bytes) -> None:
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(radiograph), timeout=60)
    assert answer.json()["predictions"][0]["reasons"] == []


def test_every_answer_has_the_verdict_on_the_model(
    url: str, version: Path, radiograph: bytes
) -> None:
    served = version.with_name(httpx.get(f"{url}/model").json()["version"])
    decision = json.loads((served / "decision.json").read_text())
    trust = decision["candidates"][0]["trust"]
    assert trust["verdict"] in ("unproven", "not trusted"), "phantoms share no ground"
    assert trust["reasons"]
    for verb in ("predict", "explain"):
        told = httpx.post(
            f"{url}/v1/models/cxrflow:{verb}", json=v1(radiograph, radiograph), timeout=60
        ).json()
        assert [one["trust"] for one in told["predictions"]] == [trust, trust]
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    tensor["data"] = [base64.b64encode(radiograph).decode()]
    told = httpx.post(
        f"{url}/v2/models/cxrflow/infer", json={"inputs": [tensor]}, timeout=60
    ).json()
    outputs = {output["name"]: output["data"] for output in told["outputs"]}
    assert outputs["trust"] == [trust["verdict"]]
    assert outputs["trust_reasons"] == ["; ".join(trust["reasons"])]
    assert httpx.get(f"{url}/model").json()["trust"] == trust
    card = (served / "model_card.md").read_text().splitlines()
    reason = trust["reasons"][0]
    assert card[2].startswith(f"**Verdict: {trust['verdict']}.** {reason[0].upper()}{reason[1:]}.")


def test_the_metric_of_trust_follows_the_version_that_is_served(
    version: Path, tmp_path: Path
) -> None:
    def published(verdict: str) -> Path:
        made = tmp_path / f"with {verdict}"
        shutil.copytree(version, made, ignore=shutil.ignore_patterns(VERSION))
        decision = read_json(made / "decision.json")
        decision["candidates"][0]["trust"] = {"verdict": verdict, "reasons": []}
        write_json(made / "decision.json", decision)
        candidate = store.assemble({".": made}, tmp_path / f"candidate {verdict}", "cxrflow")
        return Path(store.publish(candidate, str(tmp_path / "store")))

    home = tmp_path / "server"
    try:
        trusted = []
        for verdict in ("trusted", "unproven"):
            served = local.serve(published(verdict), home)
            trusted.append(samples(served.url)["cxrflow_model_trusted"])
    finally:
        local.stop(home)
    assert trusted == [1, 0]


def samples(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_prometheus_is_told_what_to_expect(url: str, version: Path) -> None:
    decision = json.loads((version / "decision.json").read_text())
    (winner,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
    shares = {**winner["answers"]["classes"], "unknown": winner["answers"]["abstained"]}
    assert set(shares) == {"normal", "covid", "unknown"}
    told = samples(url)
    for label, share in shares.items():
        assert told[f'cxrflow_expected_share{{class="{label}"}}'] == pytest.approx(share)
        assert f'cxrflow_predictions_total{{class="{label}"}}' in told
    assert 'cxrflow_rejected_total{reason="busy"}' in told


def test_prometheus_is_told(url: str, radiograph: bytes) -> None:
    before = samples(url)
    predict = f"{url}/v1/models/cxrflow:predict"
    answer = httpx.post(predict, json=v1(radiograph)).json()
    httpx.post(predict, json=v1(b"text"))
    after = samples(url)

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    label = answer["predictions"][0]["label"]
    assert more(f'cxrflow_predictions_total{{class="{label}"}}') == 1
    assert more('cxrflow_requests_total{status="400"}') == 1
    assert more('cxrflow_rejected_total{reason="not an image"}') == 1
    assert more('cxrflow_batch_size_count{verb="predict"}') == 1
    assert more('request_predict_seconds_count{model_name="cxrflow"}') == 2


def test_nothing_of_a_patient_reaches_the_log(server: Server, picture) -> None:
    values = picture(90, 80)
    good = dicom(values, PatientID="4711")
    named = dicom(values, WindowCenter="1234", WindowWidth="99").replace(b"1234", b"Doe^")
    broken = dicom(values, InstitutionName="St. Elsewhere")[:-99]
    for verb in ("predict", "explain"):
        for content in (good, named, broken):
            httpx.post(f"{server.url}/v1/models/cxrflow:{verb}", json=v1(content), timeout=60)

    async def ask() -> None:
        await InferenceGRPCClient(server.grpc).infer(request(broken))

    with pytest.raises(Exception, match="corrupt"):
        awaited(ask())
    log = Path(server.log).read_text()
    for word in (PATIENT, "Doe", "4711", "Elsewhere", "Traceback"):
        assert word not in log


def test_what_is_unlike_the_training_images_is_not_answered(
    url: str, version: Path, radiograph: bytes
) -> None:
    known = [base64.b64decode(row["image"]) for row in known_answers.read(version)]
    answer = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(*known, radiograph), timeout=60)
    *radiographs, waves = answer.json()["predictions"]
    for told in (*radiographs, waves):
        shares = told["probabilities"]
        assert told["abstained"] == (told["ood_score"] > 1)
        assert told["label"] == ("unknown" if told["abstained"] else max(shares, key=shares.get))
    assert waves["abstained"]
    assert sum(told["abstained"] for told in radiographs) <= 1
    told = httpx.post(
        f"{url}/v2/models/cxrflow/infer",
        json={
            "inputs": [
                {
                    "name": "image_bytes", "shape": [1], "datatype": "BYTES",
                    "data": [base64.b64encode(radiograph).decode()],
                }
            ]
        },
        timeout=60,
    ).json()  # fmt: skip
    outputs = {output["name"]: output["data"] for output in told["outputs"]}
    assert (outputs["label"], outputs["abstained"]) == (["unknown"], [True])
    assert outputs["ood_score"][0] == pytest.approx(waves["ood_score"], rel=1e-3)
    metrics = httpx.get(f"{url}/metrics").text
    assert 'cxrflow_predictions_total{class="unknown"}' in metrics
