"""The peer's side of `train_step.py`: figure 3.1 in Keras on TensorFlow; prints a JSON object.

Runs in a virtual environment of its own, where there is no Foveate. `jit_compile` is left at its default, "auto".
"""

import argparse
import json
import os
import time

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")

import keras  # type: ignore[import-untyped]
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from keras import layers

WARM_UP = 3
"""Steps that are not counted: the graph is traced and compiled in them."""
MOST_STEPS = 1000
"""Of one epoch: more than a process has time for."""


def figure_3_1() -> keras.Model:
    """The paper's model as Keras' users write it; logits instead of probabilities."""
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Attention()([x, x])
    x = layers.Conv2D(256, 5, padding="same", activation="relu")(x)
    x = layers.Conv2D(256, 5, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=4e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Times the steps of `fit`, and stops it after `seconds` of counted ones."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.step_seconds: list[float] = []
        self.last = 0.0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """One step is done."""
        now = time.perf_counter()
        if batch >= WARM_UP:
            self.step_seconds.append(now - self.last)
            self.model.stop_training = sum(self.step_seconds) >= self.seconds
        self.last = now


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (arguments.batch, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, arguments.batch)
    # One epoch goes over the same batch until the stopwatch ends it: `fit` is faster than `train_on_batch`.
    rows = np.tile(np.arange(arguments.batch), MOST_STEPS)
    stopwatch = Stopwatch(arguments.seconds)
    model = figure_3_1()
    model.fit(
        images[rows], labels[rows], batch_size=arguments.batch, shuffle=False, verbose=0, callbacks=[stopwatch]
    )
    result = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "jit_compile": model.jit_compile,
        "images_per_s": [arguments.batch / seconds for seconds in stopwatch.step_seconds],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
