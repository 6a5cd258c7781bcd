"""The published benchmark (Ye et al. 2024, arXiv 2401.12794): its tasks, their files, and the items that its prompts use as demonstrations.

Items have four options, then "I don't know" and "None of the above". Demonstrations are named by their JSON `id`, which is their position
in the file.
"""

from dataclasses import dataclass

ODD = ("1", "3", "5", "7", "9")


@dataclass(frozen=True)
class BenchmarkTask:
    """A task: the names that its file may have, the published one first, and the ids of its demonstrations."""

    files: tuple[str, ...]
    demonstrations: tuple[str, ...] = ODD


BENCHMARK = {
    "mmlu": BenchmarkTask(("mmlu_10k.json", "mmlu.json")),
    "cosmosqa": BenchmarkTask(("cosmosqa_10k.json", "cosmosqa_valid.json", "cosmosqa.json")),
    "hellaswag": BenchmarkTask(("hellaswag_10k.json", "hellaswag_val.json", "hellaswag.json")),
    "haludial": BenchmarkTask(("halu_dialogue.json", "haludial.json"), ("5", "7", "9")),
    "halusum": BenchmarkTask(("halu_summarization.json", "halusum.json"), ("9",)),
}
