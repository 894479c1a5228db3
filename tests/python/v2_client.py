"""Asks a running server with NVIDIA's own client of the Open Inference Protocol, binary and JSON.

    python v2_client.py HOST:PORT TEST_JSON

Every answer must be scikit-learn's; any difference ends it with an error.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def infer(client, images, *, binary, model="digits", name="input", **more):
    tensor = triton.InferInput(name, list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    outputs = [triton.InferRequestedOutput(o, binary_data=binary) for o in ("label", "probabilities")]
    return client.infer(model, [tensor], outputs=outputs, **more)


def refused(what, told):
    """`what` must be refused with a text that holds `told`, as the client shows it."""
    try:
        what()
    except InferenceServerException as error:
        assert told in error.message(), error
        return
    raise AssertionError(f"it was not refused: {told}")


def main(address, test_json):
    test = json.loads(Path(test_json).read_text())
    images = np.array(test["x"], dtype=np.float32)
    labels = np.array(test["sklearn"])
    probabilities = np.array(test["probabilities"])
    client = triton.InferenceServerClient(address, concurrency=4)

    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "greenroom"
    metadata = client.get_model_metadata("digits")
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}], metadata
    assert [o["name"] for o in metadata["outputs"]] == ["label", "probabilities"], metadata

    for binary in (True, False):
        answer = infer(client, images, binary=binary, request_id="mine")
        assert answer.get_response()["id"] == "mine" and answer.get_response()["model_name"] == "digits"
        assert answer.as_numpy("label").dtype == np.int64
        assert (answer.as_numpy("label") == labels).all(), binary
        assert np.abs(answer.as_numpy("probabilities") - probabilities).max() < 1e-4, binary
    for image, label in zip(images, labels):
        assert infer(client, image[None], binary=True).as_numpy("label").tolist() == [label]
    # What no outputs are named for answers all of them, binary, as the client asks by default.
    tensor = triton.InferInput("input", [1, 64], "FP32")
    tensor.set_data_from_numpy(images[:1])
    assert client.infer("digits", [tensor]).as_numpy("label").tolist() == [labels[0]]

    asked = [client.async_infer("digits", [tensor]) for _ in range(32)]
    assert all(one.get_result().as_numpy("label").tolist() == [labels[0]] for one in asked)

    refused(lambda: infer(client, images, binary=True, name="pixels"), "`pixels`")
    refused(lambda: infer(client, images[:, :63], binary=True), "[360, 63]")
    refused(lambda: infer(client, images, binary=True, model="other"), 'no model "other"')
    refused(lambda: infer(client, images, binary=True, model_version="7"), 'no version "7"')
    client.close()
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
