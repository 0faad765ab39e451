"""Makes the golden files of tokenizers published as a SentencePiece model, in the folders `tokenizer_llama` and
`tokenizer_llama_legacy` beside this script: the model, its configuration, and texts with their tokens by the slow
tokenizer of transformers, which is SentencePiece's (`tokenized.json`). Of InternLM2's see make_internvl_chat.py.

    python make_tokenizers.py

Made with Python 3.11, transformers 4.49.0, tokenizers 0.21.4, sentencepiece 0.2.3.
"""

import io
import json
import pathlib
import shutil

import language
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import LlamaTokenizer

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "", " ", "a cat", " a cat", "  a   cat  ", "Yes", " yes\n\n No", "a\tb\r\nc \n d", "caf\u00e9 \u96ea \U0001f409",
    "\u2014\u2014 and \u2026\u2026", "\u2014\u2014\u2014", "a\u2581b", "nul \0 byte", "12345 678", "e\u0301 \ufb01 \uff21",
    "a dog is not visible.\u00a0On fire\u3000!", "person's DON'T we'll", "<img>a</img> b<IMG_CONTEXT>c", "x<|im_end|>\ny",
    "<s> a </s>", "<s>a cat", "a cat</s>a cat </s> a cat", "<unk>", "<0x41>", "\ud7ff\ue000\uffff",
    "the the  the   the", "[UNUSED_TOKEN_0]",
]


def sentencepiece_model(file, prefix, more=()):
    """Trains byte pairs as Llama and InternLM2 have them; `more` are further pieces: text, score, type. Their number."""
    learned = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(language.CORPUS), model_writer=learned, model_type="bpe", vocab_size=430,
        hard_vocab_limit=False, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=prefix,
        remove_extra_whitespaces=False, split_digits=True, character_coverage=1.0, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto.FromString(learned.getvalue())
    for piece, score, kind in more:
        proto.pieces.add(piece=piece, score=score, type=kind)
    file.write_bytes(proto.SerializeToString())
    return len(proto.pieces)


def write_tokenized(folder, tokenizer, texts=TEXTS):
    texts = [{"text": text, "tokens": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in texts]
    (folder / "tokenized.json").write_text("[\n" + ",\n".join(json.dumps(each) for each in texts) + "\n]\n")


def main():
    for name, legacy in {"tokenizer_llama": False, "tokenizer_llama_legacy": True}.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        file = folder / "tokenizer.model"
        sentencepiece_model(file, prefix=True)
        tokenizer = LlamaTokenizer(str(file), legacy=legacy)
        tokenizer.save_pretrained(folder)
        (folder / "special_tokens_map.json").unlink()
        # Before a space at the beginning the slow one puts another, the fast one of transformers does not, nor do we.
        write_tokenized(folder, tokenizer, [text for text in TEXTS if legacy or not text.startswith(" ")])


if __name__ == "__main__":
    main()
