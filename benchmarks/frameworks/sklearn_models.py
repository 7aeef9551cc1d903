"""scikit-learn's linear and neural classifiers through skl2onnx, and trees, which nothing can train by gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import SEED, Export, export_all
from lightgbm import LGBMClassifier
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

FEATURES = 12
ROWS = 300


def data(classes: int) -> tuple[Any, Any]:
    """Return points float32 [N, 12] around a centre for each class, and their labels."""
    generator = np.random.default_rng(SEED)
    y = np.arange(ROWS) % classes
    x = generator.normal(0, 2, (classes, FEATURES))[y] + generator.normal(3, 1.5, (ROWS, FEATURES))
    return x.astype(np.float32), y


def export(
    path: Path,
    *,
    make: Callable[[], Any],
    classes: int,
    words: bool = False,
    scores: bool = False,
    **options: Any,
) -> tuple[list[Any], list[Any]]:
    x, y = data(classes)
    model = make().fit(x, np.array([f"class {i}" for i in range(classes)])[y] if words else y)
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    given = {id(last): {**options, **({"raw_scores": True} if scores else {})}} if options or scores else None
    onx = to_onnx(model, initial_types=[("X", FloatTensorType([None, FEATURES]))], options=given)
    path.write_bytes(onx.SerializeToString())
    x = x[:8]
    return [x], [
        model.predict(x),
        *scores_of(model, x, columns=options.get("zipmap") == "columns", raw=scores),
    ]


def scores_of(model: Any, x: Any, *, columns: bool, raw: bool) -> list[Any]:
    """Return a row of scores for each point, or a column for each class; one raw score z stands for [-z, z]."""
    if hasattr(model, "predict_proba") and not raw:
        scores = model.predict_proba(x)
    else:
        scores = model.decision_function(x)
        scores = np.stack([-scores, scores], axis=1) if raw and scores.ndim == 1 else scores
    return list(scores.T.astype(np.float32)) if columns else [scores.astype(np.float32)]


def lightgbm(path: Path) -> tuple[list[Any], list[Any]]:
    x, y = data(3)
    model = LGBMClassifier(n_estimators=5, random_state=SEED, verbose=-1).fit(x, y)
    onx = convert_lightgbm(model, initial_types=[("X", LightGbmFloats([None, FEATURES]))], zipmap=False)
    path.write_bytes(onx.SerializeToString())
    return [x[:8]], [model.predict(x[:8]), model.predict_proba(x[:8]).astype(np.float32)]


def mlp(**options: Any) -> MLPClassifier:
    return MLPClassifier((16, 8), max_iter=60, random_state=SEED, **options)


def piped(*steps: Callable[[], Any]) -> Any:
    return make_pipeline(*(step() for step in steps))


MODELS: dict[str, Callable[[], Any]] = {
    "mlp": mlp,
    "mlp_tanh": partial(mlp, activation="tanh"),
    "mlp_logistic": partial(mlp, activation="logistic"),
    "logistic": partial(LogisticRegression, max_iter=200),
    "scaled_mlp": partial(piped, StandardScaler, mlp),
    "scaled_logistic": partial(piped, StandardScaler, partial(LogisticRegression, max_iter=200)),
    "minmax_logistic": partial(piped, MinMaxScaler, partial(LogisticRegression, max_iter=200)),
    "robust_mlp": partial(piped, RobustScaler, mlp),
    "normalized_logistic": partial(piped, Normalizer, partial(LogisticRegression, max_iter=200)),
    "pca_logistic": partial(
        piped, StandardScaler, partial(PCA, 6), partial(LogisticRegression, max_iter=200)
    ),
    "linear_svc": partial(LinearSVC, random_state=SEED),
    "sgd": partial(piped, StandardScaler, partial(SGDClassifier, loss="log_loss", random_state=SEED)),
    "ridge": RidgeClassifier,
}
TREES: dict[str, Callable[[], Any]] = {
    "forest": partial(RandomForestClassifier, 5, random_state=SEED),
    "tree": partial(DecisionTreeClassifier, random_state=SEED),
    "boosting": partial(GradientBoostingClassifier, n_estimators=5, random_state=SEED),
}


def exports() -> Iterator[tuple[str, Export]]:
    for name, make in MODELS.items():
        for classes, kind in ((2, "binary"), (4, "multi")):
            net = partial(export, make=make, classes=classes)
            yield (
                f"sklearn-{name}-{kind}",
                partial(net, zipmap=False) if "mlp" in name or "log" in name else net,
            )
            if name in ("mlp", "logistic", "scaled_mlp", "scaled_logistic"):
                yield f"sklearn-{name}-{kind}-zipmap", net
                yield f"sklearn-{name}-{kind}-words", partial(net, words=True, zipmap=False)
                yield f"sklearn-{name}-{kind}-words-zipmap", partial(net, words=True)
            if "logistic" in name and "mlp" not in name:
                yield f"sklearn-{name}-{kind}-raw", partial(net, scores=True, zipmap=False)
    yield (
        "sklearn-logistic-multi-columns",
        partial(export, make=MODELS["logistic"], classes=4, zipmap="columns"),
    )
    for name, make in TREES.items():
        yield f"sklearn-{name}", partial(export, make=make, classes=3, zipmap=False)
    yield "lightgbm", lightgbm


if __name__ == "__main__":
    export_all(exports())
