"""The names that a pickled module of the rounds may hold. They are compared, never looked up."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mothkit.trojai.pickles.containers import STORAGES
from mothkit.trojai.pickles.machine import Name

_VIT = "VisionTransformer Block Attention LayerScale"
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "collections": "OrderedDict",
        "__builtin__": "set",
        "builtins": "set",
        "torch": "float32",
        "torch._utils": "_rebuild_parameter _rebuild_tensor_v2",
        "torch.nn.backends.thnn": "_get_thnn_function_backend",  # an attribute of torch 1.2's modules
        "torch.nn.modules.activation": "ReLU ReLU6 GELU",
        "torch.nn.modules.batchnorm": "BatchNorm2d",
        "torch.nn.modules.container": "Sequential ModuleList ModuleDict",
        "torch.nn.modules.conv": "Conv2d",
        "torch.nn.modules.dropout": "Dropout",
        "torch.nn.modules.flatten": "Flatten",
        "torch.nn.modules.linear": "Linear Identity",
        "torch.nn.modules.normalization": "LayerNorm",
        "torch.nn.modules.pooling": "AdaptiveAvgPool2d AvgPool2d MaxPool2d",
        "torch.nn.parallel.data_parallel": "DataParallel",
        "torchvision.models.densenet": "DenseNet _DenseBlock _DenseLayer _Transition",
        "torchvision.models.googlenet": "GoogLeNet Inception InceptionAux BasicConv2d",
        "torchvision.models.inception": (
            "Inception3 InceptionA InceptionB InceptionC InceptionD InceptionE InceptionAux BasicConv2d"
        ),
        "torchvision.models.mobilenet": "MobileNetV2 InvertedResidual ConvBNReLU ConvBNActivation",
        "torchvision.models.mobilenetv2": "MobileNetV2 InvertedResidual ConvBNReLU",
        "torchvision.models.resnet": "ResNet BasicBlock Bottleneck",
        "torchvision.models.shufflenetv2": "ShuffleNetV2 InvertedResidual",
        "torchvision.models.squeezenet": "SqueezeNet Fire",
        "torchvision.models.vgg": "VGG",
        "torchvision.ops.misc": "Conv2dNormActivation ConvNormActivation ConvBNActivation",
        "timm.models.vision_transformer": _VIT,
        "timm.models.layers.drop": "DropPath",
        "timm.models.layers.mlp": "Mlp",
        "timm.models.layers.patch_embed": "PatchEmbed",
        "timm.layers.attention": "Attention",
        "timm.layers.format": "Format",
        "timm.layers.mlp": "Mlp",
        "timm.layers.norm": "LayerNorm",
        "timm.layers.patch_embed": "PatchEmbed",
    }
)
ALLOWED = STORAGES | {Name(module, name) for module, names in _NAMES.items() for name in names.split()}
RENAMED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("ConvBNReLU", "ConvBNActivation", "ConvNormActivation"), "Conv2dNormActivation")
)
"""What classes are called today, by what they were called."""


def foreign(wanted: Iterable[Name]) -> list[str]:
    """Return which of ``wanted`` no model of the rounds needs, sorted."""
    return sorted(str(name) for name in wanted if name not in ALLOWED)
