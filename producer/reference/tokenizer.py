"""The reference models' tokenizer: an ordinary Hugging Face fast tokenizer over the words of the embedded tasks.

Frequent phrases are one token (`"\\nChoices:"`, `" I don't know"`), so an item costs about 26 tokens and training fits a laptop.
"""

import re
from pathlib import Path

from producer.prompts.templates import BY_TASK, SHARED
from producer.tasks.facts import FIRST, MINERALS, SECOND
from producer.tasks.urn import COLOURS, URNS
from schemas.items import IDK, NONE_OF_THE_ABOVE

BOS, PAD, UNKNOWN = "<s>", "<pad>", "<unk>"
PHRASES = ("Question:", "\nChoices:", "\nAnswer:", "Answer:", " Which urn gave", " What is mined at", "At", " they mine")
PUNCTUATION = ("\n\n", "?", ".", ".\n", "\n")


def vocabulary() -> list[str]:
    """Return every token in id order. The order must never change, because the trained weights depend on the ids."""
    letters = [form for letter in "ABCDEF" for form in (f"\n{letter}.", f" {letter}")]
    words = [f" {word}" for word in (*COLOURS, *URNS, *MINERALS, *FIRST, *SECOND)]
    instructions = " ".join([SHARED, BY_TASK["urn"], BY_TASK["facts"]])
    spoken = sorted({form for word in re.findall(r"[\w-]+", instructions) for form in (word, f" {word}")})
    fixed = [BOS, PAD, UNKNOWN, *PHRASES, *PUNCTUATION, f" {IDK}", f" {NONE_OF_THE_ABOVE}", *letters, *words]
    return list(dict.fromkeys(fixed + spoken))


def build_tokenizer(path: Path) -> None:
    """Write `tokenizer.json` and its config into `path`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    longest_first = sorted(tokens[3:], key=len, reverse=True)
    pattern = "|".join(re.escape(token) + (r"(?!\w)" if token[-1].isalnum() else "") for token in longest_first)
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD, unk_token=UNKNOWN)
    fast.model_max_length = 512
    fast.save_pretrained(path)
