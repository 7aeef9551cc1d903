import json
from pathlib import Path

import pytest

from mothkit.batch.conditions import parse_condition
from mothkit.batch.tasks import Preparing, find_tasks
from mothkit.errors import ConfigError


def manifest(folder: Path, text: str) -> Path:
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_is_every_onnx_file_in_it_on_the_same_images(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.ONNX", "notes.txt"):
        (tmp_path / name).touch()
    tasks = find_tasks(tmp_path, data="clean.npz:train")
    assert [(task.name, task.model) for task in tasks] == [
        ("a", tmp_path / "a.ONNX"),
        ("b", tmp_path / "b.onnx"),
    ]
    assert {task.data for task in tasks} == {str(Path.cwd() / "clean.npz:train")}
    with pytest.raises(ConfigError, match="give --data"):
        find_tasks(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="holds no"):
        find_tasks(tmp_path / "none", data="clean")
    with pytest.raises(ConfigError, match="no model of a TrojAI round"):
        find_tasks(tmp_path / "none")


def test_a_manifest_names_models_images_triggers_and_what_else_is_known(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").touch()
    lines = (
        "\ufeffModel,data,triggers,eval_data,preprocess,name,architecture,poisoned,classes",
        "a/m.onnx,clean,t.toml; u.toml,/test,spec.toml,first,resnet50,true,15",
        "",
        '"a,b/m2.onnx",,,,unit,,vgg,,',
    )
    first, second = find_tasks(manifest(tmp_path, "\n".join(lines)), data="/else")
    assert (first.name, first.model, first.data) == (
        "first",
        tmp_path / "a/m.onnx",
        str(tmp_path / "clean"),
    )
    assert first.triggers == (tmp_path / "t.toml", tmp_path / "u.toml")
    assert (first.eval_data, first.preprocess) == ("/test", str(tmp_path / "spec.toml"))
    assert first.facts == {"name": "first", "architecture": "resnet50", "poisoned": True, "classes": 15}
    assert (second.name, second.model, second.data) == ("m2", tmp_path / "a,b/m2.onnx", "/else")
    assert (second.triggers, second.eval_data, second.preprocess) == ((), None, "unit")
    assert second.facts == {"name": "m2", "architecture": "vgg", "poisoned": None, "classes": None}


def test_a_condition_chooses_among_them(tmp_path: Path) -> None:
    path = manifest(tmp_path, "model,data,classes\na.onnx,d,5\nb.onnx,d,15\nc.onnx,d,\n")
    assert [task.name for task in find_tasks(path, where=parse_condition("classes > 9"))] == ["b"]
    assert find_tasks(path, where=parse_condition("classes > 99")) == []
    with pytest.raises(ConfigError, match="nothing is called 'clases'; there are classes, name"):
        find_tasks(path, where=parse_condition("clases > 9"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has the columns ; expected"),
        ("data\nd\n", "'model' among them"),
        ("model,data,data\na,b,c\n", "expected each once"),
        ("model,data\n", "names 0 models"),
        ("model,data\na.onnx\n", "line 2: has 1 values for 2 columns"),
        ("model,data\n,d\n", "line 2: names no model"),
        ("model,data\na.onnx,d\nb.onnx,\n", "line 3: names no data"),
        ("model,data\na/m.onnx,d\nb/M.onnx,d\n", "two models are called 'm'"),
        ("model,data,name\na.onnx,d,../up\n", "'../up' cannot name a folder"),
        ("model,data,name\na.onnx,d,.hidden\n", "cannot name a folder"),
        ('model,data\n"a.onnx,d\n', "cannot be read as a manifest"),
        ("model,data\n\0,d\n", "cannot be read as a manifest|cannot name"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find_tasks(manifest(tmp_path, text))


def test_a_round_is_its_models_and_what_their_files_say(tmp_path: Path) -> None:
    for number, config in enumerate(({"poisoned": True, "number_classes": 7}, {"poisoned": False}, None)):
        folder = tmp_path / f"models/id-0000000{number}"
        folder.mkdir(parents=True)
        (folder / "model.pt").touch()
        (folder / "config.json").write_text("{" if config is None else json.dumps(config))
    (tmp_path / "METADATA.csv").write_text(
        "model_name,model_architecture,level\nid-00000000,resnet50,3\nid-00000001,vgg11bn,4\n"
    )
    first, second, broken = find_tasks(tmp_path)
    assert (first.name, first.model) == ("id-00000000", tmp_path / "models/id-00000000")
    assert (first.data, first.stages) == ("", ("prepare", "harden", "pack"))
    assert (first.facts["architecture"], first.facts["classes"], first.facts["level"]) == ("resnet50", 7, 3)
    assert (second.facts["architecture"], second.facts["poisoned"]) == ("vgg11_bn", False)
    assert broken.facts == {"name": "id-00000002"}
    where = parse_condition('poisoned and architecture == "resnet50"')
    assert [task.name for task in find_tasks(tmp_path, where=where, preparing=Preparing(round="round4"))] == [
        "id-00000000"
    ]


def test_what_is_neither_folder_nor_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a manifest"):
        find_tasks(tmp_path / "gone")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as a manifest"):
        find_tasks(tmp_path / "picture.csv")
