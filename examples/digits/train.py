"""Train a small neural network on scikit-learn's handwritten digits and write its accuracy.

    python train.py --hidden 64 --learning-rate 0.01 --epochs 40

Prints one line per epoch and leaves `metrics.json`. Told to stop (SIGTERM), it says so and exits: a
job on spot capacity gets that chance too.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    if options.hidden < 1:
        parser.error(f"--hidden must be at least 1, not {options.hidden}")
    return options


def stop(*_: object) -> None:
    print("told to stop", flush=True)
    sys.exit(143)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    options = parse()
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits, test_size=0.25, random_state=7, stratify=digits
    )
    scaler = StandardScaler().fit(train_x)
    model = MLPClassifier(
        hidden_layer_sizes=(options.hidden,),
        learning_rate_init=options.learning_rate,
        random_state=7,
    )
    started = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        model.partial_fit(scaler.transform(train_x), train_y, classes=range(10))
        if epoch % 10 == 0 or epoch == options.epochs:
            accuracy = model.score(scaler.transform(test_x), test_y)
            print(f"epoch {epoch:4d}  loss {model.loss_:.4f}  accuracy {accuracy:.4f}", flush=True)
    result = {
        "accuracy": round(float(model.score(scaler.transform(test_x), test_y)), 4),
        "hidden": options.hidden,
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "train_s": round(time.monotonic() - started, 2),
    }
    Path("metrics.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
