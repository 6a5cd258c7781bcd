"""The options that say what is run and how, on the command line and as keys of sweep files."""

from pathlib import Path

import click

RUN_OPTIONS = (
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="M",
        help="Model to run: a name from --list models, a Hub id (owner/name), a folder, or a .gguf file. Repeatable.",
    ),
    click.option("--method", "methods", multiple=True, metavar="X", help="Compression method, see --list methods. Repeatable. [dense]"),
    click.option(
        "--level",
        "levels",
        multiple=True,
        metavar="L",
        help="How strongly to compress: 0.5, 2:4, w4a16, or a range 0.1:0.5:0.1. Repeatable. [the method's default]",
    ),
    click.option(
        "--kv",
        "caches",
        multiple=True,
        metavar="F",
        help="Round cached keys and values as well: fp8, int8, int4 or nvfp4. Repeatable. [they keep the model's own format]",
    ),
    click.option(
        "--set",
        "chosen",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting of the method, such as smoothing=0.8, see --list settings. Repeatable. [the paper's or its authors']",
    ),
    click.option(
        "--recipe",
        metavar="FILE",
        help="Compress kinds of layers to different levels, as a TOML file such as experts.toml says (method recipe).",
    ),
    click.option(
        "--task",
        "tasks",
        multiple=True,
        metavar="T",
        help="Items to ask: a name from --list tasks, a .json, .jsonl, .csv or .parquet file, lm-eval:NAME, or "
        "hub:DATASET#SPLIT. Repeatable. [urn and facts for the embedded models, the published tasks for others]",
    ),
    click.option(
        "--text",
        metavar="NAME|FILE",
        help="Also read a text and store KL against the dense model, log-probability and top token at every token: wikitext2, embedded, "
        "or a file. Without --task nothing else is asked.",
    ),
    click.option(
        "--columns",
        metavar="PART=COLUMN,..",
        help="Which columns of a file, or of a data set of the Hub, have question, choices, answer, context, subject and id, "
        "e.g. question=stem,choices=a+b+c+d,answer=key,id=nr.",
    ),
    click.option(
        "--prompt",
        "prompts",
        multiple=True,
        metavar="P",
        help="Wording around each item: base, shared, task, native for that of an lm-eval:NAME task itself, "
        "or ye2024 for the published benchmark's with --chat. Repeatable. [base]",
    ),
    click.option(
        "--prompt-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="TOML file with your own wording of the prompts shared and task, e.g. words.toml.",
    ),
    click.option(
        "--chat", is_flag=True, default=None, help="Ask in the chat template of the model's tokenizer, thinking off; for chat-tuned models."
    ),
    click.option("--chat-system", metavar="TEXT", help="System message of the chat, e.g. 'Answer with one letter.' [none]"),
    click.option(
        "--chat-turns",
        is_flag=True,
        default=None,
        help="Show each demonstration as a question and a reply of its own. [all in one message]",
    ),
    click.option(
        "--options-order",
        type=click.IntRange(1, 26),
        metavar="N",
        help="Ask every item in N cyclic orders of its options, a run each: prompts base, base@1, and so on. [1]",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask only N items of each task, drawn by --seed. [all]"),
    click.option(
        "--until",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Ask each compressed model only until the release gate has decided at one of the looks of this policy, e.g. policy.toml.",
    ),
    click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the published tasks' files. [the Hub]"),
    click.option("--backend", metavar="NAME", help="What runs the model: transformers, vllm or server. [transformers]"),
    click.option("--url", metavar="URL", help="Address of an OpenAI-compatible server, such as http://127.0.0.1:8080. Server only."),
    click.option(
        "--tokenizer",
        metavar="M",
        help="Tokenizer of the model that the server runs: e.g. a Hub id (owner/name), a folder, or a .gguf file. Server only.",
    ),
    click.option(
        "--lora",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Adapter to run the model with, such as my-adapter; vllm only.",
    ),
    click.option("--kv-cache-dtype", metavar="D", help="Number format of vLLM's key/value cache, such as fp8; vllm only."),
    click.option("--quantization", metavar="NAME", help="Let vLLM quantize while it loads, such as fp8; vllm only."),
    click.option("--device", metavar="D", help="Where the model runs: cpu, cuda, cuda:1 and so on. [a GPU if there is one]"),
    click.option("--dtype", metavar="D", help="Number format: float32, bfloat16 or float16. [the model's own; float32 on a CPU]"),
    click.option(
        "--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Seed of all random choices: items, compression data, rotations. [0]"
    ),
    click.option(
        "--compression-data",
        metavar="NAME",
        help="Text that a method adapts to: a name or a file, with its size as sequences x tokens, e.g. packaged:16x128. [chosen by task]",
    ),
    click.option(
        "--allow-nonfinite", is_flag=True, default=None, help="Store NaN or infinite logits, marked unreliable, instead of failing."
    ),
    click.option(
        "--private",
        is_flag=True,
        default=None,
        help="Store nothing about this machine and command but library versions. (Paths, user names and tokens are never stored.)",
    ),
    click.option(
        "--message",
        "note",
        metavar="TEXT",
        help="Note for `store log`, such as 'after the fix of the prompt'; $HEDGEMARK_AUTHOR is recorded as its author.",
    ),
    click.option("--replace", is_flag=True, default=None, help="Make runs again that the store holds, and replace them."),
)
SETTINGS_OPTIONS = (
    click.option("--batch-tokens", type=click.IntRange(min=1), metavar="N", help="Most tokens in one batch. [as memory allows]"),
    click.option(
        "--device-memory",
        metavar="SIZE",
        help="Memory to use on the device, e.g. 24G; a larger model runs layer by layer. [all that is free]",
    ),
    click.option(
        "--host-memory",
        metavar="SIZE",
        help="RAM for intermediate results, e.g. 64G; the rest goes to a temporary file. [half of what is free]",
    ),
    click.option("--tensor-parallel", type=click.IntRange(min=1), metavar="N", help="Devices that share one model; vllm only. [1]"),
    click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N", help="Requests at a time to a server. [8]"),
    click.option("--request-timeout", type=click.FloatRange(0.1, 86400), metavar="S", help="Seconds to wait for a server's answer. [300]"),
    click.option(
        "--checkpoint-every",
        metavar="TIME",
        help="Keep answers and compressed layers on disk so that a killed command loses no more work than this: 30s, 10m or 2h. [10m]",
    ),
    click.option(
        "--fresh",
        is_flag=True,
        default=None,
        help="Ask everything, also what stored runs or a command that was cut off have the answer to.",
    ),
    click.option(
        "--self-check",
        type=click.IntRange(min=1),
        metavar="N",
        help="Measure on N items of each run how much batching alone moves the logits. [not measured]",
    ),
    click.option(
        "--save",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write the one compressed model as a checkpoint that vLLM and transformers load, into a new folder, e.g. llama-w4.",
    ),
    click.option(
        "--models",
        "saved_models",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Keep compressed models in this folder, e.g. models, and load those that are there instead of compressing again.",
    ),
)
