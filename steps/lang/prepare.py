"""Stage 3: token set, word list and lexicon from the texts of cuts.

    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text --type char --out data/lang_char
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text translation.en --type bpe \\
        --vocab-size 500 --tags --out data/lang_bpe_500
    python -m steps.lang.prepare --text train.en.gz train.fr.gz --type bpe --vocab-size 8000 --out data/lang_en_fr
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target translation.fr --type pretrained \\
        --path openai/whisper-base --out data/lang_whisper_fr

One call makes one token set, joint over all languages that the target has; `--languages fr` makes it for French alone.
Plain text (`--text`) has a sentence a line, in the language that the file's name ends in; where it has more lines than
`--sample`, tokens are made of so many of them, `words.txt` and `lexicon.txt` of all.
Of a pretrained model's tokens those are kept that the text needs, its special ones, and those of what a language model
is asked (the usual request, and the texts of `--keep`); any other piece is spelled in bytes.
"""

from __future__ import annotations

import argparse
import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import sentencepiece as spm

from steps.lang.chat import TEMPLATE, TOKENS, Chat, end_token
from steps.lang.corpus import manifest_texts, plain_texts
from steps.lang.pretrained import describe_tokens, load_backend
from steps.lang.prompts import REQUESTS, SPEECH, filled, language_names
from steps.lang.tables import BOUNDARY, SPECIAL, word_table, write_lexicon, write_table
from steps.lang.tokenizer import Tokenizer, load_bpe, pieces_of, tag
from steps.pretrained.folder import find_model, read_config
from utils.errors import UserError, run
from utils.files import atomic_path, read_json, write_json
from utils.options import Parser, count

DEFAULT_VOCAB_SIZE = 500
SAMPLE = 1_000_000  # lines: about 2 GiB for sentencepiece
UNDETERMINED = "und"  # ISO 639's code


def collect(
    paths: Sequence[str | Path], targets: Sequence[str], languages: Sequence[str] | None = None, same_language=False
) -> dict[str, list[str]]:
    """Normalised texts of `targets` by language, in the order of the manifests, restricted to `languages` if given."""
    texts: dict[str, list[str]] = {}
    for text, language in manifest_texts(paths, targets, same_language):
        texts.setdefault(language or UNDETERMINED, []).append(text)
    for language in languages or []:
        if language not in texts:
            where = " ".join(map(str, paths))
            raise UserError(f"{where}: no text in the language '{language}': there are {' '.join(sorted(texts))}.")
    return {language: texts[language] for language in sorted(languages or texts)}


def sample_lines(paths: Sequence[str | Path], most: int) -> tuple[dict[str, list[str]], set[str], int]:
    """Normalised lines of plain text files by the language that their names end in: all, or so many drawn from them.

    Also all the words of all lines, and the number of lines. Each line is as likely to be drawn (Vitter 1985, algorithm
    R), and the same ones are every time. `UserError` where a file is blank.
    """
    draw, words, number = random.Random(0), set(), 0
    kept: list[tuple[str, str]] = []
    texts: dict[str, list[str]] = {}
    for text, language in chain.from_iterable(map(plain_texts, paths)):
        words.update(text.split())
        number += 1
        line = (language or UNDETERMINED, text)
        texts.setdefault(line[0], [])
        if number <= most:
            kept.append(line)
        elif (place := draw.randrange(number)) < most:
            kept[place] = line
    for language, text in kept:
        texts[language].append(text)
    return texts, words, number


def train_bpe(texts: Sequence[str], vocab_size: int, model_type: str, tags: Sequence[str]) -> bytes:
    """A serialised sentencepiece model with icefall's ids (`<blk>` 0, `<sos/eos>` 1, `<unk>` 2), then `tags`.

    `model_type` is `unigram` or `bpe`. `UserError` with the largest or smallest possible size if `vocab_size` is not.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            control_symbols=[*SPECIAL[:2], *tags],
            unk_id=2,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_piece=SPECIAL[2],
            character_coverage=1.0,
            normalization_rule_name="identity",  # ours is NFC; the default NFKC would change what the reference says
            max_sentence_length=1 << 20,  # longer ones are left out silently, and the default is 4192 bytes
            shuffle_input_sentence=False,
            num_threads=1,  # sums in a fixed order: the same model every time
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from None
    return model.getvalue()


def _explain(message: str, vocab_size: int) -> str:
    if largest := re.search(r"value <= (\d+)", message):
        return f"--vocab-size {vocab_size} is too large for this text: the largest possible is {largest[1]}."
    if smallest := re.search(r"smaller than required_chars.*?(\d+) vs (\d+)", message):
        return f"--vocab-size {vocab_size} is too small for the characters of this text: give at least {smallest[2]}."
    return f"sentencepiece could not train a model of --vocab-size {vocab_size}: {' '.join(message.split())[:200]}."


def prepare(
    texts: dict[str, list[str]],
    out: str | Path,
    kind: str,
    about: dict,
    vocab_size: int,
    model_type: str,
    others: Iterable[str] = (),
) -> Tokenizer:
    """Write a lang folder from texts by language and read it back; `about` goes into lang.json.

    `others` are words that the texts may lack, where these are a sample of a large text.
    """
    out = Path(out)
    tags = [tag(language) for language in texts] if about["tags"] else []
    lines = [line for language in texts for line in texts[language]]
    words = word_table({word for line in lines for word in line.split()}.union(others))
    for stale in (TEMPLATE, TOKENS):  # of an earlier run with another model
        (out / stale).unlink(missing_ok=True)
    if kind == "pretrained":
        folder = find_model(about["path"], "--path")
        chat = Chat.of_model(folder)
        config = read_config(folder)
        # what has an encoder, as Whisper does, is not asked in words
        asked_in_words = not config.get("is_encoder_decoder", config.get("model_type") == "whisper")
        asked = requests(chat, texts if asked_in_words else (), about["keep"])
        tokens, kept = pretrained_tokens(folder, None if about["all_tokens"] else lines, asked)
        about = {**about, **kept}
        if chat:
            chat.save(out)
        with atomic_path(out / "tokenizer.json") as temporary:
            temporary.write_bytes((folder / "tokenizer.json").read_bytes())
    elif kind == "bpe":
        serialized = train_bpe(lines, vocab_size, model_type, tags)
        with atomic_path(out / "bpe.model") as temporary:
            temporary.write_bytes(serialized)
        tokens = pieces_of(load_bpe(out / "bpe.model"), out / "bpe.model")
    else:
        characters = sorted(set().union(*lines, *others) - {" "})
        tokens = [*SPECIAL, *tags, BOUNDARY, *characters]
    write_table(out / "tokens.txt", tokens)
    write_json(out / "lang.json", {"type": kind, "languages": list(texts), **about, "vocab_size": len(tokens)})
    for other, file in (("bpe", "bpe.model"), ("pretrained", "tokenizer.json")):
        if kind != other:
            (out / file).unlink(missing_ok=True)  # an earlier run's, which icefall would read
    tokenizer = Tokenizer.load(out)
    write_table(out / "words.txt", words)
    boundary = [BOUNDARY] if BOUNDARY in tokens else []
    spelled = [(word, tokenizer.pieces(word)) for word in words[2:-3]]
    write_lexicon(out / "lexicon.txt", [("<UNK>", [*boundary, SPECIAL[2]]), *spelled])
    return tokenizer


def requests(chat: Chat | None, languages: Iterable[str], keep: Sequence[str]) -> list[str]:
    """What a model is asked, around the speech: the usual requests for texts in these languages, and `keep`."""
    known = [language for language in languages if language in language_names()]
    usual = {filled(request, None, language) for request in REQUESTS.values() for language in known}
    return [part for text in (*sorted(usual), *keep) for part in (chat(text) if chat else text).split(SPEECH)]


def pretrained_tokens(folder: Path, texts: Sequence[str] | None, asked: Sequence[str]) -> tuple[list[str], dict]:
    """(tokens, what lang.json says of them) of the model in `folder`: what `texts` (None: all) and `asked` need."""
    file = folder / "tokenizer.json"
    if not file.exists():
        raise UserError(f"--path {folder} holds no tokenizer.json: copy the model's tokenizer there.")
    config, backend = read_config(folder), load_backend(file)
    end = end_token(folder, config)
    end = backend.token_to_id(end) if isinstance(end, str) else end
    if end is None:
        raise UserError(f"--path {folder} does not say which token ends a text: give config.json an eos_token_id.")
    # Whisper was trained on texts that begin with a space
    tokens, about = describe_tokens(backend, texts, end, config["model_type"] == "whisper", asked)
    if (folder / "generation_config.json").exists():  # where newer folders keep what concerns searches
        config |= {key: value for key, value in read_json(folder / "generation_config.json").items() if value}
    about["suppress"] = config.get("suppress_tokens") or []
    about["not_first"] = config.get("begin_suppress_tokens") or []
    return tokens, about


def describe(tokenizer: Tokenizer, texts: dict[str, list[str]], name: str) -> str:
    """One line on how `tokenizer` fits `texts`: utterances, tokens per word, unknown characters with their counts."""
    lines = [line for language in texts for line in texts[language]]
    tokens = sum(len(tokenizer.pieces(line)) for line in lines)
    words = sum(len(line.split()) for line in lines)
    unknown = Counter(character for line in lines for character in tokenizer.unknown(line))
    listed = ", ".join(f"'{character}' {count}" for character, count in sorted(unknown.items()))
    what = f"{sum(unknown.values())} unknown characters ({listed})" if unknown else "no unknown character"
    return f"{name}: {len(lines)} utterances, {words} words, {tokens / words:.2f} tokens a word, {what}"


def _options() -> Parser:
    parser = Parser(prog="steps.lang.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", nargs="+", default=[], metavar="FILE", help="cut or supervision manifests")
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="plain text, such as train.en.gz")
    parser.add_argument(
        "--sample",
        type=count,
        default=SAMPLE,
        help="lines of a larger text that tokens are made of (default: %(default)s)",
    )
    parser.add_argument("--target", nargs="+", default=["text"], help="text, translation.<language>, or several")
    parser.add_argument("--languages", nargs="+", metavar="LANG", help="of cuts only text in these (the target's)")
    parser.add_argument("--same-language", action="store_true", help="a transcript is its own language's translation")
    parser.add_argument(
        "--type",
        choices=["char", "bpe", "pretrained"],
        default="char",
        help="characters, sentencepiece units, or a pretrained model's tokens",
    )
    parser.add_argument("--vocab-size", type=int, help=f"bpe: number of tokens (default: {DEFAULT_VOCAB_SIZE})")
    parser.add_argument("--model-type", choices=["unigram", "bpe"], help="bpe: the algorithm (default: unigram)")
    parser.add_argument("--path", help="pretrained: the model's folder, or its name on the hub")
    parser.add_argument("--all-tokens", action="store_true", help="pretrained: also those that no text here needs")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="TEXT", help="pretrained: prompts whose tokens to keep"
    )
    parser.add_argument("--tags", action="store_true", help="a token per language, put before each utterance")
    parser.add_argument("--check", nargs="+", default=[], metavar="FILE", help="report what is unknown in these cuts")
    parser.add_argument("--out", required=True, metavar="DIR", help="lang folder to write")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """`UserError` for an option that the type of token set does not have, or lacks."""
    if not (options.cuts or options.text):
        raise UserError("Give the text: manifests with --cuts, plain text with --text.")
    kinds = {"vocab_size": "bpe", "model_type": "bpe"} | dict.fromkeys(("path", "all_tokens", "keep"), "pretrained")
    for name, kind in kinds.items():
        if options.type != kind and getattr(options, name):
            sized = options.type == "char" and kind == "bpe"
            other = "a character set has the size that it has" if sized else "leave it out"
            raise UserError(f"--{name.replace('_', '-')} is for --type {kind}: {other}.")
    if options.type == "pretrained" and not options.path:
        raise UserError("--type pretrained needs --path: the folder of the model, or its name on the hub.")
    if options.type == "pretrained" and options.tags:
        raise UserError("--tags adds tokens that a pretrained model lacks: its own go into the head's prompt.")


def main() -> None:
    options = _options().parse_args()
    check_options(options)
    sources = [*options.cuts, *options.text]
    texts = collect(options.cuts, options.target, options.languages, options.same_language) if options.cuts else {}
    sampled, words, lines = sample_lines(options.text, options.sample)
    for language, drawn in sampled.items():
        texts.setdefault(language, []).extend(drawn)
    texts = dict(sorted(texts.items()))
    if options.tags and UNDETERMINED in texts:
        raise UserError(f"{' '.join(sources)}: --tags needs the language of every utterance, and some have none.")
    size = DEFAULT_VOCAB_SIZE if options.vocab_size is None else options.vocab_size
    model_type = options.model_type or "unigram"
    about = {"tags": options.tags, "target": " ".join(options.target), "same_language": options.same_language}
    if options.type == "bpe":
        about["model_type"] = model_type
    if options.type == "pretrained":
        about |= {"path": options.path, "all_tokens": options.all_tokens, "keep": options.keep}
    tokenizer = prepare(texts, options.out, options.type, about, size, model_type, words)
    print(f"{options.out}: {tokenizer.vocab_size} tokens ({options.type}) for {' '.join(texts)}")
    of = f" ({options.sample} of {lines} lines drawn)" if lines > options.sample else ""
    print(describe(tokenizer, texts, " ".join(sources) + of))
    for path in options.check:
        print(describe(tokenizer, collect([path], options.target, options.languages, options.same_language), path))


if __name__ == "__main__":
    run(main)
