"""Trains the digits network and writes digits.onnx, test.json and three.json beside this file.

The same versions (requirements.txt) on the same machine give byte-identical files.
"""

import os

# One thread, so that sums are always taken in the same order. The math
# libraries read these when they are loaded, hence before the imports.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent


def train():
    """Returns the fitted classifier and the held-out images and labels."""
    X, y = load_digits(return_X_y=True)
    Xtr, Xte, ytr, yte = train_test_split(
        X, y, test_size=0.2, random_state=0, stratify=y
    )
    net = MLPClassifier((32,), random_state=0, max_iter=400).fit(Xtr / 16.0, ytr)
    return net, Xte, yte


def to_onnx(net):
    """Returns the network as an ONNX model that takes raw pixel values."""
    # ArgMax gives a class's position; that is the digit only in this order.
    assert net.classes_.tolist() == list(range(10))
    (w1, w2), (b1, b2) = net.coefs_, net.intercepts_
    constants = {
        "scale": np.array([1 / 16]),  # a power of two: exact in FP32
        "w1": w1,  # [64, 32]
        "b1": b1,
        "w2": w2,  # [32, 10]
        "b2": b2,
    }
    nodes = [
        helper.make_node("Mul", ["input", "scale"], ["scaled"], "scale_pixels"),
        helper.make_node("Gemm", ["scaled", "w1", "b1"], ["hidden"], "hidden_layer"),
        helper.make_node("Relu", ["hidden"], ["active"], "hidden_relu"),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"], "output_layer"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
        helper.make_node(
            "ArgMax", ["probabilities"], ["label"], "argmax", axis=1, keepdims=0
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info(
                "probabilities", TensorProto.FLOAT, ["N", 10]
            ),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(a, dtype=np.float32), name)
            for name, a in constants.items()
        ],
    )
    # Opset 13 with its own IR version, 7: old enough for most readers.
    model = helper.make_model(
        graph,
        producer_name="digits/train.py",
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def rows(table):
    """Returns a table as JSON with one row a line, so that a diff is readable."""
    lines = (json.dumps(row, separators=(",", ":")) for row in table)
    return "[\n" + ",\n".join(lines) + "\n]"


def main():
    net, X, y = train()
    model = to_onnx(net)
    (HERE / "digits.onnx").write_bytes(model.SerializeToString(deterministic=True))

    pixels = X.astype(int)
    assert (pixels == X).all()
    predicted = net.predict(X / 16.0)
    probabilities = net.predict_proba(X / 16.0).round(6)
    (HERE / "test.json").write_text(
        '{"x":' + rows(pixels.tolist())
        + ',\n"y":' + json.dumps(y.tolist(), separators=(",", ":"))
        + ',\n"sklearn":' + json.dumps(predicted.tolist(), separators=(",", ":"))
        + ',\n"probabilities":' + rows(probabilities.tolist())
        + "}\n"
    )

    # The first held-out 3 that the network also calls a 3.
    three = int(np.flatnonzero((y == 3) & (predicted == 3))[0])
    tensor = {
        "name": "input",
        "shape": [1, 64],
        "datatype": "FP32",
        "data": pixels[three].tolist(),
    }
    (HERE / "three.json").write_text(
        json.dumps({"inputs": [tensor]}, separators=(",", ":")) + "\n"
    )

    right = int((predicted == y).sum())
    print(f"scikit-learn: {right} of {len(y)} held-out images right; three.json is image {three}")


if __name__ == "__main__":
    main()
