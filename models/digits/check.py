"""Checks that digits.onnx, run by onnxruntime, gives what scikit-learn gave on the held-out images.

Prints one line with the accuracy; any difference stops it with an error.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent


def main():
    test = json.loads((HERE / "test.json").read_text())
    x = np.array(test["x"], dtype=np.float32)
    y = np.array(test["y"])
    assert x.shape == (360, 64) and y.shape == (360,)

    session = onnxruntime.InferenceSession(
        HERE / "digits.onnx", providers=["CPUExecutionProvider"]
    )

    # 7 does not divide 360, so the last batch is a short one.
    for size in (1, 7, 360):
        parts = [
            session.run(["label", "probabilities"], {"input": x[i : i + size]})
            for i in range(0, len(x), size)
        ]
        label = np.concatenate([p[0] for p in parts])
        probabilities = np.concatenate([p[1] for p in parts])
        assert label.dtype == np.int64 and label.shape == (360,), size
        assert probabilities.dtype == np.float32 and probabilities.shape == (360, 10), size
        # Every size against the same list, so the sizes also agree with each other.
        assert (label == test["sklearn"]).all(), size
        worst = np.abs(probabilities - np.array(test["probabilities"])).max()
        assert worst <= 1e-5, (size, worst)

    three = json.loads((HERE / "three.json").read_text())["inputs"][0]
    data = np.array(three["data"], dtype=np.float32).reshape(three["shape"])
    assert session.run(["label"], {three["name"]: data})[0].tolist() == [3]

    right = int((label == y).sum())
    print(
        f"accuracy {right}/{len(y)} = {right / len(y):.4f}; labels equal scikit-learn's "
        f"in batches of 1, 7 and 360; probabilities within {worst:.1e}"
    )


if __name__ == "__main__":
    main()
