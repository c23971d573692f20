"""Models of transformers with random weights and a vocabulary of a few words, as folders like those of the hub."""

import pytest

from gigaseg.sam.torchvision_ops import ensure_torchvision

ensure_torchvision()
transformers = pytest.importorskip("transformers", reason="of the extra 'persense'")

import torch  # noqa: E402

CLIP_WORDS = ("a", "photo", "of", "nucleus", "building", "tree")


def write_clip(folder, change=None):
    """A CLIP model and its processor; `change` may set weights."""
    tokenizer, vocabulary = _clip_tokenizer()
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**sizes, **ends, "vocab_size": len(vocabulary), "pad_token_id": ends["eos_token_id"]},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, resample=2
    )
    processor = transformers.CLIPProcessor(images, tokenizer)
    if change:
        with torch.no_grad():
            change(model, processor)
    return _saved(folder, model, processor)


def _clip_tokenizer():
    letters = sorted(set("".join(CLIP_WORDS)))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in CLIP_WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            pieces.append(parts[0])
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))}
    merges = list(dict.fromkeys(merges))
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77), vocabulary


def write_grounding_dino(folder, queries=12):
    """A Grounding DINO whose processor makes the short side of a picture 128 px, the long one 256 px at most."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "all", "cell", "cells", "nucleus"]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=True)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=transformers.BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        num_queries=queries, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bbox_embed" in name:  # fresh ones move no box
                parameter.normal_(0, 0.3)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 256})
    return _saved(folder, model, transformers.GroundingDinoProcessor(images, tokenizer))


def write_vip_llava(folder, answer, chat=None):
    """A ViP-LLaVA that says the words of `answer` whatever it sees; `chat` is its template.

    Each token is a dimension of its own, nothing is added to it, and the head names the token that follows.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    asked = ["###", "Human", ":", "Name", "the", "object", "in", "image", "?", "Assistant"]
    words = list(dict.fromkeys(["<unk>", "<s>", "</s>", "<pad>", "<image>", *asked, *answer]))
    number = {word: i for i, word in enumerate(words)}
    words_only = Tokenizer(models.WordLevel(number, unk_token="<unk>"))
    words_only.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words_only, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    config = transformers.VipLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28,
            patch_size=14,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3, max_position_embeddings=128,
        ),
        image_token_index=number["<image>"], vision_feature_layer=[-1, -2], image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.VipLlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(len(words), 32))
        head = model.get_output_embeddings().weight.zero_()
        for now, following in zip([":", *answer], [*answer, "</s>"]):
            head[number[following], number[now]] = 1
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat,
    )  # fmt: skip
    return _saved(folder, model, processor)


def _saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
