import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from mothkit.errors import ConfigError, PickleError
from mothkit.trojai.architectures import FAMILIES, VIT, build, nist_name, usual_name
from mothkit.trojai.pickles.containers import open_container
from mothkit.trojai.pickles.machine import Instance
from mothkit.trojai.pickles.rebuild import load_module
from mothkit.trojai.pickles.rewrite import write_weights
from tests.toolkit.trojai.hostile import HOSTILE, SMALL, mark, small

SAMPLES = Path(__file__).resolve().parents[4] / "shared/trojai-samples/nist-rl-models"
QUICK = ("squeezenet1_0", "mobilenet_v2", "resnet18", "googlenet")
ALL = [name for family in FAMILIES.values() for name in family.members]
R23 = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "googlenet", "inceptionv3"),
    *("densenet121", "densenet161", "densenet169", "densenet201", "squeezenetv1_0", "squeezenetv1_1"),
    *("wideresnet50", "wideresnet101", "mobilenetv2", "shufflenet1_0", "shufflenet1_5", "shufflenet2_0"),
    *("vgg11bn", "vgg13bn", "vgg16bn", "vgg19bn"),
]


def saved(module: nn.Module, path: Path, *, legacy: bool = False) -> Path:
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    return path


def random_network(name: str, classes: int, size: int) -> nn.Module:
    """Return a network whose every tensor matters, the running statistics too."""
    torch.manual_seed(1)
    module = build(name, classes, image_size=size)
    for buffer_name, value in module.named_buffers():
        if buffer_name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif buffer_name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return module


def check_round_trip(name: str, folder: Path, *, legacy: bool, size: int) -> None:
    if name == VIT:
        pytest.importorskip("timm")
    module = random_network(name, 7, size)
    path = saved(module, folder / "model.pt", legacy=legacy)
    loaded = load_module(path)
    assert (loaded.architecture, loaded.classes) == (name, 7)
    assert loaded.container == ("legacy" if legacy else "zip")
    trusted = torch.load(path, weights_only=False)
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert (loaded.module(x) - trusted(x)).abs().max() <= 1e-5
    assert not loaded.module.training


@pytest.mark.parametrize("name", QUICK)
def test_a_saved_network_is_rebuilt_with_the_same_outputs(name: str, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path, legacy=name == "resnet18", size=64)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ALL)
def test_every_architecture_of_the_rounds_is_rebuilt(name: str, legacy: bool, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path, legacy=legacy, size=256 if name == VIT else 224)


def test_the_rounds_names_are_known() -> None:
    assert len(R23) == 23
    assert {usual_name(name) for name in R23} == set(ALL) - {VIT}
    assert [nist_name(usual_name(name)) for name in R23] == R23
    assert usual_name("classification:vit_base_patch32_224") == VIT
    with pytest.raises(ConfigError, match="'alexnet'"):
        build("alexnet", 3)


def renamed(path: Path, names: dict[bytes, bytes]) -> None:
    """Give classes in a saved file the names that they had in older versions."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                for new, old in names.items():
                    assert new in content
                    content = content.replace(new, old)
            archive.writestr(name, content)


def test_a_mobilenet_with_the_class_names_of_round_4_is_rebuilt(tmp_path: Path) -> None:
    module = random_network("mobilenet_v2", 6, 64)
    path = saved(module, tmp_path / "model.pt")
    old = {
        b"ctorchvision.ops.misc\nConv2dNormActivation\n": b"ctorchvision.models.mobilenet\nConvBNReLU\n",
        b"ctorchvision.models.mobilenetv2\n": b"ctorchvision.models.mobilenet\n",
    }
    renamed(path, old)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_module(path).module(x), module(x))


def test_an_inception_of_round_2_which_lacks_today_s_layers_is_rebuilt(tmp_path: Path) -> None:
    module = random_network("inception_v3", 4, 96)
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = module(x)
    for name in ("maxpool1", "maxpool2", "avgpool", "dropout"):
        del module._modules[name]
    module.__dict__.pop("AuxLogits")
    with torch.no_grad():
        assert torch.equal(load_module(saved(module, tmp_path / "model.pt")).module(x), expected)


def test_a_network_that_transforms_its_input_still_does(tmp_path: Path) -> None:
    module = build("googlenet", 3)
    module.transform_input = True
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_module(saved(module, tmp_path / "model.pt")).module(x), module(x))


def test_a_network_wrapped_for_several_devices_is_unwrapped(tmp_path: Path) -> None:
    module = small()
    wrapped = nn.DataParallel(nn.Identity())
    wrapped.module = module
    loaded = load_module(saved(wrapped, tmp_path / "model.pt"))
    assert torch.equal(
        loaded.module.state_dict()["features.0.weight"], module.state_dict()["features.0.weight"]
    )


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    loaded = load_module(saved(small().half(), tmp_path / "model.pt"))
    assert {value.dtype for value in loaded.module.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_nothing_is_executed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(HOSTILE[name](tmp_path))
    mark(tmp_path).unlink(missing_ok=True)
    with pytest.raises(PickleError, match=r"model\.pt"):
        load_module(path)
    assert not mark(tmp_path).exists()


def test_a_refusal_lists_what_the_file_wanted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(HOSTILE["a call of a call"](tmp_path))
    with pytest.raises(PickleError) as caught:
        load_module(path)
    assert "__builtin__.eval" in caught.value.wanted
    assert "__builtin__.eval" in str(caught.value)


def test_the_older_stream_lists_it_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(HOSTILE["os.system, older stream"](tmp_path))
    with pytest.raises(PickleError) as caught:
        load_module(path)
    assert caught.value.wanted == ("posix.system",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_other_weights_go_into_the_same_file(tmp_path: Path, legacy: bool) -> None:
    path = saved(small(), tmp_path / "model.pt", legacy=legacy)
    torch.manual_seed(5)
    other = build(SMALL, 5)
    out = tmp_path / "out.pt"
    write_weights(path, out, dict(other.named_parameters()))
    trusted = torch.load(out, weights_only=False)
    for name, value in other.state_dict().items():
        assert torch.equal(trusted.state_dict()[name], value)
    before, after = open_container(path), open_container(out)
    assert isinstance(before.root, Instance)
    assert before.wanted == after.wanted
    assert torch.equal(load_module(path).module.features[0].weight, small().features[0].weight)


def test_a_rewritten_zip_keeps_its_members_and_their_alignment(tmp_path: Path) -> None:
    path = saved(small(), tmp_path / "model.pt")
    write_weights(path, tmp_path / "out.pt", {"classifier.1.bias": torch.ones(5)})
    with zipfile.ZipFile(path) as first, zipfile.ZipFile(tmp_path / "out.pt") as second:
        assert first.namelist() == second.namelist()
        differing = [name for name in first.namelist() if first.read(name) != second.read(name)]
        assert len(differing) == 1
        for info in second.infolist():
            with (tmp_path / "out.pt").open("rb") as file:
                file.seek(info.header_offset + 26)
                sizes = file.read(4)
            start = info.header_offset + 30 + sum(int.from_bytes(sizes[i : i + 2], "little") for i in (0, 2))
            assert start % 64 == 0


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"nonsense": torch.ones(1)}, "no such tensor"),
        ({"classifier.1.bias": torch.ones(4)}, r"\[4\], but the file has \[5\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    weights: dict[str, torch.Tensor], told: str, tmp_path: Path
) -> None:
    path = saved(small(), tmp_path / "model.pt")
    with pytest.raises(PickleError, match=told):
        write_weights(path, tmp_path / "out.pt", weights)


def test_a_pickle_within_a_buffer_is_left_where_it_ends() -> None:
    from mothkit.trojai.pickles.machine import Machine

    stream = io.BytesIO(pickle.dumps([1, {"a": (2, 3.5, None, True)}], 2) + pickle.dumps("next", 2))
    machine = Machine(lambda reference: reference)
    assert machine.run(stream) == [1, {"a": (2, 3.5, None, True)}]
    assert machine.run(stream) == "next"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs ../shared")
def test_real_files_of_other_rounds_are_told_apart() -> None:
    checkpoint = open_container(SAMPLES / "rl-colorful-memory-sep2024-model.pt")
    assert isinstance(checkpoint.root, dict)
    with pytest.raises(PickleError, match="holds a dict, not a saved module"):
        load_module(checkpoint.path)
    with pytest.raises(PickleError) as caught:
        load_module(SAMPLES / "rl-safetygymnasium-oct2024-model.pt")
    assert caught.value.wanted == ("box.box.Box",)
