"""The image sets: what each one is, its terms, and the original files with their lengths and checksums.

A file is known by the length and the SHA-256 of its *content*, so that a copy compressed by other means is
accepted and a damaged one is not. A download is known by the length and the SHA-256 of what is served.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """A public address, with the length in bytes and the SHA-256 of what it serves."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address: the name of the served file."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class File:
    """One original file: its name, the length in bytes and SHA-256 of its content, and where it is served.

    `partial` is a shorter file that is accepted where the whole one is absent.
    """

    name: str
    size: int
    sha256: str
    download: Download | None = None
    partial: "File | None" = None


@dataclass(frozen=True)
class Source:
    """One image set: the shape of its images, its origin, terms and citation, and its files by split."""

    title: str
    shape: tuple[int, int | None, int | None]  # channels, height, width; None where the caller decides
    origin: str
    terms: str
    cite: str
    folders: tuple[str, ...] = ()  # places inside a data directory where its files may lie, first choice first
    train: tuple[File, ...] = ()
    test: tuple[File, ...] = ()


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CIFAR = Download(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def _gzipped(base: str, name: str, size: int, sha256: str, served: int, served_sha256: str) -> File:
    """A file served alone and compressed by gzip."""
    return File(name, size, sha256, Download(f"{base}/{name}.gz", served, served_sha256))


MNIST_TRAIN = (
    _gzipped(
        MNIST,
        "train-images-idx3-ubyte",
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    _gzipped(
        MNIST,
        "train-labels-idx1-ubyte",
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
)
MNIST_TEST = (
    _gzipped(
        MNIST,
        "t10k-images-idx3-ubyte",
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    _gzipped(
        MNIST,
        "t10k-labels-idx1-ubyte",
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_TRAIN = (
    _gzipped(
        FASHION,
        "train-images-idx3-ubyte",
        47040016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        26421880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    _gzipped(
        FASHION,
        "train-labels-idx1-ubyte",
        60008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        29515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
)
FASHION_TEST = (
    _gzipped(
        FASHION,
        "t10k-images-idx3-ubyte",
        7840016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        4422102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    _gzipped(
        FASHION,
        "t10k-labels-idx1-ubyte",
        10008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        5148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
CIFAR_TRAIN = tuple(
    File(f"data_batch_{number}.bin", 30730000, sha256, CIFAR)
    for number, sha256 in enumerate(
        (
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        start=1,
    )
)
CIFAR_TEST = (
    File(
        "test_batch.bin",
        30730000,
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        CIFAR,
        partial=File(
            "test_batch_first1000.bin",
            3073000,
            "8314c96d7cd65618193bab23acdd5d4c4af15bf6dd00a1781d55beedf3be1ef5",
        ),
    ),
)

SOURCES = {
    "digits": Source(
        title="Optical Recognition of Handwritten Digits",
        shape=(1, 8, 8),
        origin="bundled with scikit-learn",
        terms="CC BY 4.0, UCI Machine Learning Repository",
        cite="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998",
    ),
    "photos": Source(
        title="Patches of five photographs",
        shape=(1, None, None),
        origin="aero, ascent and camera, bundled with PyWavelets; china and flower, bundled with scikit-learn",
        terms="camera: CC0; china and flower: CC BY 2.0; aero and ascent: as distributed with PyWavelets",
        cite="camera: L. Varshney; china: danielbuechele; flower: vultilion (the last two on Flickr)",
    ),
    "mnist": Source(
        title="MNIST",
        shape=(1, 28, 28),
        origin=MNIST,
        terms="copyright Y. LeCun and C. Cortes; commonly stated as CC BY-SA 3.0",
        cite="Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Proceedings of the IEEE 86(11), 1998",
        folders=("mnist", ""),
        train=MNIST_TRAIN,
        test=MNIST_TEST,
    ),
    "fashion": Source(
        title="Fashion-MNIST",
        shape=(1, 28, 28),
        origin=FASHION,
        terms="MIT, copyright 2017 Zalando SE",
        cite="H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, 2017",
        folders=("fashion-mnist", ""),
        train=FASHION_TRAIN,
        test=FASHION_TEST,
    ),
    "cifar10": Source(
        title="CIFAR-10",
        shape=(3, 32, 32),
        origin=CIFAR.url,
        terms="no formal licence, the authors ask to be cited; drawn from the withdrawn 80 Million Tiny Images",
        cite="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        folders=("cifar-10", "cifar-10-batches-bin", ""),
        train=CIFAR_TRAIN,
        test=CIFAR_TEST,
    ),
    "celeba": Source(
        title="CelebA",
        shape=(3, None, None),
        origin="a folder of images that the reader supplies: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        terms="for non-commercial research; not to be redistributed",
        cite="Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015",
        folders=("celeba",),
    ),
}
