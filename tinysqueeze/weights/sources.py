"""Which weights have a name here, where they lie on the network, and the hashes that prove them."""

import hashlib
from dataclasses import dataclass

from tinysqueeze.data.remote import Remote

AUTHORS = "https://github.com/forresti/SqueezeNet/raw/a47b6f13d30985279789d08053d37013d67d131b"


@dataclass(frozen=True)
class Source:
    """Published weights: what they are, and the file (`file.sha256` may name another algorithm)."""

    what: str
    file: Remote


# The hash of v1.0's .caffemodel is the SHA-384 and size that OpenVINO's model zoo publishes.
SOURCES = {
    "squeezenet1_0_compressed": Source(
        "the authors' Deep Compression file of SqueezeNet v1.0, 660 KiB",
        Remote(
            "compressed_SqueezeNet.net",
            675_763,
            "e4ab6960ae8cd81505e1c2136921201507e930966c53deaf15862a395b3a3261",
            (
                "https://github.com/songhan/SqueezeNet-Deep-Compression/raw/master/"
                "compressed_SqueezeNet.net",
            ),
        ),
    ),
    "squeezenet1_0_caffe": Source(
        "the authors' SqueezeNet v1.0, uncompressed",
        Remote(
            "squeezenet_v1.0.caffemodel",
            5_001_403,
            "sha384:b8dc96393e093b4f23390b70f01fe37330d629759db59c1da3c15f846d0b1b17"
            "51b6ad841570c2e303c86829c750a745",
            (f"{AUTHORS}/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel",),
        ),
    ),
    "squeezenet1_1_caffe": Source(
        "the authors' SqueezeNet v1.1",
        Remote(
            "squeezenet_v1.1.caffemodel",
            4_950_080,
            "72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
            (f"{AUTHORS}/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",),
        ),
    ),
    "squeezenet1_1_torchvision": Source(
        "torchvision's SqueezeNet v1.1",
        Remote(
            "squeezenet1_1-b8a52dc0.pth",
            4_958_839,
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            ("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",),
        ),
    ),
}

# The names of ImageNet's 1,000 classes, as Keras publishes them (it gives the MD5).
CLASS_INDEX = Remote(
    "imagenet_class_index.json",
    35_363,
    "md5:c2c37ea517e94d9795004a39431a14cb",
    ("https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",),
)


def known_source(data: bytes) -> Source | None:
    """The published file that these bytes are, whatever its name now; None if it is none of them."""
    for source in SOURCES.values():
        algorithm, _, expected = source.file.sha256.rpartition(":")
        same_size = len(data) == source.file.size
        if same_size and hashlib.new(algorithm or "sha256", data).hexdigest() == expected:
            return source
    return None
